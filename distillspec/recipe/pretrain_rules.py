"""Settings of a pretraining recipe that cannot be combined."""

from __future__ import annotations

from typing import Any

from distillspec.recipe.rule import Rule

_START = {"model": None, "start_from": "folder"}


def _is_too_long(recipe: Any) -> bool:
    return recipe.model is not None and recipe.train.context > recipe.model.max_positions


TOKENIZER = (
    Rule(
        keys=("vocab_size", "take_from"),
        is_broken=lambda tokenizer: (tokenizer.vocab_size is None) == (tokenizer.take_from is None),
        what="tokenizer needs exactly one of vocab_size and take_from",
        fix="give vocab_size to train a tokenizer, or take_from to use the one of another model",
        why="a tokenizer is either trained or taken",
        example={"take_from": "folder", "vocab_size": 300},
        fixed={"take_from": None},
    ),
)

PRETRAIN = (
    Rule(
        keys=("model", "start_from"),
        is_broken=lambda recipe: (recipe.model is None) == (recipe.start_from is None),
        what="a pretraining needs exactly one of model and start_from",
        fix="give model to begin with random weights, or start_from to train a model further",
        why="training begins with random weights or with those of a model",
        example={"start_from": "folder"},
        fixed={"start_from": None},
    ),
    Rule(
        keys=("corpus.as_chat",),
        is_broken=lambda recipe: getattr(recipe.corpus, "as_chat", "never") != "never",
        what="corpus.as_chat cannot be used in a pretraining",
        fix="remove corpus.as_chat",
        why="it is for prompts, and a corpus is of plain texts",
        example={"corpus": {"kind": "jsonl", "path": "d.jsonl", "as_chat": "if-template"}},
        fixed={"corpus": {"kind": "jsonl", "path": "d.jsonl"}},
    ),
    Rule(
        keys=("train.start_share", "start_from"),
        is_broken=lambda recipe: recipe.train.start_share > 0.0 and recipe.start_from is None,
        what="train.start_share is given, and start_from is missing",
        fix="remove train.start_share, or name a model in start_from",
        why="it averages the trained weights with those of start_from",
        example={"train.start_share": 0.5},
        fixed=_START,
    ),
    Rule(
        keys=("train.context", "model.max_positions"),
        is_broken=_is_too_long,
        what="train.context is longer than model.max_positions",
        fix="lower train.context, or raise model.max_positions",
        why="the model has no positions beyond",
        example={"train.context": 2048},
        fixed={"train.context": 256},
        values=lambda recipe: (
            f"train.context={recipe.train.context}, "
            f"model.max_positions={recipe.model.max_positions}"
        ),
    ),
)
