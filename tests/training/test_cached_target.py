"""Rows of a batch find their own kept distributions, and a training by them is the online one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from distillspec.corpus.batching import Batch, collate
from distillspec.corpus.signal_store import SignalText
from distillspec.corpus.visits import TreeRow, Visits, collate_trees
from distillspec.errors import DistillSpecError
from distillspec.models.hidden import token_logits
from distillspec.recipe.distill import Term
from distillspec.training.cached_target import texts_of
from distillspec.training.objective import Objective, predicts_response
from distillspec.training.state_file import read_state
from tests.training import tiny_run

TERMS = [name for name in get_args(Term) if name not in ("nll", "tvd_plus")]
SELECTED = {"divergence": "jsd", "select": {"keep": 0.5, "reference": "draft"}}
MIXED = {"divergence": "mix", "mix": {"nll": 0.3, "lk_alpha": 1.0, "block_efficiency": 0.5}}


def plan(store: Path, *, cached: bool = True, **distill: Any) -> dict[str, Any]:
    """All 300 tokens, unrounded, unless told otherwise."""
    kept = {"kind": "cached", "k": 300, "dtype": "float32", **distill.pop("kept", {})}
    signal = {**kept, "store": str(store)} if cached else {"kind": "online"}
    source = {"fixed": 0.5, "target": 0.5}
    return {"distill": {"source": source, "signal": signal, **distill}}


def parts(pair: Path, store: Path, **distill: Any) -> tiny_run.Parts:
    return tiny_run.parts(pair, tiny_run.recipe(**plan(store, **distill)))


def batch(count: int, *, on_prompts: bool = False) -> Batch:
    rows = [(p.tokens, p.response or ()) for p in tiny_run.prompts()[:count]]
    return collate(rows, 0, on_prompts=on_prompts)


def test_rows_are_told_without_their_padding_and_from_where_they_are_predicted() -> None:
    rows = [((5, 6, 7), (8, 0)), ((9,), ()), ((1, 2), (3, 4, 5, 6))]
    assert texts_of(collate(rows, 0)) == [
        SignalText((5, 6, 7, 8, 0), 3),
        SignalText((9,), 1),
        SignalText((1, 2, 3, 4, 5, 6), 2),
    ]
    assert [text.first for text in texts_of(collate(rows, 0, on_prompts=True))] == [1, 1, 1]


def test_packed_texts_are_told_one_by_one() -> None:
    rows = [
        [TreeRow((5, 6, 7), (8, 0), Visits.of_text(2)), TreeRow((9,), (), Visits.of_text(0))],
        [TreeRow((1, 2), (3, 4), Visits.of_text(3))],
    ]
    assert texts_of(collate_trees(rows, 0)) == [
        SignalText((5, 6, 7, 8, 0), 3),
        SignalText((9,), 1),
        SignalText((1, 2, 3, 4), 1),
    ]


@pytest.mark.parametrize("on_prompts", [False, True])
def test_a_batchs_records_are_the_targets_own_law_of_it(
    tiny_pair: Path, tmp_path: Path, on_prompts: bool
) -> None:
    """In whatever company a text was scored, and is read."""
    made = parts(tiny_pair, tmp_path, on_prompts=on_prompts, temperature=0.7, micro_batch_size=5)
    assert made.cached is not None
    rows = batch(9, on_prompts=on_prompts)
    found = made.cached.top_tokens(rows)
    with torch.no_grad():
        logits = token_logits(made.target.model, rows.tokens, rows.is_token)
    log_p = torch.log_softmax(logits[predicts_response(rows)] / 0.7, -1)
    assert found.ids.shape == log_p.shape
    mine = torch.empty_like(log_p).scatter_(1, found.ids.long(), found.log_probability)
    torch.testing.assert_close(mine, log_p, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize(
    "objective", [*({"divergence": name} for name in TERMS), SELECTED, MIXED], ids=str
)
def test_the_whole_vocabulary_kept_gives_the_gradient_of_the_target(
    tiny_pair: Path, tmp_path: Path, objective: dict[str, Any], rounded: bool
) -> None:
    """In float32 to the last digits. float16 flips signs of q - p, which TVD's slope hangs on."""
    kept = {"dtype": "float16" if rounded else "float32"}
    made = parts(tiny_pair, tmp_path, **objective, kept=kept)
    distill, rows = made.recipe.distill, batch(12)
    found = []
    for loss in (
        Objective(distill, made.target, made.reference),
        Objective(distill, None, made.reference, made.cached),
    ):
        made.draft.zero_grad()
        sums = loss(made.draft, rows)
        sums.divergence.backward()  # type: ignore[no-untyped-call]
        gradient = torch.cat([_gradient(p) for p in made.draft.parameters()])
        found.append((sums.divergence.detach(), sums.alpha, gradient))
    (value, alpha, gradient), (mine, my_alpha, my_gradient) = found
    torch.testing.assert_close(mine, value, rtol=1e-2 if rounded else 1e-4, atol=1e-4)
    torch.testing.assert_close(my_alpha, alpha, rtol=1e-3 if rounded else 1e-5, atol=1e-4)
    assert float((my_gradient - gradient).norm() / gradient.norm()) < (3e-2 if rounded else 1e-4)


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten().clone()


def test_training_by_the_whole_kept_law_makes_the_steps_of_online_training(
    tiny_pair: Path, tmp_path: Path
) -> None:
    traces = []
    for name, cached in (("online", False), ("kept", True)):
        made = parts(tiny_pair, tmp_path / "store", cached=cached)
        tiny_run.run(made, tmp_path / name)
        traces.append(tiny_run.rows_of(tmp_path / name))
    online, kept = traces
    assert len(online) == len(kept) == 5
    for theirs, mine in zip(online[1:], kept[1:], strict=True):
        for name in ("divergence_nats", "gradient_norm", "response_tokens"):
            assert float(mine[f"train/{name}"]) == pytest.approx(
                float(theirs[f"train/{name}"]), rel=1e-3
            )
        assert mine["train/alpha"] == theirs["train/alpha_at_most"] == ""
        bound, alpha = float(mine["train/alpha_at_most"]), float(theirs["train/alpha"])
        assert bound == pytest.approx(alpha, rel=1e-4)


def test_a_run_resumed_on_the_kept_law_is_bit_equal(tiny_pair: Path, tmp_path: Path) -> None:
    few, even = {"k": 20, "dtype": "float16"}, {"warmup_steps": 0, "final_rate_share": 1.0}
    for name, steps in (("whole", [4]), ("twice", [2, 4])):
        for last in steps:
            made = plan(tmp_path / "store", kept=few, max_steps=last)
            tiny_run.run(
                tiny_run.parts(tiny_pair, tiny_run.recipe(**made, optimizer=even)),
                tmp_path / name,
                resume=True,
            )
    whole, twice = (
        read_state(tmp_path / n / "last.ckpt")["state_dict"] for n in ("whole", "twice")
    )
    assert all(torch.equal(whole[name], twice[name]) for name in whole)


def test_a_row_that_was_not_kept_is_refused(tiny_pair: Path, tmp_path: Path) -> None:
    made = parts(tiny_pair, tmp_path)
    assert made.cached is not None
    with pytest.raises(DistillSpecError, match="no distributions are kept"):
        made.cached.top_tokens(collate([((5, 6), (7, 8))], 0))
