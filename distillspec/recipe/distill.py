"""What is minimised, on which text: the section `distill` of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from distillspec.recipe.distill_rules import DISTILL, SOURCE
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Block, Count, Minutes, Rows, Section, Share, Tokens
from distillspec.recipe.temperature import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE

Origin = Literal["fixed", "target", "draft", "speculative", "replay"]


class SourceShares(Section):
    """Where responses come from; the shares add up to 1."""

    rules = SOURCE

    fixed: Share = Field(0.0, description="the data set's own responses")
    target: Share = Field(
        0.0, description="sampled from the target once, stored; with per: token, now"
    )
    draft: Share = Field(0.0, description="sampled now from the draft's current weights")
    speculative: Share = Field(
        0.0,
        description="sampled from the target now, by speculative decoding with the draft's "
        "current weights; set it up in distill.speculative",
    )
    replay: Share = Field(
        0.0, description="draft or speculative responses of earlier steps: see distill.replay"
    )
    per: Literal["sequence", "batch", "token"] = Field(
        "sequence",
        description="what the shares divide: the sequences of each batch, entire batches, or "
        "the tokens of each sequence, which draft and target then write by turns",
    )

    @property
    def of(self) -> dict[Origin, float]:
        """The shares that are not 0."""
        shares = {origin: float(getattr(self, origin)) for origin in get_args(Origin)}
        return {origin: share for origin, share in shares.items() if share > 0.0}

    @property
    def stored(self) -> dict[Origin, float]:
        """The shares of text that is there before training."""
        origins: tuple[Origin, ...] = ("fixed",) if self.per == "token" else ("fixed", "target")
        return {origin: share for origin, share in self.of.items() if origin in origins}

    @property
    def is_drafts(self) -> bool:
        """Whether the draft as it is now has drawn every token."""
        return set(self.of) == {"draft"}

    @model_validator(mode="after")
    def _add_up(self) -> Self:
        total = sum(self.of.values())
        if abs(total - 1.0) > 1e-6:
            raise RefusedError(
                f"the shares {' + '.join(get_args(Origin))} must add up to 1, not {total:g}",
                keys=[],
                fix="change the shares, such as {draft: 0.5, target: 0.5}",
            )
        return self


class ReplayConfig(Section):
    """A ring of the latest responses that were written during training."""

    sequences: Rows = Field(256, description="responses kept for replay, over all processes")
    max_age: Count = Field(
        20,
        description="largest age of a replayed response, optimizer steps; new ones are written "
        "where all are older",
    )


class SpeculativeConfig(Section):
    """Training text by speculative decoding: it follows the target's distribution."""

    gamma: Annotated[int, Field(ge=1, le=16)] = Field(4, description="tokens drafted a round")
    rejected: bool = Field(
        False,
        description="learn at every drafted position, also after a rejected token, weighed by the "
        "probability that a round reaches it; this estimates the loss on the text with less noise",
    )


class ProbeConfig(Section):
    every_steps: Count = Field(50, description="steps between two probes")
    prompts: Rows = Field(16, description="held-out prompts probed")
    gamma: Block = Field(4, description="block size of the decoded tau, tokens")
    max_new_tokens: Tokens = Field(48, description="tokens decoded per prompt")


Term = Literal[
    "forward_kl",
    "reverse_kl",
    "jsd",
    "tvd",
    "lk_alpha",
    "lk_lambda",
    "tvd_plus",
    "block_efficiency",
    "nll",
]


LossUnit = Literal["nats", "tokens", ""]
_UNITS: dict[Term, LossUnit] = {
    "forward_kl": "nats",
    "reverse_kl": "nats",
    "jsd": "nats",
    "tvd": "",
    "lk_alpha": "nats",
    "lk_lambda": "",  # nats and a distance, mixed by alpha
    "tvd_plus": "",  # nats times an advantage without unit, whose mean over a step is 0
    "block_efficiency": "tokens",
    "nll": "nats",
}

_Weight = Annotated[float, Field(gt=0.0, le=1e6)]


class MixConfig(Section):
    """Weight of each loss in their sum; one that is not given is left out."""

    forward_kl: _Weight | None = None
    reverse_kl: _Weight | None = None
    jsd: _Weight | None = None
    tvd: _Weight | None = None
    lk_alpha: _Weight | None = None
    lk_lambda: _Weight | None = None
    tvd_plus: _Weight | None = None
    block_efficiency: _Weight | None = None
    nll: _Weight | None = None

    @property
    def terms(self) -> dict[Term, float]:
        """The losses that are given."""
        named = ((name, getattr(self, name)) for name in get_args(Term))
        return {name: weight for name, weight in named if weight is not None}

    @model_validator(mode="after")
    def _mixes_something(self) -> Self:
        if not self.terms:
            raise RefusedError(
                "distill.mix names no loss",
                keys=["forward_kl"],
                fix="give at least one weight: {forward_kl: 0.5, tvd: 0.5}",
            )
        return self


