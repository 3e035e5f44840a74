"""What a cache of the target's k likeliest tokens costs and saves: bias, bytes, seconds.

    python eval/bench/topk.py bias      # by k: bytes, divergence, gradient, alpha, against all of p
    python eval/bench/topk.py rounding  # by the type that the values are kept in
    python eval/bench/topk.py speed     # training steps, online and from a cache, alternating

bias: on texts that the target has drawn at the temperature, all in float32 but for what is kept,
which goes through the shipped records. `rest` is the mean mass outside the k tokens; `value` is the
coarse divergence over the whole one; the gradient is that of all weights of the draft, its error
the norm of the difference over the norm of the whole one's. `renormalised` is the other way to
treat the rest: to drop it and make the k tokens a distribution (its reverse KL is infinite). The
rows of `all` hold the whole divergence, a mean per token. `cold` is a draft of the same shape with
fresh random weights.

speed: the shipped objective and store, micro-batches of the recipe, forward, backward and AdamW in
the precision of training; the two contenders take turns on the same batch.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import pair as bench_pair
import torch
from torch import Tensor, nn

from distillspec.assembly.pair import dtype_of, load_pair
from distillspec.assembly.target_data import top_k_scorer, top_k_store
from distillspec.assembly.text import pair_prompts
from distillspec.corpus.batches.batching import Batch, collate
from distillspec.corpus.stores.top_k import fill_top_k, size_in_words
from distillspec.corpus.stores.top_k_records import packed, record_type, unpacked
from distillspec.divergence.comparison import TargetDivergence
from distillspec.divergence.head import OutputHead
from distillspec.divergence.logit_rows import ModelRows
from distillspec.divergence.reduction import DivergenceSums
from distillspec.divergence.row_pass import weighted_sums
from distillspec.divergence.table import DIVERGENCES, divergence
from distillspec.divergence.top_k import TopKDivergence
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.models.sampling.generate import generate
from distillspec.models.surgery.hidden_states import hidden_states, output_head
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.target_logits import CachedTargetConfig
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.loss_positions import predicts_response
from distillspec.training.objective import Objective

CHUNK = 1024
ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "float16 of log p": lambda log_p: log_p.half().float(),
    "bfloat16 of log p": lambda log_p: log_p.bfloat16().float(),
    "float16 of p": lambda log_p: log_p.exp().half().float().log(),
    "bfloat16 of p": lambda log_p: log_p.exp().bfloat16().float().log(),
}


class Texts(NamedTuple):
    """Texts of the target at one temperature, and its hidden states where it predicts them."""

    batch: Batch
    target_hidden: Tensor  # [N, H]
    temperature: float


class Found(NamedTuple):
    """Means per token, and the gradient of all of the draft's weights in one row."""

    value: float
    alpha: float
    gradient: Tensor

    def error(self, full: Found) -> float:
        """Norm of the difference over the norm."""
        return float((self.gradient - full.gradient).norm() / full.gradient.norm())

    def cosine(self, full: Found) -> float:
        return float(torch.cosine_similarity(self.gradient, full.gradient, dim=0))


class Bench:
    """One draft on one set of texts."""

    def __init__(self, target: nn.Module, draft: nn.Module, texts: Texts) -> None:
        head = output_head(target)
        assert head is not None
        self.target_head, self.draft, self.texts = head, draft, texts

    def whole(self, name: str) -> Found:
        return self._found(
            lambda hidden, head, weights: weighted_sums(
                ModelRows(hidden, head),
                TargetDivergence(
                    divergence(name), ModelRows(self.texts.target_hidden, self.target_head)
                ),
                temperature=self.texts.temperature,
                weights=weights,
                chunk_tokens=CHUNK,
            )
        )

    def coarse(self, name: str, kept: TopTokens) -> Found:
        return self._found(
            lambda hidden, head, weights: weighted_sums(
                ModelRows(hidden, head),
                TopKDivergence(divergence(name), kept),
                temperature=self.texts.temperature,
                weights=weights,
                chunk_tokens=CHUNK,
            )
        )

    def renormalised(self, name: str, kept: TopTokens) -> Found:
        """The k tokens as if there were no others; the logits of p are then log p * T."""
        p = torch.full((kept.ids.shape[0], kept.vocab_size), -torch.inf)
        p.scatter_(1, kept.ids.long(), kept.log_probability * self.texts.temperature)
        return self._found(
            lambda hidden, head, weights: weighted_sums(
                ModelRows(head.logits(hidden)),
                TargetDivergence(divergence(name), ModelRows(p)),
                temperature=self.texts.temperature,
                weights=weights,
                chunk_tokens=CHUNK,
            )
        )

    def kept(self, k: int) -> TopTokens:
        return top_tokens(
            self.texts.target_hidden,
            self.target_head,
            k=k,
            temperature=self.texts.temperature,
            chunk_tokens=CHUNK,
        )

    def _found(self, loss: Callable[[Tensor, OutputHead, Tensor], DivergenceSums]) -> Found:
        batch, head = self.texts.batch, output_head(self.draft)
        assert head is not None
        hidden = hidden_states(self.draft, batch.tokens, batch.is_token)
        hidden = hidden[predicts_response(batch)]
        self.draft.zero_grad()
        sums = loss(hidden, head, torch.ones(hidden.shape[0]))
        sums.divergence.backward()
        gradient = torch.cat(
            [p.grad.double().flatten() for p in self.draft.parameters() if p.grad is not None]
        )
        count = int(sums.tokens)
        return Found(float(sums.divergence.detach()) / count, float(sums.alpha) / count, gradient)


