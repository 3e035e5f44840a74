"""What is compared: variants of one recipe, at equal cost, measured on the same texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.prompt_plan import PromptSource
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import (
    SCHEMA_VERSION,
    Count,
    FolderName,
    Minutes,
    Rows,
    SchemaVersion,
    Section,
    Tokens,
)

VariantName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*$")]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, lt=2**32)], ...], Field(min_length=1)]

# The row of the draft that all begin with.
UNDISTILLED = "undistilled"
# Stands for the draft that another variant has made, with the same seed.
OF_VARIANT = "variant:"


class FinalsConfig(Section):
    """The best variants once more, longer."""

    count: Count = Field(3, description="variants that are trained again, by their tau")
    minutes: Minutes = Field(description="training of each run")
    seeds: Seeds


class ComparisonConfig(Section):
    schema_version: SchemaVersion = SCHEMA_VERSION
    kind: Literal["comparison"]
    name: FolderName = Field("", description="names the folder; default: the file's name")
    recipe: str = Field(description="the recipe that all variants change")
    changes: dict[str, Any] = Field(
        {}, description="of every run, as on the command line: {optimizer.learning_rate: 1.0e-3}"
    )
    variants: dict[VariantName, dict[str, Any]] = Field(
        description="name -> what it changes: {tvd: {distill.divergence: tvd}}. A value "
        "`variant:NAME` is the folder of the draft which that variant has made; what making it "
        "took is not counted here",
        min_length=1,
    )
    baseline: str | None = Field(
        None, description="variant that the others are compared with; default: the first"
    )
    minutes: Minutes = Field(description="training of each run, probes and checkpoints not counted")
    seeds: Seeds = Field((0,), description="a run for each: order of the data, sampling, dropout")
    counts_stored_text: bool | Literal["logits"] = Field(
        True,
        description="sampling the target's stored responses, and caching its logits, are part of "
        "the minutes of the variants that read them, in full, as if each had its own. logits: only "
        "caching is, where all variants read the same responses",
    )
    finals: FinalsConfig | None = None
    texts: Rows = Field(128, description="held-out prompts that the target continues")
    elsewhere: dict[VariantName, PromptSource] = Field(
        {}, description="other kinds of prompts that each draft is measured on, as many"
    )
    gamma: Annotated[int, Field(ge=1, le=64)] = Field(4, description="block size of tau, tokens")
    max_new_tokens: Tokens = Field(64, description="tokens of each text")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95

    @property
    def against(self) -> str:
        """The variant that the others are compared with."""
        return self.baseline or next(iter(self.variants))

    def changes_of(self, variant: str) -> dict[str, Any]:
        """All that differs from the recipe."""
        return self.changes | self.variants[variant]

    def needs(self, variant: str) -> list[str]:
        """Variants whose drafts this one reads."""
        found: list[str] = []
        _look(self.changes_of(variant), found)
        return found

    @model_validator(mode="after")
    def _names_variants(self) -> Self:
        if self.against not in self.variants:
            raise RefusedError(
                f"baseline {self.against!r} is no variant",
                keys=["baseline"],
                fix=f"name one of {', '.join(self.variants)}",
            )
        if UNDISTILLED in self.variants:
            raise RefusedError(
                f"a variant is called {UNDISTILLED}",
                keys=[f"variants.{UNDISTILLED}"],
                fix="give it another name",
                why="the row of the draft that all variants begin with has this name",
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise RefusedError(
                f"seeds lists a value twice: {list(self.seeds)}",
                keys=["seeds"],
                fix="list each seed once",
            )
        return self

    @model_validator(mode="after")
    def _reads_earlier_variants(self) -> Self:
        earlier: list[str] = []
        for name in self.variants:
            for needed in self.needs(name):
                if needed not in earlier:
                    raise RefusedError(
                        f"variant {name!r} reads the draft of {needed!r}, which is not above it",
                        keys=[f"variants.{name}"],
                        fix=f"name one of the variants above it: {', '.join(earlier)}"
                        if earlier
                        else f"move {needed!r} above it",
                        why="variants are trained in their order",
                    )
            earlier.append(name)
        return self

    @model_validator(mode="after")
    def _changes_no_cost(self) -> Self:
        fixed = {"name", "seed", "distill.max_minutes", "distill.max_steps"}
        for name in self.variants:
            taken = fixed & self.changes_of(name).keys()
            if taken:
                section = "changes" if min(taken) in self.changes else f"variants.{name}"
                raise RefusedError(
                    f"variant {name!r} sets {min(taken)}, which the comparison sets itself",
                    keys=[f"{section}.{min(taken)}"],
                    fix="remove it; set minutes and seeds of the comparison",
                    why="variants are compared at equal cost",
                )
        return self


def _look(value: Any, found: list[str]) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _look(inner, found)
    elif isinstance(value, str) and value.startswith(OF_VARIANT):
        found.append(value.removeprefix(OF_VARIANT))
