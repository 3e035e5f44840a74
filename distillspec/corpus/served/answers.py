"""Answers that a target behind an API has given: kept one by one, as they come.

Each process appends to a file of its own, one JSON line an answer, which is on the disk before the
next is written: an interrupted or failed generation keeps all that was received, and the next one
asks for the rest. What is kept is text, as it came, and who gave it; tokens are made of it when it
is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from distillspec.corpus.served.request import Question
from distillspec.corpus.sources.tokenizing import Encoder, Tokens
from distillspec.corpus.stores.store_folder import Setting, StoreFolder, begin_store
from distillspec.runtime.journal import Append, appending
from distillspec.runtime.plain_files import BoundedText, read_lines

_FORMAT = "received 1"
_UNDECODED = "\ufffd"  # what a server makes of a character whose bytes are not all there


class Answer(NamedTuple):
    """text: as it came. ended: by the model itself, not by the limit. tokens: by the server's
    count, None where it gives none, and so prompt_tokens, those of the question. maker: model and
    fingerprint, as the server calls them.
    """

    text: str
    ended: bool
    tokens: int | None
    maker: str
    prompt_tokens: int | None = None


class _Line(NamedTuple):
    """Of a file of answers. key, asked: of the question, and its digest. unanswered: why not."""

    key: str
    asked: str
    answer: Answer | None = None
    unanswered: str | None = None


class TokenCounts(NamedTuple):
    """Over texts whose server counts: theirs by its count and by our tokenizer, and how many texts
    have the same number in both.
    """

    texts: int
    server: int
    ours: int
    equal: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[int | None, int | None]], within: int) -> TokenCounts:
        """pairs: a text's tokens by the server and by us. within: a difference that is none."""
        known = [(one, other) for one, other in pairs if one is not None and other is not None]
        return cls(
            len(known),
            sum(theirs for theirs, _ in known),
            sum(ours for _, ours in known),
            sum(abs(theirs - ours) <= within for theirs, ours in known),
        )


class Received(NamedTuple):
    """responses: tokens by the key of their prompt. counts, prompts: how answers and their prompts
    compare to the server's counts. makers: who gave them. unanswered: keys of questions that were
    given up.
    """

    responses: dict[str, Tokens]
    counts: TokenCounts
    prompts: TokenCounts
    makers: list[str]
    unanswered: list[str]


class Tokenised(NamedTuple):
    """tokens: of each answer. counts: how many they are, by the server too; prompts: of those that
    were answered.
    """

    tokens: list[Tokens]
    counts: TokenCounts
    prompts: TokenCounts


def tokenised(
    asked: Sequence[Question], answers: Sequence[Answer], encoder: Encoder, most: int
) -> Tokenised:
    """The first `most` tokens of each answer. Those that ended by themselves get what ends a turn,
    to chats, or end-of-text.

    An answer that was cut may end inside a character, which its text shows as U+FFFD: that is
    dropped.
    """
    kinds = [(one.ended, question.is_chat) for question, one in zip(asked, answers, strict=True)]
    found: dict[int, Tokens] = {}
    for ended, is_chat in set(kinds):
        places = [i for i, kind in enumerate(kinds) if kind == (ended, is_chat)]
        texts = [answers[i].text for i in places]
        if not ended:
            texts = [text.rstrip(_UNDECODED) for text in texts]
        end = encoder.turn_end if is_chat else encoder.end
        rows = [(asked[i].prompt, text) for i, text in zip(places, texts, strict=True)]
        encoded = encoder.responses(rows, most + 1, literal=True, whole=ended, end=end)
        found |= dict(zip(places, encoded, strict=True))
    return Tokenised(
        [found[i][:most] for i in range(len(answers))],
        # the server may count what ends an answer, and may not
        TokenCounts.of(((one.tokens, len(found[i])) for i, one in enumerate(answers)), within=1),
        TokenCounts.of(
            ((one.prompt_tokens, q.tokens) for q, one in zip(asked, answers, strict=True)), within=0
        ),
    )


class ReceivedAnswers:
    """The answers in the store at `place` that were all asked for as `settings` say."""

    def __init__(self, place: StoreFolder, settings: Mapping[str, Setting]) -> None:
        """Open or begin it. Errors: a damaged manifest."""
        entries = {"format": _FORMAT, **settings}
        self.folder = place.folder(entries)
        begin_store(self.folder, entries, "stored answers")

    def settled(self, questions: Sequence[Question]) -> set[str]:
        """Keys of the questions that are answered, or that were given up before."""
        found = self._read()
        return {q.key for q in questions if (q.key, q.digest()) in found}

    def unanswered(self, questions: Sequence[Question]) -> set[str]:
        """Keys of the questions that were given up, by whichever process."""
        found = self._read()
        given_up = {key for key, answer in found.items() if answer is None}
        return {q.key for q in questions if (q.key, q.digest()) in given_up}

    @contextmanager
    def writer(self, rank: int) -> Iterator[AnswerWriter]:
        """What process `rank` adds. A line that a killed process left unfinished is dropped."""
        with appending(self.folder / f"received-{rank:05d}.jsonl") as append:
            yield AnswerWriter(append)

    def received(self, questions: Sequence[Question], encoder: Encoder, most: int) -> Received:
        """Those of the questions' answers that are there, each cut at `most` tokens."""
        found = self._read()
        lines = [(q, found[key]) for q in questions if (key := (q.key, q.digest())) in found]
        answered = [(question, one) for question, one in lines if one is not None]
        asked, answers = [q for q, _ in answered], [one for _, one in answered]
        made = tokenised(asked, answers, encoder, most)
        return Received(
            dict(zip((q.key for q in asked), made.tokens, strict=True)),
            made.counts,
            made.prompts,
            sorted({one.maker for one in answers}),
            [question.key for question, one in lines if one is None],
        )

    def _read(self) -> dict[tuple[str, str], Answer | None]:
        """By key and digest of the question; None for one that was given up."""
        found: dict[tuple[str, str], Answer | None] = {}
        for path in sorted(self.folder.glob("received-*.jsonl")):
            kept = BoundedText(
                path,
                "a received answer",
                "delete this line and start again: only its prompt is asked anew",
            )
            for place, line in read_lines(kept, unfinished=True):
                row = kept.record(_Line, line, place)
                if (row.answer is None) == (row.unanswered is None):
                    raise kept.fault("it has no answer, or two", place)
                found[row.key, row.asked] = row.answer
        return found


class AnswerWriter:
    """Adds lines; each is on the disk when the call returns."""

    def __init__(self, append: Append) -> None:
        self._append = append

    def answer(self, question: Question, answer: Answer) -> None:
        self._write(question, {"answer": answer._asdict()})

    def unanswered(self, question: Question, why: str) -> None:
        self._write(question, {"unanswered": why})

    def _write(self, question: Question, what: dict[str, object]) -> None:
        self._append([{"key": question.key, "asked": question.digest(), **what}])
