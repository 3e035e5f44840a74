from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.encoder_decoder_reading import EncoderDecoderReading
from distillspec.models.runners.tree_batch import eager_runner, runner_for_trees
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from tests.models.conftest import PATHS, TREE, tree_parents
from tests.models.runners.test_encoder_decoder import RESPONSE, ROW, SOURCE, close, own_logits
from tests.seq2seq import END, START, tiny_t5
from tests.speculation.branches import (
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)


@pytest.mark.parametrize("pieces", [[11], [6, 5], [5, 6], [3, 2, 1, 2, 3], [1] * 11])
def test_a_text_in_pieces_reads_as_a_whole(pieces: list[int]) -> None:
    model = tiny_t5(layers=2)
    runner = eager_runner(model)
    tokens = torch.tensor([ROW])
    logits = torch.cat([runner.feed(part) for part in tokens.split(pieces, dim=1)], dim=1)[0]
    assert runner.length == len(ROW)
    close(logits[len(SOURCE) :], own_logits(model, ROW))
    assert logits[: len(SOURCE)].isnan().all(), "a source has no logits"


@pytest.mark.parametrize("length", range(len(ROW)))
def test_after_going_back_the_text_goes_on_from_there(length: int) -> None:
    model = tiny_t5(layers=2)
    runner = eager_runner(model)
    runner.feed(torch.tensor([[*SOURCE, START, 9, 9, 9, 9, 9]]))
    runner.rollback(length)
    assert runner.length == length
    rest = [*([8, 8] if length < len(SOURCE) else []), *ROW[length:]]
    whole = [*([*SOURCE, START, 9, 9, 9, 9, 9][:length]), *rest]
    logits = runner.feed(torch.tensor([rest]))[0]
    expected = own_logits(model, whole)
    compared = min(len(rest), len(expected))
    close(logits[-compared:], expected[-compared:])


@pytest.mark.parametrize("with_start", [True, False], ids=["text first", "tree from the start"])
def test_every_path_of_a_tree_reads_as_if_it_were_alone(with_start: bool) -> None:
    model = tiny_t5(layers=2)
    runner = runner_for_trees(model)
    text = [*SOURCE, START, 12] if with_start else SOURCE
    runner.feed(torch.tensor([text]))
    nodes, parents = (TREE, tree_parents(len(text)))
    if not with_start:
        nodes = [START, *TREE]
        parents = [len(text) - 1, *(parent + 1 for parent in tree_parents(len(text)))]
    logits = runner.feed_tree(torch.tensor(nodes), parents)[0]
    begun = [] if with_start else [START]
    for row, path in zip(logits[len(begun) :], PATHS, strict=True):
        close(row, own_logits(model, [*text, *begun, *(TREE[node] for node in path)])[-1])
    first = len(text) + len(begun)
    runner.keep(len(text), [*range(len(text), first), first, first + 2])
    kept = [*text, *begun, TREE[0], TREE[2]]
    close(runner.feed(torch.tensor([[44]]))[0, -1], own_logits(model, [*kept, 44])[-1])


def test_several_drafts_of_a_model_with_an_encoder_are_a_batch_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner_for_trees(tiny_t5())
    assert "several drafts are read as a batch" in caplog.text
    with pytest.raises(DistillSpecError, match="has an encoder"):
        check_takes_a_tree(tiny_t5())


V = 4
PROMPT = (3, 2, END, START)


def small(seed: int) -> PreTrainedModel:
    """Of 4 tokens, in float64, unlike from seed to seed."""
    model = tiny_t5(seed=seed, vocab_size=V, layers=1, initializer_factor=4.0).double()
    assert isinstance(model, PreTrainedModel)
    return model


def distribution(
    target: Any, draft: Any, way: Configuration, policy: SamplingPolicy, max_tokens: int
) -> Any:
    def stream(random_source: RandomSource) -> Any:
        decoder = SpeculativeDecoder(target, draft, way, policy, random_source)
        return decoder.rounds(torch.tensor(PROMPT), max_new_tokens=max_tokens)

    def state() -> Hashable:
        return target.length, draft.length

    return distribution_by_rounds(stream, state)


