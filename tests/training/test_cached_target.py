"""Rows of a batch find their own kept distributions, and a training by them is the online one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

from distillspec.assembly.draft_vocabulary import CrossTokenizerVocabulary
from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import top_k_scorer, top_k_store
from distillspec.corpus.batches.batching import Batch, collate
from distillspec.corpus.batches.tree_rows import RejectedBranches, TreeRow, collate_trees
from distillspec.corpus.stores.top_k import TopKText, fill_top_k
from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.surgery.hidden_states import token_logits
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, attach_token_map
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.recipe.loss import Term
from distillspec.recipe.target_logits import OnlineTargetConfig
from distillspec.training.cached_target import CachedTopKTarget, top_k_texts
from distillspec.training.objective import Objective, predicts_response
from distillspec.training.state_file import read_state
from tests.models.two_tokenizers import byte_level
from tests.training import tiny_run

TERMS = [name for name in get_args(Term) if name not in ("nll", "tvd_plus")]
SELECTED = {"divergence": "jsd", "select": {"keep": 0.5, "reference": "draft"}}
MIXED = {"divergence": "mix", "mix": {"nll": 0.3, "lk_alpha": 1.0, "block_efficiency": 0.5}}


def plan(store: Path, *, cached: bool = True, **distill: Any) -> dict[str, Any]:
    """All 300 tokens, unrounded, unless told otherwise."""
    kept = {"kind": "cached", "k": 300, "dtype": "float32", **distill.pop("kept", {})}
    signal = {**kept, "store": str(store)} if cached else {"kind": "online"}
    source = {"fixed": 0.5, "target": 0.5}
    return {"distill": {"source": source, "target_logits": signal, **distill}}


def parts(pair: Path, store: Path, **distill: Any) -> tiny_run.Parts:
    return tiny_run.parts(pair, tiny_run.recipe(**plan(store, **distill)))


def batch(count: int, *, on_prompts: bool = False) -> Batch:
    rows = [(p.tokens, p.response or ()) for p in tiny_run.prompts()[:count]]
    return collate(rows, 0, on_prompts=on_prompts)


def test_rows_are_told_without_their_padding_and_from_where_they_are_predicted() -> None:
    rows = [((5, 6, 7), (8, 0)), ((9,), ()), ((1, 2), (3, 4, 5, 6))]
    assert top_k_texts(collate(rows, 0)) == [
        TopKText((5, 6, 7, 8, 0), 3),
        TopKText((9,), 1),
        TopKText((1, 2, 3, 4, 5, 6), 2),
    ]
    assert [text.first for text in top_k_texts(collate(rows, 0, on_prompts=True))] == [1, 1, 1]


def test_packed_texts_are_told_one_by_one() -> None:
    rows = [
        [
            TreeRow((5, 6, 7), (8, 0), RejectedBranches.of_text(2)),
            TreeRow((9,), (), RejectedBranches.of_text(0)),
        ],
        [TreeRow((1, 2), (3, 4), RejectedBranches.of_text(3))],
    ]
    assert top_k_texts(collate_trees(rows, 0)) == [
        TopKText((5, 6, 7, 8, 0), 3),
        TopKText((9,), 1),
        TopKText((1, 2, 3, 4), 1),
    ]


@pytest.mark.parametrize("on_prompts", [False, True])
def test_a_batchs_records_are_the_targets_own_distribution_of_it(
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


PART = tuple(range(0, 300, 3))  # what a draft scores: 100 of 300 tokens


def _of_a_part(
    pair: Path, folder: Path, part: str, k: int, name: str
) -> tuple[nn.Module, Objective, Objective]:
    """A draft that scores a part of the target's tokens, with the online and the kept objective."""
    kept = {"k": k, "dtype": "float32"}
    given = tiny_run.recipe(**plan(folder, divergence=name, temperature=0.7, kept=kept))
    made = tiny_run.parts(pair, tiny_run.recipe(**plan(folder, cached=False)))
    whole = ModelPair(
        given,
        torch.device("cpu"),
        made.target,
        made.tokenizer,
        300,
        EosTokens(frozenset({0}), None, ()),
    )
    model = bare_model(made.draft)
    if part == "trimmed":
        trim_head(model, PART)
        whole = whole.trimmed_to(PART)
    else:
        pieces = sorted(made.tokenizer.get_vocab(), key=made.tokenizer.get_vocab().__getitem__)
        mine = [piece for i, piece in enumerate(pieces) if len(piece) == 1 or i % 2 == 0]
        other = byte_level(mine[::-1], special=(pieces[0],))
        shared = CrossTokenizerMap(made.tokenizer, other, 300, 300, "here")
        whole = replace(whole, vocabulary=CrossTokenizerVocabulary(shared, other, 512))
        attach_token_map(model, shared)
    rows, signal = tiny_run.prompts(), given.distill.cached_logits
    scored = whole.vocabulary.scored
    assert signal is not None and scored is not None
    size = min(k, len(scored))
    signal = signal.model_copy(update={"k": size})
    store = top_k_store(whole, signal, rows, {row.key: (5, 6, 7) for row in rows})
    fill_top_k(store, top_k_scorer(whole, signal))
    online = given.distill.model_copy(update={"target_logits": OnlineTargetConfig(kind="online")})
    cached = Objective(given.distill, None, None, CachedTopKTarget(store))
    return made.draft, Objective(online, made.target), cached


