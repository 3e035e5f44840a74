from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.runners.compiled import compiler_available
from distillspec.runtime.world import World
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.objective import Objective
from distillspec.training.process_plan import ProcessPlan
from distillspec.training.resume import Position
from distillspec.training.rollout import Rollout
from distillspec.training.state_file import read_state
from distillspec.training.step import Step
from tests.seq2seq import written_pair
from tests.training import tiny_run


def _trace(pair: Path, folder: Path, **distill: object) -> list[dict[str, float]]:
    plan = tiny_run.recipe(distill={"source": {"fixed": 0.5, "target": 0.5}, **distill})
    tiny_run.run(tiny_run.parts(pair, plan), folder, probed=False)
    return [
        {name: float(value) for name, value in row.items() if value}
        for row in tiny_run.rows_of(folder)
    ]


SAME = {
    "train/divergence_nats",
    "train/divergence",
    "train/alpha",
    "train/gradient_norm",
}
DRAWN = {"divergence": "block_efficiency", "block_form": "drawn"}


@pytest.mark.parametrize(
    "plan",
    [
        {},
        {"reduction": "sequences"},
        {"divergence": "block_efficiency"},
        {"divergence": "tvd_plus", "source": {"draft": 1.0}},
        {"select": {"keep": 0.4, "reference": "draft"}},
        {"source": {"draft": 0.5, "target": 0.5, "per": "token"}},
        {"packing": 24, "divergence": "block_efficiency"},
        {"packing": 24, "reduction": "sequences", "source": {"draft": 0.5, "replay": 0.5}},
        {"source": {"fixed": 0.5, "speculative": 0.5}, "speculative": {"rejected": True}},
        {"source": {"speculative": 0.5, "replay": 0.5}},
        {**DRAWN, "source": {"speculative": 0.5, "replay": 0.5}},
        {**DRAWN, "source": {"target": 0.5, "speculative": 0.5}, "packing": 24},
        {"source": {"draft": 0.25, "fixed": 0.25, "replay": 0.5}, "replay": {"sequences": 3}},
    ],
    ids=str,
)
def test_micro_batches_of_any_size_give_the_same_steps(
    tiny_pair: Path, tmp_path: Path, plan: dict[str, Any]
) -> None:
    """Responses have 1 to 9 tokens: a mean of the micro-batches' means would differ."""
    whole = _trace(tiny_pair, tmp_path / "whole", **plan)
    for size in (1, 3):
        split = _trace(tiny_pair, tmp_path / str(size), **plan, micro_batch_size=size)
        for mine, theirs in zip(whole, split, strict=True):
            assert any(name.startswith("train/divergence") for name in mine)
            for name in mine.keys() & SAME:
                assert theirs[name] == pytest.approx(mine[name], rel=1e-4)


def test_the_rate_follows_the_schedule(tiny_pair: Path, tmp_path: Path) -> None:
    rates = [row["train/learning_rate"] for row in _trace(tiny_pair, tmp_path)]
    assert rates[0] == pytest.approx(0.005)  # half of the peak: the first of two warm-up steps
    assert rates[1] > rates[2] > rates[3] > 0.001


