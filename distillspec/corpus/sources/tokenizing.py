"""Texts become tokens in the way that a serving engine sees them.

A prompt has the tokens that a server reads. A model continues after the last of them, even where
the tokenizer would choose one token across the seam of prompt and response. The tokens of a
response are those behind the prompt's when both are encoded together. Where a token crosses the
seam, the response is encoded so that the tokens of both decode to the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from distillspec.models.vocabulary.detokenize import detokenize
from distillspec.models.vocabulary.eos_tokens import EosTokens, find_eos_tokens

# A `PreTrainedTokenizerBase`; only models/ and export/ know the library it comes from.
Tokenizer = Any
Tokens = tuple[int, ...]
_Encode = Callable[[list[str], list[int]], list[list[int]]]

_CHARACTERS_PER_TOKEN = 8.0  # code and prose have 3 to 5
_SAMPLE = 16  # texts from which the real number is estimated
_MARGIN = 1.25
_SEAM = 16  # tokens near an artificial cut that may differ from those of the entire text
_CONTEXT = 512  # characters before a seam that are encoded again with the response
_SURE = 8  # tokens before a seam that must equal those of the entire prompt
# Put before a response, so that the tokenizer encodes it as a continuation, not as a new text.
_SENTINELS = ("", "\N{WHITE SMILING FACE}", "a", ".", "\n")


class PromptText(NamedTuple):
    """A prompt and the tokens that a server reads.

    Attributes:
        text: The entire prompt.
        tokens: Its tokens, maybe without the beginning.
        literal: Whether the text of a special token is plain text.
    """

    text: str
    tokens: Tokens
    literal: bool = False


class Encoder:
    """Encodes prompts and responses with a tokenizer.

    Attributes:
        end: The end-of-text token; None where the tokenizer has none.
        stops: All tokens that end a text.
        turn_end: The token that ends an assistant's turn in the chat template, else `end`.
        prefix: Tokens that the tokenizer puts before a plain text (beginning-of-text).
        suffix: Tokens behind a prompt for an encoder-decoder model, with the decoder's start.
    """

    def __init__(
        self, tokenizer: Tokenizer, start: int | None = None, stops: EosTokens | None = None
    ) -> None:
        """Read the tokenizer's special tokens.

        Args:
            tokenizer: The tokenizer.
            start: Token that begins the responses of an encoder-decoder model.
            stops: Tokens that end a text. Default: those of the tokenizer.
        """
        self._tokenizer = tokenizer
        stops = find_eos_tokens(None, tokenizer) if stops is None else stops
        self.stops, end = stops.ids, tokenizer.eos_token_id
        self.end: int | None = int(end) if end in stops.ids else min(stops.ids, default=None)
        self.turn_end = self.end if stops.turn_end is None else stops.turn_end
        added = tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special]
        self._special = re.compile("|".join(map(re.escape, special)) or "(?!)")
        self.prefix, suffix = _affixes(tokenizer)
        self._start = start
        self.suffix: Tokens = () if start is None else (*suffix, start)

    def tails(
        self, texts: Sequence[str], most: int, *, prefix: bool, literal: bool
    ) -> list[Tokens]:
        """The last `most` tokens of each text.

        Args:
            texts: The texts.
            most: Tokens per text, with prefix and suffix.
            prefix: Whether the tokens begin with `self.prefix`.
            literal: Whether the text of a special token is plain text, as in source code.
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
        """The tokens of each text; None for a text of more than `most` tokens. See `tails`."""
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
        """The first `most` tokens of each response.

        A token that ends a text ends the response, as it ends a generation.

        Args:
            rows: Prompts and responses; None for an unknown prompt.
            most: Tokens per response.
            end: Token to append to a shorter response; None where the text contains its end.
            literal: Whether the text of a special token in a response is plain text.
            whole: Whether the responses are complete; a response that was cut gets no end.
        """
        prompts, texts = [prompt for prompt, _ in rows], [text for _, text in rows]

        def encode(pieces: list[str], indices: list[int]) -> list[list[int]]:
            return self._behind([prompts[i] for i in indices], pieces, literal=literal)

        responses, ends = [], {*self.stops, end}
        for ids in self._ends(texts, most, from_the_end=False, encode=encode):
            first_end = next((i for i, token in enumerate(ids) if token in ends), None)
            if first_end is not None:
                ids = ids[: first_end + 1]
            elif whole and end is not None:
                ids = [*ids, end]
            responses.append(tuple(ids[:most]))
        return responses

    def length(self, text: str) -> int:
        """Number of tokens of the entire text, with prefix and suffix."""
        ids = self._encode([text], False)[0]
        return len(self.prefix) + len(ids) + len(self.suffix)

    def _behind(
        self, prompts: Sequence[PromptText | None], texts: Sequence[str], *, literal: bool
    ) -> list[list[int]]:
        """The tokens of each text that follow the tokens of its prompt.

        Three ways are tried in turn: encoding prompt and text together, encoding the text behind a
        sentinel, and encoding the text alone.
        """
        # 1. With the end of the prompt. If the tokens may differ then, with all of the prompt.
        encoded: dict[int, list[int]] = {}
        if self._start is None:  # a decoder's response begins as a separate text
            for split in (False, True):
                rows = [
                    (i, prompt, text)
                    for i, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
                    if prompt is not None
                    and prompt.literal == split
                    and (literal == split or not self._special.search(text))
                ]
                for size in (_CONTEXT, None):
                    rows = [row for row in rows if row[0] not in encoded]
                    rows = self._joined(rows, size, encoded)
        # 2. Behind a sentinel, where the tokens near the seam decode to the text.
        for sentinel in _SENTINELS:
            left = [i for i in range(len(texts)) if i not in encoded]
            before, *both = self._encode([sentinel, *(sentinel + texts[i] for i in left)], literal)
            for i, ids in zip(left, both, strict=True):
                rest = ids[len(before) :]
                if ids[: len(before)] == before and self._fits(prompts[i], rest, texts[i]):
                    encoded[i] = rest
        # 3. The text alone.
        left = [i for i in range(len(texts)) if i not in encoded]  # no tokens decode to just this
        encoded |= zip(left, self._encode([texts[i] for i in left], literal), strict=True)
        return [encoded[i] for i in range(len(texts))]

    def _joined(
        self,
        rows: Sequence[tuple[int, PromptText, str]],
        characters: int | None,
        encoded: dict[int, list[int]],
    ) -> list[tuple[int, PromptText, str]]:
        """Encode prompts and texts together.

        Args:
            rows: Index, prompt and text.
            characters: Characters to read of each prompt's end; None reads all of it.
            encoded: Receives the tokens behind the prompt where no token crosses the seam.

        Returns:
            The rows that need more of their prompts.
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
        for row, before, joined in zip(rows, alone, both, strict=True):
            # If this part does not end in the prompt's own tokens, more of the prompt is needed.
            sure = min(_SURE, len(before), len(row[1].tokens))
            if tuple(before[len(before) - sure :]) != row[1].tokens[len(row[1].tokens) - sure :]:
                unsure.append(row)
            # No token crosses the seam.
            elif joined[: len(before)] == before:
                encoded[row[0]] = joined[len(before) :]
        return unsure

    def _fits(self, prompt: PromptText | None, ids: list[int], text: str) -> bool:
        """Whether the tokens behind the prompt decode to the text; checked near the seam."""
        if prompt is None or self._start is not None:
            return True
        unknown = self._tokenizer.unk_token_id
        if unknown in ids:  # it decodes to no text, so only the tokens before it are checked
            ids = ids[: ids.index(unknown)]
            if not ids:
                return True
        context = prompt.tokens[-_SURE:]
        before = detokenize(self._tokenizer, context)
        both = detokenize(self._tokenizer, [*context, *ids[:_SEAM]])
        behind = both[len(before) :].rstrip("\ufffd")  # an incomplete character at the cut
        return both.startswith(before) and text.startswith(behind) and bool(behind or not text)

    def _alone(self, literal: bool) -> _Encode:
        return lambda pieces, indices: self._encode(pieces, literal)

    def _ends(
        self, texts: Sequence[str], most: int, *, from_the_end: bool, encode: _Encode
    ) -> list[list[int]]:
        """Tokens of each text, or of a piece at one end of it that has more than `most` tokens.

        This avoids tokenising entire files when only their last lines are needed.

        Args:
            texts: The texts.
            most: Tokens needed of each text.
            from_the_end: Whether the last tokens are needed, rather than the first ones.
            encode: Encodes pieces of the texts, given the indices of the texts.
        """
        # 1. A few texts, which show how many characters a token has.
        tokens: dict[int, list[int]] = {}
        characters_per_token = _CHARACTERS_PER_TOKEN
        waiting = list(range(min(len(texts), _SAMPLE)))
        sampled = False
        while waiting:
            characters = int(characters_per_token * (most + _SEAM))
            pieces = [
                texts[i][-characters:] if from_the_end else texts[i][:characters] for i in waiting
            ]
            read = encode(pieces, waiting)
            # 2. Tokens near a cut may differ from those of the text, so a piece needs spare ones.
            for i, ids in zip(waiting, read, strict=True):
                if len(ids) >= most + _SEAM or len(texts[i]) <= characters:
                    tokens[i] = ids
            if sampled:  # a piece that was too short is read again, twice as long
                characters_per_token *= 2
            else:
                count = max(1, sum(map(len, read)))
                characters_per_token = _MARGIN * max(1.0, sum(map(len, pieces)) / count)
                sampled = True
            waiting = [i for i in range(len(texts)) if i not in tokens]
        return [tokens[i] for i in range(len(texts))]

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
        if self._start is not None:  # a text that spells the start token would end there
            encoded = [[token for token in ids if token != self._start] for ids in encoded]
        return encoded


def _affixes(tokenizer: Tokenizer) -> tuple[Tokens, Tokens]:
    """The tokens that the tokenizer puts before and behind a text."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    marked = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(marked)) if marked[i : i + len(bare)] == bare)
    before = next(starts, 0)
    return tuple(marked[:before]), tuple(marked[before + len(bare) :])