class SelectConfig(Section):
    """AdaSPEC: learn from the tokens that the draft can still learn most from (2510.19779)."""

    keep: Annotated[float, Field(gt=0.0, le=1.0)] = Field(
        0.4,
        description="share of a step's tokens: those with the largest KL(p || draft) - "
        "KL(p || reference)",
    )
    reference: str = Field(
        description="folder of a draft that was distilled by forward_kl from the same start"
    )


class OnlineTargetConfig(Section):
    """The target runs on every batch and gives its entire distribution; nothing is kept."""

    kind: Literal["online"]


class CachedTargetConfig(Section):
    """The target runs once on known text, and its top-k logits are kept on disk."""

    kind: Literal["cached"]
    k: Tokens = Field(
        64,
        description="most probable tokens that are kept for each position, with the mass of the "
        "rest; more cost more disk",
    )
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="type of the kept log-probabilities; float16 halves the disk space"
    )
    store: str = Field(
        "data/signals",
        description="folder of the cache; recipes that need the same logits share it",
    )

    def bytes_per_token(self, vocab_size: int) -> int:
        """Of one record: ids of 2 bytes (3 from 2**16 tokens on), values, and the rest's 4."""
        of_id = 2 if vocab_size <= 2**16 else 3
        return self.k * (of_id + (2 if self.dtype == "float16" else 4)) + 4


TargetLogits = Annotated[OnlineTargetConfig | CachedTargetConfig, Field(discriminator="kind")]


class DistillConfig(Section):
    rules = DISTILL

    divergence: Term | Literal["mix"] = Field(
        "jsd",
        description="loss per response token; nll needs no target; mix: see mix. Default: jsd, the "
        "best measured, or nll with an endpoint",
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
        default_factory=lambda: SourceShares(draft=0.5, target=0.5, per="batch"),
        description="where responses come from. Default: {draft: 0.5, target: 0.5, per: batch}, "
        "the best measured, or where that cannot be target, draft or fixed text alone",
    )
    replay: ReplayConfig = Field(default_factory=ReplayConfig)
    speculative: SpeculativeConfig = Field(default_factory=SpeculativeConfig)
    target_logits: TargetLogits = Field(
        default_factory=lambda: OnlineTargetConfig(kind="online"),
        description="where the target's logits come from. online: its forward now. cached: stored "
        "top-k logits, to train on the same text more than once",
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
    def terms(self) -> dict[Term, float]:
        """Weight of each loss."""
        return {self.divergence: 1.0} if self.divergence != "mix" else self._mixed().terms

    def _mixed(self) -> MixConfig:
        assert self.mix is not None, "the validator has seen to it"
        return self.mix

    @property
    def loss_in_words(self) -> str:
        """What is minimised, such as `0.7 forward kl + 0.3 nll`."""
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
        units = {_UNITS[name] for name in self.terms}
        return units.pop() if len(units) == 1 else ""

    @property
    def cached_logits(self) -> CachedTargetConfig | None:
        """How the target's distributions are kept, where they are."""
        return self.target_logits if isinstance(self.target_logits, CachedTargetConfig) else None

    @property
    def cached_logits_caveat(self) -> str | None:
        """A warning about cached logits under this loss; None where there is none."""
        if self.cached_logits is None or "reverse_kl" not in self.terms:
            return None
        return (
            "reverse_kl hangs on how the target spreads the mass of the rest, which is not kept: "
            "of the loss and its gradient a large part is missing at any small k "
            "(docs/explanation/results.md); forward_kl, jsd and tvd are served well"
        )

    @property
    def needs_target(self) -> bool:
        """Whether training needs the target: for its loss, or to write text during training."""
        source = self.source
        writes = source.speculative > 0 or (source.per == "token" and source.target > 0)
        # The cache has the target's distributions over stored text, and no others.
        reads = self.reads_target and (self.cached_logits is None or source.of != source.stored)
        return reads or writes

    @property
    def reads_target(self) -> bool:
        """Whether any loss, or the selection, reads the target's distribution."""
        return set(self.terms) != {"nll"} or self.select is not None

    @property
    def reads_whole_steps(self) -> bool:
        """Whether a token's weight depends on all tokens of its step: then two passes are made."""
        return "tvd_plus" in self.terms or self.select is not None