@pytest.mark.parametrize("part", ["trimmed", "cross-tokenizer"])
@pytest.mark.parametrize("name", ["forward_kl", "jsd", "tvd"])
def test_a_draft_that_scores_a_part_learns_the_kept_distribution_of_it_as_the_online_one(
    tiny_pair: Path, tmp_path: Path, name: str, part: str
) -> None:
    """With all of the part kept; with fewer tokens of it, divergences are bounds from below."""
    draft, online, cached = _of_a_part(tiny_pair, tmp_path, part, 300, name)
    found = []
    for loss in (online, cached):
        draft.zero_grad()
        sums = loss(draft, batch(12))
        sums.divergence.backward()  # type: ignore[no-untyped-call]
        found.append((sums, torch.cat([_gradient(p) for p in draft.parameters()])))
    (whole, gradient), (mine, my_gradient) = found
    torch.testing.assert_close(mine.divergence, whole.divergence, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine.alpha, whole.alpha, rtol=1e-5, atol=1e-4)
    assert float((my_gradient - gradient).norm() / gradient.norm()) < 1e-4
    bounds = [float(whole.divergence.detach())]
    for k in (20, 2):
        draft, _, cached = _of_a_part(tiny_pair, tmp_path, part, k, name)
        with torch.no_grad():
            bounds.append(float(cached(draft, batch(12)).divergence))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 0.9 * bounds[0]


@pytest.mark.parametrize("part", ["trimmed", "cross-tokenizer"])
def test_the_gradient_of_few_kept_tokens_of_a_part_is_that_of_their_loss(
    tiny_pair: Path, tmp_path: Path, part: str
) -> None:
    """By a central difference along the gradient itself."""
    draft, _, cached = _of_a_part(tiny_pair, tmp_path, part, 8, "jsd")
    parameters = list(draft.parameters())
    cached(draft, batch(12)).divergence.backward()  # type: ignore[no-untyped-call]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]
    norm = float(sum(g.square().sum() for g in gradients) ** 0.5)

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=step / norm)
            value = float(cached(draft, batch(12)).divergence)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.add_(gradient, alpha=-step / norm)
        return value

    slope = (moved(0.02) - moved(-0.02)) / 0.04
    assert slope == pytest.approx(norm, rel=0.02)


def test_distributions_of_another_part_are_another_store(tiny_pair: Path, tmp_path: Path) -> None:
    given = tiny_run.recipe(**plan(tmp_path, kept={"k": 8}))
    made = tiny_run.parts(tiny_pair, tiny_run.recipe(**plan(tmp_path, cached=False)))
    whole = ModelPair(
        given,
        torch.device("cpu"),
        made.target,
        made.tokenizer,
        300,
        EosTokens(frozenset({0}), None, ()),
    )
    rows, signal = tiny_run.prompts(), given.distill.cached_logits
    assert signal is not None
    responses = {row.key: (5, 6, 7) for row in rows}
    folders = {
        top_k_store(
            (whole if kept is None else whole.trimmed_to(kept)), signal, rows, responses
        ).folder
        for kept in (None, PART, PART[1:], (*PART[1:], 1))
    }
    assert len(folders) == 4


def _gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad.flatten().clone()


@pytest.mark.parametrize(
    "source", [{"fixed": 0.5, "target": 0.5}, {"draft": 0.5, "target": 0.5, "per": "batch"}]
)
def test_training_by_the_whole_kept_distribution_makes_the_steps_of_online_training(
    tiny_pair: Path, tmp_path: Path, source: dict[str, Any]
) -> None:
    traces = []
    for name, cached in (("online", False), ("kept", True)):
        made = parts(tiny_pair, tmp_path / "store", cached=cached, source=source)
        tiny_run.run(made, tmp_path / name)
        traces.append(tiny_run.rows_of(tmp_path / name))
    online, kept = traces
    assert len(online) == len(kept) == 5
    stored = 0
    for theirs, mine in zip(online[1:], kept[1:], strict=True):
        for name in ("divergence_nats", "gradient_norm", "response_tokens"):
            assert float(mine[f"train/{name}"]) == pytest.approx(
                float(theirs[f"train/{name}"]), rel=1e-3
            )
        # Of text that the draft has just written, alpha is exact, since the target has read it.
        is_stored = mine["train/alpha"] == ""
        stored += is_stored
        alpha = float(mine["train/alpha_at_most" if is_stored else "train/alpha"])
        assert theirs["train/alpha_at_most"] == ""
        assert alpha == pytest.approx(float(theirs["train/alpha"]), rel=1e-4)
    assert stored == (4 if "fixed" in source else 2)


def test_a_run_resumed_on_the_kept_distribution_is_bit_equal(
    tiny_pair: Path, tmp_path: Path
) -> None:
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
    with pytest.raises(DistillSpecError, match="no distributions are cached"):
        made.cached.top_tokens(collate([((5, 6), (7, 8))], 0))