def test_steps_without_any_response_are_an_error(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(distill={"source": {"target": 1.0}})
    made = tiny_run.parts(tiny_pair, plan)
    empty = {prompt.key: () for prompt in tiny_run.prompts()}
    data = type(made.data)(
        tiny_run.prompts(), [plan.distill.source], batch_size=4, seed=0, target_responses=empty
    )
    with pytest.raises(DistillSpecError, match="no row of this step has a response"):
        tiny_run.run(made._replace(data=data), tmp_path)


@pytest.mark.parametrize("has_encoder", [False, True], ids=["causal", "encoder-decoder"])
def test_activations_computed_again_change_nothing_of_what_is_learned(
    tiny_pair: Path, tmp_path: Path, has_encoder: bool
) -> None:
    pair = small_answering_pair(tiny_pair, tmp_path / "t5") if has_encoder else tiny_pair
    assert_same_steps(pair, tmp_path, {"hardware": {"gradient_checkpointing": True}})


@pytest.mark.parametrize("divergence", ["tvd", "block_efficiency", "tvd_plus"])
def test_adapters_of_an_encoder_decoder_draft_learn(
    tiny_pair: Path, tmp_path: Path, divergence: str
) -> None:
    pair = small_answering_pair(tiny_pair, tmp_path / "t5")
    plan = tiny_run.recipe(
        distill={"divergence": divergence, "source": {"draft": 1.0}, "max_steps": 2},
        lora={"rank": 2, "targets": ["q", "v", "wo"]},
    )
    made = tiny_run.parts(pair, plan)
    tiny_run.run(made, tmp_path / "run", probed=False)
    weights = read_state(tmp_path / "run" / "best.ckpt")["weights"]
    assert all("lora" in name for name in weights)
    encoders = [weight for name, weight in weights.items() if ".encoder." in name and "_B" in name]
    assert any(weight.any() for weight in encoders), "gradients reach the encoder"


def test_a_compiled_forward_changes_nothing_of_what_is_learned(
    tiny_pair: Path, tmp_path: Path
) -> None:
    if not compiler_available():
        pytest.skip("no C++ compiler")
    assert_same_steps(tiny_pair, tmp_path, {"hardware": {"compile": True}})


def small_answering_pair(tiny_pair: Path, folder: Path) -> Path:
    tokenizer = load_tokenizer(str(tiny_pair / "target"))
    begins = {"decoder_start_token_id": 1, "eos_token_id": 0, "pad_token_id": 0}
    return written_pair(folder, tokenizer, vocab_size=tiny_run.VOCABULARY, **begins)


def assert_same_steps(pair: Path, folder: Path, changes: dict[str, Any]) -> None:
    text = {"source": {"fixed": 0.5, "draft": 0.5}}
    traces = []
    for name, some in (("plain", {}), ("changed", changes)):
        hardware = {"device": "cpu", "precision": "float32", **some.get("hardware", {})}
        plan = tiny_run.recipe(distill=text, hardware=hardware)
        tiny_run.run(tiny_run.parts(pair, plan), folder / name)
        traces.append(tiny_run.rows_of(folder / name))
    for mine, theirs in zip(*traces, strict=True):
        for key in ("train/divergence_nats", "train/gradient_norm", "probe/alpha"):
            if mine[key]:
                assert float(theirs[key]) == pytest.approx(float(mine[key]), rel=1e-4)


def test_frozen_embeddings_stay_as_they_are(tiny_pair: Path, tmp_path: Path) -> None:
    plan = tiny_run.recipe(optimizer={"freeze_embeddings": True})
    made = tiny_run.parts(tiny_pair, plan)
    before = {name: weight.clone() for name, weight in made.draft.named_parameters()}
    tiny_run.run(made, tmp_path)
    for name, weight in made.draft.named_parameters():
        assert torch.equal(weight, before[name]) == ("embed" in name)
    assert not any("embed" in n for n in read_state(tmp_path / "best.ckpt")["weights"])


def test_what_is_probed_and_kept_is_the_average(tiny_pair: Path, tmp_path: Path) -> None:
    traces = []
    for name, ema in (("plain", None), ("averaged", 0.9)):
        plan = tiny_run.recipe(optimizer={"ema": ema}, distill={"source": {"fixed": 1.0}})
        tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path / name)
        traces.append(tiny_run.rows_of(tmp_path / name))
    plain, averaged = traces
    for mine, theirs in zip(plain[1:], averaged[1:], strict=True):
        assert theirs["train/divergence_nats"] == mine["train/divergence_nats"]
        if mine["probe/alpha"]:
            assert theirs["probe/alpha"] != mine["probe/alpha"]
    kept = [read_state(tmp_path / name / "best.ckpt")["weights"] for name in ("plain", "averaged")]
    assert any(not torch.equal(kept[0][n], kept[1][n]) for n in kept[0])


