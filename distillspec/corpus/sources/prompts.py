"""The tokenised prompts of a recipe's `data` or of one source, within the limits on length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from distillspec.corpus.sources.adversarial import odd_prompts
from distillspec.corpus.sources.code_files import code_files
from distillspec.corpus.sources.passage import Messages, Passage, Tools, by_category, shuffled
from distillspec.corpus.sources.rows import Chats
from distillspec.corpus.sources.tokenizing import Encoder, PromptText, Tokenizer, Tokens
from distillspec.corpus.sources.topics import topic_passages
from distillspec.corpus.sources.training_split import file_passages, row_passages, training_split
from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.chat_template import ChatTemplate
from distillspec.models.vocabulary.detokenize import detokenize
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.recipe.data import CodeSource, DataConfig
from distillspec.recipe.prompt_plan import AdversarialSource, PromptSource, PythonTopicsSource

_MOST_HELD_OUT = 2048  # more prompts than any probe or suite decodes
_BLOCK = 1024  # passages tokenised per call


class Prompt(NamedTuple):
    """One prompt as the models see it.

    Attributes:
        key: Permanent name, unique in its set.
        tokens: At most max_prompt_tokens, never empty.
        response: The response in the data, at most max_response_tokens, with end-of-text (of a
            chat, the end of the turn) if it ends there; None where the data has none.
        text: The entire prompt, with what `tokens` has no room for.
        kind: function-head, mid-body, prose, plain, chat or adversarial.
        category: Topic, for reports: of code its kind, of a row the value of its field, or None.
        messages: The messages of a chat, as its template got them.
        tools: The tools of a chat, as its template got them.
        part_of: The file, conversation or question that it comes from; "" where no other prompt
            comes from it (see `document`).
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
        """The unit that intervals resample: the document, or the key where there is none."""
        return self.part_of or self.key


class PromptSets(NamedTuple):
    """The prompts of a recipe.

    Attributes:
        training: Prompts to train on.
        held_out: Prompts for probe and evaluation.
        template_hash: Hash of the target's chat template and its variables; None where no chat was
            rendered.
        notes: One line per reason for leaving prompts out, for the user.
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

    With `data.held_out`, all of it is held out. All of `data.source` is then for training, except
    for prompts that are in both. A prompt of a file of code that is too long loses its beginning. A
    row that is too long is left out, since its beginning holds the task. At most 2048 held-out
    prompts are used.

    Args:
        data: Sources and limits.
        tokenizer: The target's tokenizer.
        seed: Decides the order.
        start: Token that begins the responses of an encoder-decoder model and ends its prompts.
        variables: Values that the chat template reads besides the messages. Default: those of
            `data`.
        stops: Tokens that end a text. Default: those of the tokenizer.
        answers_wanted: Whether chats are used only with the answers in the data.

    Raises:
        DistillSpecError: A source cannot be read, or one of the sets is empty.
    """
    notes: list[str] = []
    encoder = Encoder(tokenizer, start, stops)
    chats = _chats(data, tokenizer, variables, answers_wanted)
    sides = training_split(data, tokenizer, seed, chats, notes)
    notes += filter(None, [chats.note()])
    fitting = _FittingPrompts(data, encoder, notes)
    return PromptSets(
        training=fitting.take(sides.training, data.max_prompts, "training"),
        held_out=fitting.take(sides.held_out, _MOST_HELD_OUT, "held-out"),
        template_hash=chats.template.hash() if fitting.chats else None,
        notes=notes,
    )


