"""Which prompts a suite measures on: the recipe's, those of one source, or a mixture of several."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.data import ChatTopicsSource, CodeSource, HubSource, JsonlSource
from distillspec.recipe.data_rules import PROMPTS
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Rows, Section, Tokens


class PythonTopicsSource(Section):
    """English prose that is on every machine: the language reference that Python's help shows."""

    kind: Literal["python-topics"]
    prompts_per_topic: Rows = Field(4, description="prompts cut from one topic, at paragraphs")


Shape = Literal["random", "repeated", "short", "long"]


class AdversarialSource(Section):
    """Prompts that no draft was trained on, made from the seed."""

    kind: Literal["adversarial"]
    shapes: tuple[Shape, ...] = Field(
        ("random", "repeated", "short", "long"),
        min_length=1,
        description="random: tokens drawn evenly from the vocabulary; repeated: few tokens again "
        "and again; short: two tokens; long: prose that fills the limit",
    )
    tokens: Annotated[int, Field(ge=2, le=2**20)] = Field(
        64, description="length of random and repeated"
    )
    prompts: Rows = Field(256, description="prompts made, the shapes in turn")

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        if len(set(self.shapes)) != len(self.shapes):
            raise RefusedError(
                f"shapes lists a value twice: {list(self.shapes)}",
                keys=["shapes"],
                fix="list each value once",
            )
        return self


PromptSource = Annotated[
    CodeSource
    | JsonlSource
    | HubSource
    | ChatTopicsSource
    | PythonTopicsSource
    | AdversarialSource,
    Field(discriminator="kind"),
]


class PromptsConfig(Section):
    rules = PROMPTS

    count: Rows = Field(32, description="prompts per cell")
    texts: Rows | None = Field(
        None,
        description="prompts that the target continues, in batches, to read alpha and the expected "
        "tau on; default: count. Cheaper than decoding, so this can be the larger number",
    )
    source: PromptSource | None = Field(None, description="default: the recipe's held-out prompts")
    sources: dict[str, PromptSource] = Field(
        {},
        description="several sources by names of your own, in place of `source`: each gives an "
        "equal part of the prompts, and its name is their category",
    )
    order: Literal["in-turn", "alternating"] = Field(
        "in-turn",
        description="in-turn: all prompts of the first source, then all of the next: traffic that "
        "changes. alternating: one of each",
    )
    max_tokens: Tokens | None = Field(
        None,
        description="longest prompt of `source` and `sources`, as far as the models' contexts "
        "allow; default: the recipe's data.max_prompt_tokens",
    )

    @property
    def read(self) -> int:
        """Prompts that alpha and the expected tau are read on."""
        return self.texts or self.count

    @property
    def most(self) -> int:
        """Prompts that the suite needs for everything."""
        return max(self.count, self.read)

    @property
    def named(self) -> dict[str, PromptSource]:
        """What the suite brings, by the key it stands under; nothing: the recipe's prompts."""
        if self.source is not None:
            return {"prompts.source": self.source}
        return {f"prompts.sources.{name}": source for name, source in self.sources.items()}
