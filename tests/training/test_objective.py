from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest
import torch
from torch import Tensor, nn

from distillspec.corpus.batches.batching import Batch, KnownResponses, collate
from distillspec.corpus.batches.tree_rows import (
    RejectedBranch,
    RejectedBranches,
    TreeRow,
    collate_trees,
)
from distillspec.models.bare import bare_model
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.hidden_states import TreeLayout
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, attach_token_map
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.loss import Term
from distillspec.training.loss_positions import predicts_response, token_weights
from distillspec.training.objective import Objective
from distillspec.training.token_weights import TokenWeights
from tests.models.two_tokenizers import byte_level

ROWS: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((5, 6), (6, 8, 0)),
    ((9,), (10,)),
    ((11, 12, 13, 14), (6, 40)),
    ((17, 18, 19), ()),
]


@pytest.fixture
def target(tiny_pair: Path) -> FrozenTarget:
    return FrozenTarget(load_model(str(tiny_pair / "target"), dtype=torch.float32))


@pytest.fixture
def draft(tiny_pair: Path) -> nn.Module:
    return load_model(str(tiny_pair / "draft"), dtype=torch.float32).train()


@pytest.fixture
def reference(tiny_pair: Path) -> FrozenTarget:
    """Another draft: the pair's own, moved a little."""
    model = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.0 + 0.2 * torch.randn(weight.shape, generator=generator))
    return FrozenTarget(model)


EVERY: list[dict[str, Any]] = [
    *({"divergence": name} for name in get_args(Term)),
    {"divergence": "mix", "mix": {"forward_kl": 0.5, "tvd": 2.0}},
    {"divergence": "mix", "mix": {"nll": 0.3, "lk_alpha": 1.0, "block_efficiency": 0.5}},
    {"divergence": "mix", "mix": {"tvd_plus": 0.5, "reverse_kl": 1.0}, "temperature": 0.7},
    {"divergence": "block_efficiency", "block_form": "drawn", "temperature": 0.7},
    {"divergence": "jsd", "select": {"keep": 0.5, "reference": "draft"}},
    {
        "divergence": "mix",
        "mix": {"nll": 0.3, "forward_kl": 1.0},
        "select": {"keep": 0.4, "reference": "draft"},
    },
]


def _distill(**values: Any) -> DistillConfig:
    """Any text will do here, but some insist on the draft's, and some on any but the draft's."""
    terms = {values.get("divergence"), *values.get("mix", {})}
    source = {"fixed": 1.0} if "nll" in terms else {"draft": 1.0}
    if values.get("block_form") == "drawn":
        source = {"target": 1.0}
    return DistillConfig(source=source, chunk_tokens=2, **values)


class Whole(NamedTuple):
    """Every response token's distributions, by plain forwards of each row alone; differentiable in
    q.
    """

    log_p: Tensor  # [N, V]
    log_q: Tensor  # [N, V]
    tokens: Tensor  # [N]
    lengths: list[int]

    @property
    def alpha(self) -> Tensor:
        return torch.minimum(self.log_p.exp(), self.log_q.exp()).sum(-1)

    def of_tokens(self, distribution: Tensor) -> Tensor:
        return distribution.gather(1, self.tokens[:, None])[:, 0]


def whole(target: FrozenTarget, draft: nn.Module, temperature: float = 1.0) -> Whole:
    log_p, log_q, following, lengths = [], [], [], []
    for prompt, response in ROWS:
        tokens = torch.tensor([*prompt, *response])
        at = slice(len(prompt) - 1, len(tokens) - 1)
        log_p.append(torch.log_softmax(_logits(target.model, tokens)[at] / temperature, -1))
        log_q.append(torch.log_softmax(_logits(draft, tokens)[at] / temperature, -1))
        following.append(tokens[at.start + 1 :])
        lengths.append(len(response))
    return Whole(torch.cat(log_p).detach(), torch.cat(log_q), torch.cat(following), lengths)