def test_without_a_probe_the_last_average_is_what_is_kept(tiny_pair: Path, tmp_path: Path) -> None:
    made = tiny_run.parts(tiny_pair, tiny_run.recipe(optimizer={"ema": 0.9}))
    tiny_run.run(made, tmp_path, probed=False)
    kept = read_state(tmp_path / "best.ckpt")["weights"]
    last = read_state(tmp_path / "last.ckpt")
    assert all(torch.equal(kept[name], last["average"][name]) for name in kept)
    assert any(not torch.equal(kept[n], last["state_dict"][f"draft.{n}"]) for n in kept)


TWO_PHASES: dict[str, Any] = {
    "source": {"fixed": 1.0},
    "schedule": [
        {"share": 0.5, "divergence": "nll"},
        {"share": 0.5, "divergence": "tvd", "source": {"draft": 0.5, "fixed": 0.5, "per": "batch"}},
    ],
}


class _KilledError(Exception):
    pass


def _kill() -> None:
    raise _KilledError


STEADY = {"warmup_steps": 0, "final_rate_share": 1.0}


def test_a_schedule_trains_by_one_objective_after_the_other(
    tiny_pair: Path, tmp_path: Path
) -> None:
    scheduled = _trace(tiny_pair, tmp_path / "scheduled", **TWO_PHASES)
    alone = _trace(tiny_pair, tmp_path / "alone", divergence="nll", source={"fixed": 1.0})
    assert len(scheduled) == 4
    for mine, theirs in zip(scheduled[:2], alone[:2], strict=True):
        for name in ("train/divergence_nats", "train/gradient_norm", "train/learning_rate"):
            assert mine[name] == theirs[name]
    # The second phase has no nats, and reads the target.
    for row in scheduled[2:]:
        assert "train/divergence_nats" not in row
        assert row["train/divergence"] == pytest.approx(1.0 - row["train/alpha"], abs=1e-6)


def test_a_run_that_is_resumed_in_its_second_phase_is_bit_equal(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """Five steps of eight are in the first phase."""
    shares = zip((0.6, 0.4), TWO_PHASES["schedule"], strict=True)
    schedule = [{**phase, "share": share} for share, phase in shares]
    plan = tiny_run.recipe(
        distill={**TWO_PHASES, "schedule": schedule, "max_steps": 8, "checkpoint_every_steps": 3},
        optimizer=STEADY,
    )
    for name, stops in (("whole", ()), ("parted", (5, 8))):
        for stop in stops:
            made = tiny_run.parts(tiny_pair, plan)
            with pytest.raises(_KilledError):
                tiny_run.run(tiny_run.interrupted(made, stop, _kill), tmp_path / name, resume=True)
        tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path / name, resume=True)
    whole, parted = (read_state(tmp_path / n / "last.ckpt") for n in ("whole", "parted"))
    assert whole["position"]["phase"] == parted["position"]["phase"] == 1
    for name, weight in whole["state_dict"].items():
        assert torch.equal(weight, parted["state_dict"][name])


def test_a_phase_ends_early_where_the_draft_gets_no_better(tiny_pair: Path, tmp_path: Path) -> None:
    """The draft is the target itself, and is taught random text."""
    schedule = [
        {"share": 0.8, "divergence": "nll", "patience": 2},
        {"share": 0.2, "divergence": "tvd"},
    ]
    probe = {"every_steps": 1, "prompts": 2, "gamma": 1, "max_new_tokens": 4}
    plan = tiny_run.recipe(
        distill={"source": {"fixed": 1.0}, "schedule": schedule, "max_steps": 6, "probe": probe}
    )
    made = tiny_run.parts(tiny_pair, plan)
    draft = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    tiny_run.run(made._replace(draft=draft), tmp_path)
    in_nats = [row["train/divergence_nats"] != "" for row in tiny_run.rows_of(tmp_path)[1:]]
    # The probes after steps 1 and 2 find no better draft than before training.
    assert in_nats == [True, True, False, False, False, False]


def test_a_draft_that_is_good_enough_skips_a_phase(tiny_pair: Path, tmp_path: Path) -> None:
    """The draft is the target itself: alpha is 1 before the first step."""
    schedule = [
        {"share": 0.5, "divergence": "nll", "until_alpha": 0.9},
        {"share": 0.5, "divergence": "tvd"},
    ]
    plan = tiny_run.recipe(distill={"source": {"fixed": 1.0}, "schedule": schedule})
    for folder, skips in (("target", True), ("draft", False)):
        made = tiny_run.parts(tiny_pair, plan)
        draft = load_model(str(tiny_pair / folder), dtype=torch.float32)
        tiny_run.run(made._replace(draft=draft), tmp_path / folder)
        rows = tiny_run.rows_of(tmp_path / folder)
        assert (rows[1]["train/divergence"] != "") == skips


