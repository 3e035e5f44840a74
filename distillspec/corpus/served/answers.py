"""Answers of a target behind an API, stored one by one as they arrive.

Each process appends to a separate file, one JSON line per answer, which is on disk before the next
one is written. An interrupted generation keeps everything received, and the next one requests the
rest. A line holds the text as it arrived and the model that wrote it; reading tokenises the text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.sources.tokenizing import Encoder, Tokens
from distillspec.corpus.stores.store_folder import Setting, StoreFolder, begin_store
from distillspec.runtime.journal import Append, appending
from distillspec.runtime.plain_files import BoundedText, read_lines

_FORMAT = "received 1"
_UNDECODED = "\ufffd"  # what servers write for a character that lacks some of its bytes


class Answer(NamedTuple):
    """One answer.

    Attributes:
        text: The text as it arrived.
        ended: Whether the model ended it, rather than the limit.
        tokens: Number of tokens by the server's count; None where it gives none.
        maker: Model and fingerprint, as the server names them.
        prompt_tokens: Number of tokens of the prompt by the server's count.
    """

    text: str
    ended: bool
    tokens: int | None
    maker: str
    prompt_tokens: int | None = None


class _Line(NamedTuple):
    """One line of a file of answers.

    Attributes:
        key: The key of the question.
        asked: The digest of the question.
        answer: The answer; None for a question that was given up.
        unanswered: The reason for giving up.
    """

    key: str
    asked: str
    answer: Answer | None = None
    unanswered: str | None = None


class TokenCounts(NamedTuple):
    """Token counts of the server compared with those of our tokenizer.

    Attributes:
        texts: Number of texts that both have counted.
        server: Tokens of these texts by the server's count.
        ours: Tokens of these texts by our tokenizer.
        equal: Number of texts on which both agree.
    """

    texts: int
    server: int
    ours: int
    equal: int

    @classmethod
    def of(cls, pairs: Iterable[tuple[int | None, int | None]], within: int) -> TokenCounts:
        """Sum up the counts of texts.

        Args:
            pairs: The counts of each text, by the server and by us; None where unknown.
            within: Difference that still counts as equal, tokens.
        """
        known = [
            (server, ours) for server, ours in pairs if server is not None and ours is not None
        ]
        return cls(
            len(known),
            sum(server for server, _ in known),
            sum(ours for _, ours in known),
            sum(abs(server - ours) <= within for server, ours in known),
        )


class Received(NamedTuple):
    """The stored answers to some questions.

    Attributes:
        responses: Response tokens by the key of their prompt.
        counts: Token counts of the answers, by the server and by us.
        prompts: Token counts of their prompts, by the server and by us.
        makers: The models that answered.
        unanswered: Keys of the questions that were given up.
    """

    responses: dict[str, Tokens]
    counts: TokenCounts
    prompts: TokenCounts
    makers: list[str]
    unanswered: list[str]


class Tokenised(NamedTuple):
    """Answers as tokens.

    Attributes:
        tokens: The tokens of each answer.
        counts: Token counts of the answers, by the server and by us.
        prompts: Token counts of their prompts, by the server and by us.
    """

    tokens: list[Tokens]
    counts: TokenCounts
    prompts: TokenCounts


def tokenised(
    asked: Sequence[ApiRequest], answers: Sequence[Answer], encoder: Encoder, most: int
) -> Tokenised:
    """Tokenise answers.

    An answer that the model ended gets the token that ends a turn (chats) or a text. An answer that
    was cut may end inside a character, which its text shows as U+FFFD; that character is dropped.

    Args:
        asked: The question of each answer.
        answers: The answers.
        encoder: The draft's tokenizer.
        most: Tokens kept of each answer.
    """
    kinds = [
        (answer.ended, question.is_chat) for question, answer in zip(asked, answers, strict=True)
    ]
    by_index: dict[int, Tokens] = {}
    # One call per kind of answer, because the kind decides how its tokens end.
    for ended, is_chat in set(kinds):
        indices = [i for i, kind in enumerate(kinds) if kind == (ended, is_chat)]
        texts = [answers[i].text for i in indices]
        if not ended:
            texts = [text.rstrip(_UNDECODED) for text in texts]
        end = encoder.turn_end if is_chat else encoder.end
        rows = [(asked[i].prompt, text) for i, text in zip(indices, texts, strict=True)]
        encoded = encoder.responses(rows, most + 1, literal=True, whole=ended, end=end)
        by_index |= dict(zip(indices, encoded, strict=True))
    return Tokenised(
        [by_index[i][:most] for i in range(len(answers))],
        # A server may or may not count the token that ends an answer.
        TokenCounts.of(
            ((answer.tokens, len(by_index[i])) for i, answer in enumerate(answers)), within=1
        ),
        TokenCounts.of(
            (
                (answer.prompt_tokens, question.tokens)
                for question, answer in zip(asked, answers, strict=True)
            ),
            within=0,
        ),
    )


class ReceivedAnswers:
    """The store of the answers that were requested with the same settings."""

    def __init__(self, parent: StoreFolder, settings: Mapping[str, Setting]) -> None:
        """Open or begin the store.

        Args:
            parent: The parent folder of the target's stores.
            settings: All that shapes an answer besides its question.

        Raises:
            DistillSpecError: The manifest is damaged.
        """
        entries = {"format": _FORMAT, **settings}
        self.folder = parent.folder(entries)
        begin_store(self.folder, entries, "stored answers")

    def settled(self, questions: Sequence[ApiRequest]) -> set[str]:
        """Keys of the questions that are answered or were given up."""
        stored = self._read()
        return {q.key for q in questions if (q.key, q.digest()) in stored}

    def unanswered(self, questions: Sequence[ApiRequest]) -> set[str]:
        """Keys of the questions that any process has given up."""
        given_up = {key for key, answer in self._read().items() if answer is None}
        return {q.key for q in questions if (q.key, q.digest()) in given_up}

    @contextmanager
    def writer(self, rank: int) -> Iterator[AnswerWriter]:
        """The writer of process `rank`. A line that a killed process left incomplete is dropped."""
        with appending(self.folder / f"received-{rank:05d}.jsonl") as append:
            yield AnswerWriter(append)

    def received(self, questions: Sequence[ApiRequest], encoder: Encoder, most: int) -> Received:
        """The stored answers to some questions.

        Args:
            questions: The questions.
            encoder: The draft's tokenizer.
            most: Tokens kept of each answer.
        """
        stored = self._read()
        lines = [(q, stored[key]) for q in questions if (key := (q.key, q.digest())) in stored]
        answered = [(question, answer) for question, answer in lines if answer is not None]
        asked, answers = [q for q, _ in answered], [answer for _, answer in answered]
        made = tokenised(asked, answers, encoder, most)
        return Received(
            dict(zip((q.key for q in asked), made.tokens, strict=True)),
            made.counts,
            made.prompts,
            sorted({answer.maker for answer in answers}),
            [question.key for question, answer in lines if answer is None],
        )

    def _read(self) -> dict[tuple[str, str], Answer | None]:
        """Answers by key and digest of their question; None for a question that was given up."""
        stored: dict[tuple[str, str], Answer | None] = {}
        for path in sorted(self.folder.glob("received-*.jsonl")):
            text = BoundedText(
                path,
                "a received answer",
                "delete this line and start again: only its prompt is requested again",
            )
            for position, line in read_lines(text, unfinished=True):
                row = text.record(_Line, line, position)
                if (row.answer is None) == (row.unanswered is None):
                    raise text.fault("it has not exactly one of answer and unanswered", position)
                stored[row.key, row.asked] = row.answer
        return stored


class AnswerWriter:
    """Appends lines; each line is on disk when the call returns."""

    def __init__(self, append: Append) -> None:
        self._append = append

    def answer(self, question: ApiRequest, answer: Answer) -> None:
        self._write(question, {"answer": answer._asdict()})

    def unanswered(self, question: ApiRequest, why: str) -> None:
        self._write(question, {"unanswered": why})

    def _write(self, question: ApiRequest, outcome: dict[str, object]) -> None:
        self._append([{"key": question.key, "asked": question.digest(), **outcome}])
