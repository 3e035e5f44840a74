"""Two vocabularies, and what of one is written in the other: by the bytes that tokens stand for."""

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
    """One vocabulary. texts: bytes -> id; specials: content -> id; of_id: either, by id."""

    texts: Mapping[bytes, int]
    specials: Mapping[str, int]
    of_id: Mapping[int, bytes | str]


class Pieces(NamedTuple):
    """Rows of the target's tokens as rows of the draft's, padded on the right.

    tokens: long [B, T']; last: long [B, T], where each token of the target ends in its row, any
    place of the row for padding.
    """

    tokens: Tensor
    last: Tensor


class CrossTokenizerMap:
    """Which tokens two vocabularies share, and how a text of one's tokens is read in the other's.

    target_ids, draft_ids: long [N], the tokens that both have, under their ids in each: those that
    stand for the same bytes, special tokens of the same content, and end, beginning and padding of
    text by their roles. prefix: what the draft's tokenizer puts before a text.
    """

    def __init__(
        self,
        target: PreTrainedTokenizerBase,
        draft: PreTrainedTokenizerBase,
        target_vocabulary: int,
        draft_vocabulary: int,
        where: str,
    ) -> None:
        """The sizes are those of the models' outputs. DistillSpecError for tokenizers whose tokens
        have no spelling that is known here, and for vocabularies that share nothing.
        """
        self.target_vocabulary = target_vocabulary
        theirs = _spelling(target, target_vocabulary, where)
        self._mine = _spelling(draft, draft_vocabulary, where)
        self._spelled = theirs.of_id
        self._longest = max(map(len, self._mine.texts), default=1)
        found = {
            token: self._mine.texts[text]
            for text, token in theirs.texts.items()
            if text in self._mine.texts
        }
        found |= {
            token: self._mine.specials[content]
            for content, token in theirs.specials.items()
            if content in self._mine.specials
        }
        for role in _ROLES:
            one, other = getattr(target, role), getattr(draft, role)
            if one in theirs.of_id and other in self._mine.of_id and one not in found:
                found[int(one)] = int(other)
        shared = _one_to_one(found, first=target.eos_token_id)
        if not shared:
            raise DistillSpecError(
                "the two vocabularies have no token in common",
                where=where,
                fix="take a draft whose tokenizer shares tokens with the target's",
            )
        self._shared = found
        self._cuts: dict[int, tuple[int, ...]] = {}  # of those that were asked for
        self._ids: dict[torch.device, tuple[Tensor, Tensor]] = {}
        self._end = int(draft.eos_token_id if draft.eos_token_id is not None else 0)
        self.target_ids = torch.tensor(sorted(shared))
        self.draft_ids = torch.tensor([shared[token] for token in sorted(shared)])
        self.prefix = _prefix(draft)

    def pieces(self, token: int) -> tuple[int, ...]:
        """A token of the target as tokens of the draft, at least one.

        One that both have is itself; any other is cut into the longest tokens of the draft from
        its beginning on, whatever its tokenizer would do with the whole text: what was read before
        then stays as it was read.
        """
        if token in self._shared:
            return (self._shared[token],)
        if token not in self._cuts:
            spelled = self._spelled.get(token, b"")
            text = spelled.encode() if isinstance(spelled, str) else spelled
            self._cuts[token] = tuple(self._cut(text)) or (self._end,)
        return self._cuts[token]

    def _cut(self, text: bytes) -> Iterator[int]:
        place = 0
        while place < len(text):
            for size in range(min(self._longest, len(text) - place), 0, -1):
                piece = self._mine.texts.get(text[place : place + size])
                if piece is not None:
                    yield piece
                    break
            place += size

    def text(self, tokens: Sequence[int]) -> list[tuple[int, ...]]:
        """The pieces of each token of a text from its beginning on, `prefix` before the first."""
        found = [self.pieces(token) for token in tokens]
        if found and found[0][:1] != self.prefix[:1]:
            found[0] = (*self.prefix, *found[0])
        return found

    def length(self, tokens: Sequence[int]) -> int:
        """Of a text, in the draft's tokens."""
        return sum(map(len, self.text(tokens)))

    def places(self, prompts: Iterable[Sequence[int]], capacity: int) -> int:
        """Of the draft's, for texts of `capacity` tokens of the target's that go on from these.

        What follows a prompt is taken to need as many a token as the prompt does, two at least.
        """
        most = 2 * capacity
        for prompt in prompts:
            length = self.length(prompt)
            each = max(2.0, length / len(prompt))
            most = max(most, length + ceil(each * (capacity - len(prompt))))
        return most

    def rows(self, tokens: Tensor, is_token: Tensor) -> Pieces:
        """long [B, T], bool [B, T], padded on the right: padding is not read, whatever its id."""
        T = tokens.shape[1]
        pieces = [
            self.text(row[:size])
            for row, size in zip(tokens.tolist(), is_token.sum(1).tolist(), strict=True)
        ]
        flat = [[one for token in row for one in token] for row in pieces]
        longest = max(1, *map(len, flat))
        padded = [row + [self._end] * (longest - len(row)) for row in flat]
        last = [[end - 1 for end in accumulate(map(len, row))] for row in pieces]
        whole = [row + [0] * (T - len(row)) for row in last]
        return Pieces(tokens.new_tensor(padded), tokens.new_tensor(whole))

    def is_within(self, tokens: Tensor, is_token: Tensor, places: int) -> Tensor:
        """Tokens that end within so many places of the draft's: bool [B, T], of rows like these."""
        return is_token & (self.rows(tokens, is_token).last < places)

    def __deepcopy__(self, memo: object) -> CrossTokenizerMap:
        """It says the same for ever: copies of a draft share it."""
        return self

    def logits(self, draft: Tensor) -> Tensor:
        """The draft's logits [..., V of the draft] over the target's tokens [..., V of the target].

        Tokens that the draft has not are -inf: its distribution is that of the common ones.
        """
        theirs, mine = self.ids(draft.device)
        nothing = draft.new_full((*draft.shape[:-1], self.target_vocabulary), -torch.inf)
        return nothing.index_copy(-1, theirs, draft.index_select(-1, mine))

    def ids(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """target_ids and draft_ids, brought to a device once."""
        if device not in self._ids:
            self._ids[device] = self.target_ids.to(device), self.draft_ids.to(device)
        return self._ids[device]


def attach(model: PreTrainedModel, bridge: CrossTokenizerMap) -> None:
    """Let `model` be read and run over the target's tokens, wherever it is given as a draft."""
    model.bridge = bridge  # type: ignore[assignment]  # no module, no tensor: it travels in copies


def bridge_of(model: PreTrainedModel) -> CrossTokenizerMap | None:
    """What stands between the target's tokens and this draft, if they are not its own."""
    found = model.__dict__.get("bridge")
    assert found is None or isinstance(found, CrossTokenizerMap)
    return found


def _one_to_one(found: Mapping[int, int], first: int | None) -> dict[int, int]:
    """A token of the draft stands for one of the target's: its mass counts once.

    Of several the one named, which ends a text and so occurs in each, else the lowest.
    """
    taken: set[int] = set()
    kept: dict[int, int] = {}
    for token in sorted(found, key=lambda one: (one != first, one)):
        if found[token] not in taken:
            taken.add(found[token])
            kept[token] = found[token]
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
    return _Spelling(lone_bytes | texts, specials, of_id)


def _is_byte_level(tokenizer: PreTrainedTokenizerBase, where: str) -> bool:
    """True for byte-level BPE, False for sentencepiece's way; DistillSpecError for any other."""
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
        f"how the tokens of this tokenizer spell text is not known here "
        f"({type(tokenizer).__name__})",
        where=where,
        fix="take models with byte-level BPE or sentencepiece tokenizers",
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
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    starts = (i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare)
    return tuple(dressed[: next(starts, 0)])
