"""Two vocabularies, and text of one written in the other, matched by the bytes of the tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

from distillspec.errors import DistillSpecError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SPACE = "\u2581"  # sentencepiece writes a space as this
_ROLES = ("eos_token_id", "bos_token_id", "pad_token_id")


class _Spelling(NamedTuple):
    """One vocabulary.

    Attributes:
        texts: Id of each spelled text.
        specials: Id of each special token.
        of_id: Spelled text (bytes) or special token (str) of each id.
    """

    texts: Mapping[bytes, int]
    specials: Mapping[str, int]
    of_id: Mapping[int, bytes | str]


class Pieces(NamedTuple):
    """Rows of the target's tokens as rows of the draft's, padded on the right.

    Attributes:
        tokens: Long [B, T'], the draft's tokens.
        last: Long [B, T], position of the last piece of each target token; any position for
            padding.
    """

    tokens: Tensor
    last: Tensor


class CrossTokenizerMap:
    """The tokens that two vocabularies share, and how one's text is read in the other's tokens.

    Shared are tokens that stand for the same bytes, special tokens of the same content, and the
    tokens that end, start and pad a text.

    Args:
        target: The target's tokenizer.
        draft: The draft's tokenizer.
        target_vocabulary: Size of the target's output.
        draft_vocabulary: Size of the draft's output.
        where: Location of the pair, for errors.

    Attributes:
        target_ids: Long [N], the shared tokens under the target's ids.
        draft_ids: Long [N], the same tokens under the draft's ids.
        prefix: The tokens that the draft's tokenizer puts before a text.
    """

    def __init__(
        self,
        target: PreTrainedTokenizerBase,
        draft: PreTrainedTokenizerBase,
        target_vocabulary: int,
        draft_vocabulary: int,
        where: str,
    ) -> None:
        """Match the two vocabularies.

        Raises:
            DistillSpecError: The spelling of a tokenizer's tokens is unknown, or no token is
                shared.
        """
        self.target_vocabulary = target_vocabulary
        # 1. Match tokens by their bytes, then the end, start and padding tokens by their role.
        target_spelling = _spelling(target, target_vocabulary, where)
        self._draft_spelling = _spelling(draft, draft_vocabulary, where)
        self._spelled = target_spelling.of_id
        self._longest = max(map(len, self._draft_spelling.texts), default=1)
        matches = _equal_spellings(target_spelling, self._draft_spelling)
        for role in _ROLES:
            target_id, draft_id = getattr(target, role), getattr(draft, role)
            if (
                target_id in target_spelling.of_id
                and draft_id in self._draft_spelling.of_id
                and target_id not in matches
            ):
                matches[int(target_id)] = int(draft_id)
        # 2. Each draft token may be proposed as one target token only. Reading has no such limit.
        shared = _one_to_one(matches, first=target.eos_token_id)
        if not shared:
            raise DistillSpecError(
                "the two vocabularies share no token",
                where=where,
                fix="use a draft whose tokenizer shares tokens with the target's",
            )
        self._shared = matches
        self._cuts: dict[int, tuple[int, ...]] = {}  # of the tokens seen so far
        self._ids: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._end = int(draft.eos_token_id if draft.eos_token_id is not None else 0)
        self.target_ids = torch.tensor(sorted(shared))
        self.draft_ids = torch.tensor([shared[token] for token in sorted(shared)])
        self.prefix = _prefix(draft)

    def pieces(self, token: int) -> tuple[int, ...]:
        """A token of the target as tokens of the draft, at least one.

        A shared token is one piece. Any other token is split greedily, from its start, into the
        longest tokens of the draft. The draft's tokenizer might split the complete text
        differently, but this way the pieces already read stay the same.
        """
        if token in self._shared:
            return (self._shared[token],)
        if token not in self._cuts:
            spelled = self._spelled.get(token, b"")
            text = spelled.encode() if isinstance(spelled, str) else spelled
            self._cuts[token] = tuple(self._cut(text)) or (self._end,)
        return self._cuts[token]

    def _cut(self, text: bytes) -> Iterator[int]:
        position = 0
        while position < len(text):
            for size in range(min(self._longest, len(text) - position), 0, -1):
                piece = self._draft_spelling.texts.get(text[position : position + size])
                if piece is not None:
                    yield piece
                    break
            # Without a match the loop ends at size 1: that byte is skipped.
            position += size

    def text(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """The pieces of each token of a text from its start, with `prefix` before the first."""
        pieces = [self.pieces(token) for token in tokens]
        # A text may already begin with the prefix.
        if pieces and pieces[0][:1] != self.prefix[:1]:
            pieces[0] = (*self.prefix, *pieces[0])
        return pieces

    def length(self, tokens: Sequence[int]) -> int:
        """Length of a text in the draft's tokens."""
        return sum(map(len, self.text(tokens)))

    def places(self, prompts: Iterable[Sequence[int]], capacity: int) -> int:
        """Draft tokens needed for texts of `capacity` target tokens that continue these prompts.

        The continuation is assumed to need as many draft tokens per token as the prompt, and at
        least two.
        """
        max_length = 2 * capacity
        for prompt in prompts:
            length = self.length(prompt)
            per_token = max(2.0, length / len(prompt))
            max_length = max(max_length, length + ceil(per_token * (capacity - len(prompt))))
        return max_length

    def rows(self, tokens: Tensor, is_token: Tensor) -> Pieces:
        """Rows of target tokens in the draft's tokens.

        Args:
            tokens: Long [B, T], padded on the right.
            is_token: Bool [B, T]; padding is not read.
        """
        T = tokens.shape[1]
        pieces = [
            self.text(row[:size])
            for row, size in zip(tokens.tolist(), is_token.sum(1).tolist(), strict=True)
        ]
        flat = [[piece for token in row for piece in token] for row in pieces]
        longest = max(1, *map(len, flat))
        padded = [row + [self._end] * (longest - len(row)) for row in flat]
        # The number of pieces up to each token gives the position of its last piece.
        last = [[end - 1 for end in accumulate(map(len, row))] for row in pieces]
        padded_last = [row + [0] * (T - len(row)) for row in last]
        return Pieces(tokens.new_tensor(padded), tokens.new_tensor(padded_last))

    def is_within(self, tokens: Tensor, is_token: Tensor, places: int) -> Tensor:
        """Whether each token ends within the draft's first `places` tokens: bool [B, T]."""
        return is_token & (self.rows(tokens, is_token).last < places)

    def __deepcopy__(self, memo: object) -> CrossTokenizerMap:
        """The map never changes, so copies of a draft share it."""
        return self

    def logits(self, draft: Tensor) -> Tensor:
        """The draft's logits [..., draft V] over the target's vocabulary [..., target V].

        Tokens that the draft lacks are -inf: its distribution covers the shared tokens only.
        """
        target_ids, draft_ids = self.ids(draft.device)
        ruled_out = draft.new_full((*draft.shape[:-1], self.target_vocabulary), -torch.inf)
        return ruled_out.index_copy(-1, target_ids, draft.index_select(-1, draft_ids))

    def ids(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """`target_ids` and `draft_ids` on a device; moved once."""
        if device not in self._ids:
            self._ids[device] = self.target_ids.to(device), self.draft_ids.to(device)
        return self._ids[device]


def attach_token_map(model: PreTrainedModel, token_map: CrossTokenizerMap) -> None:
    """Let `model` be read and run over the target's tokens wherever it is used as a draft."""
    # Neither module nor tensor: a plain attribute, which copies of the model keep.
    model.token_map = token_map  # type: ignore[assignment]


def token_map_of(model: PreTrainedModel) -> CrossTokenizerMap | None:
    """The cross-tokenizer map of this draft, or None if it uses the target's tokenizer."""
    token_map = model.__dict__.get("token_map")
    assert token_map is None or isinstance(token_map, CrossTokenizerMap)
    return token_map


def _equal_spellings(target: _Spelling, draft: _Spelling) -> dict[int, int]:
    """Target tokens with a draft token of the same bytes, or the same special content."""
    return {
        token: draft.texts[spelled]
        for spelled, token in target.texts.items()
        if spelled in draft.texts
    } | {
        token: draft.specials[content]
        for content, token in target.specials.items()
        if content in draft.specials
    }


def _one_to_one(matches: Mapping[int, int], first: int | None) -> dict[int, int]:
    """Let each draft token stand for one target token, so that its mass counts once.

    Of several candidates, `first` (the end-of-text token) wins, then the lowest id.
    """
    taken: set[int] = set()
    kept: dict[int, int] = {}
    for token in sorted(matches, key=lambda token: (token != first, token)):
        if matches[token] not in taken:
            taken.add(matches[token])
            kept[token] = matches[token]
    return kept


def _spelling(tokenizer: PreTrainedTokenizerBase, vocab_size: int, where: str) -> _Spelling:
    spell = _byte_level if _is_byte_level(tokenizer, where) else _sentencepiece
    added = tokenizer.added_tokens_decoder
    texts: dict[bytes, int] = {}
    lone_bytes: dict[bytes, int] = {}
    specials: dict[str, int] = {}
    of_id: dict[int, bytes | str] = {}
    for piece, token in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
        if token >= vocab_size:
            continue
        if token in added and added[token].special:
            specials[piece] = token
            of_id[token] = piece
            continue
        text = piece.encode() if token in added else spell(piece)
        of_id[token] = text
        if _BYTE.fullmatch(piece):
            lone_bytes.setdefault(text, token)
        elif text:
            texts.setdefault(text, token)
    # A token that spells a text wins over the byte token of the same content.
    return _Spelling(lone_bytes | texts, specials, of_id)


def _is_byte_level(tokenizer: PreTrainedTokenizerBase, where: str) -> bool:
    """True for byte-level BPE, False for sentencepiece.

    Raises:
        DistillSpecError: The tokenizer is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    decoder = json.loads(backend.to_str())["decoder"] if backend is not None else None
    parts = list(_parts(decoder))
    if any(part["type"] == "ByteLevel" for part in parts):
        return True
    if any(
        part["type"] in ("ByteFallback", "Metaspace") or part.get("pattern") == {"String": _SPACE}
        for part in parts
    ):
        return False
    raise DistillSpecError(
        f"it is unknown how the tokens of this tokenizer spell text ({type(tokenizer).__name__})",
        where=where,
        fix="use models with byte-level BPE or sentencepiece tokenizers",
    )


def _parts(decoder: Any) -> Iterator[dict[str, Any]]:
    if isinstance(decoder, dict):
        yield decoder
        for part in decoder.get("decoders", ()):
            yield from _parts(part)


_OF_CHARACTER = {character: byte for byte, character in bytes_to_unicode().items()}


def _byte_level(piece: str) -> bytes:
    if all(character in _OF_CHARACTER for character in piece):
        return bytes(_OF_CHARACTER[character] for character in piece)
    return piece.encode()


def _sentencepiece(piece: str) -> bytes:
    byte = _BYTE.fullmatch(piece)
    if byte:
        return bytes([int(byte.group(1), 16)])
    return piece.replace(_SPACE, " ").encode()


def _prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    text_tokens = tokenizer("a", add_special_tokens=False)["input_ids"]
    tokens = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(tokens)) if tokens[i : i + len(text_tokens)] == text_tokens)
    return tuple(tokens[: next(starts, 0)])
