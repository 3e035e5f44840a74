"""A program for torchrun: a model split over the processes gives the logits of the full model."""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed

from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import empty_model, load_model
from distillspec.models.runners.tree_batch import eager_runner
from distillspec.models.sampling.generate import generate
from distillspec.models.surgery.hidden_states import is_sharded, output_head, token_logits
from distillspec.models.surgery.sharded import split_over_processes
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy


def main(folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    check(folder)
    gc.collect()  # what is split goes before the group that it is split over
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def check(folder: str) -> None:
    rank, cpu = torch.distributed.get_rank(), torch.device("cpu")
    dtype = torch.float32
    whole = load_model(folder, dtype=dtype)
    loads = 0

    def load() -> object:
        nonlocal loads
        loads += 1
        return load_model(folder, dtype=dtype)

    split = split_over_processes(load, lambda: empty_model(folder, dtype=dtype), cpu)  # type: ignore[arg-type]
    assert loads == (1 if rank == 0 else 0)
    assert is_sharded(split) and output_head(split) is None
    own = sum(p.to_local().numel() for p in split.parameters())  # type: ignore[attr-defined]
    everything = sum(p.numel() for p in whole.parameters())
    assert own < 0.6 * everything, (own, everything)
    assert split.generation_config.eos_token_id == whole.generation_config.eos_token_id
    start = whole.config.decoder_start_token_id if whole.config.is_encoder_decoder else 3
    rows = torch.tensor([[5, 6 + rank, 7, start, 9, 10], [8, 9, 11, start, 4, 4 + rank]])
    torch.testing.assert_close(token_logits(split, rows, None), token_logits(whole, rows, None))
    runners = [eager_runner(model) for model in (split, whole)]
    for part in (rows[:1, :4], rows[:1, 4:]):
        actual, expected = (runner.feed(part) for runner in runners)
        torch.testing.assert_close(actual, expected, equal_nan=True)
    texts = [
        generate(
            model,
            [rows[0, :4], rows[1, :4]],
            max_new_tokens=5,
            policy=SamplingPolicy(1.0),
            random_source=GeneratorSource(torch.Generator().manual_seed(0)),
            eos_token_ids=frozenset(),
            pad_token=0,
        )
        for model in (split, whole)
    ]
    assert [t.tolist() for t in texts[0]] == [t.tolist() for t in texts[1]]

    def fail() -> object:
        return load_model(str(Path(folder) / "nowhere"), dtype=dtype)

    with pytest.raises(DistillSpecError, match="does not exist"):
        split_over_processes(fail, lambda: empty_model(folder, dtype=dtype), cpu)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(*sys.argv[1:])
