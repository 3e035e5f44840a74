"""Time and peak memory of the chunked divergence, against the whole at once and against TRL.

    python eval/bench/divergence.py                       # float32; V = 4k, 32k, 152k; 2k tokens
    python eval/bench/divergence.py --dtype bfloat16 --divergence jsd

One step = forward and backward from hidden states to the gradients of the draft's hidden states and
output weight. Contenders: `ours` (weighted_sums), `whole` (our own unchunked form under
autograd), `trl` (ChunkedDivergenceFunction of trl 1.16.0, from the extra `bench`; it has no tvd).
All get the same numbers, and are checked to give the same value and gradients.

Each contender lives in a process of its own, and the processes take turns, one step at a time, so
that drift of the machine hits them alike. Peak memory is the process's resident high-water mark
over its first step, above what it held before (on a GPU: the allocator's peak). A fresh process,
and not torch's own count of allocations, because the workspaces of the matrix library count too,
and because memory freed by one contender must not serve the next. Reset by Linux's clear_refs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from peak import PeakMemory
from torch import Tensor

from distillspec.divergence.comparison import TargetDivergence
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.row_pass import weighted_sums
from distillspec.divergence.table import DIVERGENCES, divergence
from distillspec.runtime.seeds import derive_seed

CONTENDERS = ("ours", "whole", "trl")
TRL_BETA = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": 0.5}
TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


class Inputs(NamedTuple):
    """One layer's worth of a pair: hidden states and output weights of both models."""

    target_hidden: Tensor  # [N, H]
    target_weight: Tensor  # [V, H]
    draft_hidden: Tensor  # [N, H], a leaf
    draft_weight: Tensor  # [V, H], a float32 leaf, as in mixed-precision training


class Measurement(NamedTuple):
    """One step of one contender."""

    seconds: float
    peak_mib: float
    value: float
    gradient_norms: list[float]


def make_inputs(arguments: argparse.Namespace, vocab_size: int) -> Inputs:
    """The same for every contender: drawn from one seed."""
    generator = torch.Generator().manual_seed(derive_seed(0, "inputs"))
    dtype, device = getattr(torch, arguments.dtype), arguments.device
    rows, hidden = arguments.tokens, arguments.hidden

    def drawn(count: int, size: float) -> Tensor:
        return (size * torch.randn(count, hidden, generator=generator)).to(device)

    return Inputs(
        drawn(rows, 1.0).to(dtype),
        drawn(vocab_size, 0.15).to(dtype),
        drawn(rows, 1.0).to(dtype).requires_grad_(),
        drawn(vocab_size, 0.15).requires_grad_(),
    )


def loss_of(contender: str, arguments: argparse.Namespace) -> Callable[[Inputs], Tensor]:
    """Inputs -> the summed divergence."""
    measure = divergence(arguments.divergence)

    def ours(given: Inputs) -> Tensor:
        target = ModelRows(given.target_hidden, OutputHead(given.target_weight))
        return weighted_sums(
            ModelRows(given.draft_hidden, OutputHead(given.draft_weight)),
            TargetDivergence(measure, target),
            temperature=1.0,
            weights=torch.ones(given.draft_hidden.shape[0], device=given.draft_hidden.device),
            chunk_tokens=arguments.chunk_tokens,
        ).divergence

    def whole(given: Inputs) -> Tensor:
        with torch.no_grad():
            p_logits = OutputHead(given.target_weight).logits(given.target_hidden)
        return measure.reference(
            p_logits, OutputHead(given.draft_weight).logits(given.draft_hidden)
        ).sum()

    if contender == "trl":
        from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

        def trl(given: Inputs) -> Tensor:
            values, _ = ChunkedDivergenceFunction.apply(
                given.draft_hidden,
                given.draft_weight,
                None,
                given.target_hidden,
                given.target_weight,
                None,
                TRL_BETA[arguments.divergence],
            )
            total: Tensor = values.sum()
            return total

        return trl
    return ours if contender == "ours" else whole


