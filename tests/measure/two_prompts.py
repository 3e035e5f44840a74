"""Rows of two prompts and two drafts, made by hand, with the steps and texts that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from distillspec.measure.exact.target_texts import TextFacts
from distillspec.measure.timed.rows import CellRow
from distillspec.speculation.records import Counts
from tests.methods.chain_times import chain_times

STEP_SECONDS = {"undistilled": 0.001, "distilled": 0.002}
STEPS = chain_times(1.0, 0.010, {2: 0.012}, STEP_SECONDS)
FACTS = TextFacts(
    overlap={"undistilled": [4.0, 8.0], "distilled": [6.0, 9.0]},
    at_argmax={"undistilled": [3.0, 5.0], "distilled": [5.0, 8.0]},
    entropy=[10.0, 20.0],
    tokens=[8, 12],
    keep_probabilities={
        "undistilled": [[0.0] * 3, [1.0, 0.0, 1.0, 1.0, 0.0]],
        "distilled": [[0.5] * 3, [1.0] * 9],
    },
    documents=["document 0", "document 1"],
)
CONFIDENCE = 0.95


def a_row(prompt: int, draft: str | None, seconds: float, counts: Counts, **more: float) -> CellRow:
    return CellRow(
        prompt=prompt,
        prompt_key=str(prompt),
        temperature=more.get("temperature", 1.0),
        draft=draft,
        method=draft and "standard",
        gamma=int(more.get("gamma", 2)) if draft else None,
        repeat=0,
        place=0,
        run="r",
        seconds=seconds,
        prefill_seconds=1.0,
        tokens=[1] * 12,
        fates="p" * 12,
        counts=counts,
        document=f"document {prompt}",
    )


def counts(verifications: int, accepted_at: tuple[int, int]) -> Counts:
    accepted = sum(accepted_at)
    return Counts(
        tokens=12,
        verifications=verifications,
        emitted=accepted + verifications,
        drafts=verifications,
        drafted=2 * verifications,
        accepted=accepted,
        draft_steps=2 * verifications,
        accepted_at=accepted_at,
    )


def copied(rows: Sequence[CellRow], times: int = 5) -> list[CellRow]:
    """The same of so many times as many prompts and documents: enough for verdicts."""
    return [
        replace(row, prompt=row.prompt + 2 * turn, document=f"{row.document} {turn}")
        for turn in range(times)
        for row in rows
    ]


def copied_facts(times: int = 5) -> TextFacts:
    return TextFacts(
        {name: one * times for name, one in FACTS.overlap.items()},
        {name: one * times for name, one in FACTS.at_argmax.items()},
        FACTS.entropy * times,
        FACTS.tokens * times,
        {name: one * times for name, one in FACTS.keep_probabilities.items()},
        [f"{name} {turn}" for turn in range(times) for name in FACTS.documents],
    )


def rows() -> list[CellRow]:
    plain = [a_row(i, None, s, Counts()) for i, s in ((0, 3.0), (0, 5.0), (1, 8.0), (1, 8.0))]
    return [
        *plain,
        a_row(0, "undistilled", 4.0, counts(6, (2, 1))),
        a_row(1, "undistilled", 6.0, counts(4, (3, 2))),
        a_row(0, "distilled", 2.0, counts(5, (4, 2))),
        a_row(1, "distilled", 4.0, counts(5, (5, 4))),
    ]
