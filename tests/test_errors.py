from __future__ import annotations

import pickle

from distillspec.errors import DistillSpecError


def test_an_error_prints_as_what_where_and_mend() -> None:
    error = DistillSpecError("unknown key 'x'", where="a.yaml: distill", fix="did you mean 'y'?")
    assert str(error) == ("unknown key 'x'\n  where: a.yaml: distill\n  mend:  did you mean 'y'?")


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    error = DistillSpecError("what", where="here", fix="so")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, DistillSpecError)
    assert (copy.what, copy.where, copy.fix) == ("what", "here", "so")


def test_a_place_that_is_blank_is_shown_in_quotes() -> None:
    assert DistillSpecError("no such recipe", where=" ", fix="x").where == "' '"


def test_foreign_text_in_an_error_is_visible_and_shapes_of_secrets_are_hidden() -> None:
    error = DistillSpecError("\x1b[2J", where="http://me:pass@host", fix="hf_abcdefgh1234")
    assert (error.what, error.where, error.fix) == ("\\x1b[2J", "http://***@host", "***")
