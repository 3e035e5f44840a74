"""Ends, repeats, pieces and greedy divergences of decoded texts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from distillspec.measure.summary.completions import (
    completion_text,
    examples,
    greedy_divergences,
    repeated_share,
    token_texts,
)
from distillspec.measure.timed.rows import CellRow
from distillspec.speculation.records import Counts

if TYPE_CHECKING:
    from tests.measured import Setting


def a_row(prompt: int, draft: str | None, tokens: list[int], tau: float = 2.0) -> CellRow:
    return CellRow(
        prompt=prompt,
        prompt_key=f"p{prompt}",
        temperature=0.0,
        draft=draft,
        method="standard" if draft else None,
        gamma=2 if draft else None,
        repeat=0,
        place=0,
        run="r",
        seconds=1.0,
        prefill_seconds=0.0,
        tokens=tokens,
        fates="a" * len(tokens),
        counts=Counts(emitted=int(10 * tau), verifications=10),
    )


def test_repeated_ngrams_by_hand() -> None:
    assert repeated_share([[1, 2, 3, 4, 5]]) == 0.0
    assert repeated_share([[1, 1, 1, 1, 1, 1]]) == pytest.approx(2 / 3)
    assert repeated_share([[1, 2, 1, 2, 1, 2], [9, 8, 7, 6]]) == pytest.approx(1 / 4)
    assert math.isnan(repeated_share([[1, 2, 3]]))


@pytest.mark.parametrize("text", ["return one + other\n", "naïve — 日本 🙂!", "  x"])
def test_the_pieces_of_a_text_add_up_to_it(setting: Setting, text: str) -> None:
    prompt = setting.prompts[0].tokens
    tokens = setting.tokenizer.encode(text, add_special_tokens=False)
    pieces = list(token_texts(setting.tokenizer, prompt, tokens))
    assert len(pieces) == len(tokens)
    assert "".join(pieces) == text
    assert completion_text(setting.tokenizer, prompt, [*tokens, 0]) == text


def test_a_greedy_text_that_differs_from_the_baseline_is_listed_with_its_gap(
    setting: Setting,
) -> None:
    rows = [
        a_row(0, None, [5, 6, 7]),
        a_row(0, "distilled", [5, 6, 7]),
        a_row(0, "control", [5, 9, 7]),
        a_row(1, None, [5, 6, 7]),
        a_row(1, "control", [5, 6, 7]),
    ]
    text = torch.tensor([[*setting.prompts[0].tokens, 5]])
    with torch.no_grad():
        logits = setting.target(input_ids=text).logits[0, -1]
    first, second, *_, last = logits.argsort(descending=True).tolist()
    rows[0].tokens[1] = rows[1].tokens[1] = first
    rows[2].tokens[1] = second
    (found,) = greedy_divergences(setting.target, setting.prompts, rows, vocab_size=None)
    assert (found.draft, found.prompt_key, found.position) == ("control", "p0", 1)
    assert found.method == "standard"
    assert found.gap == pytest.approx(float(logits[first] - logits[second]), rel=1e-4)
    assert found.are_top_two
    # The gap of the top two excuses no third token, whichever text it is in.
    rows[2].tokens[1] = last
    (found,) = greedy_divergences(setting.target, setting.prompts, rows, vocab_size=None)
    assert found.gap == pytest.approx(float(logits[first] - logits[last]), rel=1e-4)
    assert not found.are_top_two
    rows[0].tokens[1] = rows[1].tokens[1] = last
    rows[2].tokens[1] = second
    found, *_ = greedy_divergences(setting.target, setting.prompts, rows, vocab_size=None)
    assert not found.are_top_two


def test_texts_that_were_sampled_need_not_agree(setting: Setting) -> None:
    rows = [a_row(0, None, [5]), a_row(0, "control", [6])]
    sampled = [replace(row, temperature=1.0) for row in rows]
    assert greedy_divergences(setting.target, setting.prompts, sampled, vocab_size=None) == []


def test_the_example_is_the_prompt_with_the_median_tau_for_every_draft(
    setting: Setting,
) -> None:
    taus = {0: 2.5, 1: 1.5, 2: 2.0}
    rows = [
        a_row(prompt, draft, [40, 41], tau)
        for prompt, tau in taus.items()
        for draft in ("undistilled", "distilled")
    ]
    found = examples(setting.tokenizer, setting.prompts, rows, {0.0: ("standard", 2)})
    assert [one.draft for one in found] == ["undistilled", "distilled"]
    assert {one.prompt_key for one in found} == {setting.prompts[2].key}
    assert [piece.fate for piece in found[0].pieces] == ["accepted", "accepted"]


def test_without_a_complete_round_there_is_no_example(setting: Setting) -> None:
    row = replace(a_row(0, "distilled", [40]), counts=Counts())
    assert examples(setting.tokenizer, setting.prompts, [row], {0.0: ("standard", 2)}) == []