def load_source_prompts(
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
    """The first `most` prompts of one source, for a suite that names its sources.

    Of code only held-out files are used. Rows with categories come one of each in turn.

    Args:
        source: The source.
        data: The limits, and the held-out share of code.
        tokenizer: The target's tokenizer.
        seed: Decides the order.
        most: Number of prompts. Default: all.
        notes: Receives one line per reason for leaving prompts out.
        section: Where recipe or suite name the source, for errors.
        limit: What sets `data.max_prompt_tokens`, for errors and notes. Default: the recipe.
        start: See `load_prompts`.
        variables: See `load_prompts`.
        stops: See `load_prompts`.

    Raises:
        DistillSpecError: The source cannot be read, or gives no prompt.
    """
    notes = [] if notes is None else notes
    if isinstance(source, AdversarialSource):
        odd = odd_prompts(
            source, tokenizer, most=data.max_prompt_tokens, seed=seed, where=section, start=start
        )
        return [
            Prompt(p.key, p.tokens, None, detokenize(tokenizer, p.tokens), "adversarial", p.shape)
            for p in odd[:most]
        ]
    fitting = _FittingPrompts(data, Encoder(tokenizer, start, stops), notes, section, limit)
    if isinstance(source, CodeSource):
        files = code_files(source, data.held_out_percent).held_out
        passages: Iterable[Passage] = file_passages(files, source, tokenizer, seed)
    elif isinstance(source, PythonTopicsSource):
        passages = topic_passages(source, seed)
    else:
        chats = _chats(data, tokenizer, variables, answers_wanted=False)
        passages = by_category(shuffled(row_passages(source, chats, section), seed))
        notes += filter(None, [chats.note()])
    return fitting.take(passages, most, "usable")


def _chats(
    data: DataConfig,
    tokenizer: Tokenizer,
    variables: Mapping[str, Any] | None,
    answers_wanted: bool,
) -> Chats:
    variables = data.template_variables if variables is None else variables
    template = ChatTemplate(tokenizer, variables, data.template_date)
    return Chats(template, answers_wanted=answers_wanted)


class _FittingPrompts:
    """Tokenises passages within the limits of `data`, and notes how many it leaves out.

    Attributes:
        chats: Number of chats among the prompts.
    """

    def __init__(
        self,
        data: DataConfig,
        encoder: Encoder,
        notes: list[str],
        section: str = "data",
        limit: str = "",
    ) -> None:
        """Keep the limits.

        Args:
            data: The limits.
            encoder: Tokenises prompts and responses.
            notes: Receives one line per set with prompts that are too long.
            section: Where recipe or suite name the source, for errors.
            limit: What sets the longest prompt, for errors and notes.
        """
        self._data, self._encoder, self._notes, self._section = data, encoder, notes, section
        self._limit = limit or f"data.max_prompt_tokens={data.max_prompt_tokens}"
        self.chats = 0

    def take(self, passages: Iterable[Passage], most: int | None, name: str) -> list[Prompt]:
        """The first `most` prompts that fit; a DistillSpecError if there is none."""
        passages = iter(passages)
        prompts: list[Prompt] = []
        seen = 0
        left_out: Counter[str | None] = Counter()
        shortest: Passage | None = None
        while most is None or len(prompts) < most:
            # In blocks: passages of code are cut while they are read, and a few may suffice.
            wanted = _BLOCK if most is None else min(_BLOCK, most - len(prompts))
            block = list(islice(passages, wanted))
            if not block:
                break
            seen += len(block)
            # Named in the error if no prompt fits.
            shortest = min([*block, *filter(None, [shortest])], key=lambda p: len(p.prompt))
            fitting = self._tokenised(block)
            prompts += fitting
            keys = {prompt.key for prompt in fitting}
            left_out.update(p.category for p in block if p.key not in keys)
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
        """The prompts of `block` that fit, in its order."""
        prompts: dict[int, Prompt] = {}
        for kinds in (("function-head", "mid-body", "prose"), ("plain",), ("chat",)):
            indices = [i for i, p in enumerate(block) if p.kind in kinds]
            code, prefix = "mid-body" in kinds, "chat" not in kinds  # a template writes a prefix
            texts = [block[i].prompt for i in indices]
            # Code and prose may lose their beginning. Plain text and chats must fit as a whole.
            if code:
                tokens: Sequence[Tokens | None] = self._encoder.tails(
                    texts, self._data.max_prompt_tokens, prefix=prefix, literal=True
                )
            else:
                tokens = self._encoder.wholes(
                    texts, self._data.max_prompt_tokens, prefix=prefix, literal=False
                )
            # Responses need the prompts' tokens, so only prompts that fit are passed on.
            fitting = [
                (i, PromptText(block[i].prompt, ids, literal=code))
                for i, ids in zip(indices, tokens, strict=True)
                if ids
            ]
            # A template has already written the end of a chat's turn.
            end = None if "chat" in kinds else self._encoder.end
            responses = self._responses(
                [(text, block[i].response) for i, text in fitting], end=end, literal=code
            )
            for (i, text), response in zip(fitting, responses, strict=True):
                passage = block[i]
                prompts[i] = Prompt(
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
        return [prompts[i] for i in sorted(prompts)]

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
                fix="add rows or files (of code: with function bodies), or change "
                "data.held_out_percent or data.held_out, since held-out prompts are not trained on",
            )
        key, is_set, _ = self._limit.partition("=")
        raised = f"raise {key} (if the models' context allows), or " if is_set else ""
        return DistillSpecError(
            f"every {name} prompt is longer than {self._data.max_prompt_tokens} tokens; the "
            f"shortest has {self._encoder.length(shortest.prompt)}",
            where=self._limit,
            fix=f"{raised}shorten the rows",
        )


def _of(left_out: Mapping[str | None, int]) -> str:
    """The number of each category in words, where there are categories."""
    parts = [f"{name or 'none'} {count}" for name, count in left_out.items()]
    return f" ({', '.join(parts)})" if any(left_out) else ""
