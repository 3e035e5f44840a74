from __future__ import annotations

import os

import pytest

from distillspec.errors import DistillSpecError
from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.capacity import (
    check_memory,
    check_threads,
    check_visits,
    llama_parameters,
    trained_bytes,
)
from distillspec.recipe.schema import HardwareConfig
from distillspec.recipe.start import LlamaShape


@pytest.mark.parametrize("key_value_heads", [None, 1])
def test_parameters_are_those_of_the_model_that_is_built(key_value_heads: int | None) -> None:
    shape = LlamaShape(
        hidden_size=16, intermediate_size=24, layers=3, heads=2, key_value_heads=key_value_heads
    )
    model = random_llama(shape, vocab_size=50, end_token=0, seed=1)
    assert llama_parameters(shape, 50) == sum(one.numel() for one in model.parameters())


def test_threads_may_be_some_for_each_core_and_not_thousands() -> None:
    cores = os.cpu_count() or 1
    for threads in (None, 1, 4 * cores):
        check_threads(threads, "here")
    with pytest.raises(DistillSpecError, match=f"too many for the {cores} cores"):
        check_threads(4 * cores + 1, "hardware.threads")


def test_a_model_larger_than_the_memory_is_refused() -> None:
    check_memory(10**6, 12, "here")
    with pytest.raises(DistillSpecError, match=r"needs .* GiB of memory, and this machine has"):
        check_memory(10**15, 4, "model")


def test_training_on_the_host_keeps_more_than_the_weights_there() -> None:
    assert trained_bytes(HardwareConfig(device="cpu")) == 12
    assert trained_bytes(HardwareConfig(device="cuda")) == 4


def test_texts_may_be_shown_often_in_a_step_but_not_without_end() -> None:
    check_visits(45_000, 45, "here")
    with pytest.raises(DistillSpecError, match="each of the 45 texts to train on 22,222 times"):
        check_visits(10**6, 45, "distill.batch_size")


def test_a_model_may_take_all_memory_and_not_a_byte_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 10, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", sizes.__getitem__)
    check_memory(10 * 1024, 4, "model")
    with pytest.raises(DistillSpecError) as caught:
        check_memory(10 * 1024 + 1, 4, "model")
    assert caught.value.where == "model"
