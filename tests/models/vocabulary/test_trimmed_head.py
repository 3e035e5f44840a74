from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.runners.eager import CausalRunner
from distillspec.models.surgery.adapters import add_lora, merged
from distillspec.models.surgery.hidden_states import hidden_states, output_head
from distillspec.models.vocabulary.trimmed_head import (
    kept_tokens,
    settle_head,
    trim_head,
    whole_head,
    with_whole_head,
)
from distillspec.recipe.schema import AdapterConfig
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.draft.chain import ChainDraft
from distillspec.speculation.draft.entropy import AdaEDL
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.speculation.verify.block import verify_block
from tests.models.conftest import VOCABULARY, one_pass, tiny_model

KEPT = (2, 3, 5, 8, 13, 21, 34, 55)
OTHERS = [token for token in range(VOCABULARY) if token not in KEPT]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("settled", [False, True])
def test_kept_tokens_have_their_logits_and_others_none(
    kind: str, settled: bool, text: Tensor
) -> None:
    model = tiny_model(kind)
    expected = one_pass(model, text)
    trim_head(model, KEPT)
    if settled:
        settle_head(model)
    trimmed_logits = one_pass(model, text)
    torch.testing.assert_close(trimmed_logits[..., list(KEPT)], expected[..., list(KEPT)])
    assert bool((trimmed_logits[..., OTHERS] == -torch.inf).all())
    assert kept_tokens(model) is not None
    whole_head(model)
    assert kept_tokens(model) is None
    torch.testing.assert_close(one_pass(model, text), expected, rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_trimmed_head_is_taken_apart_like_any_other(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    trim_head(model, KEPT)
    head = output_head(model, VOCABULARY - 1)
    assert head is not None
    logits = head.logits(hidden_states(model, text, None)[0])
    expected = one_pass(model, text)[0, :, : VOCABULARY - 1]
    torch.testing.assert_close(logits, expected)
    kept = kept_tokens(model)
    assert kept is not None
    few = head.only(kept).logits(hidden_states(model, text, None)[0])
    torch.testing.assert_close(few, expected[:, kept])


def test_gradients_reach_the_rows_that_are_kept_and_tied_weights_stay_tied(text: Tensor) -> None:
    model = tiny_model("llama")
    names = [name for name, _ in model.named_parameters()]
    trim_head(model, KEPT)
    assert [name for name, _ in model.named_parameters()] == names
    model.model.embed_tokens.weight.grad = None
    with torch.no_grad():
        states = hidden_states(model, text, None)
    model.lm_head(states)[..., list(KEPT)].sum().backward()
    rows = model.model.embed_tokens.weight.grad
    assert bool(rows[list(KEPT)].any(1).all())
    assert not bool(rows[OTHERS].any())


def test_a_copy_of_a_trimmed_model_is_tied_in_itself() -> None:
    model = tiny_model("llama")
    trim_head(model, KEPT)
    copied = copy.deepcopy(model)
    assert copied.lm_head.whole.weight is copied.model.embed_tokens.weight
    assert copied.lm_head.whole.weight is not model.lm_head.whole.weight


def test_adapters_are_merged_under_a_trimmed_head(text: Tensor) -> None:
    adapted = add_lora(tiny_model("llama"), AdapterConfig(rank=2))
    trim_head(bare_model(adapted), KEPT)
    plain = merged(adapted.eval())
    torch.testing.assert_close(one_pass(plain, text), one_pass(adapted, text))
    assert kept_tokens(plain) is not None


def test_the_whole_head_is_there_within_the_context_and_the_same_one_after_it() -> None:
    model = tiny_model("llama")
    trim_head(model, KEPT)
    head = model.get_output_embeddings()
    with with_whole_head(model) as kept:
        assert kept == KEPT
        assert type(model.get_output_embeddings()) is torch.nn.Linear
    assert model.get_output_embeddings() is head
    with with_whole_head(tiny_model("gpt2")) as kept:
        assert kept is None


def test_a_head_that_is_trimmed_already_is_no_plain_matrix() -> None:
    model = tiny_model("llama")
    trim_head(model, KEPT)
    with pytest.raises(DistillSpecError, match="no plain matrix"):
        trim_head(model, KEPT)


def test_greedy_text_is_the_targets_own_with_a_draft_that_cannot_say_all_of_it(
    text: Tensor,
) -> None:
    target, draft = tiny_model("llama", seed=1), tiny_model("llama", seed=1)
    trim_head(draft, KEPT)
    policy, random_source = SamplingPolicy(0.0), GeneratorSource(torch.Generator().manual_seed(0))
    prompt = text[0, :8]
    plain = AutoregressiveDecoder(CausalRunner(target), policy, random_source)
    expected = plain.decode(prompt, max_new_tokens=40).tokens
    assert set(expected) - set(KEPT)
    way = Configuration("trimmed", 3, ChainDraft(), AdaEDL(0.2, 0.9), verify_block)
    response = SpeculativeDecoder(
        CausalRunner(target), CausalRunner(draft), way, policy, random_source
    )
    assert response.decode(prompt, max_new_tokens=40).tokens == expected
