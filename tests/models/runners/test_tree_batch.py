from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.eager import CausalRunner
from distillspec.models.runners.tree_batch import BatchedTreeRunner, runner_for_trees
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.kseq import verify_kseq
from tests.models.conftest import PATHS, TREE, one_pass, tiny_model, tree_parents
from tests.speculation.branches import (
    Branches,
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)

WINDOWED = ["mistral", "gemma2"]
"""Their windows are 8 positions: the text before the trees is longer."""


@pytest.mark.parametrize("kind", [*WINDOWED, "llama"])
@pytest.mark.parametrize("pieces", [[5], [3, 2], [1, 1, 1, 1, 1]])
@pytest.mark.parametrize("length", [0, 20])
def test_every_path_of_a_tree_reads_as_if_it_were_alone(
    kind: str, pieces: list[int], length: int, text: Tensor
) -> None:
    model = tiny_model(kind)
    runner = BatchedTreeRunner(model)
    if length:
        runner.feed(text[:, :length])
    tokens, parents = torch.tensor(TREE), tree_parents(length)
    node_logits, start = [], 0
    for size in pieces:
        node_logits.append(
            runner.feed_tree(tokens[start : start + size], parents[start : start + size])
        )
        start += size
    logits = torch.cat(node_logits, dim=1)[0]
    assert runner.length == length + 5
    for node, path in enumerate(PATHS):
        alone = one_pass(model, torch.cat([text[:, :length], tokens[path][None]], dim=1))
        torch.testing.assert_close(logits[node], alone[0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", WINDOWED)
@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("length", [0, 20])
@pytest.mark.parametrize("named", ["by slots", "by length"])
def test_the_kept_path_of_a_tree_is_a_text_again(
    kind: str, path: list[int], length: int, named: str, text: Tensor
) -> None:
    model = tiny_model(kind)
    runner = BatchedTreeRunner(model)
    if length:
        runner.feed(text[:, :length])
    runner.feed_tree(torch.tensor(TREE), tree_parents(length))
    slots = [length + node for node in path]
    if named == "by length":  # as the engine keeps the head of a tree
        leading = sum(slot == length + start for start, slot in enumerate(slots))
        runner.keep(length + leading, slots[leading:])
    else:
        runner.keep(length, slots)
    kept = torch.tensor([[TREE[node] for node in path]])
    assert runner.length == length + len(path)
    whole = torch.cat([text[:, :length], kept, text[:, 20:30]], dim=1)
    again = runner.feed(text[:, 20:30])
    torch.testing.assert_close(
        again, one_pass(model, whole)[:, length + len(path) :], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("kind", WINDOWED)
def test_a_tree_of_which_nothing_is_kept_leaves_no_trace(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = BatchedTreeRunner(model)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.rollback(15)
    again = runner.feed(text[:, 15:30])
    torch.testing.assert_close(again, one_pass(model, text)[:, 15:30], atol=1e-4, rtol=1e-4)


def test_a_text_that_is_started_again_may_branch_again(text: Tensor) -> None:
    model = tiny_model("mistral")
    runner = BatchedTreeRunner(model)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.reset()
    assert runner.length == 0
    torch.testing.assert_close(runner.feed(text), one_pass(model, text), atol=1e-4, rtol=1e-4)
    node_logits = runner.feed_tree(torch.tensor([7]), [47])
    whole = torch.cat([text, torch.tensor([[7]])], dim=1)
    torch.testing.assert_close(node_logits[0], one_pass(model, whole)[0, -1:], atol=1e-4, rtol=1e-4)


def test_only_one_path_can_be_kept() -> None:
    runner = BatchedTreeRunner(tiny_model("mistral"))
    runner.feed_tree(torch.tensor(TREE), tree_parents(0))
    with pytest.raises(AssertionError, match="one path"):
        runner.keep(0, [0, 1, 2])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_engine_is_lossless_through_it(temperature: float) -> None:
    """Exactly, in float64, on a vocabulary cut to 2 tokens and a text longer than the window."""
    target, draft = (
        BatchedTreeRunner(tiny_model("mistral", seed=seed).double(), vocab_size=2)
        for seed in (0, 1)
    )
    policy, prompt = SamplingPolicy(temperature), [1, 0, 1, 1, 0, 0, 1, 0, 1, 1]
    way = Configuration("kseq", 2, SequencesDraft(2), FixedLength(), verify_kseq)

    def stream(random_source: Branches):  # type: ignore[no-untyped-def]
        decoder = SpeculativeDecoder(target, draft, way, policy, random_source)
        return decoder.rounds(torch.tensor(prompt), max_new_tokens=3)

    distribution = distribution_by_rounds(stream, lambda: draft.length)
    alone = CausalRunner(tiny_model("mistral").double(), vocab_size=2)
    assert (
        total_variation(distribution, autoregressive_distribution(alone, policy, prompt, 3)) < 1e-9
    )


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("distinct", [False, True])
def test_sequences_that_share_more_than_a_token_decode_as_in_one_row(
    seed: int, distinct: bool
) -> None:
    """Few tokens and deep drafts: what is kept was mostly drafted by several sequences."""
    policy, prompt = SamplingPolicy(1.0), torch.tensor([1, 0, 2, 1])
    way = Configuration("kseq", 5, SequencesDraft(3, distinct), FixedLength(), verify_kseq)
    texts = []
    for kind in (BatchedTreeRunner, CausalRunner):
        target, draft = (
            kind(tiny_model("llama", seed=side).double(), vocab_size=3) for side in (0, 1)
        )
        random_source = GeneratorSource(torch.Generator().manual_seed(seed))
        decoder = SpeculativeDecoder(target, draft, way, policy, random_source)
        texts.append(decoder.decode(prompt, max_new_tokens=40))
    assert texts[0].tokens == texts[1].tokens
    assert texts[0].counts().accepted_at[2] > 0


# --- who gets it ---------------------------------------------------------------------------------


def test_a_model_with_masks_of_its_own_gets_it_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(runner_for_trees(tiny_model("mistral")), BatchedTreeRunner)
    assert len(caplog.records) == 1
    assert "MistralForCausalLM does not accept a prepared attention mask" in caplog.text
    assert "read as a batch" in caplog.text


def test_other_models_do_not(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(runner_for_trees(tiny_model("llama"), vocab_size=9), CausalRunner)
    assert not caplog.records


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_it_is_made_only_where_trees_are_fed(kind: str) -> None:
    model = tiny_model("mistral")
    runner = make_runner(model, kind, 40, [1], tree_sizes=[5], vocab_size=50)  # type: ignore[arg-type]
    assert isinstance(runner, BatchedTreeRunner)
    assert runner.vocab_size == 50
    assert isinstance(make_runner(model, "eager", 40, [1]), CausalRunner)


def test_a_runner_made_for_chains_still_refuses_a_tree() -> None:
    runner = CausalRunner(tiny_model("mistral"))
    with pytest.raises(DistillSpecError, match="prepared attention mask"):
        runner.feed_tree(torch.tensor(TREE), tree_parents(0))


@pytest.mark.parametrize("kind", WINDOWED)
def test_the_kept_rest_of_a_tree_grows_on(kind: str, text: Tensor) -> None:
    """Node 0 joins the text, 2 and 3 stay a tree after it; a token follows each of the three."""
    model = tiny_model(kind)
    runner = BatchedTreeRunner(model)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.keep(20, [20], [22, 23])
    assert runner.length == 23
    logits = runner.feed_tree(torch.tensor([11, 12, 13]), [20, 21, 22])[0]
    for row, path in enumerate([[5, 11], [5, 7, 12], [5, 7, 8, 13]]):
        alone = one_pass(model, torch.cat([text[:, :20], torch.tensor([path])], dim=1))
        torch.testing.assert_close(logits[row], alone[0, -1], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", WINDOWED)
def test_the_rest_of_a_tree_can_become_text_before_it_has_grown(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = BatchedTreeRunner(model)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.keep(20, [20], [22, 23])
    runner.keep(21, [21], [22])
    logits = runner.feed_tree(torch.tensor([13]), [22])[0]
    alone = one_pass(model, torch.cat([text[:, :20], torch.tensor([[5, 7, 8, 13]])], dim=1))
    torch.testing.assert_close(logits[0], alone[0, -1], atol=1e-4, rtol=1e-4)
