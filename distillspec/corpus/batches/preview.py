"""What is masked, to look at before training: read from a batch's own masks."""

from __future__ import annotations

from typing import NamedTuple

from rich.text import Text

from distillspec.corpus.batches.batching import Batch
from distillspec.corpus.sources.tokenizing import Tokenizer
from distillspec.models.vocabulary.detokenize import decoded
from distillspec.runtime.terminal import Terminal
from distillspec.text.foreign import say, visible

_EDGE = 12  # lines kept at each end of a longer part


class Part(NamedTuple):
    """A run of tokens of one row under one mask. in_loss: whether they are judged."""

    text: str
    tokens: int
    in_loss: bool


def parts(batch: Batch, tokenizer: Tokenizer) -> list[list[Part]]:
    """Each row as runs of masked and judged tokens, special tokens written out, no padding."""
    rows = []
    for ids, is_token, is_response in zip(*(field.tolist() for field in batch[:3]), strict=True):
        runs: list[tuple[bool, list[int]]] = []
        for token, real, judged in zip(ids, is_token, is_response, strict=True):
            if real and runs and runs[-1][0] == judged:
                runs[-1][1].append(token)
            elif real:
                runs.append((judged, [token]))
        rows.append([Part(decoded(tokenizer, run), len(run), judged) for judged, run in runs])
    return rows


def plain_preview(batch: Batch, tokenizer: Tokenizer) -> str:
    """With markers, for logs and files: what stands between >>> and <<< is in the loss."""
    lines = []
    for number, row in enumerate(parts(batch, tokenizer), start=1):
        lines.append(_heading(number, row))
        lines.append(
            "".join(f">>>{part.text}<<<" if part.in_loss else _shortened(part.text) for part in row)
        )
    return "\n".join(lines)


def coloured_preview(batch: Batch, tokenizer: Tokenizer) -> Text:
    """For terminals: masked tokens dim, tokens in the loss bright."""
    text = Text()
    for number, row in enumerate(parts(batch, tokenizer), start=1):
        text.append(_heading(number, row) + "\n", style="bold")
        for part in row:
            if part.in_loss:
                text.append(visible(part.text), style="bold green")
            else:
                text.append(_shortened(visible(part.text)), style="dim")
        text.append("\n")
    return text


def show(batch: Batch, tokenizer: Tokenizer, console: Terminal) -> None:
    """Print the form that `console` can render."""
    if console.is_terminal:
        console.print(coloured_preview(batch, tokenizer))
    else:
        say(plain_preview(batch, tokenizer), console.file)


def _heading(number: int, row: list[Part]) -> str:
    judged = sum(part.tokens for part in row if part.in_loss)
    masked = sum(part.tokens for part in row if not part.in_loss)
    return f"--- row {number}: {masked} tokens masked, {judged} tokens in the loss ---"


def _shortened(text: str) -> str:
    lines = text.split("\n")
    if len(lines) <= 2 * _EDGE:
        return text
    left_out = f"[... {len(lines) - 2 * _EDGE} lines ...]"
    return "\n".join([*lines[:_EDGE], left_out, *lines[-_EDGE:]])