def assert_same_gradient(draft: nn.Module, mine: Tensor, expected: Tensor) -> None:
    found = []
    for loss in (mine, expected):
        draft.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        found.append(_gradients(draft))
    largest = max(float(one.abs().max()) for one in found[1])  # small entries are sums of such
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6 * max(1.0, largest))


def _logits(model: Any, tokens: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=tokens[None]).logits[0].double()
    return logits


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_sum_is_that_of_each_row_forwarded_by_itself(
    target: FrozenTarget, draft: nn.Module, temperature: float
) -> None:
    nats = alpha = 0.0
    with torch.no_grad():
        for prompt, response in ROWS:
            tokens = torch.tensor([*prompt, *response])
            log_p = torch.log_softmax(_logits(target.model, tokens) / temperature, dim=-1)
            log_q = torch.log_softmax(_logits(draft, tokens) / temperature, dim=-1)
            for position in range(len(prompt) - 1, len(tokens) - 1):
                p, q = log_p[position].exp(), log_q[position].exp()
                nats += float((p * (log_p[position] - log_q[position])).sum())
                alpha += float(torch.minimum(p, q).sum())
    plan = _distill(divergence="forward_kl", temperature=temperature)
    sums = Objective(plan, target)(draft, collate(ROWS, 0))
    assert int(sums.tokens) == 6
    assert float(sums.divergence.detach()) == pytest.approx(nats, rel=1e-5)
    assert float(sums.alpha) == pytest.approx(alpha, rel=1e-5)