def _phases_of(folder: Path) -> list[bool]:
    """For each step, whether its loss is in nats."""
    return [row["train/divergence_nats"] != "" for row in tiny_run.rows_of(folder)[1:]]


HARMFUL = {
    "source": {"fixed": 1.0},
    "max_steps": 10,
    "checkpoint_every_steps": 100,
    "probe": {"every_steps": 1, "prompts": 2, "gamma": 1, "max_new_tokens": 4},
}


def test_a_probe_counts_for_the_phase_of_the_step_before_it(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """The draft is the target itself, so that no probe finds a better one."""
    schedule = [
        {"share": 0.4, "divergence": "nll"},
        {"share": 0.3, "divergence": "tvd", "patience": 1},
        {"share": 0.3, "divergence": "nll"},
    ]
    plan = tiny_run.recipe(distill={**HARMFUL, "schedule": schedule})
    made = tiny_run.parts(tiny_pair, plan)
    draft = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    tiny_run.run(made._replace(draft=draft), tmp_path)
    # The probe after step 4 ends no phase by patience: the second phase has a step.
    assert _phases_of(tmp_path) == [True] * 4 + [False] + [True] * 5


def test_a_best_draft_of_a_later_step_does_not_end_a_phase(tiny_pair: Path, tmp_path: Path) -> None:
    """A run that is killed after a new best.ckpt and before the next last.ckpt."""
    schedule = [
        {"share": 0.8, "divergence": "forward_kl", "patience": 2},
        {"share": 0.2, "divergence": "tvd"},
    ]
    plan = tiny_run.recipe(distill={**HARMFUL, "schedule": schedule, "checkpoint_every_steps": 2})
    for name, stops in (("whole", ()), ("parted", (6,))):
        for stop in stops:
            made = tiny_run.interrupted(tiny_run.parts(tiny_pair, plan), stop, _kill)
            with pytest.raises(_KilledError):
                tiny_run.run(made, tmp_path / name, resume=True)
        tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path / name, resume=True)
    assert _phases_of(tmp_path / "parted") == _phases_of(tmp_path / "whole")


def test_phases_end_at_their_shares_though_sums_are_rounded(
    tiny_pair: Path, tmp_path: Path
) -> None:
    """In floating point, 0.1 + 0.2 is above 3 / 10."""
    schedule = [
        {"share": 0.1, "divergence": "tvd"},
        {"share": 0.2, "divergence": "nll"},
        {"share": 0.7, "divergence": "tvd"},
    ]
    plan = tiny_run.recipe(
        distill={"source": {"fixed": 1.0}, "schedule": schedule, "max_steps": 10}
    )
    tiny_run.run(tiny_run.parts(tiny_pair, plan), tmp_path)
    assert _phases_of(tmp_path) == [False] + [True] * 2 + [False] * 7


def test_the_last_phase_ends_with_the_run_though_shares_add_up_to_less(tiny_pair: Path) -> None:
    schedule = [{"share": 0.5}, {"share": 0.4999995}]
    plan = tiny_run.recipe(
        distill={"source": {"fixed": 1.0}, "schedule": schedule, "max_steps": 10_000_000}
    )
    made = tiny_run.parts(tiny_pair, plan)
    distill = made.recipe.distill
    step = Step(
        made.recipe,
        [Objective(phase, made.target) for phase in distill.phases],
        Rollout(distill, None, max_new_tokens=2, eos_token_ids=frozenset(), pad_token=0),
        InferenceCopy(made.draft, torch.float32, sharded=False),
        processes=ProcessPlan.of(made.recipe, World(1, 1, 0)),
        position=Position(step=9_999_999, phase=1),
    )
    assert step.end_phases() == []
    assert step.position.phase == 1