def drawn(pair: bench_pair.BenchPair, temperature: float, length: int, seed: int) -> Texts:
    target, end = pair.target, pair.target.config.eos_token_id
    ends = frozenset([end] if isinstance(end, int) else end)
    responses = generate(
        target,
        pair.prompts,
        max_new_tokens=length,
        policy=SamplingPolicy(temperature=temperature),
        random_source=GeneratorSource(
            torch.Generator().manual_seed(derive_seed(seed, "texts", temperature))
        ),
        eos_token_ids=ends,
        pad_token=min(ends),
        vocab_size=pair.vocab_size,
    )
    rows = [(p.tolist(), r.tolist()) for p, r in zip(pair.prompts, responses, strict=True)]
    batch = collate(rows, min(ends))
    with torch.no_grad():
        hidden = hidden_states(target, batch.tokens, batch.is_token)
    return Texts(batch, hidden[predicts_response(batch)], temperature)


def fresh(draft: nn.Module, seed: int) -> nn.Module:
    """A draft of that shape that has learnt nothing."""
    torch.manual_seed(derive_seed(seed, "cold draft"))
    return type(draft)(draft.config).eval()


def benches(arguments: argparse.Namespace) -> list[tuple[str, Bench]]:
    arguments.dtype = "float32"
    pair = bench_pair.load(arguments)
    named = {"shipped": pair.draft, "cold": fresh(pair.draft, arguments.seed)}
    drafts = {name: named[name].requires_grad_() for name in arguments.drafts}
    loaded = []
    for temperature in arguments.temperatures:
        texts = drawn(pair, temperature, arguments.new_tokens, arguments.seed)
        loaded += [
            (f"{name} draft, T = {temperature:g}", Bench(pair.target, draft, texts))
            for name, draft in drafts.items()
        ]
    return loaded


def bias(arguments: argparse.Namespace) -> None:
    for title, bench in benches(arguments):
        print(f"\n{title}, {bench.texts.target_hidden.shape[0]} tokens")
        print(
            "| divergence | k | bytes/token | rest | value | alpha at most | cosine | error "
            "| renormalised: value | cosine | error |\n|" + "---|" * 11
        )
        for name in arguments.divergences:
            full = bench.whole(name)
            print(f"| {name} | all | | 0 | {full.value:.4f} | {full.alpha:.4f} | | | | | |")
            for k in arguments.k:
                signal = CachedTargetConfig(kind="cached", k=k)
                kept = bench.kept(k)
                read = unpacked(packed(kept, record_type(signal, kept.vocab_size)), kept.vocab_size)
                coarse, comparison = bench.coarse(name, read), "| | | |"
                if name != "reverse_kl":
                    scaled = bench.renormalised(name, read)
                    comparison = (
                        f"| {scaled.value / full.value:.3f} | {scaled.cosine(full):.4f} "
                        f"| {scaled.error(full):.3f} |"
                    )
                print(
                    f"| {name} | {k} | {signal.bytes_per_token(kept.vocab_size)} "
                    f"| {float(kept.log_rest.exp().mean()):.4f} "
                    f"| {coarse.value / full.value:.4f} | {coarse.alpha:.4f} "
                    f"| {coarse.cosine(full):.5f} | {coarse.error(full):.4f} {comparison}",
                    flush=True,
                )


