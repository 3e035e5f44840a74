from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distillspec.models.loading.load import load_tokenizer
from distillspec.recipe.schema import HardwareConfig
from distillspec.runtime.world import World
from distillspec.training.state_file import POSITION, read_state
from distillspec.training.strategy import PlainUpdate, full_tensors, strategy_name
from tests.seq2seq import written_pair
from tests.training import tiny_run
from tests.two_processes import run_by_two

STRATEGIES = ("ddp", "fsdp2", "zero2", "zero3")
COMPARED = ("divergence_nats", "alpha", "response_tokens", "gradient_norm", "learning_rate")
PLAN: dict[str, Any] = {
    "distill": {
        "source": {"fixed": 1.0},
        "max_steps": 3,
        "micro_batch_size": 1,
        "probe": {"every_steps": 3, "prompts": 2, "gamma": 2, "max_new_tokens": 6},
    },
    "optimizer": {"clip_norm": 0.5, "warmup_steps": 0, "final_rate_share": 1.0},
}


WRITTEN: dict[str, Any] = {
    "source": {"fixed": 0.25, "draft": 0.25, "speculative": 0.25, "replay": 0.25},
    "batch_size": 16,
    "micro_batch_size": 2,
}


SELECTED: dict[str, Any] = {"select": {"keep": 0.4, "reference": "draft"}}


def _plan(strategy: str, **distill: Any) -> dict[str, Any]:
    return {
        **PLAN,
        "distill": {**PLAN["distill"], **distill},
        "hardware": {"strategy": strategy, "device": "cpu", "precision": "float32"},
    }


def _split(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "hardware": {**plan["hardware"], "shard_target": True}}


def _layered(plan: dict[str, Any]) -> dict[str, Any]:
    return {**plan, "optimizer": {**plan["optimizer"], "layer_decay": 0.5, "weight_decay": 0.1}}


def _kept(folder: Path) -> dict[str, Any]:
    """Half of the vocabulary is kept, as all processes read it."""
    store = str(folder / "signals")
    return {"target_logits": {"kind": "cached", "k": 150, "dtype": "float32", "store": store}}


