from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from distillspec.errors import DistillSpecError
from distillspec.models.sampling.speculative import SpeculatedText, generate_speculatively
from distillspec.models.surgery.hidden_states import hidden_states, output_head
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.models.conftest import one_pass, tiny_model
from tests.models.sampling.test_generate import greedy_one_by_one, prompts_of
from tests.speculation.branches import Branches, Law, distribution_of, total_variation

GREEDY = SamplingPolicy(temperature=0.0)
POLICY = SamplingPolicy(temperature=0.7)


def close_draft(kind: str = "llama", *, noise: float = 0.03) -> Any:
    """The target of the same kind with noise in its weights: some of its drafts are kept."""
    model = tiny_model(kind)
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * noise)
    return model


def speculated_texts(
    target: Any, draft: Any, prompts: list[Tensor], **changes: Any
) -> list[SpeculatedText]:
    settings: dict[str, Any] = {
        "gamma": 3,
        "max_new_tokens": 12,
        "policy": GREEDY,
        "random_source": GeneratorSource(torch.Generator().manual_seed(0)),
        "eos_token_ids": frozenset[int](),
        **changes,
    }
    return generate_speculatively(target, draft, prompts, **settings)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("gamma", [1, 2, 5])
def test_greedy_batches_equal_decoding_the_target_one_by_one(kind: str, gamma: int) -> None:
    target, draft = tiny_model(kind), close_draft(kind)
    prompts = prompts_of([9, 3, 14, 3, 1, 22, 9])
    texts = speculated_texts(target, draft, prompts, gamma=gamma, batch_rows=3)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.response.tolist() == greedy_one_by_one(target, prompt, 12, set())
    kept = [block.kept for text in texts for block in text.blocks]
    assert 0 < sum(kept) < gamma * len(kept), "some drafts are kept, and some are not"


def test_single_tokens_are_prompts_too() -> None:
    target = tiny_model("llama")
    prompts = prompts_of([1, 1])
    texts = speculated_texts(target, close_draft(), prompts)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.response.tolist() == greedy_one_by_one(target, prompt, 12, set())


def test_rows_end_at_their_end_token_and_the_others_go_on() -> None:
    target = tiny_model("llama", seed=4)
    prompts = prompts_of([4, 7, 5, 12, 9, 2, 6, 3])
    free = speculated_texts(target, close_draft(), prompts)
    ends = {int(free[0].response[2]), int(free[3].response[5])}
    texts = speculated_texts(target, close_draft(), prompts, eos_token_ids=frozenset(ends))
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.response.tolist() == greedy_one_by_one(target, prompt, 12, ends)
        assert text.states is not None
        assert len(text.states) == len(text.response)
    assert len({len(text.response) for text in texts}) > 1


def distribution_of_target(target: Any, prompt: Tensor, tokens: int, vocab_size: int) -> Law:
    distribution: Law = {(): 1.0}
    for _ in range(tokens):
        longer: Law = {}
        for text, weight in distribution.items():
            row = torch.tensor([[*prompt.tolist(), *text]])
            logits = one_pass(target, row)[0, -1, :vocab_size].double()
            for token, p in enumerate(POLICY.distribution(logits).tolist()):
                longer[(*text, token)] = weight * p
        distribution = longer
    return distribution


@pytest.mark.parametrize(("gamma", "tokens"), [(1, 3), (2, 3)])
def test_every_branch_of_the_sampler_together_has_the_targets_distribution(
    gamma: int, tokens: int
) -> None:
    """Exact up to single precision: the test walks the shipped code over all random choices."""
    target, draft = tiny_model("llama").double(), close_draft(noise=0.1).double()
    prompt = prompts_of([4])[0]

    def run(random_source: Branches) -> list[int]:
        texts = speculated_texts(
            target,
            draft,
            [prompt],
            gamma=gamma,
            max_new_tokens=tokens,
            policy=POLICY,
            random_source=random_source,
            vocab_size=2,
        )
        return [int(token) for token in texts[0].response]

    assert (
        total_variation(distribution_of(run), distribution_of_target(target, prompt, tokens, 2))
        < 1e-6
    )


