"""A draft that is made: whether the target, as far as it lies here, has what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distillspec.errors import DistillSpecError
from distillspec.recipe.capacity import check_memory, llama_parameters, trained_bytes
from distillspec.recipe.model_line import local_config
from distillspec.recipe.schema import Recipe
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig

_LAYERS = ("num_hidden_layers", "n_layer")
_HEADS = ("num_attention_heads", "n_head")


def made_draft_line(
    recipe: Recipe, draft: PrunedDraftConfig | RandomDraftConfig, source: str
) -> str:
    """How the draft is made, in one line.

    Args:
        recipe: Names the target.
        draft: How to make it.
        source: The recipe's file, for errors.

    Raises:
        DistillSpecError: The target has less than is to be kept, or the draft cannot be trained as
            the recipe says.
    """
    config = local_config(recipe.pair.target_weights) or {}
    if isinstance(draft, RandomDraftConfig):
        size = llama_parameters(draft.shape, _size(config, "vocab_size"))
        check_memory(size, trained_bytes(recipe.hardware), f"{source}: pair.draft.shape")
        return f"made: {draft.in_words()}"
    _check_embeddings(recipe, draft, source)
    _check_widths(draft, config, source)
    layers = _size(config, *_LAYERS)
    if not layers:
        return f"made: {draft.in_words()}"
    numbers = ", ".join(map(str, draft.kept_layers(layers)))
    return f"made: {draft.in_words()} ({numbers} of 0 to {layers - 1})"


def _check_embeddings(recipe: Recipe, draft: PrunedDraftConfig, source: str) -> None:
    """Only a new run is refused: earlier versions trained such drafts."""
    if draft.hidden_size is not None and recipe.optimizer.freeze_embeddings:
        raise DistillSpecError(
            "optimizer.freeze_embeddings cannot be combined with a narrow draft",
            where=f"{source}: optimizer.freeze_embeddings, pair.draft.hidden_size",
            fix="set optimizer.freeze_embeddings: false, or remove pair.draft.hidden_size",
            why="embeddings of another width are not the target's: they cannot be shared with it, "
            "and they have much to learn",
        )


def _check_widths(draft: PrunedDraftConfig, config: Mapping[str, Any], source: str) -> None:
    """As far as config.json gives the target's widths."""
    heads = _size(config, *_HEADS)
    pairs = _size(config, "num_key_value_heads") or heads
    for name, most in (
        ("hidden_size", _size(config, "hidden_size")),
        ("intermediate_size", _size(config, "intermediate_size")),
        ("key_value_heads", pairs),
    ):
        asked = getattr(draft, name)
        if asked is not None and most and asked > most:
            raise DistillSpecError(
                f"{name} {asked} cannot be kept: the target has {most}",
                where=f"{source}: pair.draft.{name}",
                fix=f"set at most {most}",
            )
    if draft.hidden_size is None or not heads:
        return
    # Each key-value head keeps all queries that read it.
    left = heads * (draft.key_value_heads or pairs) // pairs
    if draft.hidden_size % left:
        lower = draft.hidden_size // left * left
        near = f"{lower} or {lower + left}" if lower else str(left)
        raise DistillSpecError(
            f"hidden_size {draft.hidden_size} is no multiple of the {left} query heads that stay",
            where=f"{source}: pair.draft.hidden_size",
            fix=f"set {near}, or keep fewer pair.draft.key_value_heads",
        )


def _size(config: Mapping[str, Any], *keys: str) -> int:
    """A size that config.json gives under one of these keys; 0 where it gives none."""
    found = (config.get(key) for key in keys)
    return next((value for value in found if isinstance(value, int) and value > 0), 0)
