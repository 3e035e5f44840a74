from __future__ import annotations

import errno
import json
import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest

from distillspec.commands import arguments
from distillspec.errors import DistillSpecError
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.published import SMOLLM2, PublishedModel
from distillspec.recipe.schema import Recipe
from distillspec.workflows import fetch

RUN = Path("checkpoints/runs/pair/1")

pytestmark = pytest.mark.usefixtures("place")


def parsed(*argv: str) -> Namespace:
    parser = ArgumentParser()
    arguments.add_recipe(parser, or_run_folder=True)
    return parser.parse_intermixed_args(argv)


def test_a_recipe_file_starts_a_new_run_with_its_overrides() -> None:
    request = arguments.request(parsed("pair.yaml", "seed=3"))
    assert request.folder is None
    assert (request.recipe.name, request.recipe.seed) == ("pair", 3)


@pytest.mark.parametrize(("fetches", "processes"), [(True, 1), (True, 2), (False, 1)])
def test_a_published_model_that_is_missing_is_fetched_by_a_run(
    fetches: bool, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[PublishedModel] = []
    monkeypatch.setattr(fetch, "fetch", fetched.append)
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    published = ("pair.target=smollm2-135m/target", "pair.draft={kind: pruned, layers: 1}")
    # Nothing was made, so the plan refuses the pair afterwards.
    with pytest.raises(DistillSpecError, match="has not been fetched yet"):
        arguments.request(parsed("pair.yaml", *published), fetches=fetches)
    assert fetched == ([SMOLLM2] if fetches and processes == 1 else [])


def test_a_run_folder_is_resumed_with_its_own_recipe() -> None:
    request = arguments.request(parsed(str(RUN)))
    assert request.folder == RUN
    assert request.recipe.name == "pair"


def test_a_resumed_run_takes_no_overrides() -> None:
    with pytest.raises(DistillSpecError, match="keeps its recipe"):
        arguments.request(parsed(str(RUN), "seed=3"))


def test_a_folder_without_a_recipe_is_no_run() -> None:
    with pytest.raises(DistillSpecError, match=r"it has no recipe\.yaml"):
        arguments.request(parsed("models"))
    with pytest.raises(DistillSpecError, match="it is not a folder"):
        arguments.run_folder("nowhere")


def test_each_kind_of_recipe_goes_to_its_own_verb() -> None:
    assert isinstance(arguments.distillation(parsed("pair.yaml")), Recipe)
    assert isinstance(arguments.pretraining(parsed("pretrain.yaml")), PretrainRecipe)
    with pytest.raises(DistillSpecError) as caught:
        arguments.distillation(parsed("pretrain.yaml"))
    assert caught.value.fix == "start it with: distillspec pretrain pretrain.yaml"
    with pytest.raises(DistillSpecError) as caught:
        arguments.pretraining(parsed("pair.yaml"))
    assert caught.value.fix == "start it with: distillspec run pair.yaml"


def test_the_latest_run_is_the_one_started_last() -> None:
    recipe = arguments.distillation(parsed("pair.yaml"))
    later = RUN.with_name("0")
    later.mkdir()
    (later / "recipe.yaml").write_text((RUN / "recipe.yaml").read_text(), encoding="utf-8")
    os.utime(RUN / "recipe.yaml", (1, 1))
    for run in (RUN, later):
        (run / "best.ckpt").touch()
    assert arguments.latest_run(recipe) == later
    (later / "best.ckpt").unlink()
    assert arguments.latest_run(recipe) == RUN  # a start that trained nothing does not count
    with pytest.raises(DistillSpecError, match="has not been run yet"):
        arguments.latest_run(arguments.distillation(parsed("pair.yaml", "name=other")))


def test_without_a_wish_to_look_there_is_nothing_to_show(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = parsed("pair.yaml")
    assert not arguments.only_look(given, arguments.distillation(given), as_json=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("flag", ["--dry-run", "--dump-config"])
@pytest.mark.parametrize("as_json", [False, True])
def test_looking_prints_text_or_json(
    flag: str, as_json: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    given = parsed("pair.yaml", flag)
    assert arguments.only_look(given, arguments.distillation(given), as_json=as_json)
    reported = capsys.readouterr().out
    assert "jsd" in reported
    assert reported.endswith("\n")
    if as_json:
        assert json.loads(reported)


def test_what_the_system_says_of_a_run_folder_is_passed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("os.stat", refuses)
    with pytest.raises(DistillSpecError, match="Permission denied"):
        arguments.run_folder(str(tmp_path))
