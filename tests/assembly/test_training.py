from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from distillspec.assembly.draft_vocabulary import CrossTokenizerVocabulary
from distillspec.assembly.pair import load_pair
from distillspec.assembly.text import (
    pair_prompts,
)
from distillspec.assembly.training import (
    acceptance_probe,
    control_recipe,
    training_rows,
    training_text,
)
from distillspec.errors import DistillSpecError
from distillspec.recipe.schema import Recipe
from distillspec.training.probe import AcceptanceProbe
from tests.models.two_tokenizers import save_other_draft
from tests.tiny_plan import recipe, written_plan


@pytest.fixture
def plan(tiny_pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    return written_plan(tiny_pair, tmp_path)


def test_the_probe_takes_the_last_held_out_prompts_and_leaves_the_first_unseen(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan, distill={"probe": {"prompts": 2}}))
    held_out = pair_prompts(pair).held_out
    assert acceptance_probe(pair, held_out)._prompts == [held_out[-1].tokens, held_out[-2].tokens]


def test_the_control_differs_in_objective_source_and_length_alone(plan: dict[str, Any]) -> None:
    given = recipe(plan, distill={"divergence": "tvd", "batch_size": 8})
    control = control_recipe(given, 1.5)
    assert control.distill.divergence == "nll"
    assert control.distill.max_minutes == 1.5
    kept = control.distill.model_dump(exclude={"divergence", "source", "max_minutes", "max_steps"})
    assert kept == given.distill.model_dump(
        exclude={"divergence", "source", "max_minutes", "max_steps"}
    )
    assert control.optimizer == given.optimizer


@pytest.mark.parametrize(
    ("shares", "fixed", "target"),
    [
        ({"draft": 1.0}, 1.0, 0.0),
        ({"target": 1.0}, 0.0, 1.0),
        ({"fixed": 0.2, "target": 0.6, "draft": 0.2}, 0.25, 0.75),
    ],
)
def test_the_control_reads_the_same_stored_text(
    plan: dict[str, Any], shares: dict[str, float], fixed: float, target: float
) -> None:
    source = control_recipe(recipe(plan, distill={"source": shares}), 1.0).distill.source
    assert (source.fixed, source.target, source.draft) == pytest.approx((fixed, target, 0.0))


def test_the_control_reads_no_kept_signal(plan: dict[str, Any]) -> None:
    signal = {"kind": "cached"}
    given = recipe(plan, distill={"source": {"fixed": 1.0}, "target_logits": signal})
    control = control_recipe(given, 1.0)
    assert control.distill.cached_logits is None
    assert Recipe.model_validate(control.model_dump()) == control


def test_text_is_left_out_that_is_too_long_in_the_drafts_own_tokens(plan: dict[str, Any]) -> None:
    equal = load_pair(recipe(plan))
    sets = pair_prompts(equal)
    text = training_text(equal, sets, None, None)
    assert (text.training, text.responses, text.cached, text.notes) == (
        sets.training,
        None,
        None,
        [],
    )
    save_other_draft(Path("other"), max_positions=90)
    given = recipe(
        plan,
        pair={**plan["pair"], "draft": "other", "tokenizers": "cross-tokenizer"},
        distill={"source": {"fixed": 0.5, "target": 0.5}, "probe": {"max_new_tokens": 8}},
    )
    pair = load_pair(given)
    vocabulary = pair.vocabulary
    assert isinstance(vocabulary, CrossTokenizerVocabulary)
    assert vocabulary.max_context_length == 90
    usual = {prompt.key: (1, 2, 3) for prompt in sets.training}
    text = training_text(pair, sets, usual, None)
    assert (text.training, text.responses, text.notes) == (sets.training, usual, [])
    hard = max(range(300), key=lambda token: len(vocabulary.map.pieces(token)))
    first = sets.training[0].key
    found = training_text(pair, sets, {**usual, first: (hard,) * 80}, None)
    assert found.training == sets.training[1:]
    (note,) = found.notes
    assert note.startswith(f"1 of {len(sets.training)} training texts")
    needed = [vocabulary.map.length(prompt.tokens) for prompt in sets.held_out]
    shorter = replace(vocabulary, max_context_length=max(needed) + 7)
    found = training_text(replace(pair, vocabulary=shorter), sets, dict.fromkeys(usual, ()), None)
    fitting = [
        p.tokens for p, size in zip(sets.held_out, needed, strict=True) if size < max(needed)
    ]
    assert isinstance(found.probe, AcceptanceProbe)
    assert given.distill.probe is not None
    assert found.probe._prompts == fitting[::-1][: given.distill.probe.prompts]


def test_a_bucket_is_no_longer_than_the_training_and_a_batch_no_multitude(
    plan: dict[str, Any],
) -> None:
    pair = load_pair(recipe(plan))
    prompts = pair_prompts(pair).training
    values = pair.recipe.model_dump()

    def made(**changes: int) -> object:
        changed = {**values, "distill": {**values["distill"], **changes}}
        return training_rows(Recipe.model_validate(changed), prompts, {}).state_dict()[
            "bucket_steps"
        ]

    assert made(bucket_steps=10**6, max_steps=8) == 8
    with pytest.raises(DistillSpecError, match="rows at one time") as caught:
        made(bucket_steps=10**6, max_steps=10**6)
    assert caught.value.where == "distill.bucket_steps"
    with pytest.raises(DistillSpecError, match="rows at one time") as caught:
        made(batch_size=10**6)
    assert caught.value.where == "distill.batch_size"
