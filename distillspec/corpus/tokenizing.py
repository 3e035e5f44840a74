"""Texts to tokens, the way a serving engine sees them.

Prompt and response are tokenised *separately*: an engine tokenises the prompt it is sent and goes
on from its last token, whatever piece the tokenizer would have chosen over the seam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distillspec.models.template import end_of_turn

# A `PreTrainedTokenizerBase`; only models/ and export/ know the library it comes from.
Tokenizer = Any
Tokens = tuple[int, ...]

_CHARACTERS_PER_TOKEN = 8.0  # code and prose have 3 to 5
_SAMPLE = 16  # texts that tell how many it really is
_MARGIN = 1.25
_SEAM = 16  # tokens near an artificial cut that may differ from those of the whole text


class Encoder:
    """One tokenizer's rules. `end`: its end-of-text, None where it has none.

    `turn_end`: what ends an assistant's turn in its chat template, else `end`.
    `prefix`: the tokens that the tokenizer itself puts before a plain text (beginning-of-text).
    `suffix`: of prompts for encoder-decoder models, what it puts behind, and the decoder's start.
    """

    def __init__(self, tokenizer: Tokenizer, start: int | None = None) -> None:
        """start: the token that an encoder-decoder model's responses begin with."""
        self._tokenizer = tokenizer
        end = tokenizer.eos_token_id
        self.end: int | None = None if end is None else int(end)
        turn_end = end_of_turn(tokenizer)
        self.turn_end = self.end if turn_end is None else turn_end
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
            for ids in self._ends(texts, room, from_the_end=True, literal=literal)
        ]

    def wholes(
        self, texts: Sequence[str], most: int, *, prefix: bool, literal: bool
    ) -> list[Tokens | None]:
        """The tokens of each text; None for a text of more than `most` tokens."""
        before = self.prefix if prefix else ()
        room = most - len(before) - len(self.suffix)
        ends = self._ends(texts, max(room, 1), from_the_end=False, literal=literal)
        return [(*before, *ids, *self.suffix) if len(ids) <= room else None for ids in ends]

    def responses(
        self,
        texts: Sequence[str],
        most: int,
        *,
        end: int | None,
        literal: bool,
        whole: bool = True,
    ) -> list[Tokens]:
        """The first `most` tokens of each text; one that ends before gets `end`, if that is one.

        A special `end` or end-of-text inside a response ends it there, as it would end a
        generation. whole: texts that were cut off somewhere (False) get no end of their own.
        """
        ends = {end, self.end}
        found = []
        for ids in self._ends(texts, most, from_the_end=False, literal=literal):
            inside = next((place for place, token in enumerate(ids) if token in ends), None)
            if inside is not None:
                ids = ids[: inside + 1]
            elif whole and end is not None:
                ids = [*ids, end]
            found.append(tuple(ids[:most]))
        return found

    def length(self, text: str) -> int:
        """Tokens of the whole text, with what is put before and behind it."""
        inside = self._encode([text], literal=False)[0]
        return len(self.prefix) + len(inside) + len(self.suffix)

    def _ends(
        self, texts: Sequence[str], most: int, *, from_the_end: bool, literal: bool
    ) -> list[list[int]]:
        """Tokens of each text, or of so much of one end of it that holds more than `most` tokens.

        Whole files are not tokenised for the sake of their last lines.
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
            read = self._encode(pieces, literal=literal)
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

    def _encode(self, texts: list[str], *, literal: bool) -> list[list[int]]:
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
