"""Entire texts to train a language model on: files of code, or rows of a data set."""

from __future__ import annotations

from distillspec.corpus.sources.code_files import CorpusFiles, SourceFile, check_divided, code_files
from distillspec.corpus.sources.hub import hub_passages
from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.corpus.sources.passage import Passage, split
from distillspec.recipe.data import CodeSource, HubSource, JsonlSource


def documents(source: CodeSource | JsonlSource | HubSource, held_out_percent: float) -> CorpusFiles:
    """All texts of `source`, part of which is held out by a hash of their keys.

    The text of a row is its prompt, directly followed by its response if there is one.

    Raises:
        DistillSpecError: The source cannot be read, or one of the two parts is empty.
    """
    if isinstance(source, CodeSource):
        return code_files(source, held_out_percent)
    uncut = source.model_copy(update={"after_words": None, "messages": ""})  # no chats
    local = uncut if isinstance(uncut, JsonlSource) else uncut.local
    if local is not None:
        passages = jsonl_passages(local, None, "corpus")
    else:
        assert isinstance(uncut, HubSource)
        passages = hub_passages(uncut, None, "corpus")
    sides = split(passages, held_out_percent)
    training, held_out = (len({passage.source for passage in side}) for side in sides)
    check_divided(training, held_out, held_out_percent, "rows", "take a source of")
    return CorpusFiles(*([_document(passage) for passage in side] for side in sides))


def _document(passage: Passage) -> SourceFile:
    return SourceFile(passage.key, passage.prompt + (passage.response or ""))
