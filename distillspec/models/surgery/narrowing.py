"""A draft cut out of its target whose hidden states are projected onto fewer dimensions.

A rotation of the hidden states changes nothing where the gains of the norms are moved into the
matrices that follow (SliceGPT, 2401.15024). Here the rotation puts the principal directions of the
embeddings first, and the last dimensions are dropped.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.loading.tied_embeddings import is_tied
from distillspec.models.surgery.pruning import (
    HIDDEN,
    axes_of,
    check_sizes,
    empty_model,
    pruned,
    smaller_config,
)
from distillspec.recipe.start import PrunedDraftConfig

_EMBEDDING, _HEAD, _LAST_NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_ROWS = 8192  # of the embedding, converted to float64 at one time
# The norm before each matrix that reads hidden states.
_NORMS = {"self_attn": "input_layernorm", "mlp": "post_attention_layernorm"}


def narrowed(target: PreTrainedModel, plan: PrunedDraftConfig) -> PreTrainedModel:
    """The pruned target with `plan.hidden_size` principal directions as its hidden states.

    With as many directions as the target has channels, the logits stay the same, except for a tied
    head whose norm has unequal gains: one vector of gains cannot be rotated. The same target and
    plan give the same bits.

    Raises:
        DistillSpecError: The family's width cannot be cut, or it has fewer channels.
    """
    assert plan.hidden_size is not None, "the plan's validator has seen to it"
    sizes = {HIDDEN: plan.hidden_size}
    axes = check_sizes(target, sizes)
    model = pruned(target, plan.model_copy(update={"hidden_size": None, "channels": "largest"}))
    layers = tuple(range(int(model.config.num_hidden_layers)))
    narrow = empty_model(model, smaller_config(model.config, layers, sizes))
    weights = model.state_dict()
    directions = principal_directions(weights[_EMBEDDING], plan.hidden_size)
    # Norms divide by the root mean square, which is over fewer dimensions now.
    scale = math.sqrt(model.config.hidden_size / plan.hidden_size)
    tied = is_tied(model)
    parts = {}
    for name, weight in weights.items():
        values = weight.double()
        axis = next((axis for axis, width in axes_of(name, axes) if width == HIDDEN), None)
        if name == _EMBEDDING or (name == _HEAD and tied):
            values = values @ directions
        elif name == _LAST_NORM and tied:
            # The diagonal of the rotated gains.
            values = scale * (directions.square() * values[:, None]).sum(0)
        elif name.endswith("norm.weight") and axis is not None:
            # The matrices behind the norm take its gains.
            values = torch.ones(plan.hidden_size, dtype=torch.float64)
        elif axis == 1:
            values = scale * (values * weights[_norm_before(name)].double()) @ directions
        elif axis == 0:
            values = directions.T @ values
        parts[name] = values.to(weight.dtype)
    narrow.load_state_dict(parts)
    narrow.generation_config = model.generation_config
    narrow.eval()
    return narrow


def principal_directions(embedding: Tensor, count: int) -> Tensor:
    """The first eigenvectors of E^T E, the largest eigenvalue first.

    Args:
        embedding: E, shape [V, H].
        count: Number of directions, at most H.

    Returns:
        float64 [H, count] with orthonormal columns. The largest entry of a column is positive.
    """
    blocks = (block.double() for block in embedding.split(_ROWS))
    moments = sum((block.T @ block for block in blocks), torch.zeros((), dtype=torch.float64))
    vectors: Tensor = torch.linalg.eigh(moments).eigenvectors.flip(1)[:, :count]
    largest = vectors.abs().argmax(0, keepdim=True)
    return vectors * vectors.gather(0, largest).sign()


def _norm_before(name: str) -> str:
    """The norm whose output the matrix `name` reads."""
    if name == _HEAD:
        return _LAST_NORM
    layer, _, part = name.removesuffix(".weight").rpartition(".")[0].rpartition(".")
    return f"{layer}.{_NORMS[part]}.weight"
