"""A preview of a batch that shows which tokens are masked and which are in the loss.

The preview is short: of each row it shows the lines around the place where the loss begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from rich.text import Text

from distillspec.corpus.batches.batching import Batch
from distillspec.corpus.sources.tokenizing import Tokenizer
from distillspec.models.vocabulary.detokenize import detokenize
from distillspec.runtime.terminal import Terminal
from distillspec.text.foreign import say, visible

_MOST_LINES = 12  # of up to four rows together
_LEAST_LINES = 3  # of a row, where many are asked for: its heading, and text on both sides
_LINE_BREAK = "\u21b5"
_EDGE = 40  # characters kept at each end of a longer piece of a line


class Part(NamedTuple):
    """Consecutive tokens of a row with the same mask.

    Attributes:
        text: The decoded tokens.
        tokens: Number of tokens.
        in_loss: Whether they are in the loss.
    """

    text: str
    tokens: int
    in_loss: bool


def parts(batch: Batch, tokenizer: Tokenizer) -> list[list[Part]]:
    """The parts of each row, with special tokens written out and without padding."""
    rows = []
    for ids, is_token, is_response in zip(*(field.tolist() for field in batch[:3]), strict=True):
        runs: list[tuple[bool, list[int]]] = []
        for token, real, in_loss in zip(ids, is_token, is_response, strict=True):
            if real and runs and runs[-1][0] == in_loss:
                runs[-1][1].append(token)
            elif real:
                runs.append((in_loss, [token]))
        rows.append([Part(detokenize(tokenizer, run), len(run), in_loss) for in_loss, run in runs])
    return rows


def plain_preview(batch: Batch, tokenizer: Tokenizer) -> str:
    """The preview for logs and files: text between >>> and <<< is in the loss."""
    text = []
    for heading, lines in _excerpts(parts(batch, tokenizer)):
        text.append(heading)
        text += [
            "".join(f">>>{p.text}<<<" if p.in_loss else p.text for p in line) for line in lines
        ]
    return "\n".join(text)


def coloured_preview(batch: Batch, tokenizer: Tokenizer) -> Text:
    """The preview for terminals: masked tokens are dim, tokens in the loss bright."""
    text = Text()
    for heading, lines in _excerpts(parts(batch, tokenizer)):
        text.append("\n" * bool(text) + heading, style="bold")
        for line in lines:
            text.append("\n")
            for piece in line:
                text.append(visible(piece.text), style="bold green" if piece.in_loss else "dim")
    return text


def show(batch: Batch, tokenizer: Tokenizer, console: Terminal) -> None:
    """Print the preview in the form that `console` can render."""
    if console.is_terminal:
        console.print(coloured_preview(batch, tokenizer))
    else:
        say(plain_preview(batch, tokenizer), console.file)


class _Piece(NamedTuple):
    """A part of one line under one mask."""

    text: str
    in_loss: bool


def _excerpts(rows: list[list[Part]]) -> Iterator[tuple[str, list[list[_Piece]]]]:
    """Each row's heading, and its lines around the first token in the loss."""
    per_row = max(_MOST_LINES // max(len(rows), 1), _LEAST_LINES) - 1
    for number, row in enumerate(rows, start=1):
        lines = _lines(row)
        first = next((i for i, line in enumerate(lines) if any(p.in_loss for p in line)), 0)
        start = max(min(first - per_row // 2, len(lines) - per_row), 0)
        shown = lines[start : start + per_row]
        after = len(lines) - start - len(shown)
        if start:
            shown[0] = [_Piece(f"[... {start} lines ...] ", False), *shown[0]]
        if after:
            shown[-1] = [*shown[-1], _Piece(f" [... {after} lines ...]", False)]
        yield _heading(number, row), shown


def _lines(row: list[Part]) -> list[list[_Piece]]:
    """The row's text line by line, each as pieces under one mask."""
    lines: list[list[_Piece]] = [[]]
    for part in row:
        *texts, last = part.text.split("\n")
        for text in texts:
            shown = _shortened(text) + _LINE_BREAK * part.in_loss  # a token may be a line break
            lines[-1] += [_Piece(shown, part.in_loss)] if shown else []
            lines.append([])
        lines[-1] += [_Piece(_shortened(last), part.in_loss)] if last else []
    return lines


def _heading(number: int, row: list[Part]) -> str:
    in_loss = sum(part.tokens for part in row if part.in_loss)
    masked = sum(part.tokens for part in row if not part.in_loss)
    return f"--- row {number}: {masked} tokens masked, {in_loss} tokens in the loss ---"


def _shortened(text: str) -> str:
    return text if len(text) <= 2 * _EDGE else f"{text[:_EDGE]} [...] {text[-_EDGE:]}"
