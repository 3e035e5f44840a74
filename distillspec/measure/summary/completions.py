"""Decoded texts: repetition, divergence of greedy texts, examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import median_low
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.summary.records import Example, GreedyDivergence, Piece
from distillspec.measure.timed.rows import FATES, CellRow
from distillspec.models.bare import bare_model
from distillspec.models.surgery.hidden_states import token_logits
from distillspec.models.vocabulary.detokenize import detokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NGRAM = 4
_PROMPT_SHOWN = 600
_CONTEXT = 8


def repeated_share(texts: Iterable[Sequence[int]], n: int = _NGRAM) -> float:
    """Share of n-grams that occurred earlier in the same text, in [0, 1]; nan without n-grams."""
    repeated = grams = 0
    for tokens in texts:
        ngrams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        grams += len(ngrams)
        repeated += len(ngrams) - len(set(ngrams))
    return repeated / grams if grams else float("nan")


def greedy_divergences(
    target: nn.Module,
    prompts: Sequence[MeasuredPrompt],
    rows: Sequence[CellRow],
    vocab_size: int | None,
) -> list[GreedyDivergence]:
    """Texts at temperature 0 that differ from the baseline's, with the gap of the two tokens.

    The gap comes from one teacher-forced forward over the common text. A near-tie explains a
    difference if the two tokens are the target's top two.
    """
    greedy = [row for row in rows if row.temperature == 0.0]
    plain = {row.prompt: row.tokens for row in greedy if row.draft is None}
    scores: dict[tuple[int, int], Tensor] = {}
    divergences = []
    for row in greedy:
        if row.draft is None or row.method is None or row.gamma is None:
            continue
        if row.tokens == plain[row.prompt]:
            continue
        # Lengths are equal, because timed decoding ignores end-of-text.
        both = zip(row.tokens, plain[row.prompt], strict=True)
        position = next(i for i, (token, plain_token) in enumerate(both) if token != plain_token)
        # Up to this position all texts equal the baseline's, so cells share one forward.
        key = row.prompt, position
        if key not in scores:
            text = [*prompts[row.prompt].tokens, *row.tokens[:position]]
            scores[key] = _next_logits(target, text, vocab_size)
        tokens = [row.tokens[position], plain[row.prompt][position]]
        gap, are_top_two = _tie(scores[key], tokens)
        divergences.append(
            GreedyDivergence(
                draft=row.draft,
                method=row.method,
                gamma=row.gamma,
                prompt_key=row.prompt_key,
                position=position,
                gap=gap,
                are_top_two=are_top_two,
            )
        )
    return divergences


@torch.no_grad()
def _next_logits(target: nn.Module, tokens: list[int], vocab_size: int | None) -> Tensor:
    device = bare_model(target).device
    logits = token_logits(target, torch.tensor([tokens], device=device), None, vocab_size)
    return logits[0, -1].float()


def _tie(logits: Tensor, tokens: list[int]) -> tuple[float, bool]:
    """[V], two tokens -> highest logit minus the lower of the two; whether they are the top two."""
    first, second = logits.topk(2).values.tolist()
    lower = float(logits[tokens].min())
    return first - lower, lower >= second


def examples(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[MeasuredPrompt],
    rows: Sequence[CellRow],
    shown_at: dict[float, tuple[str, int]],
) -> list[Example]:
    """At each temperature, one prompt decoded with every draft and method at one gamma.

    The prompt is the one on which the last draft's tau is the median.

    Args:
        tokenizer: Decodes the tokens.
        prompts: The decoded prompts.
        rows: Their rows.
        shown_at: Method and gamma by temperature; the method gives the tau.
    """
    shown = []
    for temperature, (method, gamma) in sorted(shown_at.items()):
        candidates = [
            row
            for row in rows
            if row.temperature == temperature and row.gamma == gamma and row.repeat == 0
        ]
        by_method = [row for row in candidates if row.method == method]
        drafts = list(dict.fromkeys(row.draft for row in by_method))
        taus = {
            row.prompt: row.counts.block_efficiency()
            for row in by_method
            if row.draft == drafts[-1] and row.counts.verifications
        }
        if not taus:
            continue
        # The lower median is one of the values, so a prompt has it.
        middle = median_low(taus.values())
        chosen = next(prompt for prompt, tau in taus.items() if tau == middle)
        shown += [_example(tokenizer, prompts[chosen], r) for r in candidates if r.prompt == chosen]
    return shown


def _example(tokenizer: PreTrainedTokenizerBase, prompt: MeasuredPrompt, row: CellRow) -> Example:
    assert row.draft is not None
    assert row.method is not None
    assert row.gamma is not None
    cut = len(prompt.text) > _PROMPT_SHOWN
    shown = "…" + prompt.text[-_PROMPT_SHOWN:] if cut else prompt.text
    texts = token_texts(tokenizer, prompt.tokens, row.tokens)
    return Example(
        draft=row.draft,
        method=row.method,
        gamma=row.gamma,
        temperature=row.temperature,
        prompt_key=prompt.key,
        prompt=shown,
        tau=row.counts.block_efficiency(),
        verifications=row.counts.target_forwards,
        pieces=[Piece(text, FATES[f]) for text, f in zip(texts, row.fates, strict=True)],
    )


def token_texts(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> Iterator[str]:
    """The text that each token adds. The first part of a split character adds nothing."""
    # The text of a token depends on the tokens before it.
    context = list(prompt[-_CONTEXT:])
    before = detokenize(tokenizer, context)
    for end in range(1, len(tokens) + 1):
        text = detokenize(tokenizer, [*context, *tokens[:end]])
        # U+FFFD stands for a character whose last bytes are in the following tokens.
        if text.endswith("\ufffd") and end < len(tokens):
            yield ""
            continue
        yield text[len(before) :]
        before = text


def completion_text(
    tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int], tokens: Sequence[int]
) -> str:
    """The text of the tokens after the prompt, without special tokens."""
    context = list(prompt[-_CONTEXT:])
    before = detokenize(tokenizer, context, skip_special_tokens=True)
    full = detokenize(tokenizer, [*context, *tokens], skip_special_tokens=True)
    return full[len(before) :]
