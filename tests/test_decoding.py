"""`distillspec.decode` on the embedded pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import distillspec
from distillspec.decoding import _with_text
from distillspec.errors import DistillSpecError
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.recipe.suite import Method
from distillspec.speculation.records import Fate, Round, RoundRecord

PAIR = Path(__file__).parents[1] / "checkpoints" / "nano-python"
PROMPT = (
    "class Attention(nn.Module):\n    def __init__(self, config):\n        super().__init__()\n"
)
SPECTR = {"draft": {"kind": "sequences", "count": 3}, "verify": {"kind": "kseq"}}


def models() -> tuple[Any, Any, Any]:
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    target, draft = (
        load_model(str(PAIR / name), dtype=torch.float32, what=name) for name in ("target", "draft")
    )
    return target, draft, tokenizer


@pytest.mark.parametrize(
    "method",
    [
        "standard",
        SPECTR,
        {"stop": {"kind": "adaedl"}, "verify": {"kind": "block"}},
        {"draft": {"kind": "lookup"}},
    ],
)
def test_greedy_text_is_the_targets_own_whatever_the_method(method: Any) -> None:
    target, draft, tokenizer = models()
    found = list(
        distillspec.decode(
            target, draft, PROMPT, method=method, temperature=0.0, max_new_tokens=24,
            tokenizer=tokenizer,
        )
    )  # fmt: skip
    ids = torch.tensor([tokenizer.encode(PROMPT)])
    expected = target.generate(ids, max_new_tokens=24, do_sample=False)[0, ids.shape[1] :]
    assert [one.token for one in found] == expected.tolist()
    assert PROMPT + "".join(one.text for one in found) == tokenizer.decode([*ids[0], *expected])
    assert Fate.ACCEPTED in {one.fate for one in found}


def test_tokens_come_while_others_are_still_to_be_decoded() -> None:
    stream = distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), PROMPT, gamma=2)
    first = next(stream)
    assert first.text
    assert first.round.drafted == 2


@pytest.mark.parametrize(
    ("method", "says"),
    [
        ("unheard-of", "'unheard-of' is no decoding method"),
        ({"verify": {"kind": "kseq"}}, "does not verify one chain"),
        ({"choose": {"kind": "ucb", "arms": ["standard"]}}, "needs the other methods"),
        (
            Method.model_validate({"choose": {"kind": "ucb", "arms": ["standard"]}}),
            "needs the other methods",
        ),
        ({"draft": {"kind": "chain", "model": "control"}}, "names the draft 'control'"),
    ],
)
def test_what_is_no_method_is_the_users_error(method: Any, says: str) -> None:
    with pytest.raises(DistillSpecError, match=says):
        distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), PROMPT, method=method)


@pytest.mark.parametrize(
    ("prompt", "how", "says"),
    [("", {}, "no tokens"), ("x", {"gamma": -1}, "gamma is -1"), ("x", {"max_new_tokens": 0}, "0")],
)
def test_what_cannot_be_decoded_is_said_before_the_first_token(
    prompt: str, how: dict[str, int], says: str
) -> None:
    with pytest.raises(DistillSpecError, match=says):
        distillspec.decode(str(PAIR / "target"), str(PAIR / "draft"), prompt, **how)  # type: ignore[arg-type]


def test_half_a_character_waits_for_its_other_half() -> None:
    tokenizer = load_tokenizer(str(PAIR / "target"), what="target")
    text = "x = 'é😀'\n"
    ids = tokenizer.encode(text)
    record = RoundRecord(0, 0, len(ids), 0, False)
    rounds = iter([Round(ids, [Fate.PLAIN] * len(ids), record)])
    pieces = [one.text for one in _with_text(rounds, tokenizer, tokenizer.encode("y = 1\n"))]
    assert "".join(pieces) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert "" in pieces
