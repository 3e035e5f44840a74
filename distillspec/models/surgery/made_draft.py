"""A draft created from a recipe: a part of its target, or random weights."""

from __future__ import annotations

from transformers import PreTrainedModel

from distillspec.models.loading.model_facts import ModelFacts
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.surgery.narrowing import narrowed
from distillspec.models.surgery.pruning import pruned
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig


def made_draft(
    plan: PrunedDraftConfig | RandomDraftConfig,
    target: PreTrainedModel,
    *,
    end_token: int,
    seed: int,
) -> PreTrainedModel:
    """A draft for `target`, with its vocabulary, on the CPU and in eval mode.

    Equal arguments give equal bits. A pruned draft has the target's type. Pass the target with its
    weights as stored, so that the draft does not depend on a later cast.

    Args:
        plan: How to create the draft.
        target: The target.
        end_token: The token that ends a text.
        seed: Seed of random weights.
    """
    if isinstance(plan, PrunedDraftConfig):
        model = narrowed(target, plan) if plan.channels == "principal" else pruned(target, plan)
    else:
        model = random_llama(
            plan.shape, vocab_size=vocabulary_size(target), end_token=end_token, seed=seed
        )
        model.eval()
    model.name_or_path = plan.in_words()
    return model


def made_draft_facts(model: PreTrainedModel) -> ModelFacts:
    """Facts about a model in memory, like `loading.model_facts.folder_facts`."""
    return ModelFacts(
        path=str(model.name_or_path),
        local=True,
        architecture=type(model).__name__,
        vocab_size=vocabulary_size(model),
    )
