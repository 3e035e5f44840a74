from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.models.loading.load import load_model
from distillspec.models.sampling.generate import DrawnText
from distillspec.training.held_out_loss import HeldOutLoss, LossResult
from distillspec.training.resume import Position
from distillspec.training.state_file import read_state
from tests.training import tiny_run

TEXTS = [DrawnText((3, 4), (5, 6, 7)), DrawnText((9,), (8,)), DrawnText((2, 2, 2), ())]


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


def test_it_is_the_mean_over_the_tokens_of_the_texts(draft: PreTrainedModel) -> None:
    total = 0.0
    for text in TEXTS[:2]:
        tokens = torch.tensor([text.prompt + text.response])
        log_q = draft(tokens).logits[0].log_softmax(-1).detach()
        for place, token in enumerate(text.response, start=len(text.prompt)):
            total -= float(log_q[place - 1, token])
    found = HeldOutLoss(TEXTS).measure(draft)
    assert found.tokens == 4
    assert found.nats == pytest.approx(total / 4, rel=1e-5)


def test_the_lowest_loss_is_the_best_and_the_first_is_better_than_none() -> None:
    best = Position()
    for nats, better in ((2.0, True), (2.5, False), (2.0, False), (1.5, True)):
        finding = LossResult(nats, 4)
        assert finding.beats(best) is better
        if better:
            finding.keep(best)
    assert best.best_nats == 1.5


def test_a_run_keeps_the_draft_of_the_lowest_held_out_loss(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"divergence": "nll", "source": {"fixed": 1.0}})
    made = tiny_run.parts(tiny_pair, plan)
    target = made.target.model
    prompts = torch.tensor([[5, 6, 7]])
    drawn = target.generate(prompts, max_new_tokens=12, do_sample=False, pad_token_id=0)
    text = DrawnText((5, 6, 7), tuple(drawn[0, 3:].tolist()))
    probe = HeldOutLoss([text])
    own = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    outcome = tiny_run.run(made._replace(draft=own, probe=probe), tmp_path)  # type: ignore[arg-type]
    rows = tiny_run.rows_of(tmp_path)
    losses = {int(row["step"]): float(row["probe/nats"]) for row in rows if row["probe/nats"]}
    assert sorted(losses) == [0, 1, 2, 4]
    assert outcome.best_nats == min(losses.values()) == losses[outcome.best_step]
    step = outcome.best_step
    lowest = f"lowest held-out loss {outcome.best_nats:.4f} nats at step {step}"
    assert outcome.best().startswith(lowest)
    assert outcome.record()["best_alpha"] is None
    assert read_state(tmp_path / "best.ckpt")["nats"] == outcome.best_nats
    assert not any(row["probe/alpha"] for row in rows)
