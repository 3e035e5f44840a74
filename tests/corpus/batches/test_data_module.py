from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from distillspec.corpus.batches.data_module import PromptRows, TrainingRow
from distillspec.corpus.sources.prompts import Prompt
from distillspec.errors import DistillSpecError
from distillspec.recipe.text_source import SourceShares

PROMPTS = [Prompt(f"k{i}", tuple(range(1, i % 5 + 2)), (9, i), f"t{i}", "plain") for i in range(11)]
TARGETS = {p.key: (100, i) for i, p in enumerate(PROMPTS)}
MIXED = SourceShares(fixed=0.25, target=0.25, draft=0.5)


def rows(**changed: Any) -> PromptRows:
    values = {"batch_size": 4, "seed": 0, "target_responses": TARGETS, **changed}
    shares = values.pop("shares", MIXED)
    phases = shares if isinstance(shares, list) else [shares]
    return PromptRows(values.pop("prompts", PROMPTS), phases, **values)


class Watcher(LightningModule):
    """Trains one number, keeps the rows it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[list[TrainingRow]] = []

    def training_step(self, batch: list[TrainingRow], _: int) -> torch.Tensor:
        self.seen.append(batch)
        return self.weight * 1.0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(steps: int, **changed: Any) -> Trainer:
    return Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **changed,
    )


def test_a_row_carries_the_response_of_its_origin() -> None:
    made = rows()
    for step in range(10):
        for prompt, origin in made.rows(step):
            own = next(p for p in PROMPTS if p.key == prompt.key)
            expected = {"fixed": own.response, "target": TARGETS[own.key], "draft": None}
            assert prompt == own._replace(response=expected[origin])


def test_processes_share_the_rows_that_one_would_have() -> None:
    made = rows(batch_size=6)
    for step in range(10):
        whole = made.rows(step)
        for world in (2, 3):
            parts = [made.rows(step, rank, world) for rank in range(world)]
            dealt = [row for part in parts for row in part]
            assert sorted(dealt, key=repr) == sorted(whole, key=repr)
            assert {len(part) for part in parts} == {6 // world}


def test_processes_get_rows_of_like_lengths() -> None:
    made = rows(batch_size=8)
    for step in range(10):
        lengths = [len(row.prompt.tokens) for row in made.rows(step)]
        assert lengths == sorted(lengths)


def test_training_gets_the_rows_of_each_step_in_turn() -> None:
    watcher, data = Watcher(), rows()
    trainer(5).fit(watcher, datamodule=data)
    assert watcher.seen == [rows().rows(step) for step in range(5)]
    assert data.state_dict()["step"] == 5


def test_a_resumed_run_goes_on_with_the_next_step(tmp_path: Path) -> None:
    first = trainer(3)
    first.fit(Watcher(), datamodule=rows())
    first.save_checkpoint(tmp_path / "last.ckpt")
    watcher = Watcher()
    trainer(7).fit(watcher, datamodule=rows(), ckpt_path=tmp_path / "last.ckpt")
    assert watcher.seen == [rows().rows(step) for step in range(3, 7)]


def test_a_state_loaded_after_lightning_fetched_ahead_still_counts() -> None:
    class Late(Watcher):
        def on_train_start(self) -> None:
            self.trainer.datamodule.load_state_dict({**rows().state_dict(), "step": 40})  # type: ignore[attr-defined]

    watcher = Late()
    trainer(2).fit(watcher, datamodule=rows())
    assert watcher.seen == [rows().rows(40), rows().rows(41)]


def test_the_iterator_can_be_used_without_a_trainer() -> None:
    data = rows()
    data.load_state_dict({**data.state_dict(), "step": 2})
    assert list(islice(data.train_dataloader(), 3)) == [data.rows(n) for n in (2, 3, 4)]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 1}, "seed"),
        ({"batch_size": 8}, "batch_size"),
        ({"prompts": PROMPTS[1:]}, "prompts"),
    ],
)
def test_a_state_of_other_data_is_refused(change: dict[str, Any], name: str) -> None:
    with pytest.raises(DistillSpecError, match=f"in {name}"):
        rows(**change).load_state_dict(rows().state_dict())


def test_a_state_is_plain_numbers_and_texts() -> None:
    assert {type(value) for value in rows().state_dict().values()} == {int, str}


def test_a_share_of_fixed_responses_needs_responses() -> None:
    bare = [PROMPTS[0]._replace(response=None), *PROMPTS[1:]]
    with pytest.raises(DistillSpecError, match="1 of 11 prompts have no response"):
        rows(prompts=bare)
    assert rows(prompts=bare, shares=SourceShares(draft=1.0)).rows(0)


def test_origins_are_those_of_the_phase_and_the_prompts_stay() -> None:
    class Run:
        phase = 0

    run, data = Run(), rows(shares=[SourceShares(target=1.0), SourceShares(draft=1.0)])
    data.follow(run)
    first = data.rows(3)
    run.phase = 1
    second = data.rows(3)
    assert {row.origin for row in first} == {"target"}
    assert {row.origin for row in second} == {"draft"}
    assert [row.prompt.key for row in first] == [row.prompt.key for row in second]
    assert all(row.prompt.response is None for row in second)


def test_the_responses_of_every_phase_must_be_there() -> None:
    bare = [prompt._replace(response=None) for prompt in PROMPTS]
    with pytest.raises(DistillSpecError, match="have no response"):
        rows(prompts=bare, shares=[SourceShares(draft=1.0), SourceShares(fixed=1.0)])