@pytest.fixture(scope="module")
def runs(tiny_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same steps by one process ("plain") and by two with each strategy.

    "<strategy>-resumed" was started again after its first step, "<strategy>-damaged" with a bit of
    its last checkpoint flipped, "<strategy>-drawn" is on-policy,
    "<strategy>-written" has text of all kinds, some of it for the second time, and was resumed,
    "<strategy>-kept" reads the target's kept distributions, which "plain-kept" has made,
    "<strategy>-selected" and "<strategy>-surrogate" (TVD++) look twice at each step, and
    "<strategy>-layered" has rates by layer: one process has made such steps for all three. The
    target of "<strategy>-split" is split over both processes, and replays are scored anew in
    "<strategy>-split-drawn".
    """
    folder = tmp_path_factory.mktemp("strategies")
    tiny_run.run(tiny_run.parts(tiny_pair, tiny_run.recipe(**_plan("auto"))), folder / "plain")
    kept = tiny_run.recipe(**_plan("auto", **_kept(folder)))
    tiny_run.run(tiny_run.parts(tiny_pair, kept), folder / "plain-kept")
    selected = tiny_run.recipe(**_plan("auto", **SELECTED))
    tiny_run.run(tiny_run.parts(tiny_pair, selected), folder / "plain-selected")
    layered = tiny_run.recipe(**_layered(_plan("auto")))
    tiny_run.run(tiny_run.parts(tiny_pair, layered), folder / "plain-layered")
    surrogate = tiny_run.by_tvd_plus(tiny_run.recipe(**_plan("auto")))
    tiny_run.run(tiny_run.parts(tiny_pair, surrogate), folder / "plain-surrogate")
    jobs: list[dict[str, Any]] = []
    for name in STRATEGIES:
        resumed, drawn = str(folder / f"{name}-resumed"), str(folder / f"{name}-drawn")
        damaged = str(folder / f"{name}-damaged")
        jobs += [
            {"folder": str(folder / name), "recipe": _plan(name)},
            {"folder": resumed, "recipe": _plan(name, max_steps=1)},
            {"folder": resumed, "recipe": _plan(name), "resume": True},
            {"folder": damaged, "recipe": _plan(name, checkpoint_every_steps=1)},
            {"folder": damaged, "recipe": _plan(name), "resume": True, "damaged": True},
            {"folder": drawn, "recipe": _plan(name, source={"draft": 1.0}), "probed": False},
            {"folder": str(folder / f"{name}-kept"), "recipe": _plan(name, **_kept(folder))},
            {"folder": str(folder / f"{name}-selected"), "recipe": _plan(name, **SELECTED)},
            {"folder": str(folder / f"{name}-surrogate"), "recipe": _plan(name), "tvd_plus": True},
            {"folder": str(folder / f"{name}-layered"), "recipe": _layered(_plan(name))},
            {"folder": str(folder / f"{name}-split"), "recipe": _split(_plan(name))},
            {
                "folder": str(folder / f"{name}-split-drawn"),
                "recipe": _split(_plan(name, source={"draft": 0.25, "replay": 0.75})),
            },
        ]
        written = {"folder": str(folder / f"{name}-written"), "probed": False}
        if name in ("ddp", "zero2"):
            plan = _plan(name)
            averaged = {**plan, "optimizer": {**plan["optimizer"], "ema": 0.5}}
            whole = {"folder": str(folder / f"{name}-averaged"), "recipe": averaged}
            part = {"folder": str(folder / f"{name}-averaged-resumed")}
            begun = {**averaged, "distill": {**averaged["distill"], "max_steps": 1}}
            jobs += [whole, {**part, "recipe": begun}]
            jobs.append({**part, "recipe": averaged, "resume": True})
        jobs += [
            {**written, "recipe": _plan(name, **WRITTEN, max_steps=2)},
            {**written, "recipe": _plan(name, **WRITTEN), "resume": True},
        ]
    run_by_two("tests.training.tiny_run", str(tiny_pair), json.dumps(jobs))
    return folder


def assert_same_steps(
    mine: list[dict[str, str]],
    theirs: list[dict[str, str]],
    names: tuple[str, ...] = COMPARED,
) -> None:
    """Two logs of the same three steps, but for rounding."""
    assert [row["step"] for row in mine] == ["0", "1", "2", "3"]
    for name in names:
        for row, expected in zip(mine[1:], theirs[1:], strict=True):
            value, wanted = (float(r[f"train/{name}"]) for r in (row, expected))
            assert value == pytest.approx(wanted, rel=1e-4)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_make_the_gradient_of_one(runs: Path, strategy: str) -> None:
    """Two micro-batches on each process, responses of unequal length."""
    mine, theirs = (tiny_run.rows_of(runs / name) for name in (strategy, "plain"))
    assert_same_steps(mine, theirs)
    for row, expected in zip(mine[::3], theirs[::3], strict=True):
        assert float(row["probe/alpha"]) == pytest.approx(float(expected["probe/alpha"]), abs=1e-4)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_read_the_kept_signal_that_one_has_made(runs: Path, strategy: str) -> None:
    mine, theirs = (tiny_run.rows_of(runs / f"{name}-kept") for name in (strategy, "plain"))
    kept = ("divergence_nats", "alpha_at_most", "response_tokens", "gradient_norm")
    assert_same_steps(mine, theirs, kept)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_select_tokens_of_the_whole_step(runs: Path, strategy: str) -> None:
    mine, theirs = (tiny_run.rows_of(runs / f"{name}-selected") for name in (strategy, "plain"))
    assert_same_steps(mine, theirs)
    whole = tiny_run.rows_of(runs / "plain")
    for row, all_tokens in zip(mine[1:], whole[1:], strict=True):
        kept, of = (float(r["train/response_tokens"]) for r in (row, all_tokens))
        assert kept == pytest.approx(0.4 * of, abs=1.0)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_normalise_rewards_over_the_whole_step(runs: Path, strategy: str) -> None:
    mine, theirs = (tiny_run.rows_of(runs / f"{name}-surrogate") for name in (strategy, "plain"))
    assert_same_steps(mine, theirs, ("divergence", *COMPARED[1:]))  # it is not in nats
    other = tiny_run.rows_of(runs / "plain")
    name = "train/gradient_norm"
    assert float(mine[1][name]) != pytest.approx(float(other[1][name]), rel=0.01)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_target_that_is_split_says_what_a_whole_one_says(runs: Path, strategy: str) -> None:
    mine, theirs = (tiny_run.rows_of(runs / name) for name in (f"{strategy}-split", "plain"))
    assert_same_steps(mine, theirs)
    for row, expected in zip(mine[::3], theirs[::3], strict=True):
        for name in ("probe/alpha", "probe/tau_tokens"):
            assert float(row[name]) == pytest.approx(float(expected[name]), abs=1e-4)
    drawn = tiny_run.rows_of(runs / f"{strategy}-split-drawn")
    assert [row["step"] for row in drawn] == ["0", "1", "2", "3"]
    assert all(math.isfinite(float(row["train/divergence_nats"])) for row in drawn[1:])


@pytest.fixture(scope="module")
def answered(tiny_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Like `runs`, of an encoder-decoder pair: "<strategy>", and "<strategy>-drawn" on-policy."""
    folder = tmp_path_factory.mktemp("answered")
    tokenizer = load_tokenizer(str(tiny_pair / "target"))
    pair = written_pair(
        folder / "pair",
        tokenizer,
        vocab_size=tiny_run.VOCABULARY,
        decoder_start_token_id=1,
        eos_token_id=0,
        pad_token_id=0,
    )
    tiny_run.run(tiny_run.parts(pair, tiny_run.recipe(**_plan("auto"))), folder / "plain")
    jobs: list[dict[str, Any]] = []
    for name in STRATEGIES:
        drawn = _plan(name, source={"draft": 0.5, "replay": 0.5})
        jobs += [
            {"folder": str(folder / name), "recipe": _plan(name)},
            {"folder": str(folder / f"{name}-drawn"), "recipe": drawn, "probed": False},
        ]
    run_by_two("tests.training.tiny_run", str(pair), json.dumps(jobs))
    return folder


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_train_a_draft_with_an_encoder_as_one_does(
    answered: Path, strategy: str
) -> None:
    mine, theirs = (tiny_run.rows_of(answered / name) for name in (strategy, "plain"))
    assert_same_steps(mine, theirs)
    drawn = tiny_run.rows_of(answered / f"{strategy}-drawn")
    assert all(math.isfinite(float(row["train/divergence_nats"])) for row in drawn)
    assert len(drawn) == 3


@pytest.mark.distributed
@pytest.mark.parametrize("rates", ["", "-layered"], ids=["one rate", "rates by layer"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_end_with_the_weights_of_one(runs: Path, strategy: str, rates: str) -> None:
    """AdamW moves even a weight whose gradient is rounding noise: one of 6,000 may differ."""
    mine, expected = (
        read_state(runs / f"{name}{rates}" / "best.ckpt") for name in (strategy, "plain")
    )
    assert mine["step"] == expected["step"] == 3
    assert mine["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        difference = (mine["weights"][name] - weight).abs()
        assert float(difference.max()) < 1e-3  # a step moves a weight by 1e-2
        assert float(difference.mean()) < 1e-5
    if rates:
        same = read_state(runs / "plain" / "best.ckpt")["weights"]
        moved = [float((same[name] - w).abs().max()) for name, w in expected["weights"].items()]
        assert max(moved) > 1e-3


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_resumed_run_of_two_processes_makes_the_same_steps(runs: Path, strategy: str) -> None:
    mine, theirs = (tiny_run.rows_of(runs / name) for name in (f"{strategy}-resumed", strategy))
    assert [row["step"] for row in mine] == ["0", "1", "2", "3"]
    for name in COMPARED:
        for row, expected in zip(mine[1:], theirs[1:], strict=True):
            value, wanted = (float(r[f"train/{name}"]) for r in (row, expected))
            assert value == pytest.approx(wanted, rel=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_go_on_from_the_checkpoint_before_a_damaged_one(
    runs: Path, strategy: str
) -> None:
    folder = runs / f"{strategy}-damaged"
    assert (folder / "last.damaged.ckpt").exists()
    assert_same_steps(tiny_run.rows_of(folder), tiny_run.rows_of(runs / strategy))
    weights = [read_state(one / "best.ckpt")["weights"] for one in (folder, runs / strategy)]
    assert all(torch.equal(weights[0][name], value) for name, value in weights[1].items())


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_draw_their_own_responses_from_the_whole_draft(
    runs: Path, strategy: str
) -> None:
    """Draws depend on seed, step and rank: the first step's are the same with each strategy."""
    mine, theirs = (tiny_run.rows_of(runs / f"{name}-drawn") for name in (strategy, "ddp"))
    assert len(mine) == 3
    assert float(mine[0]["train/rollout_seconds"]) > 0.0
    for name in ("response_tokens", "divergence_nats"):
        value, wanted = (float(rows[0][f"train/{name}"]) for rows in (mine, theirs))
        assert value == pytest.approx(wanted, rel=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_processes_write_and_replay_their_own_text_and_keep_it(
    runs: Path, strategy: str
) -> None:
    mine, theirs = (tiny_run.rows_of(runs / f"{name}-written") for name in (strategy, "ddp"))
    assert [row["step"] for row in mine] == ["1", "2", "3"]
    for name in ("response_tokens", "divergence_nats"):
        value, wanted = (float(rows[0][f"train/{name}"]) for rows in (mine, theirs))
        assert value == pytest.approx(wanted, rel=1e-5)
    path = runs / f"{strategy}-written" / "last.ckpt"
    kept = read_state(path / POSITION if path.is_dir() else path)["rollout"]
    assert len(kept) == 2
    for of_process in kept:
        steps = [entry["step"] for entry in of_process]
        assert steps == sorted(steps)
        assert set(steps) == {0, 1, 2}
        assert all(entry["states"] is not None for entry in of_process)


@pytest.mark.distributed
def test_the_average_is_the_same_by_each_strategy_and_after_a_resumption(runs: Path) -> None:
    names = ("ddp-averaged-resumed", "zero2-averaged", "zero2-averaged-resumed")
    theirs = read_state(runs / "ddp-averaged" / "best.ckpt")
    for mine in (read_state(runs / name / "best.ckpt") for name in names):
        assert mine["step"] == theirs["step"] == 3
        for name, weight in theirs["weights"].items():
            assert float((mine["weights"][name] - weight).abs().max()) < 1e-3
    plain = read_state(runs / "ddp" / "best.ckpt")["weights"]
    moved = [float((plain[name] - w).abs().max()) for name, w in theirs["weights"].items()]
    assert max(moved) > 1e-3  # the average is behind the weights


def test_auto_is_plain_for_one_process_and_ddp_for_several() -> None:
    assert strategy_name(HardwareConfig(), World(1, 1, 0)) == "plain"
    assert strategy_name(HardwareConfig(), World(2, 2, 0)) == "ddp"
    assert strategy_name(HardwareConfig(strategy="zero2"), World(1, 1, 0)) == "zero2"


def test_a_gradient_that_is_not_finite_moves_no_weight() -> None:
    model = nn.Linear(2, 1)
    before = model.weight.detach().clone()
    update = PlainUpdate(model, [torch.optim.AdamW(model.parameters(), lr=1.0)], clip_norm=1.0)
    update.backward((model(torch.tensor([1.0, math.inf]))).sum())
    assert not math.isfinite(update.apply())
    assert torch.equal(model.weight, before)


def test_the_norm_is_that_before_clipping_and_gradients_are_cleared() -> None:
    model = nn.Linear(2, 1, bias=False)
    update = PlainUpdate(model, [torch.optim.SGD(model.parameters(), lr=1.0)], clip_norm=1.0)
    before = model.weight.detach().clone()
    update.backward(model(torch.tensor([3.0, 4.0])).sum())
    assert update.apply() == pytest.approx(5.0)
    assert torch.allclose(before - model.weight, torch.tensor([[0.6, 0.8]]), atol=1e-5)
    assert model.weight.grad is None


def test_whole_tensors_of_a_plain_model_are_its_parameters() -> None:
    model = nn.Linear(2, 1)
    found = dict(full_tensors(model))
    assert {n: id(p.untyped_storage()) for n, p in found.items()}.keys() == {"weight", "bias"}
    assert all(torch.equal(found[n], p) for n, p in model.named_parameters())
    assert not any(tensor.requires_grad for tensor in found.values())
