"""Where text comes from: the section `data` of a recipe, and the sources of prompts."""

from __future__ import annotations

from datetime import date as Date
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from distillspec.recipe.data_rules import ROWS
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Count, Rows, Section, Tokens

TEMPLATE_DATE = Date(2026, 1, 1)
_NO_VARIABLES = ("tokenize", "chat_template", "add_generation_prompt", "continue_final_message")


def reserved_variables(variables: dict[str, JsonValue]) -> list[str]:
    """Names among a chat template's variables that are not for users to set."""
    return sorted(variables.keys() & set(_NO_VARIABLES))


class PythonSource(Section):
    """Python code that is on every machine which has installed the project."""

    kind: Literal["python-source"]
    standard_library: bool = Field(False, description="take the interpreter's own library")
    packages: tuple[str, ...] = Field((), description="installed packages to take")
    include: tuple[str, ...] = Field(
        ("**/*.py",), description="globs a file must match, relative to its package"
    )
    exclude: tuple[str, ...] = Field((), description="globs of files to leave out")
    prompts_per_file: Rows = Field(4, description="prompts cut from one file (seeded positions)")

    @property
    def in_words(self) -> str:
        """The language, and whose code it is."""
        names = [*(["the standard library"] if self.standard_library else []), *self.packages]
        return f"Python code of {', '.join(names)}"

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.standard_library and not self.packages:
            raise RefusedError(
                "the source of kind python-source names no code",
                keys=["standard_library", "packages"],
                fix="set standard_library: true, or list packages",
            )
        return self


class CppSource(Section):
    """C++ headers and sources that installed packages bring along."""

    kind: Literal["cpp-source"]
    packages: tuple[str, ...] = Field(min_length=1, description="installed packages to take")
    include: tuple[str, ...] = Field(
        ("**/*",), description="globs a file must match, relative to its package"
    )
    exclude: tuple[str, ...] = Field((), description="globs of files to leave out")
    prompts_per_file: Rows = Field(4, description="prompts cut from one file (seeded positions)")

    @property
    def in_words(self) -> str:
        """The language, and whose code it is."""
        return f"C++ code of {', '.join(self.packages)}"


CodeSource = PythonSource | CppSource


class _Rows(Section):
    """What a row of a data set is read by; `a.b` and `a.0` name a field inside another one."""

    rules = ROWS

    prompt: str = Field(
        "prompt",
        description="field of the prompt text; rows without `prompt` are read by `question` and "
        "`answer`",
    )
    before: str = Field(
        "", description="text that stands before every prompt, but not before chats: 'summarize: '"
    )
    after: str = Field(
        "", description="text that stands behind every prompt, but not behind chats: '\\nAnswer:'"
    )
    after_words: Tokens | None = Field(
        None,
        description="use this many first words of a plain text as the prompt, and the rest as the "
        "response; shorter texts are left out",
    )
    response: str = Field("response", description="field of the response text, where there is one")
    messages: str = Field("messages", description="field of a chat; the target's template is used")
    tools: str = Field("tools", description="field of the tools that a chat may call")
    turns: str | None = Field(
        None,
        description="field of a list of user turns, in place of a prompt: the first one is asked. "
        "Later ones would need answers of the target's own",
    )
    category: str | None = Field(None, description="field of what a row is about, for the report")
    document: str | None = Field(
        None,
        description="field of the file, conversation or question that a row is a part of: rows "
        "with one value are held out together, and intervals are over these; default: each row "
        "stands alone",
    )
    merge: dict[str, str] = Field(
        {}, description="categories that are counted as another: {writing: mt_bench}"
    )
    as_chat: Literal["never", "if-template"] = Field(
        "never",
        description="if-template: a prompt is asked as a user's message where the target's "
        "tokenizer has a chat template, and is plain text where it has none",
    )


class JsonlSource(_Rows):
    """One JSON object a line, with `prompt` (and `response`), `turns`, or `messages`."""

    kind: Literal["jsonl"]
    path: str = Field(description="the file, relative to the working folder")


class HubSource(_Rows):
    """A data set of the Hugging Face Hub, or a local folder that `datasets` can load."""

    kind: Literal["hub"]
    dataset: str = Field(description="Hub id or folder; `json` with files that are none of both")
    configuration: str | None = Field(None, description="the data set's configuration name")
    files: tuple[str, ...] = Field((), description="files of the data set, or addresses, to take")
    split: str = Field("train", description="split to take")
    revision: str | None = Field(None, description="Hub revision")
    path: str | None = Field(
        None, description="a JSONL file with the same fields that is read in its place: no network"
    )

    @property
    def local(self) -> JsonlSource | None:
        """The file that stands in for the data set, read by the same fields."""
        if self.path is None:
            return None
        shared = {name: getattr(self, name) for name in _Rows.model_fields}
        return JsonlSource(kind="jsonl", path=self.path, **shared)


class ChatTopicsSource(Section):
    """Chat instructions that come with the project: questions about some 440 subjects."""

    kind: Literal["chat-topics"]
    prompts_per_subject: Rows = Field(8, description="questions asked about one subject")


CorpusSource = Annotated[CodeSource | JsonlSource | HubSource, Field(discriminator="kind")]
Source = Annotated[
    CodeSource | JsonlSource | HubSource | ChatTopicsSource, Field(discriminator="kind")
]


class DataConfig(Section):
    source: Source
    held_out: Source | None = Field(
        None, description="prompts for probe and evaluation; default: a held-out part of `source`"
    )
    held_out_percent: float = Field(
        3.0, gt=0.0, lt=100.0, description="percent of files or rows held out, by a hash of the key"
    )
    max_prompt_tokens: Tokens = Field(
        512,
        description="longer prompts of code lose their beginning, longer rows are left out",
    )
    max_response_tokens: Tokens = Field(256, description="responses are cut here, tokens")
    max_prompts: Count | None = Field(None, description="use at most this many training prompts")
    store: str = Field(
        "data/responses",
        description="folder of stored target responses, which recipes with the same request share",
    )
    preview: int = Field(
        2, ge=0, le=10_000, description="rows that are printed with their loss mask before training"
    )
    template_variables: dict[str, JsonValue] = Field(
        {},
        description="what the chat template reads besides the messages: {enable_thinking: false}",
    )
    template_date: Date = Field(
        TEMPLATE_DATE,
        description="the day, as 2026-01-01, that a chat template takes for today; it never reads "
        "the clock, so that prompts stay the same",
    )

    @model_validator(mode="after")
    def _leaves_the_prompt_to_us(self) -> Self:
        taken = reserved_variables(self.template_variables)
        if taken:
            raise RefusedError(
                f"template_variables may not hold '{taken[0]}'",
                keys=[f"template_variables.{taken[0]}"],
                fix="remove it",
                why="prompts end where the model is to speak",
            )
        return self

    @property
    def held_out_source(self) -> Source:
        """Where prompts for probe and evaluation come from."""
        return self.held_out or self.source
