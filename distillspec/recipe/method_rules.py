"""Settings of a decoding method that cannot be combined."""

from __future__ import annotations

from typing import Any

from distillspec.recipe.rule import Rule

_UCB = {"choose": {"kind": "ucb", "arms": ["standard"]}}
_SEQUENCES = {"draft": {"kind": "sequences", "count": 2}}
_FALLBACK = {"fallback": {"baseline": "standard@2"}}
_FITTING = {
    "one chain": ("token", "block", "lenient"),
    "sequences that begin differently": ("recursive", "traversal"),
    "independent sequences": ("kseq", "recursive", "traversal", "multipath"),
}


def _is_plain(method: Any) -> bool:
    """Whether the method itself drafts, stops and verifies."""
    return method.choose is None and method.parallel is None and method.draft.kind != "none"


def _shape(method: Any) -> str:
    """What the method drafts, in words."""
    if method.draft.kind != "sequences":
        return "one chain"
    return "sequences that begin differently" if method.draft.distinct else "independent sequences"


def _given(method: Any, *parts: str) -> list[str]:
    """Which of these parts differ from their default."""
    plain = type(method)()
    return [part for part in parts if getattr(method, part) != getattr(plain, part)]


def _named(method: Any) -> str:
    return f"method {method.name!r}"


def _verifier(method: Any) -> str:
    shape = _shape(method)
    return (
        f"method {method.name!r}: {method.verify.kind!r} does not verify {shape}; these do: "
        f"{', '.join(_FITTING[shape])}"
    )


ADAEDL = (
    Rule(
        keys=("rule", "threshold", "wanted_rate"),
        is_broken=lambda stop: (
            stop.rule == "calibrated"
            and (stop.threshold is not None or stop.wanted_rate is not None)
        ),
        what="rule: calibrated cannot be combined with threshold or wanted_rate",
        fix="leave out threshold and wanted_rate, or set rule: published",
        why="the calibrated rule follows from measured costs and acceptance",
        example={"kind": "adaedl", "rule": "calibrated", "threshold": 0.4},
        fixed={"rule": "published"},
    ),
)

CHOOSE = (
    Rule(
        keys=("prior", "reward", "per"),
        is_broken=lambda choose: (
            choose.kind != "hedge"
            and bool(choose.prior)
            and (choose.reward == "tokens" or choose.per == "text")
        ),
        what="choose.prior cannot be combined with reward: tokens or per: text",
        fix="remove prior",
        why="the cost model expects tokens per second of rounds",
        example={"kind": "ucb", "arms": ["standard"], "prior": 9, "reward": "tokens"},
        fixed={"prior": None},
    ),
    Rule(
        keys=("per", "reward"),
        is_broken=lambda choose: choose.per == "text" and choose.reward == "tokens",
        what="choose.per: text cannot be combined with reward: tokens",
        fix="set reward: tokens_per_second",
        why="texts are compared by their speed",
        example={"kind": "ucb", "arms": ["standard"], "per": "text", "reward": "tokens"},
        fixed={"reward": "tokens_per_second"},
    ),
    Rule(
        keys=("per", "memory"),
        is_broken=lambda choose: choose.per == "text" and choose.memory == "prompt",
        what="choose.per: text cannot be combined with memory: prompt",
        fix="set memory: kept",
        why="the chooser learns from text to text",
        example={"kind": "ucb", "arms": ["standard"], "per": "text", "memory": "prompt"},
        fixed={"memory": "kept"},
    ),
    Rule(
        keys=("window", "discount"),
        is_broken=lambda choose: (
            choose.kind == "ucb" and choose.window is not None and choose.discount < 1.0
        ),
        what="choose.window cannot be combined with choose.discount",
        fix="remove discount, or remove window",
        why="both are ways to forget old rounds",
        example={"kind": "ucb", "arms": ["standard"], "window": 9, "discount": 0.9},
        fixed={"window": None},
    ),
)

