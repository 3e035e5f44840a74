"""A program for torchrun: processes with dice of their own do what the first one has thrown."""

from __future__ import annotations

import torch
import torch.distributed

from distillspec.speculation.random_source import GeneratorSource
from distillspec.training.shared_random import SharedRandomSource


def main() -> None:
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    own = GeneratorSource(torch.Generator().manual_seed(rank))
    first = GeneratorSource(torch.Generator().manual_seed(0))
    agreed = SharedRandomSource(own)
    weights, keep_probabilities = torch.ones(40, 7), torch.full((50,), 0.5)
    for _ in range(2):
        tokens, coins = agreed.draw(weights), agreed.accept(keep_probabilities)
        assert torch.equal(tokens, first.draw(weights))
        assert torch.equal(coins, first.accept(keep_probabilities)) and coins.dtype == torch.bool
    alone = GeneratorSource(torch.Generator().manual_seed(rank)).draw(weights)
    again = GeneratorSource(torch.Generator().manual_seed(0)).draw(weights)
    assert torch.equal(alone, again) == (rank == 0)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
