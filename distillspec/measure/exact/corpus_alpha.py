"""Acceptance rate alpha of a draft on text drawn from the target, teacher-forced.

One forward of each model per text is enough: alpha does not depend on gamma and needs no decoding.
Functions return sums per text, because intervals are over documents. Where a draft with another
tokenizer cannot read further, it drafts nothing, and q is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distillspec.models.bare import bare_model, describe_model
from distillspec.models.runners.eager import max_context_length
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.surgery.hidden_states import hidden_states, output_head, token_logits
from distillspec.models.vocabulary.cross_tokenizer import token_map_of
from distillspec.speculation.sampling import SamplingPolicy, check_finite, most_probable
from distillspec.speculation.trajectory import keep_probabilities

# Texts per forward, and positions whose logits exist at the same time.
_ROWS = 8
_CHUNK_TOKENS = 256


class SumsPerText(NamedTuple):
    """A quantity of each text.

    Attributes:
        sums: The quantity summed over the response of each text.
        tokens: The length of each response.
    """

    sums: tuple[float, ...]
    tokens: tuple[int, ...]

    def mean(self) -> float:
        """Mean per token; nan without tokens."""
        count = sum(self.tokens)
        return sum(self.sums) / count if count else float("nan")


def acceptance(
    target: nn.Module,
    draft: nn.Module,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> SumsPerText:
    """sum_v min(p_v, q_v) in [0, 1] per response token, added up per text.

    `policy` makes p and q from the logits. At temperature 0 both are one-hot, and the mean is the
    share of positions where target and draft have the same argmax.

    Args:
        target, draft: The models.
        texts: Text drawn from the target.
        policy: Makes distributions from logits.
        vocab_size: Logits are trimmed to this many tokens (padded vocabularies).
        chunk_tokens: Positions whose logits exist at the same time.
    """

    def overlap(p_logits: Tensor, q_logits: Tensor, tokens: Tensor) -> Tensor:
        p, q = policy.distribution(p_logits), _drafted(policy, q_logits)
        return torch.minimum(p, q).sum(dim=-1)

    return _summed(texts, _per_token((target, draft), texts, overlap, vocab_size, chunk_tokens))


def entropy(
    target: nn.Module,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> SumsPerText:
    """Entropy in nats of softmax(z / T_s), T_s = T, or 1 at temperature 0, per response token."""

    def nats(logits: Tensor, tokens: Tensor) -> Tensor:
        # entr(0) is 0, so tokens without probability give no nan.
        each: Tensor = torch.special.entr(policy.untempered(logits))
        return each.sum(dim=-1)

    return _summed(texts, _per_token((target,), texts, nats, vocab_size, chunk_tokens))


def surprise(
    model: nn.Module,
    texts: Sequence[DrawnText],
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> SumsPerText:
    """-log q(token) in nats at temperature 1, per response token, added up per text.

    On text that a target has drawn at temperature 1, its mean is the target's entropy plus
    KL(p || q), so two models differ in it by their difference in KL.
    """

    def nats(logits: Tensor, tokens: Tensor) -> Tensor:
        log_q = torch.log_softmax(logits.float(), dim=-1)
        return -log_q.gather(-1, tokens[:, None])[:, 0]

    return _summed(texts, _per_token((model,), texts, nats, vocab_size, chunk_tokens))


def mass(
    target: nn.Module,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    kept: Sequence[int],
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> SumsPerText:
    """Mass of p on these tokens, in [0, 1], per response token: an upper bound of their alpha."""
    index = torch.tensor(kept, device=bare_model(target).device)

    def inside(logits: Tensor, tokens: Tensor) -> Tensor:
        return policy.distribution(logits)[:, index].sum(dim=-1)

    return _summed(texts, _per_token((target,), texts, inside, vocab_size, chunk_tokens))


class Readings(NamedTuple):
    """Numbers per response token x of one text. The policy makes p and q from the logits.

    Attributes:
        overlap: sum_v min(p_v, q_v), the acceptance rate of a token drawn from q.
        at_argmax: p(argmax q), the acceptance rate of the draft's most probable token.
        keep_probability: Probability that token verification accepted a drafted x, as in
            `keep_probabilities`.
        entropy: Entropy of p without temperature, in nats.
    """

    overlap: list[float]
    at_argmax: list[float]
    keep_probability: list[float]
    entropy: list[float]


def readings(
    target: nn.Module,
    draft: nn.Module,
    texts: Sequence[DrawnText],
    policy: SamplingPolicy,
    *,
    vocab_size: int | None = None,
    chunk_tokens: int = _CHUNK_TOKENS,
) -> list[Readings]:
    """All quantities of a draft in one pass over the texts. Arguments as in `acceptance`."""

    def read(p_logits: Tensor, q_logits: Tensor, tokens: Tensor) -> Tensor:
        p, q = policy.distribution(p_logits), _drafted(policy, q_logits)
        kept = keep_probabilities(p, q, tokens)
        nats = torch.special.entr(policy.untempered(p_logits)).sum(dim=-1)
        overlap = torch.minimum(p, q).sum(dim=-1)
        drafted = most_probable(q_logits).unsqueeze(-1)
        # q is 0 where the draft cannot read: an argmax there is no drafted token.
        at_argmax = p.gather(-1, drafted).where(q.gather(-1, drafted) > 0.0, 0.0)[..., 0]
        return torch.stack([overlap, at_argmax, kept, nats], dim=-1)

    per_text = _per_token((target, draft), texts, read, vocab_size, chunk_tokens)
    return [Readings(*values.reshape(-1, 4).T.tolist()) for values in per_text]


@torch.no_grad()
def _per_token(
    models: Sequence[nn.Module],
    texts: Sequence[DrawnText],
    quantity: Callable[..., Tensor],
    vocab_size: int | None,
    chunk_tokens: int,
) -> list[Tensor]:
    """quantity(logits of each model [N, V]..., tokens [N]) -> [N] or [N, k]; per text, float64."""
    per_text = [torch.zeros(0, dtype=torch.float64)] * len(texts)
    # Texts of similar length share a forward, so that little of it is padding.
    order = sorted(
        (i for i in range(len(texts)) if texts[i].response), key=lambda i: _size(texts[i])
    )
    # Remember which modules train: `model.train()` would switch all of them.
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        for start in range(0, len(order), _ROWS):
            group = order[start : start + _ROWS]
            rows = [texts[i] for i in group]
            # The streams are lazy and in step: one chunk of logits per model exists at a time.
            streams = [_logits(model, rows, vocab_size, chunk_tokens) for model in models]
            drawn = [token for row in rows for token in row.response]
            tokens = torch.tensor(drawn, device=bare_model(models[0]).device)
            values: list[Tensor] = []
            for chunks in zip(*streams, strict=True):
                offset = sum(len(part) for part in values)
                chunk = tokens[offset : offset + len(chunks[0])]
                values.append(quantity(*chunks, chunk).double())
            joined = torch.cat(values).cpu()
            # A second pass finds the model that made the nan.
            if joined.isnan().any():
                _blame(models, rows, vocab_size, chunk_tokens)
            parts = joined.split([len(row.response) for row in rows])
            for index, part in zip(group, parts, strict=True):
                per_text[index] = part
    finally:
        for module in training:
            module.training = True
    return per_text


def _blame(
    models: Sequence[nn.Module],
    rows: Sequence[DrawnText],
    vocab_size: int | None,
    chunk_tokens: int,
) -> None:
    """Raise DistillSpecError for the model whose logits are NaN or infinite on these texts."""
    for model in models:
        for logits in _logits(model, rows, vocab_size, chunk_tokens):
            highest = logits.float().amax(-1)
            # A row of -inf is valid: the draft has no distribution at that position.
            check_finite(describe_model(model), highest.masked_fill(highest == -torch.inf, 0.0))


def _summed(texts: Sequence[DrawnText], values: Sequence[Tensor]) -> SumsPerText:
    sums = tuple(float(value.sum()) for value in values)
    return SumsPerText(sums, tuple(len(text.response) for text in texts))


def _drafted(policy: SamplingPolicy, logits: Tensor) -> Tensor:
    """The draft's distribution; all 0 at positions where all logits are -inf."""
    has_distribution = (logits != -torch.inf).any(dim=-1, keepdim=True)
    return policy.distribution(logits).where(has_distribution, 0.0)


