"""Settings of different sections of a recipe that cannot be combined."""

from __future__ import annotations

from typing import Any

from distillspec.recipe.rule import Rule

# Settings that the examples of several rules share, by dotted key.
_FIXED = {"distill.source": {"fixed": 1.0}}
_CROSS = {"pair.tokenizers": "cross-tokenizer", **_FIXED}
_HEAD = {"pair.draft_head": {"keep": 4096}, **_FIXED}
_BLOCKS = {"distill.divergence": "block_efficiency"}
_SPLIT = {"hardware.strategy": "fsdp2"}
_WHOLE = {"hardware.strategy": "zero2"}
_API = {
    "pair.target": None,
    "pair.endpoint": {"url": "http://localhost:8000/v1", "model": "m"},
}
_SHARD = {"hardware.shard_target": True}
_NO_SHARD = {"hardware.shard_target": False}
_MADE = {"kind": "pruned", "layers": [0]}
_DRAFT_TEXT = {"distill.source": {"draft": 1.0}}
_TAKE_DDP = "set hardware.strategy to ddp or zero2"


def _splits(recipe: Any) -> bool:
    return recipe.hardware.strategy in ("fsdp2", "zero3")


def _crosses(recipe: Any) -> bool:
    return bool(recipe.pair.tokenizers == "cross-tokenizer")


def _longest_text(recipe: Any) -> int:
    return int(recipe.data.max_prompt_tokens + recipe.data.max_response_tokens)


def _strategy(recipe: Any) -> str:
    return f"hardware.strategy: {recipe.hardware.strategy}"


def _sharded(keys: tuple[str, ...], is_set: Any, words: str, example: dict[str, Any]) -> Rule:
    """A rule of hardware.shard_target, which all processes have to use at once."""
    return Rule(
        keys=("hardware.shard_target", *keys),
        is_broken=lambda recipe: recipe.hardware.shard_target and is_set(recipe),
        what=f"{words} cannot be combined with hardware.shard_target: true",
        fix="set hardware.shard_target: false, or train on text of the draft or the data alone, "
        "with the draft's entire vocabulary; a served target can write text: pair.endpoint in "
        "another recipe",
        why="a sharded target scores text with all processes at once, and this needs the target in "
        "one process",
        example=_SHARD | example,
        fixed=_NO_SHARD,
    )


_SHARDED = (
    _sharded(
        ("distill.source.target",),
        lambda recipe: recipe.distill.source.target > 0.0,
        "text that the target writes",
        {"distill.source": {"target": 1.0}},
    ),
    _sharded(
        ("distill.source.speculative",),
        lambda recipe: recipe.distill.source.speculative > 0.0,
        "text by speculative decoding",
        {"distill.source": {"speculative": 1.0}},
    ),
    _sharded(
        ("distill.target_logits",),
        lambda recipe: recipe.distill.cached_logits is not None,
        "target_logits of kind cached",
        _FIXED | {"distill.target_logits": {"kind": "cached"}},
    ),
    _sharded(
        ("pair.draft.kind",),
        lambda recipe: not isinstance(recipe.pair.draft, str),
        "a draft of kind pruned or random",
        _DRAFT_TEXT | {"pair.draft": {"kind": "pruned", "layers": 2}},
    ),
    _sharded(
        ("pair.draft_head",),
        lambda recipe: recipe.pair.draft_head is not None,
        "a draft head",
        _HEAD,
    ),
    _sharded(("pair.tokenizers",), _crosses, "pair.tokenizers 'cross-tokenizer'", _CROSS),
    _sharded(
        ("pair.endpoint",),
        lambda recipe: recipe.pair.endpoint is not None,
        "pair.endpoint",
        _API | _FIXED | {"distill.divergence": "nll"},
    ),
)

