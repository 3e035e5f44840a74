from __future__ import annotations

import pickle

from distillspec.errors import DistillSpecError


def test_an_error_prints_as_what_where_and_fix() -> None:
    error = DistillSpecError("unknown key 'x'", where="a.yaml: distill", fix="did you mean 'y'?")
    assert str(error) == ("unknown key 'x'\n  where: a.yaml: distill\n  fix:   did you mean 'y'?")


def test_an_error_that_has_a_reason_prints_it_last() -> None:
    error = DistillSpecError("what", where="a.yaml", fix="so", why="because")
    assert str(error) == "what\n  where: a.yaml\n  fix:   so\n  why:   because"


def test_an_error_survives_the_way_back_from_a_worker_process() -> None:
    for why in (None, "because"):
        error = DistillSpecError("what", where="a.yaml", fix="so", why=why)
        copy = pickle.loads(pickle.dumps(error))
        assert isinstance(copy, DistillSpecError)
        assert (copy.what, copy.where, copy.fix, copy.why) == ("what", "a.yaml", "so", why)


def test_a_blank_where_is_shown_in_quotes() -> None:
    assert DistillSpecError("no such recipe", where=" ", fix="x").where == "' '"


def test_foreign_text_in_an_error_is_visible_and_shapes_of_secrets_are_hidden() -> None:
    error = DistillSpecError(
        "\x1b[2J", where="http://me:pass@host", fix="hf_abcdefgh1234", why="hf_abcdefgh1234"
    )
    assert (error.what, error.where) == ("\\x1b[2J", "http://***@host")
    assert (error.fix, error.why) == ("***", "***")
