"""From `data` of a recipe to tokenised prompts, split into training and held-out ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from distillspec.corpus.sources.adversarial import odd_prompts
from distillspec.corpus.sources.jsonl import jsonl_passages
from distillspec.corpus.sources.passage import (
    Messages,
    Passage,
    PassageSplit,
    Tools,
    by_category,
    shuffled,
    split,
)
from distillspec.corpus.sources.python_prompts import (
    python_passages,
    response_starts_with_line_break,
)
from distillspec.corpus.sources.python_source import CorpusFiles, SourceFile, python_files
from distillspec.corpus.sources.rows import Chats
from distillspec.corpus.sources.tokenizing import Encoder, PromptText, Tokenizer, Tokens
from distillspec.corpus.sources.topics import topic_passages
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate
from distillspec.models.vocabulary.detokenize import decoded
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.recipe.data import DataConfig, HubSource, JsonlSource, PythonSource
from distillspec.recipe.prompt_plan import AdversarialSource, PromptSource, PythonTopicsSource

_MOST_HELD_OUT = 2048  # more prompts than any probe or suite decodes
_BLOCK = 1024  # passages tokenised in one call


class Prompt(NamedTuple):
    """One prompt as the models see it.

    key: names it for ever, unique in its set. tokens: at most max_prompt_tokens, never empty.
    response: the data set's own, at most max_response_tokens, end-of-text (of a chat, end of turn)
    included where it ends there; None where the data has none. text: the whole prompt, also what
    `tokens` had no room for.
    kind: function-head, mid-body, prose, plain, chat or adversarial. category: what it is about,
    for reports: of code its kind, of a row what its data set says; None where nothing does.
    messages, tools: of a chat, what its template was given. part_of: the file, conversation or
    question that it comes from; "" where no other prompt does (see `document`).
    """

    key: str
    tokens: Tokens
    response: Tokens | None
    text: str
    kind: str
    category: str | None = None
    messages: Messages | None = None
    tools: Tools | None = None
    part_of: str = ""

    @property
    def document(self) -> str:
        """The unit of intervals; of a prompt that is alone its own key."""
        return self.part_of or self.key


class PromptSets(NamedTuple):
    """template_hash: of the target's chat template and its variables, None where no chat was
    rendered.

    notes: what was left out or cut, one line each, for the user.
    """

    training: list[Prompt]
    held_out: list[Prompt]
    template_hash: str | None
    notes: list[str]


def load_prompts(
    data: DataConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    start: int | None = None,
    variables: Mapping[str, Any] | None = None,
    stops: EosTokens | None = None,
    answers_wanted: bool = True,
) -> PromptSets:
    """Training and held-out prompts, each in an order that depends on seed and keys alone.

    With `data.held_out` all of it is held out and all of `data.source` is for training, except
    prompts that are in both. Prompts of Python files lose their beginning where they are too long;
    too long rows of files and data sets are left out, since there the beginning is the task. At
    most 2048 held-out prompts are taken. start: what an encoder-decoder model's responses begin
    with; prompts then end with it. variables: what the chat template reads besides the messages;
    default: those of `data`. stops: what ends a text; default: what the tokenizer says.
    answers_wanted: chats are of use only with the answers that the data has for them.

    Errors: as the sources'; and a set that ends up empty is a DistillSpecError.
    """
    notes: list[str] = []
    encoder = Encoder(tokenizer, start, stops)
    chats = _chats(data, tokenizer, variables, answers_wanted)
    if data.held_out is None:
        training, held_out = _split_source(
            data.source, data.held_out_percent, tokenizer, seed, chats
        )
    else:
        held_out_passages = list(_all_of(data.held_out, tokenizer, seed, chats))
        held_out = iter(held_out_passages)
        training = _without(_all_of(data.source, tokenizer, seed, chats), held_out_passages, notes)
    notes += filter(None, [chats.note()])
    kept = _Kept(data, encoder, notes)
    return PromptSets(
        training=kept.prompts(training, data.max_prompts, "training"),
        held_out=kept.prompts(held_out, _MOST_HELD_OUT, "held-out"),
        template_hash=chats.template.hash() if kept.chats else None,
        notes=notes,
    )


def load_all(
    source: PromptSource,
    data: DataConfig,
    tokenizer: Tokenizer,
    *,
    seed: int,
    most: int | None = None,
    notes: list[str] | None = None,
    section: str = "data.source",
    limit: str = "",
    start: int | None = None,
    variables: Mapping[str, Any] | None = None,
    stops: EosTokens | None = None,
) -> list[Prompt]:
    """The first `most` prompts of one source, under the limits of `data`: what a suite brings.

    Of Python code only the files that no training on it sees are taken; rows with categories come
    one of each in turn. notes: takes what was left out. section: where the source stands,
    limit: what sets data.max_prompt_tokens, where that is not the recipe: for errors and notes.
    start, variables, stops: as `load_prompts` has them.
    """
    notes = [] if notes is None else notes
    if isinstance(source, AdversarialSource):
        odd = odd_prompts(
            source, tokenizer, most=data.max_prompt_tokens, seed=seed, where=section, start=start
        )
        return [
            Prompt(
                one.key, one.tokens, None, decoded(tokenizer, one.tokens), "adversarial", one.shape
            )
            for one in odd[:most]
        ]
    kept = _Kept(data, Encoder(tokenizer, start, stops), notes, section, limit)
    if isinstance(source, PythonSource):
        files = python_files(source, data.held_out_percent).held_out
        passages: Iterable[Passage] = _of_files(files, source, tokenizer, seed)
    elif isinstance(source, PythonTopicsSource):
        passages = topic_passages(source, seed)
    else:
        chats = _chats(data, tokenizer, variables, answers_wanted=False)
        passages = by_category(shuffled(_of_rows(source, chats, section), seed))
        notes += filter(None, [chats.note()])
    return kept.prompts(passages, most, "usable")


def _split_source(
    source: PythonSource | JsonlSource | HubSource,
    percent: float,
    tokenizer: Tokenizer,
    seed: int,
    chats: Chats,
) -> tuple[Iterator[Passage], Iterator[Passage]]:
    if isinstance(source, PythonSource):
        files = python_files(source, percent)
        return (
            _of_files(files.training, source, tokenizer, seed),
            _of_files(files.held_out, source, tokenizer, seed),
        )
    sides: PassageSplit = split(_of_rows(source, chats), percent)
    for side, name in ((sides.training, "training"), (sides.held_out, "held-out")):
        if not side:
            raise DistillSpecError(
                f"no {name} prompt is left of {len(sides.training) + len(sides.held_out)}",
                where=f"data.held_out_percent={percent:g}",
                fix="change held_out_percent, add rows, or name a second source in data.held_out",
            )
    return iter(shuffled(sides.training, seed)), iter(shuffled(sides.held_out, seed))


def _all_of(
    source: PythonSource | JsonlSource | HubSource,
    tokenizer: Tokenizer,
    seed: int,
    chats: Chats,
) -> Iterator[Passage]:
    if isinstance(source, PythonSource):
        files = python_files(source, held_out_percent=50.0)  # both halves are wanted
        return _of_files(_both(files), source, tokenizer, seed)
    return iter(shuffled(_of_rows(source, chats), seed))


def _both(files: CorpusFiles) -> list[SourceFile]:
    return [*files.training, *files.held_out]


def _of_files(
    files: Sequence[SourceFile], source: PythonSource, tokenizer: Tokenizer, seed: int
) -> Iterator[Passage]:
    return python_passages(
        files,
        per_file=source.prompts_per_file,
        seed=seed,
        line_break_first=response_starts_with_line_break(tokenizer),
    )


def _chats(
    data: DataConfig,
    tokenizer: Tokenizer,
    variables: Mapping[str, Any] | None,
    answers_wanted: bool,
) -> Chats:
    told = data.template_variables if variables is None else variables
    template = ChatTemplate(tokenizer, told, data.template_date)
    return Chats(template, answers_wanted=answers_wanted)


def _of_rows(
    source: JsonlSource | HubSource, chats: Chats, section: str = "data.source"
) -> list[Passage]:
    file = source if isinstance(source, JsonlSource) else source.local
    if file is not None:
        return jsonl_passages(file, chats, section)
    assert isinstance(source, HubSource)
    from distillspec.corpus.sources.hub import hub_passages  # `datasets` takes seconds to import

    return hub_passages(source, chats, section)


def _without(
    passages: Iterator[Passage], held_out: Sequence[Passage], notes: list[str]
) -> Iterator[Passage]:
    """Training passages that are no held-out prompt, nor from a held-out prompt's document."""
    texts, documents = {p.prompt for p in held_out}, {p.source for p in held_out}
    dropped = 0
    for passage in passages:
        if passage.prompt in texts or passage.source in documents:
            dropped += 1
        else:
            yield passage
    if dropped:
        notes.append(
            f"{dropped} training prompts are held out, or of a held-out document: left out"
        )


