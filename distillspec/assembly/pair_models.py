"""The models of a pair: the target, and a draft that is loaded or made; and their checks.

The checks run before a run folder exists, so a recipe that cannot be trained leaves nothing behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.distributed

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import empty_model, fetch_model, load_model, load_tokenizer
from distillspec.models.runners.eager import context_of_model, vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder
from distillspec.models.surgery.adapters import check_targets
from distillspec.models.surgery.made_draft import made_draft
from distillspec.models.surgery.sharded import split_over_processes
from distillspec.recipe.context import check_rows_fit
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load_draft(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The draft that the recipe names by folder or Hub id."""
    assert isinstance(recipe.pair.draft, str), "a made draft is in no folder"
    return load_model(
        recipe.pair.draft,
        dtype=dtype,
        device=device,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def load_draft_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer in the folder of the draft."""
    assert isinstance(recipe.pair.draft, str), "a made draft has the target's tokenizer"
    return load_tokenizer(
        recipe.pair.draft,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def load_target(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load the target on this process, or split it over all of them if the recipe asks for it."""
    pair = recipe.pair
    shared: Any = {
        "dtype": dtype,
        "trust_remote_code": pair.trust_remote_code,
        "revision": pair.target_revision,
        "what": "target",
    }
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if not (recipe.hardware.shard_target and several):
        return load_model(pair.target_weights, device=device, **shared)
    # Download before the processes wait for each other: a download may outlast their timeout.
    fetch_model(pair.target_weights, **{key: shared[key] for key in shared if key != "dtype"})
    return split_over_processes(
        lambda: load_model(pair.target_weights, **shared),
        lambda: empty_model(pair.target_weights, **shared),
        device,
    )


def load_stored_target(recipe: Recipe) -> PreTrainedModel:
    """The target on the CPU, in the dtype that its weights are stored in.

    A draft is made from these weights, so it does not depend on the precision of a run.
    """
    return load_model(
        recipe.pair.target_weights,
        dtype="auto",
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.target_revision,
        what="target",
    )


def make_draft(
    recipe: Recipe,
    plan: PrunedDraftConfig | RandomDraftConfig,
    target: PreTrainedModel,
    end_token: int,
    seed: int,
) -> PreTrainedModel:
    """Make and check a draft.

    Args:
        recipe: Names the pair.
        plan: How to make the draft.
        target: As `load_stored_target` returns it.
        end_token: The end-of-text token that the draft's config names.
        seed: Of random weights.

    Raises:
        DistillSpecError: The target has an encoder, or the draft does not suit the recipe.
    """
    if is_encoder_decoder(target):
        raise DistillSpecError(
            "no draft can be made from an encoder-decoder target",
            where="pair.draft",
            fix="name the folder or Hub id of a smaller model of its family, such as t5-small",
        )
    draft = made_draft(plan, target, end_token=end_token, seed=seed)
    check_contexts(recipe, target, draft)
    check_draft(recipe, draft)
    return draft


def end_of_text(tokenizer: PreTrainedTokenizerBase, eos_token_ids: frozenset[int]) -> int:
    """The end-of-text token of a made draft: the tokenizer's, else the first that ends a text."""
    own_token = tokenizer.eos_token_id
    return min(eos_token_ids) if own_token is None else int(own_token)


def check_contexts(recipe: Recipe, *models: PreTrainedModel) -> None:
    """Check that the longest rows of the recipe fit into the contexts of all models."""
    check_rows_fit(recipe, map(context_of_model, models))


def check_draft(recipe: Recipe, draft: PreTrainedModel) -> None:
    """Check that the draft can be changed as the recipe asks.

    Raises:
        DistillSpecError: LoRA targets name no layer, or the trimmed head keeps too many tokens.
    """
    if recipe.lora is not None:
        check_targets(draft, recipe.lora)
    plan, size = recipe.pair.draft_head, vocabulary_size(draft)
    if plan is not None and plan.keep > size:
        raise DistillSpecError(
            f"the draft's head cannot keep {plan.keep} tokens: it has {size}",
            where=f"pair.draft_head.keep={plan.keep}",
            fix=f"give at most {size}, or leave draft_head out",
        )


def check_seq2seq(recipe: Recipe) -> None:
    """Check the recipe of an encoder-decoder pair.

    Raises:
        DistillSpecError: A setting needs rows that are predicted from their first token, or rows
            that branch.
    """
    distill = recipe.distill
    # By key: whether it is set, and why it cannot be used.
    faults = {
        "distill.on_prompts": (distill.on_prompts, "a source is read, and never predicted"),
        "distill.packing": (distill.packing is not None, "a row has one source"),
        "distill.source.speculative": (
            "speculative" in distill.origins,
            "speculation in batches is for causal pairs; take draft, or target",
        ),
        "pair.tokenizers: cross-tokenizer": (
            recipe.pair.tokenizers == "cross-tokenizer",
            "drafts with another tokenizer are for causal pairs",
        ),
    }
    for where, (is_set, reason) in faults.items():
        if is_set:
            raise DistillSpecError(
                f"this cannot be done with encoder-decoder models: {reason}",
                where=where,
                fix="leave it out for this pair",
            )
