from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.runners.cross_tokenizer import CrossTokenizerRunner
from distillspec.models.runners.tree_batch import runner_for_trees
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import Generation
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from tests.models.conftest import PARENTS, PATHS, TREE, tiny_model, tree_parents
from tests.models.two_tokenizers import END, byte_level, wide_bridge
from tests.speculation.branches import (
    HistoryRunner,
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)

PROMPT = (1, 3)  # the second is "ab", which the draft reads as two tokens
POLICIES = [SamplingPolicy(0.0), SamplingPolicy(1.0), SamplingPolicy(0.8, top_k=2)]


def tiny_map() -> CrossTokenizerMap:
    """A target of 4 tokens, a draft of 5; they share 3."""
    return CrossTokenizerMap(
        byte_level([END, "a", "b", "ab"]), byte_level(["b", END, "a", "ba", "c"]), 4, 5, "here"
    )


def table(V: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(V, V, generator=generator, dtype=torch.float64) * 1.5


@pytest.mark.parametrize("policy", POLICIES, ids=str)
@pytest.mark.parametrize(
    ("draft", "verify", "gamma", "max_new_tokens"),
    [
        (ChainDraft(), verify_token, 1, 3),
        (ChainDraft(), verify_token, 3, 3),
        (ChainDraft(), verify_block, 2, 3),
        (SequencesDraft(2), verify_kseq, 1, 3),
        (SequencesDraft(2), verify_traversal, 2, 2),
    ],
)
def test_whole_outputs_have_the_distribution_of_the_target(
    draft: Any, verify: Any, gamma: int, max_new_tokens: int, policy: SamplingPolicy
) -> None:
    target, inner = HistoryRunner(table(4, 1)), HistoryRunner(table(5, 2))
    translated = CrossTokenizerRunner(inner, tiny_map())
    way = Configuration("translated", gamma, draft, FixedLength(), verify)

    def stream(random_source: RandomSource) -> Any:
        decoder = SpeculativeDecoder(target, translated, way, policy, random_source)
        return decoder.rounds(torch.tensor(PROMPT), max_new_tokens=max_new_tokens)

    def state() -> Hashable:
        return tuple(target.tokens[0].tolist()), tuple(inner.tokens[0].tolist())

    distribution = distribution_by_rounds(stream, state)
    assert sum(distribution.values()) == pytest.approx(1.0, abs=1e-12)
    expected = autoregressive_distribution(target, policy, PROMPT, max_new_tokens)
    assert total_variation(distribution, expected) < 1e-9
    if policy.temperature > 0.0:
        assert any(3 in tokens for tokens in distribution)  # a token that the draft lacks


def fresh(text: list[int]) -> Tensor:
    runner = CrossTokenizerRunner(runner_for_trees(tiny_model("llama")), wide_bridge())
    return runner.feed(torch.tensor([text]))[0, -1]


def test_a_cache_that_was_rolled_back_and_fed_again_holds_the_text() -> None:
    runner = CrossTokenizerRunner(runner_for_trees(tiny_model("llama")), wide_bridge())
    runner.feed(torch.tensor([[1, 2, 3, 4, 5]]))
    assert runner.length == 5
    runner.rollback(2)
    logits = runner.feed(torch.tensor([[7, 10, 12]]))
    assert logits.shape == (1, 3, 61)
    for start, text in enumerate(([1, 2, 7], [1, 2, 7, 10], [1, 2, 7, 10, 12])):
        torch.testing.assert_close(logits[0, start], fresh(text), rtol=1e-4, atol=1e-4)


def test_a_tree_is_read_path_by_path_and_what_is_kept_is_a_text() -> None:
    runner = CrossTokenizerRunner(runner_for_trees(tiny_model("llama")), wide_bridge())
    text = [1, 4, 2]
    runner.feed(torch.tensor([text]))
    logits = runner.feed_tree(torch.tensor(TREE), tree_parents(3))
    for row, path in zip(logits[0], PATHS, strict=True):
        expected = fresh([*text, *(TREE[node] for node in path)])
        torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-4)
    assert len(PARENTS) == runner.length - 3
    runner.keep(3, [3, 5, 6])
    assert runner.length == 6
    again = runner.feed(torch.tensor([[11]]))[0, -1]
    expected = fresh([*text, *(TREE[node] for node in (0, 2, 3)), 11])
    torch.testing.assert_close(again, expected, rtol=1e-4, atol=1e-4)


