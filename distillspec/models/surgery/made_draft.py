"""What a draft that is made begins as: a part of its target, or random weights."""

from __future__ import annotations

from transformers import PreTrainedModel

from distillspec.models.loading.model_facts import ModelFacts
from distillspec.models.runners.eager import vocabulary_size
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

    Pruned: in the target's type; to be made from weights as they are stored, so that it is the same
    draft whatever the target is cast to. Random: float32. Equal arguments give equal bits.
    """
    if isinstance(plan, PrunedDraftConfig):
        model = pruned(target, plan)
    else:
        model = random_llama(
            plan.shape, vocab_size=vocabulary_size(target), end_token=end_token, seed=seed
        )
        model.eval()
    model.name_or_path = plan.in_words()
    return model


def facts(model: PreTrainedModel) -> ModelFacts:
    """Of a model in memory, what an engine asks about one (`models.folder.folder_facts`)."""
    return ModelFacts(
        path=str(model.name_or_path),
        local=True,
        architecture=type(model).__name__,
        vocab_size=vocabulary_size(model),
    )
