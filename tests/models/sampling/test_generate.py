from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from distillspec.errors import DistillSpecError
from distillspec.models.sampling.generate import generate
from distillspec.models.surgery.adapters import add_lora
from distillspec.recipe.schema import AdapterConfig
from distillspec.speculation.random_source import GeneratorSource, RowSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.models.conftest import VOCABULARY, one_pass, tiny_model

GREEDY = SamplingPolicy(temperature=0.0)


def prompts_of(lengths: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator) for length in lengths]


def drawn(model: nn.Module, prompts: list[Tensor], **changes: object) -> list[Tensor]:
    settings: dict[str, object] = {
        "max_new_tokens": 12,
        "policy": GREEDY,
        "random_source": GeneratorSource(torch.Generator().manual_seed(0)),
        "eos_token_ids": frozenset[int](),
        "pad_token": 0,
        **changes,
    }
    return generate(model, prompts, **settings)  # type: ignore[arg-type]


def greedy_one_by_one(model: nn.Module, prompt: Tensor, tokens: int, ends: set[int]) -> list[int]:
    """Greedy decoding by whole forwards, no cache: the distribution itself."""
    text = prompt.tolist()
    for _ in range(tokens):
        text.append(int(one_pass(model, torch.tensor([text]))[0, -1].argmax()))
        if text[-1] in ends:
            break
    return text[len(prompt) :]


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma2", "gpt2"])
def test_greedy_batches_equal_decoding_one_by_one(kind: str) -> None:
    model = tiny_model(kind)
    prompts = prompts_of([9, 3, 14, 3, 1, 22, 9])
    responses = drawn(model, prompts, batch_rows=3)
    for prompt, response in zip(prompts, responses, strict=True):
        assert response.tolist() == greedy_one_by_one(model, prompt, 12, set())


def test_rows_end_at_their_end_token_and_the_others_go_on() -> None:
    model = tiny_model("llama", seed=4)
    prompts = prompts_of([4, 7, 5, 12, 9, 2, 6, 3])
    free = drawn(model, prompts)
    ends = {int(free[0][2]), int(free[3][5])}
    responses = drawn(model, prompts, eos_token_ids=frozenset(ends))
    for prompt, response in zip(prompts, responses, strict=True):
        assert response.tolist() == greedy_one_by_one(model, prompt, 12, ends)
    assert len({len(response) for response in responses}) > 1


def test_equal_lengths_take_the_path_without_masks_to_the_same_result() -> None:
    model = tiny_model("llama")
    prompts = prompts_of([6, 6, 6])
    for prompt, response in zip(prompts, drawn(model, prompts), strict=True):
        assert response.tolist() == greedy_one_by_one(model, prompt, 12, set())


def test_drawn_tokens_follow_the_models_distribution() -> None:
    model = tiny_model("llama")
    prompt = prompts_of([5])[0]
    rows = 4000
    policy = SamplingPolicy(temperature=1.0, top_k=5)
    first = torch.stack(
        drawn(model, [prompt] * rows, policy=policy, max_new_tokens=1, batch_rows=1000)
    )
    distribution = policy.distribution(one_pass(model, prompt[None])[0, -1])
    counts = first.flatten().bincount(minlength=VOCABULARY)
    assert (counts[distribution == 0] == 0).all()
    spread = 5 * (distribution * (1 - distribution) * rows).sqrt()
    assert ((counts - distribution * rows).abs() <= spread).all()


def test_the_same_seed_gives_the_same_text() -> None:
    model = tiny_model("llama")
    prompts = prompts_of([5, 8, 2])
    policy = SamplingPolicy()
    first, second = (drawn(model, prompts, policy=policy) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_modes_and_gradients_are_left_as_they_were() -> None:
    model = tiny_model("llama").train()
    model.model.layers[0].eval()
    model.activation_checkpointing_enable()
    before = [module.training for module in model.modules()]
    responses = drawn(model, prompts_of([4, 6]))
    assert [module.training for module in model.modules()] == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(response.requires_grad for response in responses)


def test_adapters_take_part() -> None:
    plain = tiny_model("llama")
    prompts = prompts_of([4, 6])
    before = drawn(plain, prompts)
    adapted = add_lora(plain, AdapterConfig(rank=2, dropout=0.5)).train()
    same = drawn(adapted, prompts)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(1))
    changed = drawn(adapted, prompts)
    assert [r.tolist() for r in same] == [r.tolist() for r in before]
    assert [r.tolist() for r in changed] != [r.tolist() for r in before]


def test_autocast_casts_the_weights_and_leaves_the_parameters_alone() -> None:
    model = tiny_model("llama")
    prompts = prompts_of([4, 9])
    low = drawn(tiny_model("llama").to(torch.bfloat16), prompts)
    before = [parameter.data_ptr() for parameter in model.parameters()]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = drawn(model, prompts)
        assert model(input_ids=prompts[0][None]).logits.requires_grad
    assert [r.tolist() for r in mixed] == [r.tolist() for r in low]
    assert [parameter.data_ptr() for parameter in model.parameters()] == before
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_tokens_beyond_the_shared_vocabulary_are_never_drawn() -> None:
    responses = drawn(
        tiny_model("llama"), prompts_of([4, 6]), vocab_size=10, policy=SamplingPolicy()
    )
    assert max(int(response.max()) for response in responses) < 10


def test_no_prompts_give_no_responses() -> None:
    assert drawn(tiny_model("llama"), []) == []


def test_a_row_with_a_stream_of_its_own_draws_the_same_in_any_company() -> None:
    """In every batch, and whichever rows have ended before it."""
    model, seeds = tiny_model("llama", seed=4), [3, 1, 4, 15, 9, 2, 6]
    prompts = prompts_of([9, 3, 14, 3, 1, 22, 9])
    free = drawn(model, prompts, policy=SamplingPolicy(), random_source=_streams(seeds))
    ends = frozenset({int(free[0][2]), int(free[3][5])})
    settings = {"policy": SamplingPolicy(), "eos_token_ids": ends}
    together = drawn(model, prompts, random_source=_streams(seeds), batch_rows=3, **settings)
    for row, response in enumerate(together):
        stream = _streams(seeds[row : row + 1])
        (alone,) = drawn(model, prompts[row : row + 1], random_source=stream, **settings)
        assert response.tolist() == alone.tolist()
    assert len({len(response) for response in together}) > 1


def _streams(seeds: list[int]) -> RowSource:
    return RowSource.seeded(seeds, 12, torch.device("cpu"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_give_no_distribution_are_an_error(temperature: float) -> None:
    model = tiny_model("mistral")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    with pytest.raises(DistillSpecError, match="logits of MistralForCausalLM are NaN or infinite"):
        generate(
            model,
            [torch.tensor([3, 4]), torch.tensor([6, 7, 8])],
            max_new_tokens=3,
            policy=SamplingPolicy(temperature),
            random_source=GeneratorSource(torch.Generator().manual_seed(0)),
            eos_token_ids=frozenset(),
            pad_token=0,
        )
