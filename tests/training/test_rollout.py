from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.corpus.batches.data_module import TrainingRow
from distillspec.corpus.batches.tree_rows import RejectedBranch, RejectedBranches
from distillspec.corpus.sources.prompts import Prompt
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.models.sampling.speculative import SpeculatedText, generate_speculatively
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.text_source import Origin
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.inference_copy import InferenceCopy
from distillspec.training.loss_positions import token_weights, tokens_per_text
from distillspec.training.replay import Completed
from distillspec.training.rollout import Rollout, with_branches
from tests.speculation.branches import Branches, walk

CPU = torch.device("cpu")
FORCED = 77


@pytest.fixture
def draft(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32)


def rollout_of(target: PreTrainedModel | None = None, **distill: Any) -> Rollout:
    return Rollout(
        DistillConfig.model_validate({"source": {"draft": 1.0}, **distill}),
        None if target is None else FrozenTarget(target),
        max_new_tokens=4,
        eos_token_ids=frozenset({0}),
        pad_token=0,
    )


@pytest.fixture
def rollout() -> Rollout:
    return rollout_of()


@pytest.fixture
def target(tiny_pair: Path) -> PreTrainedModel:
    return load_model(str(tiny_pair / "target"), dtype=torch.float32)


def _stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _row(origin: Origin, *tokens: int, response: tuple[int, ...] | None = None) -> TrainingRow:
    return TrainingRow(Prompt(str(tokens), tokens, response, "", "plain"), origin)


def _rows(written: Origin = "draft") -> list[TrainingRow]:
    return [
        _row(written, 1, 2, 3, 4),
        _row("fixed", 5, response=(6, 7)),
        _row(written, 8, 9),
        _row("target", 10, 11, response=(12,)),
    ]


def _force(draft: PreTrainedModel, token: int) -> None:
    """Make every distribution of the draft nearly one-hot: any last state points at `token`."""
    with torch.no_grad():
        draft.model.norm.weight.zero_()  # type: ignore[union-attr,operator]
    head = torch.nn.Linear(draft.config.hidden_size, draft.config.vocab_size)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
        head.bias[token] = 1e4
    draft.lm_head = head


