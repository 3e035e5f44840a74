"""Compiling takes seconds a model: the runners are made once for the whole file."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import Tensor
from torch._inductor.config import patch
from transformers import PreTrainedModel

from distillspec.models.runners.compiled import CompiledRunner, compiler_available, make_runner
from distillspec.models.runners.cross_tokenizer import CrossTokenizerRunner
from distillspec.models.runners.eager import CausalRunner
from distillspec.models.vocabulary.cross_tokenizer import attach_token_map
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head
from distillspec.speculation.draft.entropy import entropy_nats
from distillspec.speculation.sampling import SamplingPolicy
from tests.models.conftest import TREE, VOCABULARY, one_pass, tiny_model, tree_parents
from tests.models.two_tokenizers import wide_bridge

CAPACITY = 100
SIZES = [1, 4]
TREE_SIZES = [3, 4]


@pytest.fixture(scope="module")
def runner(llama: PreTrainedModel) -> CompiledRunner:
    return CompiledRunner(llama, CAPACITY, SIZES, tree_sizes=TREE_SIZES, computes_entropy=True)


@pytest.fixture
def empty(runner: CompiledRunner) -> CompiledRunner:
    runner.reset()
    return runner


def compilations() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_it_agrees_with_the_eager_runner_block_by_block(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor
) -> None:
    eager = CausalRunner(llama)
    for piece in text.split([11, 1, 4, 1, 3, 2, 8, 1, 4, 13], dim=1):
        torch.testing.assert_close(empty.feed(piece), eager.feed(piece), atol=1e-4, rtol=1e-4)
        assert empty.length == eager.length


def test_feeding_in_pieces_equals_feeding_at_once(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor
) -> None:
    pieces = [empty.feed(piece) for piece in text.split([4, 1, 3, 40], dim=1)]
    torch.testing.assert_close(
        torch.cat(pieces, dim=1), one_pass(llama, text), atol=1e-4, rtol=1e-4
    )


def test_what_was_rolled_back_leaves_no_trace(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor
) -> None:
    empty.feed(text[:, :30])
    for piece in text.flip(1)[:, :9].split(3, dim=1):
        empty.feed(piece)
    empty.rollback(21)
    again = [empty.feed(piece) for piece in text[:, 21:].split([4, 1, 2, 20], dim=1)]
    torch.testing.assert_close(
        torch.cat(again, dim=1), one_pass(llama, text)[:, 21:], atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("temperature", [0.0, 0.3, 1.0, 1.7])
def test_its_entropy_is_what_a_stop_rule_reads_from_the_logits(
    empty: CompiledRunner, text: Tensor, temperature: float
) -> None:
    policy = SamplingPolicy(temperature)
    for token in text[:, :6].split(1, dim=1):
        logits, entropy = empty.feed_for_entropy(token, policy.reading_temperature)
        assert float(entropy) == pytest.approx(entropy_nats(logits[0, -1], policy), rel=1e-4)


def test_feeding_for_the_entropy_feeds(empty: CompiledRunner, text: Tensor) -> None:
    whole = empty.feed(text[:, :12]).clone()
    empty.rollback(5)
    logits = [empty.feed_for_entropy(token, 1.0)[0] for token in text[:, 5:9].split(1, dim=1)]
    logits.append(empty.feed(text[:, 9:12]))
    torch.testing.assert_close(torch.cat(logits, dim=1), whole[:, 5:], atol=1e-4, rtol=1e-4)
    assert empty.length == 12


def test_the_entropy_is_of_the_vocabulary_that_is_drawn_from(
    llama: PreTrainedModel, text: Tensor
) -> None:
    trimmed = CompiledRunner(llama, CAPACITY, [1], computes_entropy=True, vocab_size=7)
    logits, entropy = trimmed.feed_for_entropy(text[:, :1] % 7, 1.0)
    assert logits.shape == (1, 1, 7)
    assert float(entropy) == pytest.approx(entropy_nats(logits[0, 0], SamplingPolicy()), rel=1e-4)


def test_logits_stay_what_they_were_while_more_is_fed(empty: CompiledRunner, text: Tensor) -> None:
    first = empty.feed(text[:, :1])
    before = first.clone()
    empty.feed(text[:, 1:2])
    assert torch.equal(first, before)


def test_a_padded_block_may_end_at_the_capacity(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor
) -> None:
    long = torch.cat((text, text, text[:, :4]), dim=1)
    empty.feed(long[:, :98])
    last = empty.feed(long[:, 98:])
    torch.testing.assert_close(last, one_pass(llama, long)[:, 98:], atol=1e-4, rtol=1e-4)
    with pytest.raises(AssertionError, match="capacity"):
        empty.feed(text[:, :1])


def test_padding_may_stand_beyond_the_last_position(text: Tensor) -> None:
    """A model with learned positions has none there."""
    model = tiny_model("gpt2")
    runner = CompiledRunner(model, 140, [4])
    long = torch.cat((text, text, text), dim=1)[:, :128]
    runner.feed(long[:, :127])
    last = runner.feed(long[:, 127:])
    torch.testing.assert_close(last, one_pass(model, long)[:, 127:], atol=1e-4, rtol=1e-4)


def test_other_lengths_compile_nothing_new(empty: CompiledRunner, text: Tensor) -> None:
    before = compilations()
    for lengths in ([5, 1, 1, 4, 2], [20, 3, 1, 4, 4], [1, 1], [2, 7, 1, 3]):
        empty.reset()
        for piece in text[:, : sum(lengths)].split(lengths, dim=1):
            empty.feed(piece)
    assert compilations() == before


def test_a_second_model_in_the_process_has_its_own_graphs(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor
) -> None:
    second_model = tiny_model("llama", seed=9)
    second = CompiledRunner(second_model, CAPACITY, [1], vocab_size=50)
    assert second.vocab_size == 50
    assert empty.vocab_size == VOCABULARY
    for token in text[:, :3].split(1, dim=1):
        second_logits, first_logits = second.feed(token), empty.feed(token)
    expected = one_pass(second_model, text[:, :3])[:, 2:, :50]
    torch.testing.assert_close(second_logits, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        first_logits, one_pass(llama, text[:, :3])[:, 2:], atol=1e-4, rtol=1e-4
    )


def test_a_trimmed_head_is_compiled_with_the_model(text: Tensor) -> None:
    model = tiny_model("llama", seed=5)
    trim_head(model, (2, 3, 5, 8, 13))
    settle_head(model)
    compiled, eager = CompiledRunner(model, CAPACITY, [1]), CausalRunner(model)
    for token in text[:, :3].split(1, dim=1):
        torch.testing.assert_close(compiled.feed(token), eager.feed(token), atol=1e-4, rtol=1e-4)


def test_a_draft_of_another_tokenizer_is_compiled_over_its_own_tokens() -> None:
    model = tiny_model("llama", seed=6)
    attach_token_map(model, wide_bridge())
    compiled, eager = (make_runner(model, kind, 20, [1, 2]) for kind in ("compiled", "eager"))
    assert isinstance(compiled, CrossTokenizerRunner)
    assert compiled.capacity == 2 * 20
    for tokens in ([4, 9], [3], [1], [6]):
        compiled_logits, eager_logits = (
            runner.feed(torch.tensor([tokens])) for runner in (compiled, eager)
        )
        torch.testing.assert_close(compiled_logits, eager_logits, atol=1e-4, rtol=1e-4)
    compiled.rollback(1)
    eager.rollback(1)
    again = torch.tensor([[10]])
    torch.testing.assert_close(compiled.feed(again), eager.feed(again), atol=1e-4, rtol=1e-4)


def test_a_draft_of_another_tokenizer_has_places_for_the_prompts_that_are_known() -> None:
    model, token_map = tiny_model("llama"), wide_bridge()
    token_map.prefix = (5,)
    attach_token_map(model, token_map)
    assert len(token_map.pieces(4)) == 2
    known = make_runner(model, "compiled", 20, [1], prompts=[[4, 4, 4, 4], [4]])
    assert known.capacity == 3 + 3 * 19


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mistral", "gemma2"])
def test_windows_and_soft_caps_are_the_models_own(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    runner = CompiledRunner(model, CAPACITY, [1, 4])
    pieces = [runner.feed(piece) for piece in text.split([20, 4, 1, 3, 20], dim=1)]
    torch.testing.assert_close(
        torch.cat(pieces, dim=1), one_pass(model, text), atol=1e-4, rtol=1e-4
    )


@pytest.mark.slow
def test_bfloat16_blocks_are_as_near_as_the_type_allows(text: Tensor) -> None:
    """One query at a time takes another form of attention in half precision."""
    exact = one_pass(tiny_model("llama"), text)
    model = tiny_model("llama").to(torch.bfloat16)
    runner = CompiledRunner(model, CAPACITY, [1])
    runner.feed(text[:, :40])
    steps = torch.cat([runner.feed(token) for token in text[:, 40:].split(1, dim=1)], dim=1)
    error = (steps.float() - exact[:, 40:]).abs().max()
    plain_error = (one_pass(model, text).float() - exact)[:, 40:].abs().max()
    assert error <= 2 * plain_error
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.gpu
def test_a_gpu_runs_the_same_graphs(text: Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here")
    model = tiny_model("llama")
    expected = one_pass(model, text)
    runner = CompiledRunner(model.to("cuda"), CAPACITY, SIZES)
    pieces = [runner.feed(piece.cuda()) for piece in text.split([11, 1, 4, 3, 1, 28], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, dim=1).cpu(), expected, atol=1e-3, rtol=1e-3)


def test_without_a_compiler_decoding_runs_eagerly_with_a_warning(
    llama: PreTrainedModel, caplog: pytest.LogCaptureFixture
) -> None:
    # Not by monkeypatch, which would leave the setting hidden from all later tests.
    with patch({"cpp.cxx": ("no-such-compiler",)}), caplog.at_level(logging.WARNING):
        assert not compiler_available()
        runner = make_runner(llama, "compiled", CAPACITY, SIZES)
    assert isinstance(runner, CausalRunner)
    assert "no C++ compiler" in caplog.text


def test_eager_is_what_was_asked_for(llama: PreTrainedModel) -> None:
    assert isinstance(make_runner(llama, "eager", CAPACITY, SIZES, vocab_size=50), CausalRunner)


@pytest.mark.parametrize("pieces", [[4, 1], [3, 2], [1, 1, 3], [5]], ids=str)
def test_trees_agree_with_the_eager_runner_and_compile_no_new_graph(
    empty: CompiledRunner, llama: PreTrainedModel, text: Tensor, pieces: list[int]
) -> None:
    """The last one is larger than every size there is: it runs uncompiled."""
    eager = CausalRunner(llama)
    before = compilations()
    for runner in (empty, eager):
        runner.feed(text[:, :20])
    tokens, parents, start = torch.tensor(TREE), tree_parents(20), 0
    for size in pieces:
        part = tokens[start : start + size], parents[start : start + size]
        torch.testing.assert_close(
            empty.feed_tree(*part), eager.feed_tree(*part), atol=1e-4, rtol=1e-4
        )
        start += size
    for runner in (empty, eager):
        runner.keep(20, [20, 22, 23])
    assert empty.length == eager.length == 23
    torch.testing.assert_close(
        empty.feed(text[:, 20:30]), eager.feed(text[:, 20:30]), atol=1e-4, rtol=1e-4
    )
    for runner in (empty, eager):
        runner.feed_tree(tokens, tree_parents(33))
        runner.keep(33, [33], [35, 36])
    again = tokens[:3], [33, 34, 35]
    torch.testing.assert_close(
        empty.feed_tree(*again), eager.feed_tree(*again), atol=1e-4, rtol=1e-4
    )
    assert compilations() == before
