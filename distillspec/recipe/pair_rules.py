"""Settings of the section `pair` that cannot be combined."""

from __future__ import annotations

from distillspec.recipe.rule import Rule

_ENDPOINT = {"target": None, "endpoint": {"url": "http://localhost:8000/v1", "model": "m"}}
_MADE = {"draft": {"kind": "pruned", "layers": 1}}
_HEAD = {"draft_head": {"keep": 4096}}
_CROSS = {"tokenizers": "cross-tokenizer"}

PAIR = (
    Rule(
        keys=("target", "endpoint"),
        is_broken=lambda pair: pair.target is not None and pair.endpoint is not None,
        what="pair.target and pair.endpoint are both given, and a pair has one target",
        fix="remove pair.endpoint to use the target's weights, or pair.target to use an API",
        why="weights give the target's distribution, and an API gives its text only",
        example=_ENDPOINT | {"target": "t"},
        fixed={"endpoint": None},
    ),
    Rule(
        keys=("target", "endpoint"),
        is_broken=lambda pair: pair.target is None and pair.endpoint is None,
        what="a pair needs a target: pair.target or pair.endpoint",
        fix="add pair.target (a folder or a Hub id), or pair.endpoint (an API that gives text)",
        why="the draft learns from the target",
        example={"target": None},
        fixed={"target": "t"},
    ),
    Rule(
        keys=("endpoint", "target_revision"),
        is_broken=lambda pair: pair.endpoint is not None and pair.target_revision is not None,
        what="pair.target_revision cannot be combined with pair.endpoint",
        fix="remove pair.target_revision",
        why="a revision is of a model on the Hub, and the server chooses the model of an endpoint",
        example=_ENDPOINT | {"target_revision": "main"},
        fixed={"target_revision": None},
    ),
    Rule(
        keys=("endpoint", "draft.kind"),
        is_broken=lambda pair: pair.endpoint is not None and not isinstance(pair.draft, str),
        what="a draft of kind pruned or random cannot be combined with pair.endpoint",
        fix="set pair.draft to a folder or a Hub id, or name the target's weights in pair.target",
        why="such a draft is made with the target's weights and tokenizer, which no API gives",
        example=_ENDPOINT | _MADE,
        fixed={"draft": "d"},
    ),
    Rule(
        keys=("endpoint", "tokenizers"),
        is_broken=lambda pair: pair.endpoint is not None and pair.tokenizers == "cross-tokenizer",
        what="pair.tokenizers 'cross-tokenizer' cannot be combined with pair.endpoint",
        fix="remove pair.tokenizers",
        why="an endpoint gives text, which the draft reads with its own tokenizer anyway",
        example=_ENDPOINT | _CROSS,
        fixed={"tokenizers": None},
    ),
    Rule(
        keys=("endpoint", "draft_head"),
        is_broken=lambda pair: pair.endpoint is not None and pair.draft_head is not None,
        what="pair.draft_head cannot be combined with pair.endpoint",
        fix="remove pair.draft_head, or name the target's weights in pair.target",
        why="the loss must know the target's probability outside the head, which no API gives",
        example=_ENDPOINT | _HEAD,
        fixed={"draft_head": None},
    ),
    Rule(
        keys=("draft_revision", "draft.kind"),
        is_broken=lambda pair: pair.draft_revision is not None and not isinstance(pair.draft, str),
        what="pair.draft_revision cannot be combined with a draft of kind pruned or random",
        fix="remove pair.draft_revision",
        why="a revision is of a draft on the Hub, and this draft is made",
        example=_MADE | {"draft_revision": "main"},
        fixed={"draft_revision": None},
    ),
    Rule(
        keys=("tokenizers", "draft.kind"),
        is_broken=lambda pair: (
            pair.tokenizers == "cross-tokenizer" and not isinstance(pair.draft, str)
        ),
        what="pair.tokenizers 'cross-tokenizer' cannot be combined with a draft that is made",
        fix="remove pair.tokenizers, or set pair.draft to a given draft (a folder or a Hub id)",
        why="a draft of kind pruned or random has the target's tokenizer",
        example=_CROSS | _MADE,
        fixed={"tokenizers": None},
    ),
    Rule(
        keys=("tokenizers", "draft_head"),
        is_broken=lambda pair: pair.tokenizers == "cross-tokenizer" and pair.draft_head is not None,
        what="pair.draft_head cannot be combined with pair.tokenizers 'cross-tokenizer'",
        fix="remove pair.draft_head",
        why="the head counts the target's tokens, and the tokens that both vocabularies share "
        "restrict the draft already",
        example=_CROSS | _HEAD,
        fixed={"draft_head": None},
    ),
)