METHOD = (
    Rule(
        keys=("fallback", "stop", "choose"),
        is_broken=lambda method: method.fallback is not None and not method.adapts,
        what="fallback is for methods that adapt, and this one adapts nothing",
        fix="remove fallback, or set a stop that adapts, such as stop: {kind: svip}, or choose",
        why="a fallback replaces an adaptive method while that is slower",
        example=_FALLBACK,
        fixed={"fallback": None},
        values=_named,
    ),
    Rule(
        keys=("fallback", "choose.per"),
        is_broken=lambda method: (
            method.fallback is not None
            and method.choose is not None
            and method.choose.per == "text"
        ),
        what="fallback cannot be combined with choose.per: text",
        fix="set choose.per: round, or remove fallback",
        why="a fallback compares rounds",
        example=_FALLBACK | {"choose": {"kind": "ucb", "arms": ["standard"], "per": "text"}},
        fixed={"fallback": None},
        values=_named,
    ),
    Rule(
        keys=("choose", "draft", "stop", "verify", "gammas", "parallel"),
        is_broken=lambda method: (
            method.choose is not None
            and bool(_given(method, "draft", "stop", "verify", "gammas", "parallel"))
        ),
        what="choose cannot be combined with draft, stop, verify, gammas or parallel",
        fix="leave out draft, stop, verify, gammas and parallel, or remove choose",
        why="a method that chooses takes all of these from its arms",
        example=_UCB | {"stop": {"kind": "svip"}},
        fixed={"stop": None},
        values=lambda method: (
            f"method {method.name!r} has "
            f"{', '.join(_given(method, 'draft', 'stop', 'verify', 'gammas', 'parallel'))}"
        ),
    ),
    Rule(
        keys=("parallel", "draft", "stop", "verify"),
        is_broken=lambda method: (
            method.choose is None
            and method.parallel is not None
            and bool(_given(method, "draft", "stop", "verify"))
        ),
        what="parallel cannot be combined with draft, stop or verify",
        fix="leave out draft, stop and verify, or remove parallel",
        why="a protocol of two processes drafts and verifies in its own way",
        example={"parallel": {"kind": "pearl"}, "stop": {"kind": "svip"}},
        fixed={"stop": None},
        values=lambda method: (
            f"method {method.name!r} has {', '.join(_given(method, 'draft', 'stop', 'verify'))}"
        ),
    ),
    Rule(
        keys=("draft.kind", "stop.rule"),
        is_broken=lambda method: (
            _is_plain(method)
            and method.draft.kind == "sequences"
            and method.stop.kind == "adaedl"
            and method.stop.rule == "calibrated"
        ),
        what="draft of kind sequences cannot be combined with stop.rule: calibrated",
        fix="set stop.rule: published",
        why="the calibrated rule follows a single chain of drafted tokens",
        example={
            "draft": {"kind": "sequences", "count": 2},
            "stop": {"kind": "adaedl", "rule": "calibrated"},
            "verify": {"kind": "kseq"},
        },
        fixed={"stop": {"kind": "adaedl", "rule": "published"}},
        values=_named,
    ),
    Rule(
        keys=("draft.kind", "stop.kind"),
        is_broken=lambda method: (
            method.choose is None
            and method.parallel is None
            and method.draft.kind == "lookup"
            and method.stop.kind != "fixed"
        ),
        what="draft of kind lookup cannot be combined with a stop other than fixed",
        fix="set stop: {kind: fixed}",
        why="these stops read the draft's distribution, and a lookup has none",
        example={"draft": {"kind": "lookup"}, "stop": {"kind": "adaedl"}},
        fixed={"stop": None},
        values=lambda method: f"method {method.name!r}, stop: {method.stop.kind}",
    ),
    Rule(
        keys=("draft.kind", "stop", "verify", "gammas"),
        is_broken=lambda method: (
            method.choose is None
            and method.parallel is None
            and method.draft.kind == "none"
            and bool(_given(method, "stop", "verify", "gammas"))
        ),
        what="draft of kind none cannot be combined with stop, verify or gammas",
        fix="leave out stop, verify and gammas",
        why="a round is one step of the target, because it drafts nothing",
        example={"draft": {"kind": "none"}, "gammas": [2]},
        fixed={"gammas": None},
        values=lambda method: (
            f"method {method.name!r} has {', '.join(_given(method, 'stop', 'verify', 'gammas'))}"
        ),
    ),
    Rule(
        keys=("verify.kind", "draft"),
        is_broken=lambda method: (
            _is_plain(method) and method.verify.kind not in _FITTING[_shape(method)]
        ),
        what="this verification rule cannot be combined with this draft",
        fix="choose one of: token, block or lenient for chains and lookups; kseq, recursive, "
        "traversal or multipath for sequences; recursive or traversal for distinct sequences",
        why="each rule is exact for one form of draft",
        example=_SEQUENCES,
        fixed={"verify": {"kind": "kseq"}},
        values=_verifier,
    ),
    Rule(
        keys=("name", "verify.kind"),
        is_broken=lambda method: (
            _is_plain(method) and method.verify.kind == "lenient" and "lossy" not in method.name
        ),
        what="a method with verify of kind lenient is lossy and must say so in its name",
        fix="put 'lossy' into the name, such as 'lossy-lenient'",
        why="its text does not follow the target's distribution, and every table must show that",
        example={"verify": {"kind": "lenient", "eps": 0.5}},
        fixed={"name": "lossy-mine"},
        values=_named,
    ),
    Rule(
        keys=("verify.kind", "stop.kind"),
        is_broken=lambda method: (
            _is_plain(method) and method.verify.kind == "multipath" and method.stop.kind != "fixed"
        ),
        what="verify of kind multipath cannot be combined with a stop other than fixed",
        fix="set stop: {kind: fixed}",
        why="multipath needs sequences of one length",
        example=_SEQUENCES | {"verify": {"kind": "multipath"}, "stop": {"kind": "adaedl"}},
        fixed={"stop": None},
        values=_named,
    ),
)
