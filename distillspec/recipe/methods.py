"""What a decoding method is, as data: what drafts, what verifies, what chooses among several."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from distillspec.recipe.choosing import Choose, FallbackConfig, Scale, Share
from distillspec.recipe.method_rules import ADAEDL, METHOD
from distillspec.recipe.rule import RefusedError
from distillspec.recipe.section import Section, Threads

DraftName = Literal["undistilled", "distilled", "control"]

Gamma = Annotated[int, Field(ge=1, le=64)]


# --- what is drafted -----------------------------------------------------------------------------


class _ModelDraft(Section):
    model: DraftName | None = Field(
        None,
        description="the draft to use; default: each draft of the suite",
    )


class ChainDraftConfig(_ModelDraft):
    kind: Literal["chain"] = "chain"


class SequencesDraftConfig(_ModelDraft):
    kind: Literal["sequences"]
    count: Annotated[int, Field(ge=1, le=64)] = Field(8, description="K, sequences drafted at once")
    distinct: bool = Field(
        False, description="first tokens drawn without replacement, so that no two begin alike"
    )


class LookupDraftConfig(Section):
    """Prompt lookup: no model drafts, but what followed the text's last tokens earlier in it."""

    kind: Literal["lookup"]
    longest: Annotated[int, Field(ge=1, le=16)] = Field(
        3, description="tokens at the end of the text that are looked for, at most"
    )


class NoDraftConfig(Section):
    """Nothing is drafted, a round is one step of the target: an arm for text not worth drafting."""

    kind: Literal["none"]


# --- when drafting stops -------------------------------------------------------------------------


class FixedStopConfig(Section):
    kind: Literal["fixed"] = "fixed"


class AdaEDLStopConfig(Section):
    rules = ADAEDL

    kind: Literal["adaedl"]
    rule: Literal["calibrated", "published"] | None = Field(
        None,
        description="calibrated: stop where a further token gains less than its measured time is "
        "worth; published: below a threshold that follows acceptance. Default: calibrated for "
        "chains; published for several sequences, or where threshold or wanted_rate is set",
    )
    threshold: Annotated[float, Field(ge=-1.0, le=1.0)] | None = Field(
        None,
        description="published rule: where it starts; it moves by at most 0.001 a round. "
        "Default: 0.4",
    )
    wanted_rate: Share | None = Field(
        None,
        description="published rule: share of the drafted tokens to be kept; below it less is "
        "drafted. Default: 0.5. Published: 0.9, with which a draft that is kept less often soon "
        "drafts hardly anything",
    )


class SVIPStopConfig(Section):
    kind: Literal["svip"]
    weight: Scale = 0.15
    threshold: Scale = 0.3


class ConfidenceStopConfig(Section):
    kind: Literal["confidence"]
    threshold: Share = 0.4


class DraftVerifyStopConfig(Section):
    kind: Literal["draft_verify"]
    threshold: Share = Field(0.6, description="where it starts")
    wanted_rate: Share = Field(0.9, description="share of the drafted tokens to be accepted")


# --- what verifies -------------------------------------------------------------------------------


class TokenVerifyConfig(Section):
    kind: Literal["token"] = "token"


class BlockVerifyConfig(Section):
    kind: Literal["block"]


class LenientVerifyConfig(Section):
    """Lossy: the method's name must say so, and then every table does."""

    kind: Literal["lenient"]
    form: Literal["exp", "lin", "sq"] = Field("exp", description="p^eps, p / eps, p / eps^2")
    eps: Share = Field(description="1 is lossless; the smaller, the more is kept")


class KSeqVerifyConfig(Section):
    kind: Literal["kseq"]


class RecursiveVerifyConfig(Section):
    kind: Literal["recursive"]


class TraversalVerifyConfig(Section):
    kind: Literal["traversal"]


class MultipathVerifyConfig(Section):
    kind: Literal["multipath"]


# --- draft and target at the same time -----------------------------------------------------------


_BYTES_PER_CHILD = 136  # a record of a token and its probability


class CardConfig(Section):
    """The draft runs ahead in a second process; gamma is the longest path verified at once."""

    kind: Literal["card"]
    nodes: Annotated[int, Field(ge=1, le=256)] = Field(8, description="N, candidates of a layer")
    layers: Annotated[int, Field(ge=1, le=64)] = Field(
        10, description="that the draft is ahead at most"
    )
    budget_mib: Scale = Field(
        64.0, description="memory that the candidates may take, each with its nodes best children"
    )
    threads: Threads | None = Field(
        None, description="of each side, on a CPU; default: half of torch's"
    )

    @model_validator(mode="after")
    def _fits_its_budget(self) -> Self:
        needed = self.nodes**2 * self.layers * _BYTES_PER_CHILD / 2**20
        if needed > self.budget_mib:
            raise RefusedError(
                f"{self.layers} layers of {self.nodes} nodes, with as many children each, take "
                f"about {needed:.0f} MiB, budget_mib is {self.budget_mib:g}",
                keys=["nodes", "layers", "budget_mib"],
                fix=f"lower nodes or layers, or raise budget_mib to {math.ceil(needed)}",
            )
        return self


