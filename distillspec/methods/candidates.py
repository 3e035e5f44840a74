"""The methods that `tune` tries: lossless, with published or typical settings."""

from __future__ import annotations

from distillspec.recipe.methods import MethodConfig

_CHAINS = (
    {"name": "standard", "gammas": [1, 2, 3, 4, 5, 6, 7, 8]},
    {"name": "adaedl", "stop": {"kind": "adaedl"}, "gammas": [8]},
    {"name": "svip", "stop": {"kind": "svip"}, "gammas": [8]},
    {"name": "confidence", "stop": {"kind": "confidence"}, "gammas": [8]},
)
# At temperature 0 all verifiers decide alike, and all sequences that a draft draws are equal.
_CHAINS_AT_RANDOM = (
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
    """Methods worth a try at this temperature.

    Args:
        temperature: 0 or above.
        takes_trees: Whether both models read several drafts at once.
    """
    methods = list(_CHAINS)
    if temperature > 0.0:
        methods += _CHAINS_AT_RANDOM
        if takes_trees:
            methods += _SEQUENCES
    return tuple(MethodConfig.model_validate(method) for method in methods)
