from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.models.runners.encoder_decoder import (
    EncoderDecoderReading,
    check_same_kind,
    row_logits,
    start_token,
)
from distillspec.models.runners.tree_batch import eager_runner, runner_for_trees
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.surgery.hidden_states import hidden_states, output_head, token_logits
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head
from distillspec.speculation.chance import GeneratorSource, RandomSource
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.sequences import SequencesDraft
from distillspec.speculation.draft.stop import FixedLength
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from distillspec.speculation.verify.kseq import verify_kseq
from distillspec.speculation.verify.token import verify_token
from distillspec.speculation.verify.traversal import verify_traversal
from tests.models.conftest import PATHS, TREE, tiny_model, tree_parents
from tests.seq2seq import END, START, tiny_t5
from tests.speculation.branches import (
    autoregressive_distribution,
    distribution_by_rounds,
    total_variation,
)

SOURCE = [5, 9, 33, 7, END]
RESPONSE = [12, 40, 41, 6, 300]
ROW = [*SOURCE, START, *RESPONSE]


def own_logits(model: PreTrainedModel, row: Sequence[int]) -> Tensor:
    """transformers' logits for the response of one unpadded row: [R, V], start token first."""
    start = list(row).index(START)
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([list(row[:start])]),
            decoder_input_ids=torch.tensor([list(row[start:])]),
            use_cache=False,
        )
    logits: Tensor = output.logits
    return logits[0]


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


# --- whole rows ----------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
def test_rows_padded_on_either_side_read_as_they_do_alone(tied: bool) -> None:
    model = tiny_t5(layers=2, tied=tied)
    rows = [ROW, [8, END, START, 20], [4, 3, 21, END, START, 7, 7]]
    longest = len(ROW)
    right = torch.tensor([row + [START] * (longest - len(row)) for row in rows])
    left = torch.tensor([[START] * (longest - len(row)) + row for row in rows])
    is_token = torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])
    head = output_head(model)
    assert head is not None, "the loss can go through hidden states"
    with torch.no_grad():
        by_side = {
            "right": (token_logits(model, right, None), hidden_states(model, right, None)),
            "left": (token_logits(model, left, is_token), hidden_states(model, left, is_token)),
        }
    for number, row in enumerate(rows):
        expected, start = own_logits(model, row), row.index(START)
        for side, (logits, states) in by_side.items():
            shift = longest - len(row) if side == "left" else 0
            response = slice(shift + start, shift + len(row))
            close(logits[number, response], expected)
            close(head.logits(states[number, response]), expected)


def test_gradients_through_states_and_head_are_those_of_the_models_own_logits() -> None:
    gradients = []
    for through_head in (True, False):
        model = tiny_t5(layers=2)
        tokens = torch.tensor([ROW])
        if through_head:
            head = output_head(model)
            assert head is not None
            logits = head.logits(hidden_states(model, tokens, None)[0, len(SOURCE) : -1])
        else:
            logits = model(
                input_ids=tokens[:, : len(SOURCE)],
                decoder_input_ids=tokens[:, len(SOURCE) : -1],
            ).logits[0]
        torch.nn.functional.cross_entropy(logits, torch.tensor(RESPONSE)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        assert gradient is not None and gradients[0][name] is not None, name
        torch.testing.assert_close(gradients[0][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_row_without_a_start_or_without_a_source_is_refused() -> None:
    model = tiny_t5()
    with pytest.raises(AssertionError, match="no start token"):
        row_logits(model, model, torch.tensor([ROW, [5] * len(ROW)]), None)
    with pytest.raises(AssertionError, match="no source"):
        row_logits(model, model, torch.tensor([[START, 5, 6]]), None)


@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_gives_back_the_same_distribution_whether_the_head_is_the_embedding_or_its_own(
    tied: bool, tmp_path: Path
) -> None:
    model = tiny_t5(layers=2, tied=tied)
    with torch.no_grad():
        model.shared.weight[7].mul_(3.0)  # seen in the head of the one kind alone
    model.save_pretrained(tmp_path)
    again = load_model(str(tmp_path), dtype=torch.float32)
    close(own_logits(again, ROW), own_logits(model, ROW))
    head = output_head(again)
    assert head is not None
    is_shared = head.weight.data_ptr() == again.get_input_embeddings().weight.data_ptr()
    assert is_shared == tied


# --- one text, token by token --------------------------------------------------------------------


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


# --- decoding ------------------------------------------------------------------------------------

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
    def stream(chance: RandomSource) -> Any:
        decoder = SpeculativeDecoder(target, draft, way, policy, chance)
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
    chance = GeneratorSource(torch.Generator().manual_seed(0))
    decoder = SpeculativeDecoder(target, drafter, way, policy, chance)
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


def test_a_trimmed_head_rules_the_others_out() -> None:
    model = tiny_t5()
    whole = own_logits(model, ROW)
    kept = [0, 1, 5, 12, 40]
    trim_head(model, kept)
    settle_head(model)
    head = output_head(model)
    assert head is not None
    with torch.no_grad():
        states = hidden_states(model, torch.tensor([ROW]), None)[0, len(SOURCE) :]
        for logits in (own_logits(model, ROW), head.logits(states)):
            close(logits[:, kept], whole[:, kept])
            ruled_out = [token for token in range(whole.shape[1]) if token not in kept]
            assert (logits[:, ruled_out] == -torch.inf).all()


# --- what is refused -----------------------------------------------------------------------------


def test_a_start_that_is_missing_or_ends_texts_too_is_refused() -> None:
    model = tiny_t5()
    model.generation_config.decoder_start_token_id = None
    model.config.decoder_start_token_id = None
    with pytest.raises(DistillSpecError, match="decoder_start_token_id"):
        start_token(model)
    bart = BartForConditionalGeneration(
        BartConfig(vocab_size=20, d_model=8, encoder_layers=1, decoder_layers=1,
                   encoder_attention_heads=1, decoder_attention_heads=1, encoder_ffn_dim=8,
                   decoder_ffn_dim=8, max_position_embeddings=16)
    )  # fmt: skip
    with pytest.raises(DistillSpecError, match="end-of-text token"):
        start_token(bart)


def test_a_pair_has_two_models_of_one_kind_that_begin_alike() -> None:
    assert check_same_kind(tiny_t5(seed=1), tiny_t5(seed=2), "here")
    assert not check_same_kind(tiny_model("llama"), tiny_model("gpt2"), "here")
    with pytest.raises(DistillSpecError, match="target is an encoder-decoder.*draft is a causal"):
        check_same_kind(tiny_t5(), tiny_model("llama"), "here")
    other_start = tiny_t5()
    other_start.generation_config.decoder_start_token_id = 7
    with pytest.raises(DistillSpecError, match="token 0, the draft's with 7"):
        check_same_kind(tiny_t5(), other_start, "here")