def rounding(arguments: argparse.Namespace) -> None:
    for title, bench in benches(arguments):
        print(f"\n{title}, k = {arguments.k[0]}")
        print("| divergence | kept as | value | error of the gradient |\n|---|---|---|---|")
        kept = bench.kept(arguments.k[0])
        for name in arguments.divergences:
            exact = bench.coarse(name, kept)
            for kind, rounded in ROUNDINGS.items():
                moved = kept._replace(log_probability=rounded(kept.log_probability))
                coarse = bench.coarse(name, moved)
                print(
                    f"| {name} | {kind} | {coarse.value / exact.value - 1.0:+.1e} "
                    f"| {coarse.error(exact):.1e} |",
                    flush=True,
                )


def speed(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    changes = [f"pair.target={arguments.target}", f"pair.draft={arguments.draft}"]
    changes += ["distill.source={fixed: 1.0}", f"data.max_prompts={arguments.prompts}"]
    recipe = load_recipe(arguments.recipe, changes)
    assert isinstance(recipe, Recipe)
    full_pair = load_pair(recipe)
    training = pair_prompts(full_pair).training
    draft = full_pair.draft().train()
    plan = recipe.distill
    size = plan.micro_batch_size or plan.batch_size
    rows = [(prompt.tokens, prompt.response or ()) for prompt in training]
    batches = [
        collate(rows[start : start + size], full_pair.pad_token, on_prompts=plan.on_prompts)
        for start in range(0, len(rows), size)
    ]
    with tempfile.TemporaryDirectory() as folder:
        contenders = {"online": Objective(plan, full_pair.target)}
        for k in arguments.k:
            signal = CachedTargetConfig(kind="cached", k=k, store=f"{folder}/{k}")
            store = top_k_store(full_pair, signal, training, None)
            started = time.perf_counter()
            fill_top_k(store, top_k_scorer(full_pair, signal))
            spent = time.perf_counter() - started
            print(
                f"k {k}: {store.tokens:,} tokens, {store.bytes_per_token} bytes each, "
                f"{size_in_words(store.size_bytes)}, made in {spent:.1f} s "
                f"({store.tokens / spent:,.0f} tokens/s)",
                flush=True,
            )
            kept = plan.model_copy(update={"target_logits": signal})
            contenders[f"k {k}"] = Objective(kept, None, cached=CachedTopKTarget(store))
        _race(contenders, draft, batches, dtype_of("auto", full_pair.device), arguments.rounds)


def _race(
    contenders: dict[str, Objective],
    draft: nn.Module,
    batches: list[Batch],
    dtype: torch.dtype,
    rounds: int,
) -> None:
    optimizer = torch.optim.AdamW(draft.parameters(), lr=1e-6, fused=True)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):  # the first round warms up
        for batch in batches:
            for name, objective in contenders.items():
                begun = time.perf_counter()
                signal = objective.target_outputs(draft, batch)
                started = time.perf_counter()
                with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                    sums = objective.loss(draft, batch, signal)
                (sums.divergence / sums.tokens).backward()
                optimizer.step()
                optimizer.zero_grad()
                if number:
                    seconds[name].append((started - begun, time.perf_counter() - started))
    print("| | target, ms | update, ms | step, ms | against online |\n|---|---|---|---|---|")
    online = [sum(parts) for parts in seconds["online"]]
    for name, spent in seconds.items():
        target, update = (1e3 * statistics.median(part) for part in zip(*spent, strict=True))
        step = [sum(parts) for parts in spent]
        ratios = [
            cached_seconds / online_seconds
            for cached_seconds, online_seconds in zip(step, online, strict=True)
        ]
        print(
            f"| {name} | {target:.1f} | {update:.1f} | {1e3 * statistics.median(step):.1f} "
            f"| {statistics.median(ratios):.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["bias", "rounding", "speed"])
    bench_pair.add_arguments(parser, prompts=32)
    parser.set_defaults(temperatures=[1.0, 0.5])
    parser.add_argument("--k", type=int, nargs="+", help="default: 1 to 1024; 64; 16, 64 and 256")
    parser.add_argument("--drafts", nargs="+", choices=["shipped", "cold"], default=["shipped"])
    parser.add_argument(
        "--divergences", nargs="+", choices=list(DIVERGENCES), default=list(DIVERGENCES)
    )
    parser.add_argument("--rounds", type=int, default=3, help="speed: times every batch is taken")
    arguments = parser.parse_args()
    usual = {"bias": [1, 4, 16, 64, 256, 1024], "rounding": [64], "speed": [16, 64, 256]}
    arguments.k = arguments.k or usual[arguments.what]
    {"bias": bias, "rounding": rounding, "speed": speed}[arguments.what](arguments)


if __name__ == "__main__":
    main()