@pytest.mark.parametrize(
    "policy", [SamplingPolicy(0.0), SamplingPolicy(1.0), SamplingPolicy(0.7, top_k=3)], ids=str
)
@pytest.mark.parametrize(
    ("draft", "verify", "gamma", "max_tokens"),
    [
        (ChainDraft(), verify_token, 2, 3),
        (ChainDraft(), verify_block, 2, 3),
        (SequencesDraft(2), verify_kseq, 1, 2),
        (SequencesDraft(2), verify_traversal, 1, 2),
    ],
)
def test_whole_outputs_have_the_distribution_of_the_target(
    draft: Any, verify: Any, gamma: int, max_tokens: int, policy: SamplingPolicy
) -> None:
    target, drafter = runner_for_trees(small(1)), runner_for_trees(small(2))
    way = Configuration("one", gamma, draft, FixedLength(), verify)
    actual = distribution(target, drafter, way, policy, max_tokens)
    assert sum(actual.values()) == pytest.approx(1.0, abs=1e-12)
    expected = autoregressive_distribution(target, policy, PROMPT, max_tokens)
    assert total_variation(actual, expected) < 1e-9
    own = autoregressive_distribution(drafter, policy, PROMPT, max_tokens)
    assert total_variation(own, expected) > 0.1, "else any draft would pass"


def test_a_cache_that_is_not_taken_back_shows_in_the_distribution(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target, drafter = eager_runner(small(1)), eager_runner(small(2))
    way = Configuration("one", 2, ChainDraft(), FixedLength(), verify_token)
    policy = SamplingPolicy(1.0, top_k=3)
    expected = autoregressive_distribution(target, policy, PROMPT, 3)
    plain = EncoderDecoderReading.keep

    def keep(self: EncoderDecoderReading, length: int) -> None:
        plain(self, length if length < len(PROMPT) else length + 1)  # one drafted token too many

    monkeypatch.setattr(EncoderDecoderReading, "keep", keep)
    assert total_variation(distribution(target, drafter, way, policy, 3), expected) > 1e-3


@pytest.mark.parametrize(
    ("draft", "verify"),
    [(ChainDraft(), verify_token), (SequencesDraft(3), verify_kseq)],
    ids=["chain", "sequences"],
)
def test_an_encoder_reads_each_prompt_once(draft: Any, verify: Any) -> None:
    models = [tiny_t5(seed=1, layers=2), tiny_t5(seed=2)]
    reads = [0, 0]
    for number, model in enumerate(models):

        def count(*_: Any, number: int = number) -> None:
            reads[number] += 1

        model.get_encoder().register_forward_hook(count)
    target, drafter = (runner_for_trees(model) for model in models)
    way = Configuration("one", 3, draft, FixedLength(), verify)
    policy = SamplingPolicy(1.0)
    random_source = GeneratorSource(torch.Generator().manual_seed(0))
    decoder = SpeculativeDecoder(target, drafter, way, policy, random_source)
    for prompt in ([*SOURCE, START], [7, 8, END, START]):
        rounds = list(decoder.rounds(torch.tensor(prompt), max_new_tokens=12))
        assert len(rounds) > 1
    assert reads == [2, 2]


def test_what_is_made_of_a_source_is_made_once_and_before_decoding_begins() -> None:
    """Timed steps feed the start token, roll back to the source, and start again."""
    model = tiny_t5(layers=2)
    expected = {token: own_logits(model, [*SOURCE, START, token]) for token in RESPONSE}
    encoded = projected = 0

    def count_encoded(*_: Any) -> None:
        nonlocal encoded
        encoded += 1

    def count_projected(*_: Any) -> None:
        nonlocal projected
        projected += 1

    model.get_encoder().register_forward_hook(count_encoded)
    model.decoder.block[0].layer[1].EncDecAttention.k.register_forward_hook(count_projected)
    runner = eager_runner(model)
    runner.feed(torch.tensor([SOURCE]))
    assert encoded == 1, "reading a prompt includes the encoder"
    for token, logits in expected.items():
        close(runner.feed(torch.tensor([[START, token]]))[0], logits)
        runner.rollback(len(SOURCE))
    assert (encoded, projected) == (1, 1)
