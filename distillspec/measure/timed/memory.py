"""Estimated bytes for training and decoding a pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from distillspec.divergence.logit_rows import block_rows
from distillspec.models.loading.precision import CACHED_PRODUCTS
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.runners.encoder_decoder import is_encoder_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


# Bytes that a layer stores for the backward pass, for each token and unit of the hidden size,
# without its feed-forward part: norms, attention and residuals. Half precision keeps the norms and
# residuals in float32. Counted on Llama (tests/live_bytes.py).
_LAYER_BYTES = {4: 42, 2: 37}
_FEED_FORWARD_TENSORS = 4  # gate, up, their product and the activation
_LAST_LAYER_BYTES = 8  # input of the last norm, and the hidden states after it
# Blocks of softmax and divergence at one time, in float32. Logits in half precision are copied.
_BLOCKS = {4: 5, 2: 7}
# Of a product of bfloat16 that oneDNN keeps, with its buffers: measured on the nano pair.
_PRODUCT_BYTES = 2_500_000


@dataclass(frozen=True)
class Memory:
    """Estimates in bytes. Weights and optimizer are exact, activations are a rule of thumb.

    Attributes:
        process: Memory of Python, its libraries and the data, without models; 0 on a GPU.
        products: Products of bfloat16 that a CPU keeps for the shapes of generated text.
        target_weights: While decoding.
        target_in_training: Its weights in the precision of the training.
        draft_weights: While decoding.
        draft_training: Weights, both moments, and the copy that writes text in half precision.
        gradients: All of the draft's gradients.
        embedding_gradients: What the backward pass adds to them at its end: the gradients of
            output head and embedding before they are added up.
        activations: What the forward pass of a micro-batch stores for the backward pass.
        head: Copies of the output head, and its gradient, while the loss is computed.
        logits_chunk: Logits of both models for one chunk, with the blocks of the loss.
        decoding_caches: Keys and values of both models.
        accumulates: Whether gradients live through the forward pass, since a step has several
            micro-batches.
    """

    process: int
    products: int
    target_weights: int
    target_in_training: int
    draft_weights: int
    draft_training: int
    gradients: int
    embedding_gradients: int
    activations: int
    head: int
    logits_chunk: int
    decoding_caches: int
    accumulates: bool

    def step(self) -> int:
        """The most that a step adds: at the end of its forward pass, or of its backward pass."""
        forward = self.activations + self.head + self.logits_chunk
        backward = self.gradients + self.embedding_gradients
        return max(forward + self.gradients * self.accumulates, backward)

    def training(self) -> int:
        models = self.target_in_training + self.draft_training
        return self.process + self.products + models + self.step()

    def decoding(self) -> int:
        models = self.target_weights + self.draft_weights
        return self.process + self.products + models + self.decoding_caches


@dataclass(frozen=True)
class TrainingLoad:
    """What one process holds while it trains.

    Attributes:
        sequences: Sequences per batch.
        tokens_per_sequence: Tokens of each.
        chunk_tokens: Positions whose logits exist at the same time.
        scored_tokens: Tokens that the draft's head scores; None means all.
        reads_target: Whether a step runs the target; cached logits need no forward.
        accumulates: Whether a step has several micro-batches.
        recomputes: Whether the backward pass computes activations again, layer by layer.
        trainable_parameters: None means all parameters of the draft (no LoRA).
        itemsize: Bytes of a number in the training's precision, which may differ from decoding's.
        process: As in `Memory`.
    """

    sequences: int
    tokens_per_sequence: int
    chunk_tokens: int
    scored_tokens: int | None = None
    reads_target: bool = True
    accumulates: bool = False
    recomputes: bool = False
    trainable_parameters: int | None = None
    itemsize: int = 4
    process: int = 0


def memory_estimate(
    target: PreTrainedModel, draft: PreTrainedModel, load: TrainingLoad, context: int
) -> Memory:
    """Bytes of training with `load`, and of decoding one text of `context` tokens.

    Each trained parameter has a float32 weight, a gradient and two moments. Training in a lower
    precision adds a copy of the draft, which writes text. The draft stores activations of all
    layers, without attention scores; the target stores none, and one layer of it exists at a time.
    """
    all_parameters = parameters(draft)
    trained = all_parameters if load.trainable_parameters is None else load.trainable_parameters
    tokens = load.sequences * load.tokens_per_sequence
    in_half = load.itemsize < 4
    _, hidden = _shape(draft)
    of_target = _layer_bytes(target, load.itemsize) if load.reads_target else 0
    rows, V = min(load.chunk_tokens, tokens), load.scored_tokens or vocabulary_size(target)
    is_whole, table = load.trainable_parameters is None, 4 * vocabulary_size(draft) * hidden
    # A head with some of the rows gives its gradient in those rows first.
    head = (4 * is_whole + load.itemsize * in_half) * V * hidden
    if load.scored_tokens is not None:
        head += (4 * hidden + load.itemsize * _shape(target)[1]) * V  # the rows are copied
    return Memory(
        process=load.process,
        products=CACHED_PRODUCTS * _PRODUCT_BYTES * (in_half and draft.device.type == "cpu"),
        target_weights=weight_bytes(target),
        target_in_training=load.itemsize * parameters(target),
        draft_weights=weight_bytes(draft),
        draft_training=(4 + load.itemsize * in_half) * all_parameters + 8 * trained,
        gradients=4 * trained,
        embedding_gradients=2 * table if is_whole and _is_tied(draft) else 0,
        activations=tokens
        * max(of_target, _stored_bytes(draft, load) + _LAST_LAYER_BYTES * hidden),
        head=head,
        logits_chunk=2 * load.itemsize * rows * V
        + _BLOCKS[load.itemsize] * 4 * V * min(rows, block_rows(V, draft.device)),
        decoding_caches=_cache_bytes(target, context) + _cache_bytes(draft, context),
        accumulates=load.accumulates,
    )


def _stored_bytes(draft: PreTrainedModel, load: TrainingLoad) -> int:
    """Bytes for each token that the layers store for the backward pass."""
    layers, hidden = _shape(draft)
    of_layer = _layer_bytes(draft, load.itemsize)
    # Recomputed layers store their float32 inputs; one of them at a time has its activations.
    return 4 * layers * hidden + of_layer if load.recomputes else layers * of_layer


def _layer_bytes(model: PreTrainedModel, itemsize: int) -> int:
    config = model.config.get_text_config(decoder=True)
    _, hidden = _shape(model)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    return _LAYER_BYTES[itemsize] * hidden + _FEED_FORWARD_TENSORS * itemsize * int(inner)


def _is_tied(model: PreTrainedModel) -> bool:
    """Whether embedding and output head share their weight."""
    return bool(model.config.get_text_config(decoder=True).tie_word_embeddings)


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


def weight_bytes(model: PreTrainedModel) -> int:
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