def contend(contender: str, vocab_size: int, arguments: argparse.Namespace) -> None:
    """A contender's process: a step for every line on stdin, a measurement on stdout for it."""
    given, loss = make_inputs(arguments, vocab_size), loss_of(contender, arguments)
    device = torch.device(arguments.device)
    clock = time.process_time if arguments.clock == "cpu" else time.perf_counter
    autocast = arguments.dtype == "bfloat16"
    print("ready", flush=True)
    for _ in sys.stdin:
        leaves = (given.draft_hidden, given.draft_weight)
        for leaf in leaves:
            leaf.grad = None
        with PeakMemory(arguments.device) as memory:
            _synchronize(device)
            start = clock()
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
                value = loss(given)
            value.backward()
            _synchronize(device)
            seconds = clock() - start
        norms = [float(leaf.grad.float().norm()) for leaf in leaves if leaf.grad is not None]
        measurement = Measurement(seconds, memory.mib, float(value.detach()), norms)
        print(json.dumps(measurement._asdict()), flush=True)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Worker:
    """The parent's side of a contender's process."""

    def __init__(self, contender: str, vocab_size: int) -> None:
        command = [sys.executable, __file__, *sys.argv[1:]]
        self.process = subprocess.Popen(
            [*command, "--contender", contender, "--vocabularies", str(vocab_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def step(self) -> Measurement:
        assert self.process.stdin is not None
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return Measurement(**json.loads(self._answer()))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a contender ended early, exit code {self.process.wait()}")
        return line


def compare(vocab_size: int, names: list[str], arguments: argparse.Namespace) -> None:
    """One table: every contender at one vocabulary size."""
    workers = {name: Worker(name, vocab_size) for name in names}
    rounds = [
        {name: worker.step() for name, worker in workers.items()}
        for _ in range(1 + arguments.repeats)
    ]
    for worker in workers.values():
        worker.close()
    first, timed = rounds[0], rounds[1:]
    print(f"\nV = {vocab_size}, {arguments.tokens} tokens, H = {arguments.hidden}")
    print(f"  {'':6} {'ms':>9} {'ratio':>7} {'peak MiB':>10} {'ratio':>7}   value, nats")
    ours = statistics.median(each["ours"].seconds for each in timed)
    for name in names:
        seconds = statistics.median(each[name].seconds for each in timed)
        peak, value = first[name].peak_mib, first[name].value
        print(
            f"  {name:6} {seconds * 1e3:9.1f} {seconds / ours:6.2f}x {peak:10.1f} "
            f"{peak / first['ours'].peak_mib:6.2f}x   {value:.4f}",
            flush=True,
        )
        _check_agreement(name, first[name], first["ours"], TOLERANCE[arguments.dtype])


def _check_agreement(
    name: str, measurement: Measurement, ours: Measurement, tolerance: float
) -> None:
    pairs = zip(
        [measurement.value, *measurement.gradient_norms],
        [ours.value, *ours.gradient_norms],
        strict=True,
    )
    if any(abs(a - b) > tolerance * abs(b) for a, b in pairs):
        raise SystemExit(f"{name} computes something else: {measurement} against {ours}")


def main() -> None:
    """Parse, then compare; or be a contender."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--vocabularies", type=int, nargs="+", default=[4096, 32768, 152064])
    parser.add_argument("--tokens", type=int, default=2048, help="rows N (default 2048)")
    parser.add_argument("--hidden", type=int, default=256, help="H of both models (default 256)")
    parser.add_argument("--chunk-tokens", type=int, default=256, help="of ours (default 256)")
    parser.add_argument("--divergence", choices=DIVERGENCES, default="forward_kl")
    parser.add_argument("--dtype", choices=TOLERANCE, default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="timed steps each (default 3)")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: seconds of CPU over all threads, which other load on the machine disturbs less",
    )
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender is not None:
        contend(arguments.contender, arguments.vocabularies[0], arguments)
        return
    names = sorted({"ours", *arguments.contenders}, key=CONTENDERS.index)
    if "trl" in names and importlib.util.find_spec("trl") is None:
        names.remove("trl")
        print("trl is left out: pip install -e '.[bench]'")
    if "trl" in names and arguments.divergence not in TRL_BETA:
        names.remove("trl")
        print(f"trl is left out: it has no {arguments.divergence}")
    print(
        f"{arguments.divergence}, {arguments.dtype}, {arguments.device}, "
        f"{torch.get_num_threads()} thread(s), {arguments.clock} clock, torch {torch.__version__}; "
        f"medians of {arguments.repeats} steps after one warm-up, whose peak memory is shown"
    )
    for vocab_size in arguments.vocabularies:
        compare(vocab_size, names, arguments)


if __name__ == "__main__":
    main()
