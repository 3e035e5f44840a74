from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.models.sampling.encoder_decoder import EncoderDecoderBatch
from distillspec.models.sampling.forward import forward_of
from distillspec.models.sampling.generate import ResponseWriter, generate
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from tests.seq2seq import END, START, tiny_t5

GREEDY = SamplingPolicy(temperature=0.0)


def prompts_of(lengths: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    sources = [torch.randint(2, 300, (length,), generator=generator) for length in lengths]
    return [torch.tensor([*source.tolist(), END, START]) for source in sources]


def drawn(model: object, prompts: list[Tensor], **changes: object) -> list[list[int]]:
    settings: dict[str, object] = {
        "max_new_tokens": 9,
        "policy": GREEDY,
        "random_source": GeneratorSource(torch.Generator().manual_seed(0)),
        "eos_token_ids": frozenset[int](),
        "pad_token": 0,
        **changes,
    }
    return [row.tolist() for row in generate(model, prompts, **settings)]  # type: ignore[arg-type]


def test_greedy_batches_equal_transformers_one_by_one() -> None:
    model = tiny_t5(layers=2, seed=3)
    prompts = prompts_of([9, 3, 14, 1, 22, 9])
    ends = {drawn(model, prompts[:1])[0][4], drawn(model, prompts[1:2])[0][2]}
    model.generation_config.eos_token_id = sorted(ends)
    responses = drawn(model, prompts, batch_rows=4, eos_token_ids=frozenset(ends))
    for prompt, response in zip(prompts, responses, strict=True):
        expected = model.generate(input_ids=prompt[None, :-1], max_new_tokens=9, do_sample=False)
        assert response == expected[0, 1:].tolist()
    assert len({len(response) for response in responses}) > 1, "some rows leave before others"


def test_models_take_turns_over_one_source_each() -> None:
    first, second = tiny_t5(layers=2, seed=3), tiny_t5(seed=4)
    prompts = prompts_of([5, 2, 7, 7])
    alone = [drawn(model, prompts) for model in (first, second)]
    assert drawn([ResponseWriter(first, 1.0), ResponseWriter(second, 0.0)], prompts) == alone[0]
    assert drawn([ResponseWriter(first, 0.0), ResponseWriter(second, 1.0)], prompts) == alone[1]


def test_under_autocast_weights_are_cast_and_the_source_is_read_once() -> None:
    model = tiny_t5(layers=2, seed=3)
    plain = drawn(model, prompts_of([6, 11]))
    reads = 0

    def count(*_: object) -> None:
        nonlocal reads
        reads += 1

    model.get_encoder().register_forward_hook(count)
    with torch.autocast("cpu", torch.bfloat16):
        half = drawn(model, prompts_of([6, 11]))
    assert reads == 1
    assert len(half) == len(plain)
    assert model.dtype == torch.float32


def test_a_prompt_ends_with_the_start_token() -> None:
    with forward_of(tiny_t5()) as forward, pytest.raises(AssertionError, match="no start token"):
        EncoderDecoderBatch([torch.tensor([5, 6, END])], 4, forward)