@pytest.mark.parametrize("kept", [(0, 2), (1,)])
def test_a_draft_that_scores_a_part_of_the_vocabulary_leaves_the_distribution_the_targets(
    kept: tuple[int, ...],
) -> None:
    target, draft = tiny_model("llama").double(), close_draft(noise=0.1).double()
    trim_head(draft, (*kept, 40))
    prompt = prompts_of([4])[0]
    drafted: set[int] = set()

    def run(random_source: Branches) -> list[int]:
        texts = speculated_texts(
            target,
            draft,
            [prompt],
            gamma=2,
            max_new_tokens=2,
            policy=POLICY,
            random_source=random_source,
            vocab_size=3,
        )
        drafted.update(token for block in texts[0].blocks for token in block.drafted.tolist())
        return [int(token) for token in texts[0].response]

    assert (
        total_variation(distribution_of(run), distribution_of_target(target, prompt, 2, 3)) < 1e-6
    )
    assert drafted == set(kept)


def test_two_rows_of_unequal_length_have_their_distributions_each() -> None:
    target, draft = tiny_model("llama").double(), close_draft(noise=0.1).double()
    prompts = prompts_of([2, 5])

    def run(random_source: RandomSource) -> list[int]:
        texts = speculated_texts(
            target,
            draft,
            prompts,
            gamma=1,
            max_new_tokens=2,
            policy=POLICY,
            random_source=random_source,
            vocab_size=2,
        )
        return [int(token) for text in texts for token in text.response]

    first, second = (distribution_of_target(target, prompt, 2, 2) for prompt in prompts)
    product = {(*a, *b): first[a] * second[b] for a in first for b in second}
    assert total_variation(distribution_of(run), product) < 1e-6


def sampled(**changes: Any) -> tuple[Any, Any, list[Tensor], list[SpeculatedText]]:
    target, draft = tiny_model("llama"), close_draft()
    prompts = prompts_of([9, 3, 14])
    settings = {"policy": SamplingPolicy(), "max_new_tokens": 20, **changes}
    return target, draft, prompts, speculated_texts(target, draft, prompts, **settings)


def test_the_states_are_what_the_target_says_of_the_text_read_at_once() -> None:
    target, _, prompts, texts = sampled()
    for prompt, text in zip(prompts, texts, strict=True):
        whole = torch.cat([prompt, text.response])[None]
        with torch.no_grad():
            expected = hidden_states(target, whole, None)[0, len(prompt) - 1 : -1]
        assert text.states is not None
        assert torch.allclose(text.states, expected, atol=1e-4)


def test_blocks_hold_the_drafted_tokens_and_their_acceptance() -> None:
    target, draft, prompts, texts = sampled()
    head = output_head(target)
    assert head is not None
    for prompt, text in zip(prompts, texts, strict=True):
        position = 0
        for block in text.blocks:
            assert block.start == position
            before = text.response[: block.start]
            whole = torch.cat([prompt, before, block.drafted])[None]
            first = len(prompt) + block.start - 1
            p, q = (one_pass(model, whole)[0, first:].softmax(-1) for model in (target, draft))
            drafted = block.drafted[:, None]
            ratio = (p[:-1].gather(1, drafted) / q[:-1].gather(1, drafted))[:, 0].clamp(max=1.0)
            assert torch.allclose(block.acceptance, ratio, atol=1e-4)
            assert block.states is not None
            assert torch.allclose(head.logits(block.states).softmax(-1), p, atol=1e-5)
            position += block.kept + 1
        assert position >= len(text.response)


def test_tokens_beyond_the_shared_vocabulary_are_never_drawn() -> None:
    _, _, _, texts = sampled(vocab_size=10)
    assert max(int(text.response.max()) for text in texts) < 10


def test_models_are_left_as_they_were() -> None:
    target, draft = tiny_model("llama"), close_draft().train()
    speculated_texts(target, draft, prompts_of([4, 6]))
    assert draft.training
    assert not target.training
    assert all(parameter.grad is None for parameter in draft.parameters())


def test_windows_are_refused() -> None:
    with pytest.raises(DistillSpecError, match="prepared attention mask"):
        speculated_texts(tiny_model("mistral"), close_draft(), prompts_of([4]))


def test_no_prompts_give_no_texts() -> None:
    assert speculated_texts(tiny_model("llama"), close_draft(), []) == []
