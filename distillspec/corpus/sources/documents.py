"""Whole texts to train a language model on: files of Python code, or rows of a data set."""

from __future__ import annotations

from distillspec.corpus.sources.hub import hub_passages
from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.corpus.sources.passage import Passage, split
from distillspec.corpus.sources.python_source import CorpusFiles, SourceFile, python_files
from distillspec.errors import DistillSpecError
from distillspec.recipe.data import HubSource, JsonlSource, PythonSource


def documents(
    source: PythonSource | JsonlSource | HubSource, held_out_percent: float
) -> CorpusFiles:
    """All texts of `source`, some of them held out by a hash of their keys.

    A row's text is its prompt and, where it has one, its response right behind it. Errors: as the
    sources'; a side that is empty is a DistillSpecError.
    """
    if isinstance(source, PythonSource):
        return python_files(source, held_out_percent)
    whole = source.model_copy(update={"after_words": None, "messages": ""})  # chats are no texts
    local = whole if isinstance(whole, JsonlSource) else whole.local
    if local is not None:
        passages = jsonl_passages(local, None, "corpus")
    else:
        assert isinstance(whole, HubSource)
        passages = hub_passages(whole, None, "corpus")
    sides = split(passages, held_out_percent)
    found = CorpusFiles(*([_document(one) for one in side] for side in sides))
    if not found.training or not found.held_out:
        raise DistillSpecError(
            f"{len(passages)} rows leave none for {'validation' if found.training else 'training'}",
            where="corpus",
            fix="take a larger source, or change held_out_percent",
        )
    return found


def _document(passage: Passage) -> SourceFile:
    return SourceFile(passage.key, passage.prompt + (passage.response or ""))
