"""What is compared: variants of one recipe, at equal cost, measured on the same texts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.prompt_plan import PromptSource
from distillspec.recipe.section import Count, FolderName, Minutes, Rows, Section, Tokens

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
    counts_stored_text: bool = Field(
        True,
        description="sampling the target's stored responses, and caching its signal, are part of "
        "the minutes of the variants that read them, in full, as if each had its own",
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
            raise ValueError(f"baseline is no variant: there are {', '.join(self.variants)}")
        if UNDISTILLED in self.variants:
            raise ValueError(
                f"a variant is called {UNDISTILLED}, as the row of the draft that all begin with: "
                "give it another name"
            )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds lists one twice: {list(self.seeds)}")
        earlier: list[str] = []
        for name in self.variants:
            for needed in self.needs(name):
                if needed not in earlier:
                    raise ValueError(
                        f"variant {name!r} reads the draft of {needed!r}, which stands before it "
                        "nowhere: name one of the variants above it"
                    )
            earlier.append(name)
        fixed = {"name", "seed", "distill.max_minutes", "distill.max_steps"}
        for name in self.variants:
            taken = fixed & self.changes_of(name).keys()
            if taken:
                raise ValueError(
                    f"variant {name!r} sets {min(taken)}, which the comparison sets itself: see "
                    "minutes and seeds"
                )
        return self


def _look(value: Any, found: list[str]) -> None:
    if isinstance(value, dict):
        for one in value.values():
            _look(one, found)
    elif isinstance(value, str) and value.startswith(OF_VARIANT):
        found.append(value.removeprefix(OF_VARIANT))
