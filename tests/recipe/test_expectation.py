from __future__ import annotations

import pytest

from distillspec.recipe.expectation import SchemaNode, descend, root, sections_with
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite

RECIPE = root(Recipe.model_json_schema())
SUITE = root(Suite.model_json_schema())


def at(place: SchemaNode, *path: str | int) -> SchemaNode:
    found = descend(place, {}, path)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("seed",), "a whole number >= 0 and < 4,294,967,296"),
        (("distill", "temperature"), "a number >= 1e-05 and <= 4"),
        (("distill", "max_minutes"), "a number > 0 and <= 10,000,000 or null"),
        (("distill", "batch_size"), "a whole number >= 1 and <= 1,048,576"),
        (("hardware", "device"), "one of auto, cpu, cuda"),
        (("pair", "draft"), "text or a mapping whose kind is one of pruned, random"),
        (("data", "store"), "text"),
        (("pair", "trust_remote_code"), "true or false"),
        (("pair",), "a mapping of keys"),
        (("lora",), "a mapping of keys or null"),
        (("lora", "targets"), 'a list of at least 1: text or "all-linear"'),
        (
            ("data", "source"),
            "a mapping whose kind is one of chat-topics, cpp-source, hub, jsonl, python-source",
        ),
        (
            ("optimizer", "betas"),
            "a list of 2: a number >= 0 and < 1, a number >= 0 and < 1",
        ),
    ],
)
def test_what_is_allowed_is_put_into_words(path: tuple[str, ...], words: str) -> None:
    assert at(RECIPE, *path).words() == words


def test_a_list_says_what_its_elements_may_be() -> None:
    assert at(SUITE, "gammas").words() == "a list of at least 1: a whole number >= 1 and <= 64"
    assert at(SUITE, "gammas", 3).words() == "a whole number >= 1 and <= 64"
    assert at(RECIPE, "optimizer", "betas", 1).words() == "a number >= 0 and < 1"


def test_the_kind_in_the_data_chooses_among_alternatives() -> None:
    data = {"data": {"source": {"kind": "jsonl"}}}
    path = descend(RECIPE, data, ("data", "source", "path"))
    assert path is not None
    assert path.words() == "text"
    assert descend(RECIPE, data, ("data", "source", "packages")) is None
    source = at(RECIPE, "data", "source")
    assert source.choices() == ["chat-topics", "cpp-source", "hub", "jsonl", "python-source"]
    assert "path" in source.names("jsonl")


def test_a_path_that_the_schema_does_not_know_leads_nowhere() -> None:
    assert descend(RECIPE, {}, ("distill", "nothing", "deeper")) is None


def test_the_sections_that_know_a_key_are_found() -> None:
    assert list(sections_with(RECIPE, "learning_rate")) == ["optimizer"]
    assert list(sections_with(RECIPE, "gamma")) == ["distill.speculative", "distill.probe"]
    assert list(sections_with(RECIPE, "no such key")) == []


def test_keys_that_are_the_users_own_names_lead_to_what_they_name() -> None:
    data = {"prompts": {"sources": {"mine": {"kind": "jsonl", "merge": {"a": "b"}}}}}
    path = descend(SUITE, data, ("prompts", "sources", "mine", "path"))
    assert path is not None and path.words() == "text"
    assert "adversarial" in at(SUITE, "prompts", "sources", "mine").choices()
    merged = descend(SUITE, data, ("prompts", "sources", "mine", "merge", "a"))
    assert merged is not None and merged.words() == "text"
    assert descend(SUITE, data, ("prompts", "sources", "mine", "unknown")) is None
