from __future__ import annotations

import torch

from distillspec.models.loading.digest import model_digest
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.surgery.made_draft import made_draft, made_draft_facts
from distillspec.recipe.start import LlamaShape, PrunedDraftConfig, RandomDraftConfig
from tests.models.conftest import VOCABULARY, tiny_model

SHAPE = LlamaShape(hidden_size=16, intermediate_size=32, layers=1, heads=2)


def test_a_pruned_draft_is_of_the_targets_class_and_type() -> None:
    target = tiny_model("mistral").to(torch.bfloat16)
    draft = made_draft(PrunedDraftConfig(kind="pruned", layers=1), target, end_token=2, seed=0)
    assert type(draft) is type(target)
    assert draft.dtype == torch.bfloat16
    assert draft.name_or_path == "1 layer of the target"


def test_a_random_draft_has_the_targets_vocabulary_and_end_of_text() -> None:
    draft = made_draft(
        RandomDraftConfig(kind="random", shape=SHAPE), tiny_model("gpt2"), end_token=2, seed=0
    )
    assert vocabulary_size(draft) == VOCABULARY
    assert draft.config.eos_token_id == 2
    assert not draft.training


def test_equal_arguments_give_equal_bits() -> None:
    target = tiny_model("llama")
    for plan in (
        RandomDraftConfig(kind="random", shape=SHAPE),
        PrunedDraftConfig(kind="pruned", layers=(1,)),
    ):
        first, two = (
            model_digest(made_draft(plan, target, end_token=2, seed=seed)) for seed in (5, 5)
        )
        assert first == two
    second = made_draft(RandomDraftConfig(kind="random", shape=SHAPE), target, end_token=2, seed=6)
    same = made_draft(RandomDraftConfig(kind="random", shape=SHAPE), target, end_token=2, seed=5)
    assert model_digest(second) != model_digest(same)


def test_a_model_in_memory_has_facts_for_engines() -> None:
    model_facts = made_draft_facts(tiny_model("gpt2"))
    assert (model_facts.architecture, model_facts.vocab_size) == ("GPT2LMHeadModel", VOCABULARY)
