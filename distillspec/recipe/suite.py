"""What an evaluation is: methods, drafts, prompts, and the grid they are measured on."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.choosing import EXP3Config, HedgeConfig, UCBConfig
from distillspec.recipe.methods import DraftName, Gamma, MethodConfig, NoDraftConfig
from distillspec.recipe.prompt_plan import PromptsConfig, PromptSource
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import SCHEMA_VERSION, FolderName, SchemaVersion, Section, Tokens
from distillspec.recipe.temperature import Temperature
from distillspec.text.nearest import nearest

SourceKind = Literal[
    "python-source",
    "cpp-source",
    "chat-topics",
    "jsonl",
    "hub",
    "python-topics",
    "adversarial",
]


class RunnerConfig(Section):
    kind: Literal["eager", "compiled"] = Field(
        "compiled",
        description="compiled: fixed shapes and torch.compile, or eager where no compiler is found",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="weights while decoding; auto: bfloat16 where it is faster"
    )


class Suite(Section):
    schema_version: SchemaVersion = SCHEMA_VERSION
    name: FolderName = Field(
        "", description="names the evaluation folder; default: the file's name"
    )
    seed: int = Field(0, ge=0, lt=2**32)
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    drafts: tuple[DraftName, ...] = Field(
        ("undistilled", "distilled", "control"),
        description="drafts that every method is measured with, except methods that name another",
    )
    methods: tuple[MethodConfig, ...] = Field((MethodConfig(),), min_length=1)
    gammas: tuple[Gamma, ...] = Field((2, 4, 6), min_length=1, description="block sizes, tokens")
    temperatures: tuple[Temperature, ...] = Field(
        (0.0, 1.0), min_length=1, description="temperatures to decode at; 0 is greedy"
    )
    top_k: Tokens | None = Field(
        None, description="sample from this many most probable tokens; default: all"
    )
    nucleus: Annotated[float, Field(gt=0.0, le=1.0)] | None = Field(
        None,
        description="top-p: sample from the smallest set of tokens with this mass; default: all",
    )
    max_new_tokens: Tokens = Field(64, description="tokens decoded per prompt and cell")
    repeats: Annotated[int, Field(ge=1, le=1000)] = Field(
        1, description="times each cell is timed; raise it on a noisy machine"
    )
    confidence: Annotated[float, Field(gt=0.5, lt=1.0)] = Field(
        0.95, description="confidence of an interval, and of all verdicts of a report together"
    )
    runner: RunnerConfig = Field(default_factory=RunnerConfig)
    audit: bool = Field(
        False,
        description="write each round to audit.jsonl; the measured times then include this",
    )
    noise_floor: bool = Field(
        True,
        description="time one cell twice (last gamma, highest temperature), to show how much equal "
        "drafts differ",
    )
    quality: str | None = Field(
        None,
        description="a metric for the `evaluate` library, run on the completions: a path, or a "
        "built-in name",
    )
    quality_on: tuple[SourceKind, ...] | None = Field(
        None,
        min_length=1,
        description="score the completions only if all prompts come from sources of these kinds; "
        "default: any kind. Use it for a metric that fits one kind of text, such as Python code",
    )

    @model_validator(mode="after")
    def _no_repeats(self) -> Self:
        for key in ("drafts", "gammas", "temperatures"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise RefusedError(
                    f"{key} lists a value twice: {list(values)}",
                    keys=[key],
                    fix="list each value once",
                )
        names = [method.name for method in self.methods]
        if len(set(names)) != len(names):
            raise RefusedError(
                f"methods have the same name twice: {names}",
                keys=[
                    f"methods[{i}].name" for i, name in enumerate(names) if names.count(name) > 1
                ],
                fix="give each method a name that no other has",
            )
        for method in self.methods:
            if method.gammas is not None and len(set(method.gammas)) != len(method.gammas):
                raise self._refused(method, "lists a gamma twice", "gammas", "list each gamma once")
            if method.choose is not None:
                self._check_arms(method, method.choose)
            if method.fallback is not None:
                # Raises if the method cannot fall back to it.
                self.baseline(method)
        return self

    @property
    def again_at(self) -> float:
        """The temperature of the cell that is timed a second time."""
        return max(self.temperatures)

    def of(self, method: MethodConfig) -> tuple[int, ...]:
        """The gammas a method is measured at; of one that chooses, its arms' largest.

        Of one that drafts nothing 1, which means nothing there.
        """
        if method.choose is not None:
            return (max(gamma for _, gamma in self.arms(method)),)
        return (1,) if isinstance(method.draft, NoDraftConfig) else method.gammas or self.gammas

    def cells_in_words(self) -> str:
        """Each method with the gammas, or the arms, that it is measured with."""
        return ", ".join(self._in_words(method) for method in self.methods)

    def _in_words(self, method: MethodConfig) -> str:
        if method.choose is not None:
            return (
                f"{method.name} over [{', '.join(f'{a.name}@{g}' for a, g in self.arms(method))}]"
            )
        if isinstance(method.draft, NoDraftConfig):
            return method.name
        return f"{method.name} x gamma {list(self.of(method))}"

    def measured_drafts(self) -> list[str]:
        """Drafts that some method decodes with, where the run has them."""
        named = dict.fromkeys([*self.drafts, *self.named_models()])
        return [
            name for name in named if any(self.measures(name, method) for method in self.methods)
        ]

    def scored_on(self, recipes_prompts: PromptSource) -> Self:
        """The suite without its metric where its prompts are of no kind in `quality_on`.

        recipes_prompts: where prompts come from if the suite brings none.
        """
        kinds = {source.kind for source in self.prompts.named.values()} or {recipes_prompts.kind}
        if self.quality is None or self.quality_on is None or kinds <= set(self.quality_on):
            return self
        return self.model_copy(update={"quality": None})

    @property
    def reach(self) -> int:
        """Positions beyond the text that a round of any method may take."""
        ways = [(method, gamma) for method in self.methods for gamma in self.of(method)]
        # Arms may have gammas that no cell has.
        ways += [arm for method in self.methods if method.choose for arm in self.arms(method)]
        return max(method.reach(gamma) for method, gamma in ways)

    def named_models(self) -> dict[DraftName, str]:
        """Drafts that methods name, each with the first method that does."""
        named: dict[DraftName, str] = {}
        for method in self.methods:
            if method.model is not None:
                named.setdefault(method.model, method.name)
        return named

    def measures(self, draft: str, method: MethodConfig) -> bool:
        """Whether there are cells of this method under this draft."""
        return draft in self.drafts if method.model is None else draft == method.model

    def named(self, name: str) -> MethodConfig:
        """The method of that name, which there must be."""
        return next(method for method in self.methods if method.name == name)

    def arms(self, method: MethodConfig) -> list[tuple[MethodConfig, int]]:
        """What a method that chooses has to choose from."""
        assert method.choose is not None
        return [found for arm in method.choose.arms for found in self._named(method, arm)]

    def _check_arms(
        self, method: MethodConfig, choose: UCBConfig | EXP3Config | HedgeConfig
    ) -> None:
        arms = self.arms(method)
        if len(set(arms)) != len(arms):
            raise self._refused(
                method,
                "lists an arm twice",
                "choose.arms",
                "name each arm once; a name without @ stands for all its gammas",
            )
        if isinstance(choose, UCBConfig) and choose.window and choose.window < len(arms):
            raise self._refused(
                method,
                f"has a window of {choose.window} rounds, which cannot hold {len(arms)} arms",
                "choose.window",
                f"raise the window to at least {len(arms)}, or remove arms",
            )
        own = {arm.name for arm, _ in arms}
        timed = [known for known in self.methods if known.choose is None and known.drafts]
        if choose.reward == "tokens_per_second" and not any(
            known.model is None or known.name in own for known in timed
        ):
            raise self._refused(
                method,
                "has no arm that drafts in one process, and neither has the suite",
                "choose.arms",
                "add {name: standard} to the suite's methods",
                "what an arm can earn is computed from the step times of such a method",
            )
        if isinstance(choose, HedgeConfig):
            self._check_hedge(method, choose, arms)
        if any(arm.verify.kind == "lenient" for arm, _ in arms) and "lossy" not in method.name:
            raise self._refused(
                method,
                "has a lossy arm and must say so in its name",
                "name",
                f"name it 'lossy-{method.name}'",
                "its text does not follow the target's distribution",
            )

    def _check_hedge(
        self, method: MethodConfig, choose: HedgeConfig, arms: list[tuple[MethodConfig, int]]
    ) -> None:
        unknown = [arm for arm, _ in arms if not arm.has_known_rounds]
        if choose.per == "text":
            raise self._refused(
                method,
                "chooses by hedge per text",
                "choose.per",
                "set per: round, or choose by ucb or exp3",
                "hedge learns from rounds",
            )
        if unknown:
            raise self._refused(
                method,
                f"chooses by hedge, which cannot score the arm {unknown[0].name!r}",
                "choose.arms",
                f"leave out {unknown[0].name!r}, or choose by ucb or exp3",
                "hedge scores chains and lookups of fixed length under token verification",
            )

    def lossy_methods(self) -> list[str]:
        """Names of methods that do not keep the target's distribution."""
        return [
            method.name
            for method in self.methods
            if method.verify.kind == "lenient"
            or (method.choose and any(a.verify.kind == "lenient" for a, _ in self.arms(method)))
        ]

    def baseline(self, method: MethodConfig) -> tuple[MethodConfig, int]:
        """The method that this one falls back to."""
        assert method.fallback is not None
        found = self._named(method, method.fallback.baseline)
        if len(found) != 1 or found[0][0].adapts:
            raise self._refused(
                method,
                f"cannot fall back to {method.fallback.baseline!r}",
                "fallback.baseline",
                "name one method that adapts nothing, with its gamma, such as 'standard@4'",
            )
        return found[0]

    def _refused(
        self, method: MethodConfig, what: str, key: str, fix: str, why: str | None = None
    ) -> RefusedError:
        position = next(i for i, known in enumerate(self.methods) if known is method)
        return RefusedError(
            f"method {method.name!r} {what}", keys=[f"methods[{position}].{key}"], fix=fix, why=why
        )

    def _named(self, method: MethodConfig, arm: str) -> list[tuple[MethodConfig, int]]:
        """`name@gamma`, or all gammas of `name`."""
        named = {known.name: known for known in self.methods if known.choose is None}
        name, _, gamma = arm.partition("@")
        key = "choose.arms" if method.choose is not None else "fallback.baseline"
        if name not in named:
            guess = nearest(name, list(named))
            raise self._refused(
                method,
                f"names no method of this suite: {name!r}",
                key,
                f"did you mean {guess!r}?" if guess else f"name one of {', '.join(named)}",
            )
        if gamma and isinstance(named[name].draft, NoDraftConfig):
            raise self._refused(
                method,
                f"gives a gamma to {name!r}, which drafts nothing",
                key,
                f"name it without @{gamma}",
            )
        if gamma and not (gamma.isdigit() and 1 <= int(gamma) <= 64):
            raise self._refused(method, f"names {arm!r}", key, "give a gamma of 1 to 64")
        per_text = method.choose is not None and method.choose.per == "text"
        if named[name].parallel is not None and not per_text:
            raise self._refused(
                method,
                f"names {name!r}, a method of two processes, for single rounds",
                key,
                "set choose.per: text, or name methods of one process",
                "a method of two processes decodes entire texts",
            )
        gammas = (int(gamma),) if gamma else self.of(named[name])
        return [(named[name], size) for size in gammas]
