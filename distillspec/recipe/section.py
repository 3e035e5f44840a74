"""What every part of a recipe or a suite is, and the kinds of numbers in it. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, ClassVar, Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distillspec.recipe.rule import Rule, check_rules

Share = Annotated[float, Field(ge=0.0, le=1.0)]
# Their upper bounds are far above what anybody uses: a slip of the finger is an error at
# once, and not when a library runs out of memory or time.
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Tokens = Annotated[int, Field(ge=1, le=2**24)]  # the length of a text
Rows = Annotated[int, Field(ge=1, le=2**20)]  # texts that are held at one time
Steps = Annotated[int, Field(ge=0, le=1_000_000_000)]
Threads = Annotated[int, Field(ge=1, le=4096)]
Block = Annotated[int, Field(ge=1, le=64)]  # tokens drafted at one time
LearningRate = Annotated[float, Field(gt=0.0, le=10.0)]
WeightDecay = Annotated[float, Field(ge=0.0, le=10.0)]
ClipNorm = Annotated[float, Field(ge=1e-6, le=1e6)]
Minutes = Annotated[float, Field(gt=0.0, le=10_000_000.0)]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]
SCHEMA_VERSION: Final = 2  # of all files; those of 0.1 have none
SchemaVersion = Annotated[
    Literal[2],
    Field(description="version of the keys in this file; files of distillspec 0.1 have none"),
]
FolderName = Annotated[str, Field(pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,99})?$")]


class Part(NamedTuple):
    """Settings that hold at one time.

    Attributes:
        settings: A section.
        key_in_file: The key under which the user sets one of its keys.
    """

    settings: Section
    key_in_file: Callable[[str], str]


class Section(BaseModel):
    """A part of a recipe: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
    rules: ClassVar[tuple[Rule, ...]] = ()  # about its settings, checked in this order

    def parts(self) -> Iterator[Part]:
        """The settings that the rules are about: these, or one set for each part of a training."""
        yield Part(self, lambda key: key)

    @model_validator(mode="after")
    def _check_rules(self) -> Self:
        for part in self.parts():
            check_rules(part.settings, self.rules, part.key_in_file)
        return self