def _size(text: DrawnText) -> int:
    return len(text.prompt) + len(text.response)


def _logits(
    model: nn.Module, rows: Sequence[DrawnText], vocab_size: int | None, chunk_tokens: int
) -> Iterator[Tensor]:
    """Logits [n <= chunk_tokens, V] for every response token of the rows, in order.

    The shift: position t predicts token t + 1, so a response of R tokens after a prompt of P tokens
    is predicted at positions P - 1 .. P + R - 2.
    """
    device = bare_model(model).device
    tokens = torch.zeros(len(rows), max(_size(row) for row in rows), dtype=torch.long)
    speaks, is_token = (torch.zeros_like(tokens, dtype=torch.bool) for _ in range(2))
    for index, row in enumerate(rows):
        tokens[index, : _size(row)] = torch.tensor(row.prompt + row.response)
        is_token[index, : _size(row)] = True
        speaks[index, len(row.prompt) - 1 : _size(row) - 1] = True
    token_map = token_map_of(bare_model(model))
    if token_map is not None:
        is_token = token_map.is_within(tokens, is_token, max_context_length(bare_model(model)))
    is_read = is_token[speaks].to(device)  # False where the draft's own tokens exceed its context
    mask = None if token_map is None else is_token.to(device)
    tokens, speaks = tokens.to(device), speaks.to(device)
    # With a token map, the draft's own logits are mapped first and trimmed afterwards.
    head = output_head(model, vocab_size if token_map is None else None)
    if head is None:
        # All of [rows, T, V] exists at once, for models whose head cannot be separated.
        all_logits = token_logits(model, tokens, mask, vocab_size)[speaks]
        for logits, read in _chunks(all_logits, is_read, chunk_tokens):
            yield logits if token_map is None else logits.where(read, -torch.inf)
        return
    # Hidden states of response positions only; the head then runs chunk by chunk.
    states = hidden_states(model, tokens, mask)[speaks]
    for part, read in _chunks(states, is_read, chunk_tokens):
        logits = head.logits(part)
        if token_map is not None:
            logits = token_map.logits(logits)[..., :vocab_size].where(read, -torch.inf)
        yield logits


def _chunks(values: Tensor, is_read: Tensor, chunk_tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """[N, ...] and bool [N, 1], chunk_tokens at a time."""
    return zip(values.split(chunk_tokens), is_read[:, None].split(chunk_tokens), strict=True)
