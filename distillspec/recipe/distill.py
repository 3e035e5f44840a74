"""What is minimised, on which text: the section `distill` of a recipe."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from functools import partial
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from distillspec.recipe.distill_rules import DISTILL
from distillspec.recipe.loss import UNITS, LossUnit, MixConfig, SelectConfig, Term
from distillspec.recipe.phase import OF_PHASE, PhaseConfig
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Block, Count, Minutes, Part, Rows, Section, Tokens
from distillspec.recipe.target_logits import CachedTargetConfig, OnlineTargetConfig, TargetLogits
from distillspec.recipe.temperature import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from distillspec.recipe.text_source import Origin, ReplayConfig, SourceShares, SpeculativeConfig


class ProbeConfig(Section):
    every_steps: Count = Field(
        50, description="steps between two probes; the first ones are after 1/4 and 1/2 of them"
    )
    prompts: Rows = Field(16, description="held-out prompts probed")
    gamma: Block = Field(4, description="block size of the expected tau, tokens")
    max_new_tokens: Tokens = Field(48, description="tokens of the target's answer to each prompt")


class DistillConfig(Section):
    rules = DISTILL

    divergence: Term | Literal["mix"] = Field(
        "jsd",
        description="loss per response token; nll needs no target; mix: see mix. Default: see "
        "schedule; jsd if only the source is given, nll with an endpoint",
    )
    mix: MixConfig | None = Field(
        None, description="the losses and their weights; with divergence: mix"
    )
    jsd_weight: float = Field(0.5, gt=0.0, lt=1.0, description="beta of JSD[beta]; jsd only")
    lk_eta: float = Field(
        3.0, ge=0.0, le=1e6, description="eta of LK-lambda, whose share of KL is exp(-eta alpha)"
    )
    block_gamma: Annotated[int, Field(ge=1, le=64)] = Field(
        4, description="block size that block_efficiency is the loss of, tokens"
    )
    block_form: Literal["overlap", "drawn"] = Field(
        "overlap",
        description="factors of block_efficiency along a text. overlap: alpha, an approximation "
        "on any text. drawn: min(1, q / p) of its tokens, unbiased on text of the target, noisier",
    )
    select: SelectConfig | None = Field(
        None, description="learn from the most useful tokens only (AdaSPEC)"
    )
    source: SourceShares = Field(
        default_factory=lambda: SourceShares(target=1.0),
        description="where responses come from. Default: {target: 1.0}; draft or fixed text where "
        "the target cannot write it, or the loss needs it",
    )
    schedule: tuple[PhaseConfig, ...] = Field(
        (),
        description="phases of the training, one after the other, each with its objective, source "
        "and target logits; their shares add up to 1. Default, if neither divergence nor source is "
        "given: forward_kl until alpha is 0.65, for at most 60 %, then jsd, last on text of both",
    )
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
    speculative: SpeculativeConfig = Field(default_factory=SpeculativeConfig)
    target_logits: TargetLogits = Field(
        default_factory=lambda: OnlineTargetConfig(kind="online"),
        description="where the target's logits come from. online: its forward now. cached: stored "
        "top-k logits, to train on the same text more than once. Default: cached if max_steps * "
        "batch_size reads each of data.max_prompts texts twice or more, and the loss allows it",
    )
    temperature: float = Field(
        1.0,
        ge=LOWEST_TEMPERATURE,
        le=HIGHEST_TEMPERATURE,
        description="temperature of sampling and of both distributions in the loss, 1e-5 to 4; use "
        "the one of your traffic",
    )
    on_prompts: bool = Field(
        False,
        description="also learn from the tokens of prompts; use it for plain text, not for chats",
    )
    reduction: Literal["tokens", "sequences"] = Field(
        "tokens", description="mean over the tokens in the loss, or mean of the means per sequence"
    )
    batch_size: Rows = Field(32, description="sequences per optimizer step, over all processes")
    micro_batch_size: Rows | None = Field(
        None,
        description="sequences per forward and process; lower it to save memory; default: "
        "batch_size / processes",
    )
    max_steps: Count = Field(1000, description="optimizer steps")
    max_minutes: Minutes | None = Field(
        None,
        description="stop after this many minutes of training, if that is before max_steps",
    )
    chunk_tokens: Tokens = Field(
        1024,
        description="response tokens whose logits exist at one time; lower it to save memory",
    )
    packing: Tokens | None = Field(
        None,
        description="pack several texts into rows of this many tokens, against padding; texts do "
        "not see each other. The model must take a custom attention mask",
    )
    bucket_steps: Count = Field(
        1,
        description="sort the sequences of this many steps by length, then shuffle the steps; more "
        "means less padding and less mixing",
    )
    checkpoint_every_steps: Count = Field(100, description="steps between two resumable states")
    checkpoint_every_minutes: Minutes = Field(
        10.0,
        description="largest time between two resumable states, minutes; for long steps",
    )
    probe: ProbeConfig = Field(default_factory=ProbeConfig)

    @property
    def phases(self) -> tuple[DistillConfig, ...]:
        """The settings of each part of the schedule; these settings where there is no schedule."""
        if not self.schedule:
            return (self,)
        return tuple(
            self.model_copy(update={**phase.settings, "schedule": ()}) for phase in self.schedule
        )

    @property
    def phase_shares(self) -> tuple[float, ...]:
        """The share of the run of each of the `phases`."""
        return tuple(phase.share for phase in self.schedule) or (1.0,)

    def parts(self) -> Iterator[Part]:
        for number, (given, phase) in enumerate(zip(self.schedule, self.phases, strict=False)):
            yield Part(phase, partial(_key_in_phase, number, given.settings.keys()))
        if not self.schedule:
            yield from super().parts()

    @property
    def origins(self) -> dict[Origin, float]:
        """The share of each origin in the text of the entire run."""
        return _weighted(self.phase_shares, [phase.source.of for phase in self.phases])

    @property
    def stored(self) -> dict[Origin, float]:
        """The shares of text that is there before training, in the text of the entire run."""
        return _weighted(self.phase_shares, [phase.source.stored for phase in self.phases])

    @property
    def terms(self) -> dict[Term, float]:
        """Weight of each loss."""
        return {self.divergence: 1.0} if self.divergence != "mix" else self._mixed().terms

    def _mixed(self) -> MixConfig:
        assert self.mix is not None, "the validator has seen to it"
        return self.mix

    @property
    def loss_in_words(self) -> str:
        """What is minimised: `0.7 forward kl + 0.3 nll`, or `forward kl (60%), then ...`."""
        if not self.schedule:
            return self._loss_in_words
        return ", then ".join(
            f"{phase._loss_in_words} ({length})"
            for phase, length in zip(self.phases, self.phase_lengths_in_words, strict=True)
        )

    @property
    def phase_lengths_in_words(self) -> tuple[str, ...]:
        """How long each phase lasts, such as `60%` or `until alpha is 0.65, at most 60%`."""
        return tuple(
            f"{phase.share:.0%}"
            if phase.until_alpha is None
            else f"until alpha is {phase.until_alpha:g}, at most {phase.share:.0%}"
            for phase in self.schedule
        )

    @property
    def _loss_in_words(self) -> str:
        details = {
            "jsd": f"[{self.jsd_weight:g}]",
            "lk_lambda": f"[{self.lk_eta:g}]",
            "block_efficiency": f"@{self.block_gamma}"
            + (" of drawn tokens" if self.block_form == "drawn" else ""),
        }
        words = [
            f"{'' if weight == 1.0 else f'{weight:g} '}{name.replace('_', ' ')}"
            f"{details.get(name, '')}"
            for name, weight in self.terms.items()
        ]
        part = f" of the {self.select.keep:.0%} most learnable tokens" if self.select else ""
        return " + ".join(words) + part

    @property
    def loss_unit(self) -> LossUnit:
        """Of the loss at a token; empty where it is dimensionless, or a sum of several units."""
        units = {UNITS[name] for name in self.terms}
        return units.pop() if len(units) == 1 else ""

    @property
    def cached_logits(self) -> CachedTargetConfig | None:
        """How the target's distributions are kept, where any part of the training reads them."""
        kept = (phase.target_logits for phase in self.phases)
        return next((logits for logits in kept if isinstance(logits, CachedTargetConfig)), None)

    @property
    def cached_logits_caveat(self) -> str | None:
        """A warning about cached logits under this loss; None where there is none."""
        if not any(phase.cached_logits and "reverse_kl" in phase.terms for phase in self.phases):
            return None
        return (
            "reverse_kl hangs on how the target spreads the mass of the rest, which is not kept: "
            "of the loss and its gradient a large part is missing at any small k "
            "(docs/explanation/earlier-measurements.md); forward_kl, jsd and tvd are served well"
        )

    @property
    def needs_target(self) -> bool:
        """Whether training needs the target: for its loss, or to write text during training."""
        return any(phase._needs_target for phase in self.phases)

    @property
    def _needs_target(self) -> bool:
        source = self.source
        writes = source.speculative > 0 or (source.per == "token" and source.target > 0)
        # The cache has the target's distributions over stored text, and no others.
        reads = self.reads_target and (self.cached_logits is None or source.of != source.stored)
        return reads or writes

    @property
    def reads_target(self) -> bool:
        """Whether any loss, or the selection, reads the target's distribution."""
        return any(set(phase.terms) != {"nll"} or phase.select for phase in self.phases)

    @property
    def reads_whole_steps(self) -> bool:
        """Whether a token's weight depends on all tokens of its step: then two passes are made."""
        return "tvd_plus" in self.terms or self.select is not None

    @model_validator(mode="after")
    def _schedule_fits(self) -> Self:
        total = sum(self.phase_shares)
        if abs(total - 1.0) > 1e-6:
            raise RefusedError(
                f"the shares of distill.schedule must add up to 1, not {total:g}",
                keys=["schedule"],
                fix="change the shares, such as 0.6 and 0.4",
            )
        for number, phase in enumerate(self.schedule):
            if phase.share * self.max_steps < 1.0:
                raise RefusedError(
                    f"phase {number} of distill.schedule has {phase.share:g} of {self.max_steps} "
                    "steps, which is less than one",
                    keys=[f"schedule.{number}.share", "max_steps"],
                    fix="raise its share or max_steps, or remove the phase",
                )
        self._check_ends()
        self._check_unread()
        kept = [phase.cached_logits for phase in self.phases if phase.cached_logits]
        if any(logits != kept[0] for logits in kept):
            raise RefusedError(
                "the parts of distill.schedule cache the target's logits in different ways",
                keys=["schedule"],
                fix="give all of them the same k, dtype and store",
                why="all parts read one cache",
            )
        return self

    def _check_ends(self) -> None:
        last = len(self.schedule) - 1
        for name in ("until_alpha", "patience"):
            if self.schedule and getattr(self.schedule[last], name) is not None:
                raise RefusedError(
                    f"the last phase of distill.schedule has {name}, and no phase follows it",
                    keys=[f"schedule.{last}.{name}"],
                    fix=f"remove {name}, or add a phase",
                )

    def _check_unread(self) -> None:
        """Refuse a setting that every phase replaces, so that a change of it is not lost."""
        for name in self.model_fields_set & set(OF_PHASE):
            phases = [getattr(phase, name) for phase in self.schedule]
            if phases and None not in phases and getattr(self, name) != phases[-1]:
                raise RefusedError(
                    f"distill.{name} has no effect: every phase of distill.schedule sets it",
                    keys=[name, "schedule"],
                    fix="change it in the phases, or set distill.schedule: []",
                )


def _key_in_phase(number: int, given: Set[str], key: str) -> str:
    return f"schedule.{number}.{key}" if key.partition(".")[0] in given else key


def _weighted(
    weights: Iterable[float], shares: Iterable[dict[Origin, float]]
) -> dict[Origin, float]:
    """The sum of shares, each times its weight."""
    total: dict[Origin, float] = {}
    for weight, of in zip(weights, shares, strict=True):
        for origin, share in of.items():
            total[origin] = total.get(origin, 0.0) + weight * share
    return total
