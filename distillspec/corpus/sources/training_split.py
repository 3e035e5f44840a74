"""The passages of a source, divided into training and held-out ones.

A file, conversation or question is on one side only, so that no held-out text has been trained on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from distillspec.corpus.sources.chat_topics import chat_passages
from distillspec.corpus.sources.code_files import (
    SourceFile,
    all_files,
    check_divided,
    code_files,
)
from distillspec.corpus.sources.cpp_prompts import cpp_passages
from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.corpus.sources.passage import Passage, PassageSplit, shuffled, split
from distillspec.corpus.sources.python_prompts import (
    python_passages,
    response_starts_with_line_break,
)
from distillspec.corpus.sources.rows import Chats
from distillspec.corpus.sources.tokenizing import Tokenizer
from distillspec.recipe.data import (
    ChatTopicsSource,
    CodeSource,
    DataConfig,
    HubSource,
    JsonlSource,
    PythonSource,
    Source,
)


class TrainingSplit(NamedTuple):
    """Passages in their training order; files of code are cut into passages while one iterates."""

    training: Iterator[Passage]
    held_out: Iterator[Passage]


def training_split(
    data: DataConfig, tokenizer: Tokenizer, seed: int, chats: Chats, notes: list[str]
) -> TrainingSplit:
    """Divide the passages of `data.source`, or take the held-out ones from `data.held_out`.

    Args:
        data: The sources and the held-out share.
        tokenizer: Decides where prompts of code end.
        seed: Decides the order, together with the keys of the passages.
        chats: Renders chats; counts those that the template cannot split.
        notes: Receives the number of training passages left out, when the last one is read.

    Raises:
        DistillSpecError: One side of a divided data set is empty.
    """
    if data.held_out is None:
        return _divided(data.source, data.held_out_percent, tokenizer, seed, chats)
    # Read completely, because each training passage is compared with all of them.
    held_out = list(_all_passages(data.held_out, tokenizer, seed, chats))
    training = _all_passages(data.source, tokenizer, seed, chats)
    return TrainingSplit(_without_held_out(training, held_out, notes), iter(held_out))


def file_passages(
    files: Sequence[SourceFile], source: CodeSource, tokenizer: Tokenizer, seed: int
) -> Iterator[Passage]:
    """The passages of files, cut where tokens of `tokenizer` end."""
    cut = python_passages if isinstance(source, PythonSource) else cpp_passages
    return cut(
        files,
        per_file=source.prompts_per_file,
        seed=seed,
        line_break_first=response_starts_with_line_break(tokenizer),
    )


def row_passages(
    source: JsonlSource | HubSource | ChatTopicsSource, chats: Chats, section: str = "data.source"
) -> list[Passage]:
    """The passages of a file, a data set or the built-in chats, in its order.

    Args:
        source: The file, the data set or the chats.
        chats: Renders chats.
        section: Where recipe or suite name the source, for errors.
    """
    if isinstance(source, ChatTopicsSource):
        return chat_passages(source, chats)
    local = source if isinstance(source, JsonlSource) else source.local
    if local is not None:
        return jsonl_passages(local, chats, section)
    assert isinstance(source, HubSource)
    from distillspec.corpus.sources.hub import hub_passages  # `datasets` takes seconds to import

    return hub_passages(source, chats, section)


def _divided(
    source: Source,
    percent: float,
    tokenizer: Tokenizer,
    seed: int,
    chats: Chats,
) -> TrainingSplit:
    if isinstance(source, CodeSource):
        files = code_files(source, percent)
        return TrainingSplit(
            file_passages(files.training, source, tokenizer, seed),
            file_passages(files.held_out, source, tokenizer, seed),
        )
    sides: PassageSplit = split(row_passages(source, chats), percent)
    training, held_out = (len({p.source for p in side}) for side in sides)
    check_divided(training, held_out, percent, "rows or conversations", "add rows:")
    return TrainingSplit(iter(shuffled(sides.training, seed)), iter(shuffled(sides.held_out, seed)))


def _all_passages(
    source: Source, tokenizer: Tokenizer, seed: int, chats: Chats
) -> Iterator[Passage]:
    if isinstance(source, CodeSource):
        return file_passages(all_files(source), source, tokenizer, seed)
    return iter(shuffled(row_passages(source, chats), seed))


def _without_held_out(
    training: Iterator[Passage], held_out: Sequence[Passage], notes: list[str]
) -> Iterator[Passage]:
    """Leave out training passages with the prompt or the document of a held-out passage."""
    prompts, documents = {p.prompt for p in held_out}, {p.source for p in held_out}
    dropped = 0
    for passage in training:
        if passage.prompt in prompts or passage.source in documents:
            dropped += 1
        else:
            yield passage
    if dropped:
        notes.append(
            f"{dropped} training prompts are held out, or of a held-out document: left out"
        )
