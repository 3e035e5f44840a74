from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.recipe.endpoint import EndpointConfig, check_can_ask, refuse_endpoint
from distillspec.recipe.loading import dump_yaml, load_recipe
from distillspec.recipe.schema import Recipe

RECIPE = """\
pair: {endpoint: {url: "http://localhost:8000/v1", model: org/target}, draft: d}
data: {source: {kind: jsonl, path: d.jsonl}}
distill: {divergence: nll, source: {target: 1.0}}
"""
SECRET = "Xq7zz"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    return path


def refused(path: Path, *overrides: str) -> DistillSpecError:
    with pytest.raises(DistillSpecError) as caught:
        load_recipe(path, overrides)
    return caught.value


def test_an_endpoint_takes_the_place_of_a_target(path: Path) -> None:
    recipe = load_recipe(path)
    assert isinstance(recipe, Recipe)
    assert recipe.pair.target is None
    assert recipe.pair.target_name == "org/target"
    path.write_text(dump_yaml(recipe), encoding="utf-8")
    assert load_recipe(path) == recipe


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("pair.target=org/name", "both given"),
        ("pair.endpoint=null", "needs a target"),
        ("pair.target_revision=main", "target_revision"),
        ("distill.divergence=tvd", "distill.divergence: tvd"),
        (
            "distill={divergence: mix, mix: {nll: 1.0, tvd: 1.0}, source: {target: 1.0}}",
            "distill.divergence: mix",
        ),
        ("distill.select={reference: d}", "distill.select"),
        ("distill.source={draft: 1.0}", "text of the draft"),
        ("distill.source={target: 0.9, draft: 0.1}", "text of the draft"),
        ("distill.source={speculative: 1.0}", "target verifies"),
        ("pair.endpoint.body={chat_template_kwargs: no}", "is no object"),
        ("pair.endpoint.body={chat_template_kwargs: {add_generation_prompt: false}}", "may not"),
        ("pair.endpoint.url=localhost:8000", "no address"),
        ("pair.endpoint.url=ftp://h/v1", "no address"),
        ("pair.endpoint.url='http://h h/v1'", "no address"),
        ("pair.endpoint.url=http://h:123456/v1", "no address"),
        ("pair.endpoint.url=http:///v1", "no address"),
        ("pair.endpoint.url=http://ü..ü/v1", "no address"),
        ('pair.endpoint.url="http://h/\\x07"', "no address"),
        ("pair.endpoint.url='http://h/v1#x'", "fragment"),
        ("pair.endpoint.body={temperature: 0.3}", "may not hold 'temperature'"),
        ("pair.endpoint.body={max_tokens: 3}", "may not hold 'max_tokens'"),
        ("pair.endpoint.body={stop: x}", "may not hold 'stop'"),
        ("pair.endpoint.api=chats", "one of completions, chat"),
    ],
)
def test_what_an_endpoint_cannot_give_or_be_is_refused_when_the_recipe_is_read(
    path: Path, override: str, said: str
) -> None:
    assert said in refused(path, override).what


def test_the_objectives_that_an_endpoint_can_serve_are_named(path: Path) -> None:
    fix = refused(path, "distill={divergence: jsd}").fix
    assert "distill.divergence: nll" in fix
    assert "distill.source: {target: 1.0}" in fix


def test_fixed_text_and_the_targets_can_be_mixed(path: Path) -> None:
    assert load_recipe(path, ["distill.source={target: 0.5, fixed: 0.5}"])


@pytest.mark.parametrize(
    "override",
    [
        f"pair.endpoint.url=http://user:{SECRET}@host/v1",
        f"pair.endpoint.url=http://{SECRET}@host/v1",
        f"pair.endpoint.url=http://host/v1?key={SECRET}",
        f"pair.endpoint.key_variable=sk-{SECRET}",
        f"pair.endpoint.key_variable={SECRET}",
        f"pair.endpoint={{url: 'http://u:{SECRET}@h', model: m}}",
        f"pair={{draft: d, endpoint: {{url: 'http://h', model: m, key_variable: {SECRET}}}}}",
    ],
)
def test_a_secret_in_a_recipe_is_refused_and_not_repeated(path: Path, override: str) -> None:
    error = refused(path, override)
    assert SECRET not in str(error)
    assert "variable" in error.what + error.fix
    key, _, value = override.partition("=")
    if key == "pair.endpoint.url":  # in the file, too
        path.write_text(RECIPE.replace("http://localhost:8000/v1", value), encoding="utf-8")
        assert SECRET not in str(refused(path))


def test_a_wrong_value_without_a_secret_is_still_repeated(path: Path) -> None:
    assert "not 3" in refused(path, "pair.endpoint.url=3").what


def test_what_asking_needs_is_there_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = EndpointConfig(url="http://h/v1", model="m", key_variable="THE_KEY")
    monkeypatch.setenv("THE_KEY", "k")
    check_can_ask(endpoint)
    for value, fault in ((" \n", "is not set"), ("klé", "cannot be a key"), ("a\nb", "cannot")):
        monkeypatch.setenv("THE_KEY", value)
        with pytest.raises(DistillSpecError, match=f"THE_KEY.*{fault}"):
            check_can_ask(endpoint)
    monkeypatch.setitem(sys.modules, "openai", None)  # as if it were not installed
    with pytest.raises(DistillSpecError, match="'openai'") as caught:
        check_can_ask(endpoint)
    assert "pip install openai" in caught.value.fix


def test_verbs_that_need_weights_say_what_to_do_instead() -> None:
    refuse_endpoint(None, "evaluate")
    with pytest.raises(DistillSpecError, match="`evaluate`") as caught:
        refuse_endpoint(EndpointConfig(url="http://h/v1", model="m"), "evaluate")
    assert "tune TARGET" in caught.value.fix
