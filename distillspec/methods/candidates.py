"""The methods that a calibration tries: lossless, with published or middling settings."""

from __future__ import annotations

from distillspec.recipe.methods import MethodConfig

_CHAINS = (
    {"name": "standard", "gammas": [1, 2, 3, 4, 5, 6, 7, 8]},
    {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [8]},
    {"name": "svip", "stop": {"kind": "svip"}, "gammas": [8]},
    {"name": "confidence", "stop": {"kind": "confidence"}, "gammas": [8]},
)
# At temperature 0 every verifier decides alike, and all sequences that a draft draws are the same.
_CHAINS_WITH_DICE = (
    {"name": "block", "verify": {"kind": "block"}, "gammas": [4, 6, 8]},
    {
        "name": "adaedl-block",
        "stop": {"kind": "adaedl"},
        "verify": {"kind": "block"},
        "gammas": [8],
    },
)
_SEQUENCES = (
    *(
        {
            "name": f"spectr-{count}",
            "draft": {"kind": "sequences", "count": count},
            "verify": {"kind": "kseq"},
            "gammas": [2, 4],
        }
        for count in (2, 4, 8)
    ),
    *(
        {
            "name": f"{name}-{count}",
            "draft": {"kind": "sequences", "count": count, "distinct": True},
            "verify": {"kind": kind},
            "gammas": [4],
        }
        for name, kind in (("rrs", "recursive"), ("traversal", "traversal"))
        for count in (2, 4)
    ),
)


def candidates(temperature: float, *, takes_trees: bool) -> tuple[MethodConfig, ...]:
    """What is worth trying at this temperature; takes_trees: both models read several drafts."""
    found = list(_CHAINS)
    if temperature > 0.0:
        found += _CHAINS_WITH_DICE
        if takes_trees:
            found += _SEQUENCES
    return tuple(MethodConfig.model_validate(one) for one in found)
