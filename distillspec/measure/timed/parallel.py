"""The draft processes of an evaluation's parallel methods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from distillspec.methods.build import block_sizes, protocols_of
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.factory import saved
from distillspec.recipe.capacity import check_threads
from distillspec.recipe.methods import CardConfig, MethodConfig, Parallel
from distillspec.recipe.suite import Suite
from distillspec.speculation.parallel.card import CardDecoder, CardProcess
from distillspec.speculation.parallel.pearl import PearlDecoder, PearlProcess
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.records import Generation, Round
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ParallelBench:
    """The processes of an evaluation's parallel methods: one per draft and plan.

    On a CPU each side gets `threads` threads, by default half of torch's: both together then have
    as many as autoregressive decoding. The graphs of a runner are made for one number of threads,
    so the target gets a second runner. The processes sleep while they have no work.
    """

    def __init__(
        self,
        suite: Suite,
        target: PreTrainedModel,
        drafts: Mapping[str, PreTrainedModel],
        capacity: int,
        vocab_size: int | None,
    ) -> None:
        self._suite = suite
        self._drafts: dict[tuple[str, Parallel], CardProcess | PearlProcess] = {}
        self._targets: dict[int, Runner] = {}
        used = protocols_of(suite)
        gammas = sorted({gamma for _, _, gamma in used})
        # A draft process is shared by all gammas of its plan, so it starts for the largest.
        longest = {
            plan: max(g for _, used_plan, g in used if used_plan == plan) for _, plan, _ in used
        }
        try:
            for plan, gamma in longest.items():
                threads = threads_of(plan)
                if threads not in self._targets:
                    with torch_threads(threads):
                        self._targets[threads] = make_runner(
                            target,
                            suite.runner.kind,
                            capacity,
                            block_sizes(gammas),
                            vocab_size=vocab_size,
                        )
                for name in suite.drafts:
                    if name in drafts:
                        vocab_size = self._targets[threads].vocab_size
                        self._drafts[name, plan] = _start(
                            plan, gamma, drafts[name], suite.runner.kind, capacity, vocab_size
                        )
        except BaseException:
            # BaseException includes Ctrl-C: no draft process may stay alive.
            self.close()
            raise

    def decode(
        self,
        method: MethodConfig,
        gamma: int,
        draft: str,
        prompt: Tensor,
        policy: SamplingPolicy,
        random_source: RandomSource,
        *,
        seed: int,
        length: int,
    ) -> Generation:
        plan = method.parallel
        assert plan is not None
        process = self._drafts[draft, plan]
        target = self._targets[threads_of(plan)]
        decoder = _decoder(target, process, policy, random_source, gamma, seed)
        with torch_threads(threads_of(plan)):
            return decoder.decode(prompt, max_new_tokens=length)

    def bytes(self) -> dict[str, int]:
        """Bytes of shared memory of each process, by draft and method."""
        return {
            f"{name}/{method.name}": process.bytes
            for method in self._suite.methods
            for (name, plan), process in self._drafts.items()
            if plan == method.parallel
        }

    def close(self) -> None:
        """End all processes."""
        for process in self._drafts.values():
            process.close()


def parallel_rounds(
    plan: Parallel,
    target: Runner,
    draft: PreTrainedModel,
    prompt: Tensor,
    *,
    gamma: int,
    policy: SamplingPolicy,
    random_source: RandomSource,
    seed: int,
    max_new_tokens: int,
    eos_token_ids: frozenset[int],
) -> Iterator[Round]:
    """The rounds of one text, with a draft process that ends after it. The draft runs eager."""
    process = _start(plan, gamma, draft, "eager", 0, target.vocab_size)
    try:
        decoder = _decoder(target, process, policy, random_source, gamma, seed)
        with closing(
            decoder.rounds(prompt, max_new_tokens=max_new_tokens, eos_token_ids=eos_token_ids)
        ) as rounds:
            while True:
                with torch_threads(threads_of(plan)):  # not while the caller works
                    following = next(rounds, None)
                if following is None:
                    return
                yield following
    finally:
        process.close()


def threads_of(plan: Parallel) -> int:
    """Threads of each side.

    Raises:
        DistillSpecError: The plan wants far more threads than the machine has cores.
    """
    check_threads(plan.threads, f"parallel: kind={plan.kind}: threads")
    return plan.threads or max(1, torch.get_num_threads() // 2)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Set torch's number of threads inside the context."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start(
    plan: Parallel,
    gamma: int,
    model: PreTrainedModel,
    kind: Literal["eager", "compiled"],
    capacity: int,
    vocab_size: int,
) -> CardProcess | PearlProcess:
    """Start a draft process. capacity: tokens of a compiled runner's cache."""
    threads = threads_of(plan)
    if isinstance(plan, CardConfig):
        with saved(
            model, kind, capacity, (1, 2), tree_sizes=(plan.nodes,), vocab_size=vocab_size
        ) as make:
            return CardProcess(make, width=plan.nodes, depth=plan.layers, threads=threads)
    with saved(model, kind, capacity, (1, 2), vocab_size=vocab_size) as make:
        return PearlProcess(make, gamma=gamma, vocab_size=vocab_size, threads=threads)


def _decoder(
    target: Runner,
    process: CardProcess | PearlProcess,
    policy: SamplingPolicy,
    random_source: RandomSource,
    gamma: int,
    seed: int,
) -> CardDecoder | PearlDecoder:
    if isinstance(process, CardProcess):
        return CardDecoder(target, process, policy, random_source, longest=gamma)
    return PearlDecoder(target, process, policy, random_source, gamma=gamma, seed=seed)