def test_the_drafts_places_bound_the_text_and_are_never_passed() -> None:
    runner = CrossTokenizerRunner(HistoryRunner(table(5, 2), capacity=24), tiny_map())
    assert (runner.capacity, runner.positions) == (24, 24)
    runner.feed(torch.tensor([[3, 3]]))
    assert (runner.length, runner.capacity) == (2, 22)
    assert runner.room_after([3, 1]) == (17, 17)
    assert runner.room_after([3] * 11) == (-2, -2)
    with pytest.raises(DistillSpecError, match="26 tokens.*can read 24"):
        runner.feed(torch.full((1, 11), 3))


class Roomy(HistoryRunner):
    """A model that could read more than its cache holds."""

    @property
    def positions(self) -> int:
        return self.capacity + 10


def test_a_cache_that_is_smaller_than_the_context_is_named() -> None:
    runner = CrossTokenizerRunner(Roomy(table(5, 2), capacity=4), tiny_map())
    with pytest.raises(DistillSpecError, match="6 tokens.*cache holds 4"):
        runner.feed(torch.full((1, 3), 3))


def decoded(capacity: int, prompt: tuple[int, ...], draft: Any, verify: Any) -> Generation:
    """20 tokens from a target that often draws "ab", which the draft lacks."""
    likes = table(4, 1)
    likes[:, 3] += 1.0
    translated = CrossTokenizerRunner(HistoryRunner(table(5, 2), capacity=capacity), tiny_map())
    way = Configuration("translated", 3, draft, FixedLength(), verify)
    decoder = SpeculativeDecoder(
        HistoryRunner(likes),
        translated,
        way,
        SamplingPolicy(1.0),
        GeneratorSource(torch.Generator().manual_seed(3)),
    )
    decoder.decode(torch.tensor([1, 3, 3]), max_new_tokens=2)  # of which nothing must be left
    return decoder.decode(torch.tensor(prompt), max_new_tokens=20)


@pytest.mark.parametrize(
    ("draft", "verify"),
    [(ChainDraft(), verify_token), (SequencesDraft(2), verify_traversal)],
)
def test_the_draft_pauses_once_the_text_fills_its_context(draft: Any, verify: Any) -> None:
    for capacity in range(6, 40):
        tokens = decoded(capacity, PROMPT, draft, verify)
        assert len(tokens.tokens) == 20
        drafted = [round_.drafted for round_ in tokens.rounds]
        assert max(drafted) > 0
        if capacity < 16:
            assert drafted[-1] == 0


def test_a_prompt_that_the_draft_cannot_read_is_decoded_by_the_target_alone() -> None:
    tokens = decoded(8, (1, 3, 3, 3, 3, 3), ChainDraft(), verify_token)
    assert len(tokens.tokens) == len(tokens.rounds) == 20
    assert {(round_.drafted, round_.draft_steps) for round_ in tokens.rounds} == {(0, 0)}


def test_near_the_end_of_the_context_outputs_keep_the_distribution_of_the_target() -> None:
    target, inner = HistoryRunner(table(4, 1)), HistoryRunner(table(5, 2), capacity=5)
    translated = CrossTokenizerRunner(inner, tiny_map())
    way = Configuration("translated", 2, ChainDraft(), FixedLength(), verify_token)

    def stream(random_source: RandomSource) -> Any:
        decoder = SpeculativeDecoder(target, translated, way, SamplingPolicy(1.0), random_source)
        return decoder.rounds(torch.tensor(PROMPT), max_new_tokens=4)

    def state() -> Hashable:
        return tuple(target.tokens[0].tolist()), tuple(inner.tokens[0].tolist())

    expected = autoregressive_distribution(target, SamplingPolicy(1.0), PROMPT, 4)
    assert total_variation(distribution_by_rounds(stream, state), expected) < 1e-9


def test_what_the_drafts_tokenizer_begins_with_stands_before_the_text() -> None:
    token_map = tiny_map()
    token_map.prefix = (1,)
    inner = HistoryRunner(table(5, 2))
    runner = CrossTokenizerRunner(inner, token_map)
    runner.feed(torch.tensor([[3, 1]]))
    assert inner.tokens.tolist() == [[1, 2, 0, 2]]
    runner.rollback(0)
    runner.feed(torch.tensor([[0, 1]]))  # the target's own end of text, which it begins with too
    assert inner.tokens.tolist() == [[1, 2]]