class _Kept:
    """Tokenises passages under the limits of `data` and keeps account of what it leaves out."""

    def __init__(
        self,
        data: DataConfig,
        encoder: Encoder,
        notes: list[str],
        section: str = "data",
        limit: str = "",
    ) -> None:
        """section: where the source stands; limit: what sets the longest prompt."""
        self._data, self._encoder, self._notes, self._section = data, encoder, notes, section
        self._limit = limit or f"data.max_prompt_tokens={data.max_prompt_tokens}"
        self.chats = 0

    def prompts(self, passages: Iterable[Passage], most: int | None, name: str) -> list[Prompt]:
        """The first `most` prompts that fit; none at all is a DistillSpecError."""
        passages = iter(passages)
        prompts: list[Prompt] = []
        seen = 0
        left_out: Counter[str | None] = Counter()
        shortest: Passage | None = None
        while most is None or len(prompts) < most:
            wanted = _BLOCK if most is None else min(_BLOCK, most - len(prompts))
            block = list(islice(passages, wanted))
            if not block:
                break
            seen += len(block)
            shortest = min([*block, *filter(None, [shortest])], key=lambda p: len(p.prompt))
            found = self._tokenised(block)
            prompts += found
            kept = {prompt.key for prompt in found}
            left_out.update(p.category for p in block if p.key not in kept)
        if not prompts:
            raise self._nothing(shortest, name)
        self.chats += sum(p.kind == "chat" for p in prompts)
        if len(prompts) < seen:
            self._notes.append(
                f"{seen - len(prompts)} of {seen} {name} prompts are longer than "
                f"{self._limit} tokens: left out{_of(left_out)}"
            )
        return prompts

    def _tokenised(self, block: Sequence[Passage]) -> list[Prompt]:
        """Those of `block` that fit, in its order."""
        found: dict[int, Prompt] = {}
        for kinds in (("function-head", "mid-body", "prose"), ("plain",), ("chat",)):
            places = [i for i, p in enumerate(block) if p.kind in kinds]
            code, prefix = "mid-body" in kinds, "chat" not in kinds  # a template writes its own
            texts = [block[i].prompt for i in places]
            if code:
                tokens: Sequence[Tokens | None] = self._encoder.tails(
                    texts, self._data.max_prompt_tokens, prefix=prefix, literal=True
                )
            else:
                tokens = self._encoder.wholes(
                    texts, self._data.max_prompt_tokens, prefix=prefix, literal=False
                )
            fitting = [
                (i, PromptText(block[i].prompt, ids, literal=code))
                for i, ids in zip(places, tokens, strict=True)
                if ids
            ]
            # A template has written its own end.
            end = None if "chat" in kinds else self._encoder.end
            responses = self._responses(
                [(text, block[i].response) for i, text in fitting], end=end, literal=code
            )
            for (i, text), response in zip(fitting, responses, strict=True):
                passage = block[i]
                found[i] = Prompt(
                    passage.key,
                    text.tokens,
                    response,
                    passage.prompt,
                    passage.kind,
                    passage.category,
                    passage.messages,
                    passage.tools,
                    passage.source,
                )
        return [found[i] for i in sorted(found)]

    def _responses(
        self, rows: Sequence[tuple[PromptText, str | None]], *, end: int | None, literal: bool
    ) -> list[Tokens | None]:
        answered = [(prompt, text) for prompt, text in rows if text is not None]
        most = self._data.max_response_tokens
        encoded = iter(self._encoder.responses(answered, most, end=end, literal=literal))
        return [None if text is None else next(encoded) for _, text in rows]

    def _nothing(self, shortest: Passage | None, name: str) -> DistillSpecError:
        if shortest is None:
            return DistillSpecError(
                f"the source gives no {name} prompt",
                where=self._section,
                fix="add rows or files (of python-source: with functions), or change "
                "data.held_out_percent or data.held_out: what is held out is not trained on",
            )
        key, is_set, _ = self._limit.partition("=")
        raised = f"raise {key} (the models' context allowing), or " if is_set else ""
        return DistillSpecError(
            f"every {name} prompt is longer than {self._data.max_prompt_tokens} tokens; the "
            f"shortest has {self._encoder.length(shortest.prompt)}",
            where=self._limit,
            fix=f"{raised}shorten the rows",
        )


def _of(left_out: Mapping[str | None, int]) -> str:
    """How many of each category, where there are categories."""
    parts = [f"{name or 'none'} {count}" for name, count in left_out.items()]
    return f" ({', '.join(parts)})" if any(left_out) else ""
