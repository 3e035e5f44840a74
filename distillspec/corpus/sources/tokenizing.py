"""Texts to tokens, the way a serving engine sees them.

A prompt keeps the tokens that a server reads it as; a model goes on from the last of them, whatever
piece the tokenizer would have chosen over the seam. A response is what the tokens of both have
behind the prompt's; where a piece goes over the seam, it is encoded so that both together decode to
the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distillspec.models.vocabulary.detokenize import decoded
from distillspec.models.vocabulary.eos_tokens import EosTokens, stop_ids

# A `PreTrainedTokenizerBase`; only models/ and export/ know the library it comes from.
Tokenizer = Any
Tokens = tuple[int, ...]
_Encode = Callable[[list[str], list[int]], list[list[int]]]

_CHARACTERS_PER_TOKEN = 8.0  # code and prose have 3 to 5
_SAMPLE = 16  # texts that tell how many it really is
_MARGIN = 1.25
_SEAM = 16  # tokens near an artificial cut that may differ from those of the whole text
_CONTEXT = 512  # characters before a seam that are read again with what follows
_SURE = 8  # tokens before a seam that must be those of the whole prompt
# Texts that a response is encoded behind, where it does not begin as a text of its own.
_SENTINELS = ("", "\N{WHITE SMILING FACE}", "a", ".", "\n")


class PromptText(NamedTuple):
    """A prompt and the tokens that a server reads it as, maybe without its beginning.

    literal: the text of a special token in it is plain text.
    """

    text: str
    tokens: Tokens
    literal: bool = False


class Encoder:
    """One tokenizer's rules. `end`: its end-of-text, None where it has none.

    `stops`: all tokens that end a text. `turn_end`: the one that ends an assistant's turn in its
    chat template, else `end`.
    `prefix`: the tokens that the tokenizer itself puts before a plain text (beginning-of-text).
    `suffix`: of prompts for encoder-decoder models, what it puts behind, and the decoder's start.
    """

    def __init__(
        self, tokenizer: Tokenizer, start: int | None = None, stops: EosTokens | None = None
    ) -> None:
        """start: the token that an encoder-decoder model's responses begin with. stops: default:
        what the tokenizer says.
        """
        self._tokenizer = tokenizer
        stops = stop_ids(None, tokenizer) if stops is None else stops
        self.stops, end = stops.ids, tokenizer.eos_token_id
        self.end: int | None = int(end) if end in stops.ids else min(stops.ids, default=None)
        self.turn_end = self.end if stops.turn_end is None else stops.turn_end
        spelt = [one.content for one in tokenizer.added_tokens_decoder.values() if one.special]
        self._spelt = re.compile("|".join(map(re.escape, spelt)) or "(?!)")
        self.prefix, behind = _dressing(tokenizer)
        self._start = start
        self.suffix: Tokens = () if start is None else (*behind, start)

    def tails(
        self, texts: Sequence[str], most: int, *, prefix: bool, literal: bool
    ) -> list[Tokens]:
        """The last `most` tokens of each text, `prefix` included where it is wanted.

        literal: the text of a special token is plain text, as in source code that speaks of it.
        """
        before = self.prefix if prefix else ()
        room = max(most - len(before) - len(self.suffix), 1)
        return [
            (*before, *ids[-room:], *self.suffix)
            for ids in self._ends(texts, room, from_the_end=True, encode=self._alone(literal))
        ]

    def wholes(
        self, texts: Sequence[str], most: int, *, prefix: bool, literal: bool
    ) -> list[Tokens | None]:
        """The tokens of each text; None for a text of more than `most` tokens."""
        before = self.prefix if prefix else ()
        room = most - len(before) - len(self.suffix)
        ends = self._ends(texts, max(room, 1), from_the_end=False, encode=self._alone(literal))
        return [(*before, *ids, *self.suffix) if len(ids) <= room else None for ids in ends]

    def responses(
        self,
        rows: Sequence[tuple[PromptText | None, str]],
        most: int,
        *,
        end: int | None,
        literal: bool,
        whole: bool = True,
    ) -> list[Tokens]:
        """The first `most` tokens of each response; one that ends before gets `end`, if any.

        A token that ends a text ends a response there, as it would end a generation.

        Args:
            rows: Prompts, None for a text that nothing is known to come before, and responses.
            end: What is put behind a response; None where it holds its own.
            literal: The text of a special token in a response is plain text.
            whole: Texts that were cut off somewhere (False) get no end.
        """
        prompts, texts = [prompt for prompt, _ in rows], [text for _, text in rows]

        def encode(pieces: list[str], places: list[int]) -> list[list[int]]:
            return self._behind([prompts[i] for i in places], pieces, literal=literal)

        found, ends = [], {*self.stops, end}
        for ids in self._ends(texts, most, from_the_end=False, encode=encode):
            inside = next((place for place, token in enumerate(ids) if token in ends), None)
            if inside is not None:
                ids = ids[: inside + 1]
            elif whole and end is not None:
                ids = [*ids, end]
            found.append(tuple(ids[:most]))
        return found

    def length(self, text: str) -> int:
        """Tokens of the whole text, with what is put before and behind it."""
        inside = self._encode([text], False)[0]
        return len(self.prefix) + len(inside) + len(self.suffix)

    def _behind(
        self, prompts: Sequence[PromptText | None], texts: Sequence[str], *, literal: bool
    ) -> list[list[int]]:
        """The tokens of each text as what comes behind the tokens of its prompt."""
        found: dict[int, list[int]] = {}
        if self._start is None:  # else a response is a text of its own
            for split in (False, True):
                rows = [
                    (i, prompt, text)
                    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
                    if prompt is not None
                    and prompt.literal == split
                    and (literal == split or not self._spelt.search(text))
                ]
                for size in (_CONTEXT, None):
                    rows = self._joined([row for row in rows if row[0] not in found], size, found)
        for sentinel in _SENTINELS:
            left = [i for i in range(len(texts)) if i not in found]
            before, *read = self._encode([sentinel, *(sentinel + texts[i] for i in left)], literal)
            for i, ids in zip(left, read, strict=True):
                rest = ids[len(before) :]
                if ids[: len(before)] == before and self._fits(prompts[i], rest, texts[i]):
                    found[i] = rest
        left = [i for i in range(len(texts)) if i not in found]  # no tokens say just this
        found |= zip(left, self._encode([texts[i] for i in left], literal), strict=True)
        return [found[i] for i in range(len(texts))]

    def _joined(
        self,
        rows: Sequence[tuple[int, PromptText, str]],
        characters: int | None,
        found: dict[int, list[int]],
    ) -> list[tuple[int, PromptText, str]]:
        """Reads prompts and texts together; the rows whose prompts need be longer than that.

        characters: of each prompt's end; None: all of it. found: takes the tokens behind the
        prompts, of rows where none goes over the seam.
        """
        if not rows:
            return []
        contexts = [
            prompt.text[-characters:] if characters else prompt.text for _, prompt, _ in rows
        ]
        literal = rows[0][1].literal
        alone = self._encode(contexts, literal)
        both = self._encode([c + row[2] for c, row in zip(contexts, rows, strict=True)], literal)
        unsure = []
        for row, before, whole in zip(rows, alone, both, strict=True):
            sure = min(_SURE, len(before), len(row[1].tokens))
            if tuple(before[len(before) - sure :]) != row[1].tokens[len(row[1].tokens) - sure :]:
                unsure.append(row)
            elif whole[: len(before)] == before:
                found[row[0]] = whole[len(before) :]
        return unsure

    def _fits(self, prompt: PromptText | None, ids: list[int], text: str) -> bool:
        """Whether the tokens say the text behind the prompt: looked at near the seam."""
        if prompt is None or self._start is not None:
            return True
        unknown = self._tokenizer.unk_token_id
        if unknown in ids:  # it says no text: what stands before it is looked at
            ids = ids[: ids.index(unknown)]
            if not ids:
                return True
        context = prompt.tokens[-_SURE:]
        before = decoded(self._tokenizer, context)
        said = decoded(self._tokenizer, [*context, *ids[:_SEAM]])
        behind = said[len(before) :].rstrip("\ufffd")  # half a character is cut
        return said.startswith(before) and text.startswith(behind) and bool(behind or not text)

    def _alone(self, literal: bool) -> _Encode:
        return lambda pieces, places: self._encode(pieces, literal)

    def _ends(
        self, texts: Sequence[str], most: int, *, from_the_end: bool, encode: _Encode
    ) -> list[list[int]]:
        """Tokens of each text, or of so much of one end of it that holds more than `most` tokens.

        Whole files are not tokenised for the sake of their last lines. encode: of pieces of the
        texts at these places.
        """
        found: dict[int, list[int]] = {}
        characters_per_token = _CHARACTERS_PER_TOKEN
        waiting = list(range(min(len(texts), _SAMPLE)))
        sampled = False
        while waiting:
            characters = int(characters_per_token * (most + _SEAM))
            pieces = [
                texts[i][-characters:] if from_the_end else texts[i][:characters] for i in waiting
            ]
            read = encode(pieces, waiting)
            for i, ids in zip(waiting, read, strict=True):
                if len(ids) >= most + _SEAM or len(texts[i]) <= characters:
                    found[i] = ids
            if sampled:  # what has more is read again, longer
                characters_per_token *= 2
            else:
                tokens = max(1, sum(map(len, read)))
                characters_per_token = _MARGIN * max(1.0, sum(map(len, pieces)) / tokens)
                sampled = True
            waiting = [i for i in range(len(texts)) if i not in found]
        return [found[i] for i in range(len(texts))]

    def _encode(self, texts: list[str], literal: bool) -> list[list[int]]:
        if not texts:
            return []
        encoded: list[list[int]] = self._tokenizer(
            texts,
            add_special_tokens=False,
            split_special_tokens=literal,
            return_attention_mask=False,
            verbose=False,
        )["input_ids"]
        if self._start is not None:  # a source that spells it would end there
            encoded = [[token for token in ids if token != self._start] for ids in encoded]
        return encoded


def _dressing(tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """What the tokenizer puts before a text, and behind it."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare)
    before = next(starts, 0)
    return tuple(dressed[:before]), tuple(dressed[before + len(bare) :])
