"""Estimated bytes for training and decoding a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Memory:
    """Estimates in bytes. Weights and optimizer are exact, activations are a rule of thumb.

    Attributes:
        process: Memory of Python and its libraries before any model is loaded; 0 on a GPU.
    """

    process: int
    target_weights: int
    target_in_training: int
    draft_weights: int
    draft_training: int
    activations: int
    logits_chunk: int
    decoding_caches: int

    def training(self) -> int:
        return (
            self.process
            + self.target_in_training
            + self.draft_training
            + self.activations
            + self.logits_chunk
        )

    def decoding(self) -> int:
        return self.process + self.target_weights + self.draft_weights + self.decoding_caches


@dataclass(frozen=True)
class TrainingLoad:
    """What one process holds while it trains.

    Attributes:
        sequences: Sequences per batch.
        tokens_per_sequence: Tokens of each.
        chunk_tokens: Positions whose logits exist at the same time.
        trainable_parameters: None means all parameters of the draft (no LoRA).
        itemsize: Bytes of a number in the training's precision, which may differ from decoding's.
        process: As in `Memory`.
    """

    sequences: int
    tokens_per_sequence: int
    chunk_tokens: int
    trainable_parameters: int | None = None
    itemsize: int = 4
    process: int = 0


def memory_estimate(
    target: PreTrainedModel, draft: PreTrainedModel, load: TrainingLoad, context: int
) -> Memory:
    """Bytes of training with `load`, and of decoding one text of `context` tokens.

    Trained parameters: float32 weight, gradient and two moments, 16 bytes each. Training in a lower
    precision adds a copy, which writes text. Activations: 34 bytes per token, layer and
    hidden unit in 16 bits (Korthikanti et al. 2205.05198, without attention scores) for the draft;
    one layer for the target, which stores none. Logits of both models exist for one chunk.
    """
    trained = load.trainable_parameters
    all_parameters = parameters(draft)
    tokens = load.sequences * load.tokens_per_sequence
    layers, hidden = _shape(draft)
    _, target_hidden = _shape(target)
    width = load.itemsize / 2
    copy = load.itemsize * all_parameters if load.itemsize < 4 else 0
    return Memory(
        process=load.process,
        target_weights=_weight_bytes(target),
        target_in_training=load.itemsize * parameters(target),
        draft_weights=_weight_bytes(draft),
        # With LoRA, 4 bytes for every weight and 16 for each trained parameter.
        draft_training=copy
        + (16 * all_parameters if trained is None else 4 * all_parameters + 16 * trained),
        activations=int(34 * width * tokens * (layers * hidden + target_hidden)),
        # Two models, 4 bytes per logit.
        logits_chunk=2 * 4 * min(load.chunk_tokens, tokens) * vocabulary_size(target),
        decoding_caches=_cache_bytes(target, context) + _cache_bytes(draft, context),
    )


def round_bytes(
    target: PreTrainedModel,
    drafts: Sequence[PreTrainedModel],
    *,
    text: int,
    drafted: int,
    judged: int,
) -> int:
    """Bytes that decoding needs in addition to the weights.

    These are the caches of all models over the text and the drafts, the target's logits after the
    text and after each verified token, and p and q in float32.

    Args:
        target, drafts: The models.
        text: Tokens of prompt and output.
        drafted: Drafted tokens per round.
        judged: Drafted tokens per round that are verified.
    """
    caches = sum(_cache_bytes(model, text + drafted) for model in (target, *drafts))
    V = vocabulary_size(target)
    # Per position: the target's logits and p, and q for each drafted token.
    return caches + (judged + 1) * V * (target.dtype.itemsize + 4) + judged * V * 4


def parameters(model: PreTrainedModel) -> int:
    return sum(weight.numel() for weight in model.parameters())


def _weight_bytes(model: PreTrainedModel) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


def _shape(model: PreTrainedModel) -> tuple[int, int]:
    config = model.config.get_text_config(decoder=True)
    return int(config.num_hidden_layers), int(config.hidden_size)


def _cache_bytes(model: PreTrainedModel, context: int) -> int:
    config = model.config.get_text_config(decoder=True)
    layers, hidden = _shape(model)
    heads = int(config.num_attention_heads)
    key_value_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    head_size = int(getattr(config, "head_dim", None) or hidden // heads)
    layers *= 2 if is_encoder_decoder(model) else 1  # plus keys and values of the source
    # 2: keys and values.
    return 2 * layers * key_value_heads * head_size * context * model.dtype.itemsize
