"""Evaluate a suite: time every draft, method, gamma and temperature against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch

from distillspec.errors import DistillSpecError
from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.summary.build import sum_up
from distillspec.measure.summary.file import write_summary
from distillspec.measure.summary.noise_floor import timed_again
from distillspec.measure.summary.records import Summary
from distillspec.measure.timed import audit
from distillspec.measure.timed.audit import AUDIT
from distillspec.measure.timed.bench import Bench, BenchColumn, TimedTexts
from distillspec.measure.timed.plan import (
    Prepared,
    check,
    plan_of,
    read_plan,
    was_begun_without,
    write_plan,
)
from distillspec.measure.timed.rows import RowLog
from distillspec.models.vocabulary.eos_tokens import find_eos_tokens
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ROWS = "rows.jsonl"
SUMMARY = "summary.json"
_PLAN = "plan.json"
_CHOOSER_STATE = "chooser_state.json"
_FORMER_STATE = "learnt.json"  # its name in 0.1


class EvaluationProgress(Protocol):
    def __call__(self, done: int, total: int, doing: str) -> None: ...


def evaluate(
    suite: Suite,
    *,
    target: PreTrainedModel,
    drafts: Mapping[str, PreTrainedModel],
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[MeasuredPrompt],
    folder: Path,
    device: torch.device | str,
    vocab_size: int | None = None,
    ends: frozenset[int] | None = None,
    notes: Sequence[str] = (),
    progress: EvaluationProgress = lambda done, total, doing: None,
) -> Summary:
    """Run what is missing of the suite in `folder`; write rows.jsonl and summary.json.

    A second call with the same arguments resumes an interrupted evaluation.

    Args:
        suite: What to measure.
        target: The target, on `device`, in the dtype that it decodes in.
        drafts: Models by the names that the suite and its methods use; others are not used.
        tokenizer: The pair's tokenizer.
        prompts: The first `suite.prompts.count` are decoded, and `suite.prompts.texts` give the
            target's texts.
        folder: The evaluation's folder.
        device: Where the models are.
        vocab_size: Tokens that all models share, if their vocabularies are padded differently.
        ends: Ids of tokens that end a text; None: those of the target.
        notes: Sentences about the prompts for the summary.
        progress: Receives done and total blocks, and the current step in words. Both numbers are
            0 in a step that counts no blocks.

    Raises:
        DistillSpecError: The folder holds an evaluation of other models, prompts or cells.
    """
    used = dict.fromkeys([*suite.drafts, *suite.named_models()])
    chosen: dict[str, PreTrainedModel] = {name: drafts[name] for name in used if name in drafts}
    # Dropout off: what is measured must be the distribution that is served.
    for model in (target, *chosen.values()):
        model.train(False)
    taken = list(prompts[: suite.prompts.count])
    check(suite, target, chosen, prompts[: suite.prompts.most])

    # 1. What the folder holds already, and what is missing.
    atomic.make_folder(folder)
    grid = _grid(suite, chosen, folder)
    again = None if grid.again is None else str(grid.again)
    plan = plan_of(suite, target, chosen, taken, device, again)
    prepared = _read_plan(folder, plan)
    rows = _open_rows(folder, suite, grid, taken)
    blocks = [(p, t) for p in range(len(taken)) for t in suite.temperatures]
    missing = [block for block in blocks if not rows.has(block)]

    # 2. Time the missing blocks.
    if missing or prepared is None:
        progress(0, 0, "preparing the models")
        with closing(
            Bench(suite, target, chosen, taken, grid.twice, torch.device(device), vocab_size)
        ) as bench:
            prepared = _prepare(bench, folder, plan, rows, has_audit=suite.audit)
            for done, block in enumerate(missing, start=len(blocks) - len(missing)):
                progress(done, len(blocks), "decoding")
                # The noise floor is measured at one temperature only.
                among = grid.twice if block[1] == suite.again_at else grid.columns
                # The index among all blocks, so that a resumed run rotates in the same way.
                timed = list(bench.block(blocks.index(block), *block, among))
                _write_block(folder, timed, rows, has_audit=suite.audit)
                # Choosers learn from block to block, so their state is stored after each of them.
                atomic.write_json(folder / _CHOOSER_STATE, bench.state())

    # 3. Sum up.
    progress(0, 0, "reading the drafts on texts of the target")
    summary = sum_up(
        suite,
        rows.rows,
        prepared,
        target=target,
        drafts=chosen,
        tokenizer=tokenizer,
        prompts=taken,
        text_prompts=prompts[: suite.prompts.read],
        vocab_size=vocab_size,
        ends=find_eos_tokens(target, tokenizer).ids if ends is None else ends,
        notes=notes,
    )
    write_summary(summary, folder / SUMMARY)
    return summary


class _Grid(NamedTuple):
    """The columns of each block.

    Attributes:
        columns: Every draft with every method and gamma that the suite gives it.
        again: The column that is timed twice, for the noise floor; None without.
    """

    columns: list[BenchColumn]
    again: BenchColumn | None

    @property
    def twice(self) -> list[BenchColumn]:
        """The columns of a block that measures the noise floor too."""
        return self.columns if self.again is None else [*self.columns, self.again]


def _grid(suite: Suite, drafts: Mapping[str, PreTrainedModel], folder: Path) -> _Grid:
    columns = [
        BenchColumn(draft, method, gamma)
        for draft in drafts
        for method in suite.methods
        if suite.measures(draft, method)
        for gamma in suite.of(method)
    ]
    # A folder begun by an earlier version, or by a suite without a noise floor, goes on without.
    without = was_begun_without(folder / _PLAN, "noise_floor")
    return _Grid(columns, None if without else timed_again(suite, drafts))


def _read_plan(folder: Path, plan: dict[str, Any]) -> Prepared | None:
    """What an interrupted evaluation has prepared; None if the folder is empty."""
    prepared = read_plan(folder / _PLAN, plan)
    if prepared is None and (folder / ROWS).exists():
        raise DistillSpecError(
            f"the folder has rows but no {_PLAN}, so it is unknown what was measured",
            where=str(folder / ROWS),
            fix="move that folder away, then evaluate again",
        )
    return prepared


def _open_rows(
    folder: Path, suite: Suite, grid: _Grid, prompts: Sequence[MeasuredPrompt]
) -> RowLog:
    return RowLog(
        folder / ROWS,
        # Each repeat times every column and then the baseline; one more baseline comes first.
        rows_per_block=suite.repeats * len(grid.columns) + suite.repeats + 1,
        again={} if grid.again is None else {suite.again_at: suite.repeats},
        documents=[prompt.document for prompt in prompts],
    )


def _prepare(
    bench: Bench, folder: Path, plan: dict[str, Any], rows: RowLog, *, has_audit: bool
) -> Prepared:
    """Compile and time the models; restore the state of choosers after the stored rows."""
    prepared = bench.prepare()
    # A stored state belongs to stored rows.
    if rows.rows:
        state, former = folder / _CHOOSER_STATE, folder / _FORMER_STATE
        bench.restore(former if former.exists() and not state.exists() else state)
    write_plan(folder / _PLAN, plan, prepared)
    # Rounds of other blocks come from a killed process; those blocks are decoded again.
    if has_audit:
        audit.keep_blocks(folder / AUDIT, {row.block for row in rows.rows})
    return prepared


def _write_block(
    folder: Path, timed: Sequence[TimedTexts], rows: RowLog, *, has_audit: bool
) -> None:
    """Append the audit first, because a resumed evaluation removes rounds without rows."""
    if has_audit:
        audit.append(folder / AUDIT, [audited for text in timed for audited in text.rounds])
    rows.append([text.row for text in timed])