RECIPE = (
    Rule(
        keys=("optimizer.ema", "hardware.strategy"),
        is_broken=lambda recipe: recipe.optimizer.ema is not None and _splits(recipe),
        what="optimizer.ema cannot be combined with hardware.strategy fsdp2 or zero3",
        fix=f"{_TAKE_DDP}, or remove optimizer.ema",
        why="the average needs entire weights, and these strategies shard them",
        example={"optimizer.ema": 0.99} | _SPLIT,
        fixed=_WHOLE,
        values=_strategy,
    ),
    Rule(
        keys=("distill.packing", "data.max_prompt_tokens", "data.max_response_tokens"),
        is_broken=lambda recipe: (
            recipe.distill.packing is not None and recipe.distill.packing < _longest_text(recipe)
        ),
        what="distill.packing is shorter than a text may be",
        fix="raise distill.packing to at least data.max_prompt_tokens + data.max_response_tokens, "
        "or lower these two",
        why="a text is packed into one row and never cut",
        example={"distill.packing": 100},
        fixed={"distill.packing": 768},
        values=lambda recipe: f"{recipe.distill.packing} < {_longest_text(recipe)} tokens",
    ),
    Rule(
        keys=("pair.tokenizers", "distill.source"),
        is_broken=lambda recipe: (
            _crosses(recipe) and recipe.distill.source.of != recipe.distill.source.stored
        ),
        what="pair.tokenizers 'cross-tokenizer' needs text that is known before training",
        fix="set distill.source to shares of fixed and target, per sequence or batch",
        why="such a draft writes none of its training text, and drafts none of it",
        example={"pair.tokenizers": "cross-tokenizer"} | _DRAFT_TEXT,
        fixed=_FIXED,
    ),
    Rule(
        keys=("pair.tokenizers", "distill.packing"),
        is_broken=lambda recipe: _crosses(recipe) and recipe.distill.packing is not None,
        what="pair.tokenizers 'cross-tokenizer' cannot be combined with distill.packing",
        fix="remove distill.packing",
        why="rows are packed in the target's tokens, and the draft cuts each text into others",
        example=_CROSS | {"distill.packing": 768},
        fixed={"distill.packing": None},
    ),
    Rule(
        keys=("distill.divergence", "pair.tokenizers"),
        is_broken=lambda recipe: _crosses(recipe) and "block_efficiency" in recipe.distill.terms,
        what="block_efficiency cannot be combined with pair.tokenizers 'cross-tokenizer'",
        fix="set distill.divergence to jsd, tvd or lk_lambda",
        why="a token that the draft does not have ends a block, which this loss does not model",
        example=_CROSS | _BLOCKS,
        fixed={"distill.divergence": "jsd"},
    ),
    Rule(
        keys=("pair.tokenizers", "hardware.strategy"),
        is_broken=lambda recipe: _crosses(recipe) and _splits(recipe),
        what="pair.tokenizers 'cross-tokenizer' cannot be combined with hardware.strategy fsdp2 or "
        "zero3",
        fix=_TAKE_DDP,
        why="the shared tokens are rows of an entire head, and these strategies split it",
        example=_CROSS | _SPLIT,
        fixed=_WHOLE,
        values=_strategy,
    ),
    Rule(
        keys=("pair.draft_head", "distill.source"),
        # A draft's folder may name the tokens: the dry run looks there.
        is_broken=lambda recipe: (
            recipe.pair.draft_head is not None
            and not isinstance(recipe.pair.draft, str)
            and not recipe.distill.source.stored
        ),
        what="pair.draft_head of a draft that is made needs text that is there before training",
        fix="give distill.source a share of target or fixed, per sequence or batch",
        why="the head keeps the tokens that are most frequent in stored text",
        example={"pair.draft_head": {"keep": 4096}, "pair.draft": _MADE} | _DRAFT_TEXT,
        fixed={"distill.source": {"draft": 0.5, "target": 0.5}},
    ),
    Rule(
        keys=("distill.divergence", "pair.draft_head"),
        is_broken=lambda recipe: (
            recipe.pair.draft_head is not None and "block_efficiency" in recipe.distill.terms
        ),
        what="block_efficiency cannot be combined with pair.draft_head",
        fix="set distill.divergence to jsd, tvd or lk_lambda, or remove pair.draft_head",
        why="tokens outside the trimmed head always end a block, which this loss does not model",
        example=_HEAD | _BLOCKS,
        fixed={"pair.draft_head": None},
    ),
    Rule(
        keys=("pair.draft_head", "hardware.strategy"),
        is_broken=lambda recipe: recipe.pair.draft_head is not None and _splits(recipe),
        what="pair.draft_head cannot be combined with hardware.strategy fsdp2 or zero3",
        fix=f"{_TAKE_DDP}, or remove pair.draft_head",
        why="the head is rows of an entire matrix, and these strategies split it",
        example=_HEAD | _SPLIT,
        fixed=_WHOLE,
        values=_strategy,
    ),
    Rule(
        keys=("lora.dropout", "distill.select", "distill.divergence"),
        is_broken=lambda recipe: (
            recipe.lora is not None
            and recipe.lora.dropout > 0.0
            and recipe.distill.reads_whole_steps
        ),
        what="lora.dropout cannot be combined with distill.select or the divergence tvd_plus",
        fix="set lora.dropout=0",
        why="these read a step twice, and dropout makes another draft of each pass",
        example={"lora.dropout": 0.1, "distill.select": {"reference": "folder"}},
        fixed={"lora.dropout": 0.0},
    ),
    *_SHARDED,
    Rule(
        keys=("lora.use_dora", "hardware.strategy"),
        is_broken=lambda recipe: (
            recipe.lora is not None and recipe.lora.use_dora and _splits(recipe)
        ),
        what="lora.use_dora cannot be combined with hardware.strategy fsdp2 or zero3",
        fix=f"{_TAKE_DDP}, or set lora.use_dora: false",
        why="DoRA needs the norms of entire matrices, and these strategies split them",
        example={"lora.use_dora": True} | _SPLIT,
        fixed=_WHOLE,
        values=_strategy,
    ),
    Rule(
        keys=("optimizer.kind", "hardware.strategy"),
        is_broken=lambda recipe: (
            recipe.optimizer.kind == "muon" and recipe.hardware.strategy not in ("auto", "ddp")
        ),
        what="optimizer.kind muon cannot be combined with hardware.strategy fsdp2, zero2 or zero3",
        fix="set optimizer.kind to adamw, or hardware.strategy to auto or ddp",
        why="muon needs entire matrices and states, and these strategies split them",
        example={"optimizer.kind": "muon"} | _WHOLE,
        fixed={"hardware.strategy": "ddp"},
        values=_strategy,
    ),
    Rule(
        keys=("distill.divergence", "distill.select", "pair.endpoint"),
        is_broken=lambda recipe: recipe.pair.endpoint is not None and recipe.distill.reads_target,
        what="pair.endpoint can be combined with the divergence nll only, without distill.select",
        fix="set distill.divergence: nll and distill.source: {target: 1.0} (SeqKD), or name the "
        "target's weights in pair.target",
        why="an endpoint gives the target's text, and all others read its distribution",
        example=_API | {"distill.divergence": "jsd"},
        fixed={"distill.divergence": "nll", "distill.source": {"target": 1.0}},
        values=lambda recipe: f"distill.divergence: {recipe.distill.divergence}",
    ),
    Rule(
        keys=("distill.source", "pair.endpoint"),
        is_broken=lambda recipe: recipe.pair.endpoint is not None and recipe.distill.needs_target,
        what="pair.endpoint cannot be combined with text that the target verifies during training",
        fix="set distill.source to shares of target and fixed",
        why="verification needs the target's distribution, and an endpoint gives its text only",
        example=_API | {"distill.divergence": "nll", "distill.source": {"speculative": 1.0}},
        fixed={"distill.source": {"target": 1.0}},
    ),
)