class PearlConfig(Section):
    """The next block of gamma tokens is drafted while the last one is verified."""

    kind: Literal["pearl"]
    threads: Threads | None = Field(
        None, description="of each side, on a CPU; default: half of torch's"
    )


Draft = Annotated[
    ChainDraftConfig | SequencesDraftConfig | LookupDraftConfig | NoDraftConfig,
    Field(discriminator="kind"),
]
Stop = Annotated[
    FixedStopConfig
    | AdaEDLStopConfig
    | SVIPStopConfig
    | ConfidenceStopConfig
    | DraftVerifyStopConfig,
    Field(discriminator="kind"),
]
Verify = Annotated[
    TokenVerifyConfig
    | BlockVerifyConfig
    | LenientVerifyConfig
    | KSeqVerifyConfig
    | RecursiveVerifyConfig
    | TraversalVerifyConfig
    | MultipathVerifyConfig,
    Field(discriminator="kind"),
]
Parallel = Annotated[CardConfig | PearlConfig, Field(discriminator="kind")]


class MethodConfig(Section):
    """A decoding method as data: what drafts, when it stops, what verifies; or what chooses.

    Or, with `parallel`, a protocol of two processes, which brings its own of all that.
    """

    rules = METHOD

    name: Annotated[str, Field(pattern=r"^[^@\s]+$")] = "standard"
    draft: Draft = Field(default_factory=ChainDraftConfig)
    stop: Stop = Field(default_factory=FixedStopConfig)
    verify: Verify = Field(default_factory=TokenVerifyConfig)
    choose: Choose | None = Field(None, description="in place of the three above")
    parallel: Parallel | None = Field(
        None, description="in place of all of them: draft and target in two processes"
    )
    fallback: FallbackConfig | None = Field(None, description="around a method that adapts")
    gammas: tuple[Gamma, ...] | None = Field(
        None, min_length=1, description="block sizes, tokens; default: the suite's"
    )

    def reach(self, gamma: int) -> int:
        """Positions beyond the text that a round with this gamma may take, of either model."""
        if isinstance(self.parallel, CardConfig):
            return max(gamma, self.parallel.layers)
        return 2 * gamma if isinstance(self.parallel, PearlConfig) else gamma

    @property
    def is_standard(self) -> bool:
        """Chains of fixed length under token verification: what the expected tau is of."""
        kinds = (self.draft.kind, self.stop.kind, self.verify.kind)
        return not self.adapts and not self.parallel and kinds == ("chain", "fixed", "token")

    @property
    def has_known_rounds(self) -> bool:
        """Whether its rounds on a given text are known in expectation without decoding it."""
        return self.is_standard or (self.draft.kind == "lookup" and self.verify.kind == "token")

    @property
    def model(self) -> DraftName | None:
        """The draft that it names; None if it drafts with any, or with none."""
        return self.draft.model if isinstance(self.draft, _ModelDraft) else None

    @property
    def needs_model(self) -> bool:
        """Whether a draft model drafts."""
        return isinstance(self.draft, _ModelDraft)

    @property
    def drafts(self) -> bool:
        """Whether its rounds draft anything, in the process that verifies it."""
        return self.parallel is None and not isinstance(self.draft, NoDraftConfig)

    @property
    def follows_costs(self) -> bool:
        """Whether its stop rule needs measured step times."""
        if not isinstance(self.stop, AdaEDLStopConfig) or self.draft.kind != "chain":
            return False
        is_published = self.stop.threshold is not None or self.stop.wanted_rate is not None
        return (self.stop.rule or ("published" if is_published else "calibrated")) == "calibrated"

    @property
    def adapts(self) -> bool:
        """Whether what it does depends on what it has seen."""
        return self.choose is not None or self.stop.kind != "fixed"

    @field_validator("stop", mode="before")
    @classmethod
    def _can_be_decoded_with(cls, stop: Any) -> Any:
        if isinstance(stop, dict) and stop.get("kind") == "oracle":
            raise RefusedError(
                "stop of kind oracle is no method: no text can be decoded with it",
                keys=["kind"],
                fix="remove this method; the report shows what an oracle would reach where a suite "
                "has a standard method and another one",
                why="an oracle knows what will be rejected",
            )
        return stop
