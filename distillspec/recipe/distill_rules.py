"""Settings of the section `distill` and its sources that cannot be combined."""

from __future__ import annotations

from typing import Any

from distillspec.recipe.rule import Rule

_CACHED = {"target_logits": {"kind": "cached"}}
_TARGET_TEXT = {"source": {"target": 1.0}}
_DRAFT_TEXT = {"source": {"draft": 1.0}}
_DRAWN = {"divergence": "block_efficiency", "block_form": "drawn", **_TARGET_TEXT}
_REJECTED = {
    "source": {"speculative": 1.0},
    "speculative": {"rejected": True},
    "divergence": "tvd",
}
_NO_REJECTED = {"speculative": {"rejected": False}}
_OF_STEP = {"tvd_plus", "block_efficiency"}  # whose value at a token depends on other tokens


def _is_drawn(distill: Any) -> bool:
    return "block_efficiency" in distill.terms and distill.block_form == "drawn"


def _learns_rejected(distill: Any) -> bool:
    return bool(distill.source.speculative > 0.0 and distill.speculative.rejected)


def _losses(distill: Any) -> str:
    return f"distill.divergence: {', '.join(distill.terms)}"


SOURCE = (
    Rule(
        keys=("per", "draft", "target"),
        is_broken=lambda source: source.per == "token" and set(source.of) != {"draft", "target"},
        what="per: token is for the shares draft and target only",
        fix="set distill.source to {draft: 0.5, target: 0.5, per: token}, or set per: sequence",
        why="draft and target write one sequence by turns",
        example={"draft": 0.5, "fixed": 0.5, "per": "token"},
        fixed={"fixed": None, "target": 0.5},
    ),
    Rule(
        keys=("replay", "draft", "speculative"),
        is_broken=lambda source: source.replay > 0.0 and not source.draft + source.speculative,
        what="replay has nothing to repeat: draft and speculative have no share",
        fix="give distill.source.draft or distill.source.speculative a share",
        why="replay repeats responses that were written during training",
        example={"fixed": 0.5, "replay": 0.5},
        fixed={"fixed": None, "draft": 0.5},
    ),
)