def test_cross_entropy_is_of_the_next_token_and_needs_no_target(draft: nn.Module) -> None:
    nats = 0.0
    with torch.no_grad():
        for prompt, response in ROWS:
            tokens = torch.tensor([*prompt, *response])
            log_q = torch.log_softmax(_logits(draft, tokens), dim=-1)
            for position, token in enumerate(response, start=len(prompt)):
                nats -= float(log_q[position - 1, token])
    sums = Objective(_distill(divergence="nll"), None)(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(nats, rel=1e-5)
    assert bool(sums.alpha.isnan())


@pytest.mark.parametrize("has_target", [True, False])
def test_cross_entropy_is_over_the_common_vocabulary(
    target: FrozenTarget, draft: nn.Module, has_target: bool
) -> None:
    common, nats = 250, 0.0
    with torch.no_grad():
        for prompt, response in ROWS:
            tokens = torch.tensor([*prompt, *response])
            log_q = torch.log_softmax(_logits(draft, tokens)[:, :common], dim=-1)
            for position, token in enumerate(response, start=len(prompt)):
                nats -= float(log_q[position - 1, token])
    objective = Objective(
        _distill(divergence="nll"), target if has_target else None, vocab_size=common
    )
    sums = objective(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(nats, rel=1e-5)


@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
@pytest.mark.parametrize("objective", EVERY, ids=[str(one) for one in EVERY])
def test_the_gradient_of_a_batch_is_that_of_any_split_of_it(
    target: FrozenTarget, reference: FrozenTarget, draft: nn.Module, objective: Any, reduction: str
) -> None:
    """The weights of tokens may depend on the whole step: then all of it is observed first."""
    plan = _distill(**objective, reduction=reduction)
    loss = Objective(plan, target, reference if plan.select else None)
    splits = [[ROWS], [ROWS[:1], ROWS[1:]], [[row] for row in ROWS], [ROWS[::2], ROWS[1::2]]]
    results = []
    for split in splits:
        draft.zero_grad()
        batches = [collate(rows, 0) for rows in split]
        signals = [loss.target_outputs(draft, batch) for batch in batches]
        emphases: list[TokenWeights | None] = [None] * len(batches)
        if plan.reads_whole_steps:
            step = [loss.observe(draft, *pair) for pair in zip(batches, signals, strict=True)]
            emphases = [one.weights(step, plan) for one in step]
        for batch, signal, emphasis in zip(batches, signals, emphases, strict=True):
            sums = loss.loss(draft, batch, signal, emphasis)
            (sums.divergence / 7.0).backward()  # type: ignore[no-untyped-call]
        results.append(_gradients(draft))
    assert any(gradient.any() for gradient in results[0])
    for other in results[1:]:
        for mine, theirs in zip(results[0], other, strict=True):
            torch.testing.assert_close(theirs, mine, rtol=1e-4, atol=1e-6)


def test_what_stands_in_prompts_padding_and_other_rows_changes_nothing(
    target: FrozenTarget, draft: nn.Module
) -> None:
    objective = Objective(_distill(), target)
    batch = collate(ROWS, pad_token=0)
    other = Batch(batch.tokens.where(batch.is_token, torch.tensor(42)), *batch[1:])
    with torch.no_grad():
        assert objective(draft, batch).divergence == objective(draft, other).divergence


def test_a_batch_without_responses_is_a_zero_that_has_gradients(
    target: FrozenTarget, draft: nn.Module
) -> None:
    sums = Objective(_distill(), target)(draft, collate([((1, 2), ())], 0))
    sums.divergence.backward()  # type: ignore[no-untyped-call]
    assert float(sums.divergence.detach()) == 0.0
    assert all(not gradient.any() for gradient in _gradients(draft))


def test_the_target_gets_no_gradient(target: FrozenTarget, draft: nn.Module) -> None:
    Objective(_distill(), target)(draft, collate(ROWS, 0)).divergence.backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is None and not p.requires_grad for p in target.model.parameters())


@pytest.mark.parametrize("gamma", [1, 2, 4])
def test_block_efficiency_is_minus_what_blocks_keep_with_its_gradient(
    target: FrozenTarget, draft: nn.Module, gamma: int
) -> None:
    both = whole(target, draft)
    kept = torch.zeros((), dtype=torch.float64)
    for row in both.alpha.split(both.lengths):
        for start in range(len(row)):
            kept = kept + row[start : start + gamma].cumprod(0).sum()
    plan = _distill(divergence="block_efficiency", block_gamma=gamma)
    sums = Objective(plan, target)(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(-float(kept.detach()), rel=1e-5)
    assert float(sums.alpha) == pytest.approx(float(both.alpha.detach().sum()), rel=1e-5)
    assert int(sums.tokens) == 6
    assert_same_gradient(draft, sums.divergence, -kept)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_drawn_blocks_go_by_the_keep_chances_of_their_tokens(
    target: FrozenTarget, draft: nn.Module, temperature: float
) -> None:
    both = whole(target, draft, temperature)
    keep_probabilities = (
        (both.of_tokens(both.log_q) - both.of_tokens(both.log_p)).exp().clamp(max=1.0)
    )
    assert 0 < int((keep_probabilities < 1.0).sum()) < 6
    kept = torch.zeros((), dtype=torch.float64)
    for row in keep_probabilities.split(both.lengths):
        for start in range(len(row)):
            kept = kept + row[start : start + 2].cumprod(0).sum()
    plan = _distill(
        divergence="block_efficiency", block_form="drawn", block_gamma=2, temperature=temperature
    )
    sums = Objective(plan, target)(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(-float(kept.detach()), rel=1e-5)
    assert float(sums.alpha) == pytest.approx(float(both.alpha.detach().sum()), rel=1e-5)
    assert int(sums.tokens) == 6
    assert_same_gradient(draft, sums.divergence, -kept)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_tvd_plus_raises_the_drawn_tokens_that_the_target_likes_better_than_most(
    target: FrozenTarget, draft: nn.Module, temperature: float
) -> None:
    both = whole(target, draft, temperature)
    log_q = both.of_tokens(both.log_q)
    rewards = (both.of_tokens(both.log_p) > log_q.detach()).double()
    assert 0 < int(rewards.sum()) < 6
    advantages = (rewards - rewards.mean()) / rewards.std(correction=0)
    expected = -(advantages * log_q).sum()
    plan = _distill(divergence="tvd_plus", temperature=temperature)
    sums = Objective(plan, target)(draft, collate(ROWS, 0))
    assert float(sums.divergence.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert float(sums.alpha) == pytest.approx(float(both.alpha.detach().sum()), rel=1e-5)
    assert int(sums.tokens) == 6
    assert_same_gradient(draft, sums.divergence, expected)


def test_rewards_alone_have_the_slope_of_the_total_variation_in_expectation() -> None:
    """Exact over all tokens that the draft may draw; the mean it is centred by changes nothing."""
    generator = torch.Generator().manual_seed(0)
    p, logits = torch.randn(2, 9, dtype=torch.float64, generator=generator)
    p, leaf = p.softmax(-1), logits.clone().requires_grad_()
    q = leaf.softmax(-1)
    (tvd,) = torch.autograd.grad(0.5 * (p - q).abs().sum(), leaf, retain_graph=True)
    for centre in (0.0, 0.4):
        rewards = (p > q).double() - centre
        surrogate = -(q.detach() * rewards * q.log()).sum()
        (found,) = torch.autograd.grad(surrogate, leaf, retain_graph=True)
        torch.testing.assert_close(found, tvd)


def test_selection_learns_from_the_tokens_with_most_to_learn_beyond_the_reference(
    target: FrozenTarget, reference: FrozenTarget, draft: nn.Module
) -> None:
    mine, theirs = whole(target, draft), whole(target, reference.model)
    nats = (mine.log_p.exp() * (mine.log_p - mine.log_q)).sum(-1)
    known = (theirs.log_p.exp() * (theirs.log_p - theirs.log_q)).sum(-1)
    order = (nats - known).detach().argsort(descending=True)
    plan = _distill(divergence="forward_kl", select={"keep": 0.5, "reference": "draft"})
    sums = Objective(plan, target, reference)(draft, collate(ROWS, 0))
    expected = nats[order[:3]].sum()
    assert int(sums.tokens) == 3
    assert float(sums.divergence.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    assert_same_gradient(draft, sums.divergence, expected)


def test_selection_reads_a_reference_whose_head_cannot_be_taken_apart(
    target: FrozenTarget, reference: FrozenTarget, draft: nn.Module, tiny_pair: Path
) -> None:
    odd = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    odd.load_state_dict(reference.model.state_dict())
    odd.config.final_logit_softcapping = 1.0  # which Llama's forward does not do
    plan = _distill(divergence="forward_kl", select={"keep": 0.5, "reference": "draft"})
    plain, whole = (
        Objective(plan, target, one)(draft, collate(ROWS, 0))
        for one in (reference, FrozenTarget(odd))
    )
    torch.testing.assert_close(whole.divergence, plain.divergence)
    assert whole.tokens == plain.tokens


@pytest.mark.parametrize(
    "mix",
    [
        {"nll": 0.3, "tvd": 2.0, "block_efficiency": 0.5},
        {"tvd": 2.0, "block_efficiency": 0.5, "tvd_plus": 0.25},
    ],
    ids=str,
)
def test_a_mixture_is_the_weighted_sum_of_its_losses(
    target: FrozenTarget, draft: nn.Module, mix: dict[str, float]
) -> None:
    batch = collate(ROWS, 0)
    parts = [
        weight * Objective(_distill(divergence=name), target)(draft, batch).divergence
        for name, weight in mix.items()
    ]
    mixed = Objective(_distill(divergence="mix", mix=mix), target)(draft, batch)
    torch.testing.assert_close(mixed.divergence, torch.stack(parts).sum())
    assert_same_gradient(draft, mixed.divergence, torch.stack(parts).sum())


@pytest.mark.parametrize("objective", EVERY, ids=[str(one) for one in EVERY])
def test_logits_and_hidden_states_give_the_same_loss(
    target: FrozenTarget, reference: FrozenTarget, draft: nn.Module, tiny_pair: Path, objective: Any
) -> None:
    odd = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    odd.config.final_logit_softcapping = 1.0  # which Llama's forward does not do
    plan = _distill(**objective)
    loss = Objective(plan, target, reference if plan.select else None)
    plain, whole = (loss(model, collate(ROWS, 0)) for model in (draft, odd))
    torch.testing.assert_close(whole.divergence, plain.divergence)
    torch.testing.assert_close(whole.alpha, plain.alpha, equal_nan=True)
    assert whole.tokens == plain.tokens


# --- rows that are trees, and what is known of the target already --------------------------------

TREE = [
    TreeRow(
        (5, 6),
        (7, 8, 9),
        RejectedBranches(
            (1.0, 0.5, 1.0),
            [RejectedBranch(0, (3,), (0.25,)), RejectedBranch(2, (4, 2), (0.5, 0.125))],
        ),
    ),
    TreeRow((11,), (12,), RejectedBranches((1.0,), [RejectedBranch(0, (13,), (0.75,))])),
]
STATES = [
    ((5, 6), 1.0),
    ((5, 6, 7), 0.5),
    ((5, 6, 7, 8), 1.0),
    ((5, 6, 3), 0.25),
    ((5, 6, 7, 8, 4), 0.5),
    ((5, 6, 7, 8, 4, 2), 0.125),
    ((11,), 1.0),
    ((11, 13), 0.75),
]


@pytest.mark.parametrize("name", ["forward_kl", "tvd", "lk_lambda"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_the_loss_of_a_tree_is_that_of_its_states_each_read_alone(
    target: FrozenTarget, draft: nn.Module, name: str, implementation: str
) -> None:
    for model in (target.model, draft):
        model.set_attn_implementation(implementation)  # type: ignore[operator]
    objective = Objective(_distill(divergence=name), target)
    alone = []
    for context, weight in STATES:
        row = collate([(context, (1,))], 0)  # what comes after is not looked at
        alone.append(weight * objective(draft, row).divergence)
    batch = collate_trees([[one] for one in TREE], 0)
    sums = objective(draft, batch)
    torch.testing.assert_close(sums.divergence, torch.stack(alone).sum())
    assert_same_gradient(draft, sums.divergence, torch.stack(alone).sum())
    assert int(sums.tokens) == len(STATES)
    weights = token_weights(batch, "tokens")
    assert weights.tolist() == [weight for _, weight in STATES]


@pytest.mark.parametrize("is_tree", [False, True])
@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("first", [0, 1])
def test_states_that_are_known_are_not_computed_again(
    target: FrozenTarget,
    draft: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    is_tree: bool,
    logits: bool,
    first: int,
) -> None:
    """All of them are known, or all but those of the first row."""
    if logits:
        draft.config.final_logit_softcapping = 1.0  # type: ignore[union-attr,assignment]
    batch = collate_trees([[one] for one in TREE], 0) if is_tree else collate(ROWS, 0)
    objective = Objective(_distill(), target)
    expected = objective(draft, batch)
    layout = TreeLayout(batch.tree.positions, batch.tree.sees) if batch.tree else None
    predicts = predicts_response(batch)
    read = target.hidden(batch.tokens, batch.is_token, layout)
    is_known = predicts.nonzero()[:, 0] >= first
    known = KnownResponses(is_known, read[predicts][is_known])
    rows_read = []
    forward = FrozenTarget.hidden
    monkeypatch.setattr(
        FrozenTarget,
        "hidden",
        lambda self, tokens, *rest: rows_read.append(len(tokens)) or forward(self, tokens, *rest),
    )
    monkeypatch.setattr(FrozenTarget, "logits", None)
    sums = objective(draft, batch._replace(known=known))
    assert sum(rows_read) == first
    torch.testing.assert_close(sums.divergence, expected.divergence)
    assert_same_gradient(draft, sums.divergence, expected.divergence)


@pytest.mark.parametrize("objective", EVERY, ids=[str(one) for one in EVERY])
@pytest.mark.parametrize("reduction", ["tokens", "sequences"])
def test_packed_texts_have_the_loss_and_gradient_of_padded_ones(
    target: FrozenTarget,
    draft: nn.Module,
    reference: FrozenTarget,
    objective: dict[str, Any],
    reduction: str,
) -> None:
    plan = _distill(**objective, reduction=reduction)
    loss = Objective(plan, target, reference if plan.select else None)
    padded = loss(draft, collate(ROWS, 0))
    trees = [
        TreeRow(prompt, response, RejectedBranches.of_text(len(response), weight))
        for prompt, response in ROWS
        for weight in [1.0 / max(1, len(response)) if reduction == "sequences" else 1.0]
    ]
    batch = collate_trees([[trees[0], trees[1]], [trees[2], trees[3]]], 0)
    sums = loss(draft, batch)
    torch.testing.assert_close(sums.divergence, padded.divergence)
    torch.testing.assert_close(sums.alpha, padded.alpha, equal_nan=True)
    assert sums.tokens == padded.tokens
    assert_same_gradient(draft, sums.divergence, padded.divergence)


KEPT = (0, 6, 7, 8, 15, 16, 40, 41)  # 10, a response of one token, is not among them


@pytest.mark.parametrize("name", ["forward_kl", "tvd", "nll", "block_efficiency", "tvd_plus"])
def test_a_trimmed_draft_is_compared_with_the_targets_distribution_given_what_it_keeps(
    target: FrozenTarget, draft: nn.Module, name: str
) -> None:
    model = bare_model(draft)
    found = whole(target, draft, 0.8)
    p, q = (
        distribution[:, list(KEPT)].log_softmax(-1).exp()
        for distribution in (found.log_p, found.log_q)
    )
    trim_head(model, KEPT)
    plan = _distill(divergence=name, temperature=0.8)
    sums = Objective(plan, target if plan.needs_target else None)(draft, collate(ROWS, 0))
    if name == "nll":
        distribution = whole(target, draft).log_q.detach()  # of the trimmed draft, at temperature 1
        of_text = [float(distribution[i, t]) for i, t in enumerate(found.tokens) if int(t) in KEPT]
        assert len(of_text) == 5
        assert float(sums.divergence.detach()) == pytest.approx(-sum(of_text), rel=1e-4)
        return
    q = q.detach()
    alpha = torch.minimum(p, q).sum()
    assert float(sums.alpha) == pytest.approx(float(alpha), rel=1e-4)
    if name == "forward_kl":
        expected = float((p * (p / q).log()).sum())
        assert float(sums.divergence.detach()) == pytest.approx(expected, rel=1e-4)
    if name == "tvd":
        distance = float(sums.divergence.detach())
        assert distance == pytest.approx(len(p) - float(alpha), rel=1e-4)
    sums.divergence.backward()  # type: ignore[no-untyped-call]
    assert all(bool(gradient.isfinite().all()) for gradient in _gradients(draft))


@pytest.mark.parametrize("name", ["forward_kl", "tvd", "block_efficiency"])
@pytest.mark.parametrize("logits", [False, True])
def test_a_trimmed_draft_learns_from_trees_whose_states_are_known(
    target: FrozenTarget, draft: nn.Module, name: str, logits: bool
) -> None:
    """logits: of a draft whose head is not all that follows its states."""
    model = bare_model(draft)
    trim_head(model, KEPT)
    if logits:
        model.config.final_logit_softcapping = 1.0  # type: ignore[assignment]
    objective = Objective(_distill(divergence=name), target)
    batch = collate_trees([[TREE[0]], [TREE[1]]], 0)
    assert batch.tree is not None
    layout = TreeLayout(batch.tree.positions, batch.tree.sees)
    read = target.hidden(batch.tokens, batch.is_token, layout)[predicts_response(batch)]
    known = KnownResponses(torch.ones(len(read), dtype=torch.bool), read)
    sums = objective(draft, batch._replace(known=known))
    expected = objective(draft, batch)
    torch.testing.assert_close(sums.divergence, expected.divergence)
    assert_same_gradient(draft, sums.divergence, expected.divergence)
    if name == "block_efficiency":  # its worth hangs on the neighbours
        return
    alone = [
        weight * objective(draft, collate([(context, (1,))], 0)).divergence
        for context, weight in STATES
    ]
    torch.testing.assert_close(expected.divergence, torch.stack(alone).sum())


@pytest.mark.parametrize("objective", EVERY, ids=[str(one) for one in EVERY])
def test_packed_texts_have_the_loss_and_gradient_of_padded_ones_for_a_trimmed_draft(
    target: FrozenTarget, draft: nn.Module, reference: FrozenTarget, objective: dict[str, Any]
) -> None:
    trim_head(bare_model(draft), KEPT)
    trim_head(reference.model, KEPT)
    plan = _distill(**objective)
    loss = Objective(plan, target, reference if plan.select else None)
    padded = loss(draft, collate(ROWS, 0))
    trees = [
        TreeRow(prompt, response, RejectedBranches.of_text(len(response)))
        for prompt, response in ROWS
    ]
    sums = loss(draft, collate_trees([trees[:2], trees[2:]], 0))
    torch.testing.assert_close(sums.divergence, padded.divergence)
    torch.testing.assert_close(sums.alpha, padded.alpha, equal_nan=True)
    assert sums.tokens == padded.tokens
    assert_same_gradient(draft, sums.divergence, padded.divergence)


def _bridge(tiny_pair: Path) -> CrossTokenizerMap:
    """To a draft that has the target's tokens of even ids alone, in reverse, and all bytes."""
    theirs = load_tokenizer(str(tiny_pair / "target"))
    pieces = sorted(theirs.get_vocab(), key=theirs.get_vocab().__getitem__)
    mine = [piece for i, piece in enumerate(pieces) if len(piece) == 1 or i % 2 == 0]
    return CrossTokenizerMap(theirs, byte_level(mine[::-1], special=(pieces[0],)), 300, 300, "here")


@pytest.mark.parametrize("name", ["forward_kl", "tvd", "nll"])
def test_a_draft_of_another_tokenizer_learns_the_common_tokens_at_common_borders(
    target: FrozenTarget, draft: nn.Module, tiny_pair: Path, name: str
) -> None:
    """Each context as the draft's pieces of its tokens, each distribution over common tokens."""
    token_map = _bridge(tiny_pair)
    rows = [((256, 299, 70), (299, 258, 44, 298, 0)), ((270,), (40,)), ((100, 297), (280, 41))]
    assert any(len(token_map.pieces(token)) > 1 for prompt, answer in rows for token in prompt)
    common, theirs = set(token_map.target_ids.tolist()), dict(
        zip(token_map.target_ids.tolist(), token_map.draft_ids.tolist(), strict=True)
    )  # fmt: skip
    expected = 0.0
    with torch.no_grad():
        for prompt, response in rows:
            for place, token in enumerate(response):
                context = [*prompt, *response[:place]]
                pieces = [piece for one in context for piece in token_map.pieces(one)]
                z = _logits(target.model, torch.tensor(context))[-1, token_map.target_ids]
                log_p = z.log_softmax(-1)
                z = _logits(draft, torch.tensor(pieces))[-1]
                log_q = z[token_map.draft_ids].log_softmax(-1)
                if name == "forward_kl":
                    expected += float((log_p.exp() * (log_p - log_q)).sum())
                elif name == "tvd":
                    expected += 1.0 - float(torch.minimum(log_p.exp(), log_q.exp()).sum())
                elif token in common:
                    expected -= float(z[theirs[token]] - z[token_map.draft_ids].logsumexp(-1))
    attach_token_map(bare_model(draft), token_map)
    plan = _distill(divergence=name)
    objective = Objective(plan, target if plan.needs_target else None)
    sums = objective(draft, collate(rows, 0))
    assert float(sums.divergence.detach()) == pytest.approx(expected, rel=1e-4)
    assert int(sums.tokens) == (7 if name == "nll" else 8)  # one is not common: it weighs nothing
    sums.divergence.backward()  # type: ignore[no-untyped-call]
    assert any(bool(gradient.any()) for gradient in _gradients(draft))
