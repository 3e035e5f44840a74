"""Settings of data sets and of a suite's prompts that cannot be combined."""

from __future__ import annotations

from distillspec.recipe.rule import Rule

_JSONL = {"kind": "jsonl", "path": "d.jsonl"}

ROWS = (
    Rule(
        keys=("merge", "category"),
        is_broken=lambda rows: bool(rows.merge) and rows.category is None,
        what="merge is given, and category is missing",
        fix="name the field of the categories with category, or remove merge",
        why="merge renames categories",
        example={"merge": {"writing": "mt_bench"}},
        fixed={"category": "kind"},
    ),
    Rule(
        keys=("after_words", "turns", "as_chat"),
        is_broken=lambda rows: (
            rows.after_words is not None and (rows.turns is not None or rows.as_chat != "never")
        ),
        what="after_words cannot be combined with turns or as_chat",
        fix="remove turns and as_chat, or remove after_words",
        why="after_words cuts plain texts, and these make chats",
        example={"after_words": 9, "turns": "turns"},
        fixed={"turns": None},
    ),
    Rule(
        keys=("after_words", "after"),
        is_broken=lambda rows: rows.after_words is not None and bool(rows.after),
        what="after_words cannot be combined with after",
        fix="remove after",
        why="after_words cuts one text in two, and nothing stands between the parts",
        example={"after_words": 9, "after": "Answer:"},
        fixed={"after": None},
    ),
)

PROMPTS = (
    Rule(
        keys=("source", "sources"),
        is_broken=lambda prompts: prompts.source is not None and bool(prompts.sources),
        what="prompts.source cannot be combined with prompts.sources",
        fix="move the source into prompts.sources, or remove prompts.sources",
        why="a suite measures on one source or on a mixture",
        example={"source": _JSONL, "sources": {"more": _JSONL}},
        fixed={"source": None},
    ),
    Rule(
        keys=("order", "sources"),
        is_broken=lambda prompts: not prompts.sources and prompts.order != "in-turn",
        what="prompts.order is given, and prompts.sources is missing",
        fix="name several sources in prompts.sources, or remove prompts.order",
        why="the order is of several sources",
        example={"order": "alternating"},
        fixed={"order": None},
    ),
    Rule(
        keys=("max_tokens", "source", "sources"),
        is_broken=lambda prompts: prompts.max_tokens is not None and not prompts.named,
        what="prompts.max_tokens is given, and the suite brings no prompts",
        fix="set data.max_prompt_tokens in the recipe, or give prompts.source",
        why="the recipe limits its own prompts",
        example={"max_tokens": 64},
        fixed={"source": _JSONL},
    ),
    Rule(
        keys=("count", "sources"),
        is_broken=lambda prompts: prompts.count < len(prompts.sources),
        what="prompts.count is smaller than the number of sources",
        fix="raise prompts.count, or remove sources",
        why="each source gives an equal part of the prompts",
        example={"count": 1, "sources": {"code": _JSONL, "chat": _JSONL}},
        fixed={"count": 2},
        values=lambda prompts: f"{prompts.count} prompts cannot be of {len(prompts.sources)}",
    ),
    Rule(
        keys=("texts", "count", "sources"),
        is_broken=lambda prompts: bool(prompts.sources) and prompts.read < prompts.count,
        what="prompts.texts would leave out the last sources",
        fix="raise prompts.texts to at least prompts.count",
        why="texts are the first of the prompts, source after source",
        example={"texts": 1, "count": 2, "sources": {"code": _JSONL, "chat": _JSONL}},
        fixed={"texts": 2},
        values=lambda prompts: f"texts is {prompts.texts}, count is {prompts.count}",
    ),
)
