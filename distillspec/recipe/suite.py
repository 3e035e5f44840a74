"""What an evaluation is: methods, drafts, prompts, and the grid they are measured on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.schema import Count, FolderName, Section, Source

DraftName = Literal["undistilled", "distilled", "control"]


class ChainDraft(Section):
    kind: Literal["chain"] = "chain"


class FixedStop(Section):
    kind: Literal["fixed"] = "fixed"


class TokenVerify(Section):
    kind: Literal["token"] = "token"


class Method(Section):
    """A decoding method as data: what drafts, when it stops, what verifies."""

    name: str = "standard"
    draft: ChainDraft = Field(default_factory=ChainDraft)
    stop: FixedStop = Field(default_factory=FixedStop)
    verify: TokenVerify = Field(default_factory=TokenVerify)


class RunnerChoice(Section):
    kind: Literal["eager", "compiled"] = Field(
        "compiled", description="compiled: fixed shapes, torch.compile; eager where no compiler is"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="weights while decoding; auto: bfloat16 where it is faster"
    )


class PromptPlan(Section):
    count: Count = Field(32, description="prompts per cell")
    texts: Count | None = Field(
        None,
        description="prompts that the target continues, in batches, to read alpha and the expected "
        "tau on; default: count. Cheaper than decoding, so this can be the larger number",
    )
    source: Source | None = Field(None, description="default: the recipe's held-out prompts")

    @property
    def read(self) -> int:
        """Prompts that alpha and the expected tau are read on."""
        return self.texts or self.count

    @property
    def most(self) -> int:
        """Prompts that the suite needs for everything."""
        return max(self.count, self.read)


class Suite(Section):
    name: FolderName = Field(
        "", description="names the evaluation folder; default: the file's name"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    prompts: PromptPlan = Field(default_factory=PromptPlan)
    drafts: tuple[DraftName, ...] = ("undistilled", "distilled", "control")
    methods: tuple[Method, ...] = Field((Method(),), min_length=1)
    gammas: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(
        (2, 4, 6), min_length=1, description="block sizes, tokens"
    )
    temperatures: tuple[Annotated[float, Field(ge=0.0, le=4.0)], ...] = Field(
        (0.0, 1.0), min_length=1
    )
    top_k: Count | None = None
    nucleus: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None, description="top-p: smallest set with this mass"
    )
    max_new_tokens: Count = Field(64, description="tokens decoded per prompt and cell")
    repeats: Count = Field(1, description="times each cell is timed")
    bootstrap: Annotated[int, Field(ge=100)] = Field(2000, description="resamples of an interval")
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = 0.95
    runner: RunnerChoice = Field(default_factory=RunnerChoice)
    quality: str | None = Field(
        None, description="path of a metric for the `evaluate` library, run on the completions"
    )

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for key in ("drafts", "gammas", "temperatures"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key} lists a value twice: {list(values)}")
        names = [method.name for method in self.methods]
        if len(set(names)) != len(names):
            raise ValueError(f"methods have the same name twice: {names}")
        return self
