from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.models.runners.eager import CausalRunner, max_context_length, vocabulary_size
from distillspec.models.runners.tree_batch import BatchedTreeRunner
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.token import verify_token
from tests.models.conftest import PATHS, TREE, VOCABULARY, one_pass, tiny_model, tree_parents
from tests.speculation.branches import (
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)

KINDS = ["llama", "mistral", "gemma2", "gpt2"]


@pytest.mark.parametrize("kind", KINDS)
def test_feeding_in_pieces_equals_feeding_at_once(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = CausalRunner(model)
    pieces = [runner.feed(piece) for piece in text.split([7, 1, 5, 1, 20, 14], dim=1)]
    torch.testing.assert_close(
        torch.cat(pieces, dim=1), one_pass(model, text), atol=1e-4, rtol=1e-4
    )
    assert runner.length == text.shape[1]


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_rolled_back_leaves_no_trace(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = CausalRunner(model)
    runner.feed(text[:, :30])
    runner.feed(text.flip(1)[:, :9])
    runner.rollback(21)  # beyond the window of 8 positions
    again = runner.feed(text[:, 21:])
    torch.testing.assert_close(again, one_pass(model, text)[:, 21:], atol=1e-4, rtol=1e-4)


def test_reset_begins_a_new_text(llama: PreTrainedModel, text: Tensor) -> None:
    runner = CausalRunner(llama)
    runner.feed(text)
    runner.reset()
    assert runner.length == 0
    torch.testing.assert_close(runner.feed(text), one_pass(llama, text), atol=1e-4, rtol=1e-4)


def test_rows_of_a_batch_are_independent(llama: PreTrainedModel, text: Tensor) -> None:
    both = torch.cat((text, text.flip(1)))
    runner = CausalRunner(llama, rows=2)
    logits = torch.cat((runner.feed(both[:, :40]), runner.feed(both[:, 40:])), dim=1)
    torch.testing.assert_close(logits[1:], one_pass(llama, text.flip(1)), atol=1e-4, rtol=1e-4)


def test_logits_are_trimmed_to_the_vocabulary_asked_for(
    llama: PreTrainedModel, text: Tensor
) -> None:
    runner = CausalRunner(llama, vocab_size=50)
    assert runner.feed(text).shape == (1, 48, 50)
    assert runner.vocab_size == 50
    assert CausalRunner(llama).vocab_size == vocabulary_size(llama) == VOCABULARY


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_padded_vocabularies_of_any_size_keep_the_distribution_of_the_target(
    temperature: float,
) -> None:
    """Both share four tokens; the tokens beyond them are likely, but never drawn."""
    target, draft = (CausalRunner(tiny_model("llama", seed=seed), vocab_size=4) for seed in (0, 1))
    policy = SamplingPolicy(temperature)
    way = Configuration("padded", 2, ChainDraft(), FixedLength(), verify_token)
    prompt = (1, 3, 2)

    def stream(random_source: RandomSource) -> Any:
        decoder = SpeculativeDecoder(target, draft, way, policy, random_source)
        return decoder.rounds(torch.tensor(prompt), max_new_tokens=3)

    distribution = distribution_by_rounds(stream, lambda: (target.length, draft.length))
    expected = autoregressive_distribution(target, policy, prompt, 3)
    assert total_variation(distribution, expected) < 1e-5
    assert len(distribution) == (1 if temperature == 0.0 else 4**3)


def test_positions_are_what_the_model_can_read_and_the_cache_grows(
    llama: PreTrainedModel,
) -> None:
    runner = CausalRunner(llama)
    assert runner.positions == max_context_length(llama) == 128
    assert runner.capacity > 4 * 128


@pytest.mark.parametrize("kind", [CausalRunner, BatchedTreeRunner])
def test_several_drafts_are_as_long_as_ever_up_to_the_longest_text(
    kind: type[CausalRunner] | type[BatchedTreeRunner], llama: PreTrainedModel, text: Tensor
) -> None:
    """K * gamma slots may lie beyond the model's positions; no token does."""
    way = Configuration("kseq", 4, SequencesDraft(4), FixedLength(), verify_kseq)
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    decoder = SpeculativeDecoder(kind(llama), kind(llama), way, SamplingPolicy(1.0), random_source)
    prompt = torch.cat([text[0], text[0]])[:90]
    generation = decoder.decode(prompt, max_new_tokens=128 + 1 - 90)
    assert len(generation.tokens) == 39
    whole = [record.drafted for record in generation.rounds[:-5]]  # 5 have no room for gamma
    assert set(whole) == {16}


def test_a_model_in_training_mode_is_refused() -> None:
    model = tiny_model("llama").train()
    with pytest.raises(AssertionError, match="eval mode"):
        CausalRunner(model)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("pieces", [[5], [3, 2], [1, 1, 1, 1, 1]])
def test_every_path_of_a_tree_reads_as_if_it_were_alone(
    kind: str, pieces: list[int], text: Tensor
) -> None:
    model = tiny_model(kind)
    runner = CausalRunner(model)
    runner.feed(text[:, :20])
    tokens, parents = torch.tensor(TREE), tree_parents(20)
    node_logits, start = [], 0
    for size in pieces:
        node_logits.append(
            runner.feed_tree(tokens[start : start + size], parents[start : start + size])
        )
        start += size
    logits = torch.cat(node_logits, dim=1)[0]
    assert runner.length == 25
    for node, path in enumerate(PATHS):
        alone = one_pass(model, torch.cat([text[:, :20], tokens[path][None]], dim=1))
        torch.testing.assert_close(logits[node], alone[0, -1], atol=1e-4, rtol=1e-4)


def test_the_kept_path_of_a_tree_is_a_text_again(llama: PreTrainedModel, text: Tensor) -> None:
    runner = CausalRunner(llama)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.keep(20, [20, 22, 23])
    assert runner.length == 23
    whole = torch.cat([text[:, :20], torch.tensor([[5, 7, 8]]), text[:, 20:30]], dim=1)
    again = runner.feed(text[:, 20:30])
    torch.testing.assert_close(again, one_pass(llama, whole)[:, 23:], atol=1e-4, rtol=1e-4)


def test_a_tree_of_which_nothing_is_kept_leaves_no_trace(
    llama: PreTrainedModel, text: Tensor
) -> None:
    runner = CausalRunner(llama)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.keep(20, [])
    again = runner.feed(text[:, 20:30])
    torch.testing.assert_close(again, one_pass(llama, text)[:, 20:30], atol=1e-4, rtol=1e-4)


def test_the_kept_rest_of_a_tree_grows_on(llama: PreTrainedModel, text: Tensor) -> None:
    """Node 0 joins the text, 2 and 3 stay a tree after it; a token follows each of the three."""
    runner = CausalRunner(llama)
    runner.feed(text[:, :20])
    runner.feed_tree(torch.tensor(TREE), tree_parents(20))
    runner.keep(20, [20], [22, 23])
    logits = runner.feed_tree(torch.tensor([11, 12, 13]), [20, 21, 22])[0]
    for row, path in enumerate([[5, 11], [5, 7, 12], [5, 7, 8, 13]]):
        alone = one_pass(llama, torch.cat([text[:, :20], torch.tensor([path])], dim=1))
        torch.testing.assert_close(logits[row], alone[0, -1], atol=1e-4, rtol=1e-4)