def test_stored_responses_are_taken_and_missing_ones_drawn(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    completed = rollout.completed(draft, _rows(), 0, _stream())
    assert [tuple(row.prompt) for row in completed] == [(5,), (10, 11), (1, 2, 3, 4), (8, 9)]
    assert [row.response for row in completed[:2]] == [(6, 7), (12,)]
    for row in completed[2:]:
        assert 1 <= len(row.response) <= 4


def test_the_same_random_stream_draws_the_same_text(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    first = rollout.completed(draft, _rows(), 0, _stream(1))
    assert rollout.completed(draft, _rows(), 0, _stream(1)) == first
    assert rollout.completed(draft, _rows(), 0, _stream(2)) != first


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_draft_forced_to_one_token_emits_it_in_the_very_next_rollout(
    draft: PreTrainedModel, rollout: Rollout, dtype: torch.dtype
) -> None:
    _force(draft, 5)
    replica = InferenceCopy(draft, dtype, sharded=False)
    before = rollout.completed(replica.refresh(CPU), _rows(), 0, _stream())
    assert [row.response for row in before[2:]] == [[5] * 4] * 2
    with torch.no_grad():
        draft.lm_head.bias[5] = 0.0  # type: ignore[union-attr,index,operator]
        draft.lm_head.bias[FORCED] = 1e4  # type: ignore[union-attr,index,operator]
    after = rollout.completed(replica.refresh(CPU), _rows(), 1, _stream())
    assert [row.response for row in after[2:]] == [[FORCED] * 4] * 2


def test_sampling_leaves_no_gradient(draft: PreTrainedModel, rollout: Rollout) -> None:
    rollout.completed(draft.train(), _rows(), 0, _stream())
    assert draft.training
    assert all(p.grad is None for p in draft.parameters())


def test_responses_end_with_the_end_token_and_keep_it(
    draft: PreTrainedModel, rollout: Rollout
) -> None:
    _force(draft, 0)
    completed = rollout.completed(draft, _rows()[:1], 0, _stream())
    assert completed[0].response == [0]


def test_micro_batches_hold_every_row_once_and_rows_of_like_length(rollout: Rollout) -> None:
    rows = [Completed((1,) * n, (2,) * (n % 3)) for n in (9, 1, 5, 2, 7)]
    found = rollout.micro_batches(rows, 2, CPU)
    assert [len(micro.batch.tokens) for micro in found] == [2, 2, 1]
    lengths = [n for micro in found for n in micro.batch.is_token.sum(dim=1).tolist()]
    assert lengths == sorted(len(row.prompt) + len(row.response) for row in rows)


def test_batches_say_of_which_rows_the_targets_states_are_known(rollout: Rollout) -> None:
    rows = [Completed((1,) * n, (2, 3), torch.full((2, 4), float(n))) for n in (7, 5, 3)]
    rows.insert(1, Completed((1, 2), (3,)))
    first, second = rollout.micro_batches(rows, 3, CPU)
    assert first.batch.known is not None and second.batch.known is not None
    assert first.batch.known.positions.tolist() == [False, *[True] * 4]  # rows sorted by length
    assert first.batch.known.states[:, 0].tolist() == [3.0, 3.0, 5.0, 5.0]
    assert second.batch.known.states[:, 0].tolist() == [7.0, 7.0]
    (plain,) = rollout.micro_batches(rows[1:2], 3, CPU)
    assert plain.batch.known is None


def test_texts_among_trees_weigh_what_texts_weigh(rollout: Rollout) -> None:
    visits = RejectedBranches((1.0, 0.5), [RejectedBranch(1, (9,), (0.25,))])
    rows = [Completed((1, 2), (3, 4, 5)), Completed((1,), (3, 4), None, visits)]
    (micro,) = rollout.micro_batches(rows, 4, CPU)
    assert token_weights(micro.batch, "tokens").tolist() == [1.0, 0.5, 0.25, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("on_prompts", [False, True])
def test_packed_batches_hold_every_row_and_what_is_known_of_it(on_prompts: bool) -> None:
    rollout = rollout_of(packing=9, on_prompts=on_prompts)
    rows = [Completed((n,) * n, (2, 3)) for n in (7, 5, 3, 2)]
    rows[1] = rows[1]._replace(states=torch.full((6 if on_prompts else 2, 4), 5.0))
    (micro,) = rollout.micro_batches(rows, 4, CPU)
    assert [row.prompt[0] for row in micro.rows] == [7, 5, 3, 2]
    assert micro.batch.tokens.shape == (3, 9)
    counts = tokens_per_text(micro.batch).tolist()
    assert counts == ([8, 6, 4, 3] if on_prompts else [2] * 4)
    assert micro.batch.known is not None
    parts = micro.batch.known.positions.split(counts)
    assert [bool(part.all()) for part in parts] == [False, True, False, False]


# --- by turns ------------------------------------------------------------------------------------


def test_draft_and_target_take_turns_in_writing_one_sequence(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    _force(draft, 5)
    _force(target, 9)
    rollout = rollout_of(target, source={"draft": 0.3, "target": 0.7, "per": "token"})
    rows = [_row("draft", place + 1) for place in range(200)]
    written = rollout.completed(draft, rows, 0, _stream())
    tokens = [token for row in written for token in row.response]
    assert set(tokens) == {5, 9}
    assert abs(tokens.count(5) / len(tokens) - 0.3) < 0.07
    assert any(set(row.response) == {5, 9} for row in written)


# --- speculative text ----------------------------------------------------------------------------


def test_speculative_text_is_the_targets_and_brings_its_states(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    _force(target, 9)
    rollout = rollout_of(target, source={"fixed": 0.5, "speculative": 0.5})
    completed = rollout.completed(draft, _rows("speculative"), 0, _stream())
    assert [row.response for row in completed[2:]] == [[9] * 4] * 2
    assert [row.states is None for row in completed] == [True, True, False, False]
    assert all(len(row.states) == 4 for row in completed[2:] if row.states is not None)


def test_a_loss_over_prompts_too_takes_no_states_of_responses(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    rollout = rollout_of(target, source={"speculative": 1.0}, on_prompts=True)
    completed = rollout.completed(draft, [_row("speculative", 1, 2)], 0, _stream())
    assert completed[0].states is None


def test_models_that_take_no_mask_of_ours_cannot_speculate_in_batches(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    rollout_of(target, source={"speculative": 1.0}).check(draft)
    draft.config.sliding_window = 8
    with pytest.raises(DistillSpecError, match="prepared attention mask"):
        rollout_of(target, source={"speculative": 1.0}).check(draft)
    rollout_of(target).check(draft)


ENDS, LIMIT, TOKENS = frozenset({1}), 3, 3


def visits_by_state(weights: dict[tuple[int, ...], float], row: Completed, weight: float) -> None:
    """Add what a row says of each state (the tokens of the response before it)."""
    assert row.branches is not None
    response = tuple(row.response)
    for place, share in enumerate(row.branches.weights):
        weights[response[:place]] += weight * share
    for side in row.branches.sides:
        for place, share in enumerate(side.weights, start=1):
            weights[(*response[: side.after], *side.tokens[:place])] += weight * share


def test_branches_are_in_expectation_the_states_of_the_targets_text(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    """Over every branch of the sampler: the weight of a state is the probability that a text of
    the target comes by. Text alone has the same expectation, and more dice.
    """
    models = target.double(), draft.double()
    visits, texts = defaultdict[tuple[int, ...], float](float), defaultdict(float)
    spread = [0.0, 0.0]
    prompt = [7, 8, 9]

    def run(random_source: Branches) -> SpeculatedText:
        (text,) = generate_speculatively(
            *models,
            [torch.tensor(prompt)],
            gamma=2,
            max_new_tokens=LIMIT,
            policy=SamplingPolicy(),
            random_source=random_source,
            eos_token_ids=ENDS,
            vocab_size=TOKENS,
        )
        return text

    for text, branches in walk(run):
        row = with_branches(prompt, text, eos_token_ids=ENDS, max_new_tokens=LIMIT)
        mine, plain = defaultdict[tuple[int, ...], float](float), list(text.response.tolist())
        visits_by_state(mine, row, 1.0)
        for state, share in mine.items():
            visits[state] += branches.weight * share
        for place in range(len(plain)):
            texts[tuple(plain[:place])] += branches.weight
        spread[0] += branches.weight * mine[(2,)] ** 2
        spread[1] += branches.weight * (plain[0] == 2 and len(plain) > 1)
    distribution: dict[tuple[int, ...], float] = {(): 1.0}
    open_states = [()]
    for state in open_states:
        if len(state) == LIMIT - 1:
            continue
        with torch.no_grad():
            logits = models[0](torch.tensor([[*prompt, *state]])).logits[0, -1, :TOKENS]
        for token, p in enumerate(logits.softmax(-1).tolist()):
            if token not in ENDS:
                distribution[(*state, token)] = distribution[state] * p
                open_states.append((*state, token))  # type: ignore[arg-type]
    for found in (visits, texts):
        assert found.keys() == distribution.keys()
        assert all(abs(found[state] - weight) < 1e-6 for state, weight in distribution.items())
    assert spread[0] < spread[1]


# --- replay --------------------------------------------------------------------------------------


def test_earlier_responses_come_again_with_what_the_target_said_of_them(
    draft: PreTrainedModel, target: PreTrainedModel
) -> None:
    rollout = rollout_of(target, source={"draft": 0.5, "replay": 0.5})
    first = rollout.completed(draft, [_row("draft", 1, 2), _row("replay", 3, 4)], 0, _stream())
    assert sorted(tuple(row.prompt) for row in first) == [(1, 2), (3, 4)]  # nothing to replay yet
    for micro in rollout.micro_batches(first, 4, CPU):
        counts = sum(len(row.response) for row in micro.rows)
        rollout.learn(micro, torch.arange(float(counts))[:, None])
    later = [_row("draft", 5, 6), _row("replay", 7, 8)]
    second = rollout.completed(draft, later, 1, _stream(1))
    (again,) = [row for row in second if tuple(row.prompt) != (5, 6)]
    assert tuple(again.prompt) in {(1, 2), (3, 4)}
    assert again.states is not None
    assert len(again.states) == len(again.response)


def test_processes_share_the_ring_that_others_have_left() -> None:
    rows = [Completed((1,), (token,)) for token in range(6)]
    kept = []
    for part in (rows[:3], rows[3:]):
        rollout = rollout_of(source={"draft": 0.5, "replay": 0.5})
        rollout.ring.add(part, 0)
        kept.append(rollout.state_dict())

    def loaded(processes: int, rank: int) -> list[int]:
        rollout = Rollout(
            DistillConfig.model_validate({"source": {"draft": 0.5, "replay": 0.5}}),
            None,
            max_new_tokens=4,
            eos_token_ids=frozenset(),
            pad_token=0,
            processes=processes,
        )
        rollout.load_state_dict(kept, rank)
        return sorted(row.response[0] for row in rollout.ring.draw(9, 1, _stream()))

    assert loaded(2, 1) == [3, 4, 5]
    assert loaded(1, 0) == [0, 1, 2, 3, 4, 5]
    assert sorted(loaded(3, 0) + loaded(3, 1) + loaded(3, 2)) == [0, 1, 2, 3, 4, 5]