DISTILL = (
    Rule(
        keys=("divergence", "mix"),
        is_broken=lambda distill: distill.divergence == "mix" and distill.mix is None,
        what="distill.divergence is mix, and distill.mix is missing",
        fix="add distill.mix, such as {forward_kl: 0.5, tvd: 0.5}",
        why="the weights of the losses are in distill.mix",
        example={"divergence": "mix"},
        fixed={"mix": {"forward_kl": 0.5, "tvd": 0.5}},
    ),
    Rule(
        keys=("divergence", "mix"),
        is_broken=lambda distill: distill.divergence != "mix" and distill.mix is not None,
        what="distill.mix is given, and distill.divergence is not mix",
        fix="set distill.divergence to mix, or remove distill.mix",
        why="distill.mix is read with divergence: mix only",
        example={"divergence": "jsd", "mix": {"tvd": 1.0}},
        fixed={"divergence": "mix"},
    ),
    Rule(
        keys=("divergence", "source"),
        is_broken=lambda distill: "tvd_plus" in distill.terms and not distill.source.is_drafts,
        what="tvd_plus needs text of the draft alone",
        fix="set distill.source: {draft: 1.0}, or take tvd, which any text serves",
        why="tvd_plus is an expectation over tokens that the draft draws",
        example={"divergence": "tvd_plus", **_TARGET_TEXT},
        fixed=_DRAFT_TEXT,
    ),
    Rule(
        keys=("divergence", "on_prompts"),
        is_broken=lambda distill: "tvd_plus" in distill.terms and distill.on_prompts,
        what="tvd_plus cannot be combined with on_prompts: true",
        fix="set distill.on_prompts: false, or take tvd, which any text serves",
        why="the draft does not draw the tokens of a prompt",
        example={"divergence": "tvd_plus", "on_prompts": True, **_DRAFT_TEXT},
        fixed={"on_prompts": False},
    ),
    Rule(
        keys=("block_form", "source"),
        is_broken=lambda distill: (
            _is_drawn(distill)
            and bool(set(distill.source.of) - {"target", "speculative", "replay"})
        ),
        what="block_form: drawn needs text that the target has drawn",
        fix="set distill.source to shares of target and speculative (and replay of the latter), or "
        "set distill.block_form: overlap, which any text serves",
        why="min(1, q / p) is unbiased on tokens of the target only",
        example=_DRAWN | {"source": {"fixed": 1.0}},
        fixed=_TARGET_TEXT,
    ),
    Rule(
        keys=("block_form", "on_prompts"),
        is_broken=lambda distill: _is_drawn(distill) and distill.on_prompts,
        what="block_form: drawn cannot be combined with on_prompts: true",
        fix="set distill.on_prompts: false, or distill.block_form: overlap",
        why="prompts are not tokens that the target has drawn",
        example=_DRAWN | {"on_prompts": True},
        fixed={"on_prompts": False},
    ),
    Rule(
        keys=("block_form", "target_logits"),
        is_broken=lambda distill: _is_drawn(distill) and distill.cached_logits is not None,
        what="block_form: drawn cannot be combined with target_logits of kind cached",
        fix="set distill.target_logits: {kind: online}, or distill.block_form: overlap",
        why="the cache may lack the probability of tokens that the target has drawn",
        example=_DRAWN | _CACHED,
        fixed={"target_logits": {"kind": "online"}},
    ),
    Rule(
        keys=("divergence", "source.draft"),
        is_broken=lambda distill: "nll" in distill.terms and distill.source.draft > 0.0,
        what="nll cannot be combined with text of the draft",
        fix="move the share of distill.source.draft to fixed, target or speculative, or take "
        "another divergence",
        why="nll learns to write what it reads, which is then the draft's own text",
        example={"divergence": "nll", **_DRAFT_TEXT},
        fixed=_TARGET_TEXT,
    ),
    Rule(
        keys=("target_logits", "source"),
        is_broken=lambda distill: (
            distill.cached_logits is not None
            and distill.source.of != distill.source.stored
            and (distill.source.per != "batch" or not distill.source.stored)
        ),
        what="target_logits of kind cached needs stored text; other text must be in other batches",
        fix="set distill.source to shares of fixed and target, such as {target: 1.0}, or to "
        "{draft: 0.5, target: 0.5, per: batch}, or set distill.target_logits: {kind: online}",
        why="the cache holds the target's logits for text that is known before training",
        example=_CACHED | _DRAFT_TEXT,
        fixed={"source": {"draft": 0.5, "target": 0.5, "per": "batch"}},
    ),
    Rule(
        keys=("target_logits", "divergence"),
        is_broken=lambda distill: distill.cached_logits is not None and not distill.reads_target,
        what="target_logits of kind cached cannot be combined with nll",
        fix="remove distill.target_logits, or take another distill.divergence",
        why="nll reads no target, so nothing would read the cache",
        example={"divergence": "nll", **_CACHED, **_TARGET_TEXT},
        fixed={"target_logits": None},
    ),
    Rule(
        keys=("speculative.rejected", "source.replay"),
        is_broken=lambda distill: _learns_rejected(distill) and distill.source.replay > 0.0,
        what="speculative.rejected cannot be combined with a share of replay",
        fix="set distill.speculative.rejected: false, or remove distill.source.replay",
        why="a rejected token is weighed by the draft that drafted it, and replay trains a later "
        "draft",
        example=_REJECTED | {"source": {"speculative": 0.5, "replay": 0.5}},
        fixed={"source": {"speculative": 1.0}},
    ),
    Rule(
        keys=("speculative.rejected", "divergence"),
        is_broken=lambda distill: (
            _learns_rejected(distill) and bool((_OF_STEP | {"nll"}) & set(distill.terms))
        ),
        what="speculative.rejected cannot be combined with tvd_plus, block_efficiency or nll",
        fix="set distill.speculative.rejected: false, or take another distill.divergence",
        why="these losses are of the tokens of a text, and rejected tokens are in no text",
        example=_REJECTED | {"divergence": "block_efficiency"},
        fixed=_NO_REJECTED,
        values=_losses,
    ),
    Rule(
        keys=("speculative.rejected", "select", "on_prompts", "reduction"),
        is_broken=lambda distill: (
            _learns_rejected(distill)
            and (
                distill.select is not None or distill.on_prompts or distill.reduction == "sequences"
            )
        ),
        what="speculative.rejected sets token weights itself, and select, on_prompts or reduction: "
        "sequences would weigh its tokens again",
        fix="remove distill.select, distill.on_prompts and distill.reduction, or set "
        "distill.speculative.rejected: false",
        why="each drafted token counts by the probability that a round reaches it",
        example=_REJECTED | {"reduction": "sequences"},
        fixed={"reduction": None},
    ),
    Rule(
        keys=("select", "divergence"),
        is_broken=lambda distill: (
            distill.select is not None and bool(_OF_STEP & set(distill.terms))
        ),
        what="select cannot be combined with tvd_plus or block_efficiency",
        fix="remove distill.select, or take another distill.divergence",
        why="select drops tokens, and these losses weigh a token by its neighbours or its entire "
        "step",
        example={"divergence": "block_efficiency", "select": {"reference": "draft"}},
        fixed={"select": None},
        values=_losses,
    ),
)
