"""Writing responses in batches: our rollout against transformers' `generate`.

    python eval/bench/rollout.py                       # batch 64, T = 1, 128 new tokens
    python eval/bench/rollout.py --batch 16 --rounds 5

Both draw from the same model in the same type, draft and target, for the same prompts (training
prompts of the nano recipe), up to end-of-text; transformers' prompts are padded on the left, as it
wants them. They take turns, round by round, each round with other prompts and who begins in turn.
Tokens are those up to and including end-of-text: what a training can use. `static` is transformers
with a static cache.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.assembly.pair import load_pair
from distillspec.assembly.text import pair_prompts
from distillspec.models.loading.load import load_model
from distillspec.models.loading.precision import describe, fast_dtype
from distillspec.models.sampling.generate import cut_at_ends, generate
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy

RECIPE = "recipes/nano-plateau.yaml"
Writer = Callable[[Sequence[Tensor], int], int]


def ours(model: PreTrainedModel, ends: frozenset[int], new_tokens: int) -> Writer:
    def write(prompts: Sequence[Tensor], seed: int) -> int:
        random_source = GeneratorSource(
            torch.Generator(model.device).manual_seed(derive_seed(seed, "ours"))
        )
        responses = generate(
            model,
            prompts,
            max_new_tokens=new_tokens,
            policy=SamplingPolicy(temperature=1.0),
            random_source=random_source,
            eos_token_ids=ends,
            pad_token=0,
            batch_rows=len(prompts),
        )
        return sum(map(len, responses))

    return write


def theirs(
    model: PreTrainedModel, ends: frozenset[int], new_tokens: int, cache: str | None, longest: int
) -> Writer:
    extra = {} if cache is None else {"cache_implementation": cache}

    def write(prompts: Sequence[Tensor], seed: int) -> int:
        torch.manual_seed(derive_seed(seed, "theirs"))
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, prompt in enumerate(prompts):
            tokens[row, longest - len(prompt) :] = prompt
            mask[row, longest - len(prompt) :] = 1
        with torch.no_grad():
            output = model.generate(  # type: ignore[operator]
                tokens.to(model.device),
                attention_mask=mask.to(model.device),
                max_new_tokens=new_tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=sorted(ends),
                pad_token_id=0,
                **extra,
            )
        drawn = output[:, longest:].cpu()
        return sum(map(len, cut_at_ends(drawn, torch.tensor(sorted(ends)))))

    return write


def main(arguments: argparse.Namespace) -> None:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    recipe = load_recipe(RECIPE)
    assert isinstance(recipe, Recipe)
    pair = load_pair(recipe)
    prompts = [torch.tensor(prompt.tokens) for prompt in pair_prompts(pair).training]
    dtype = fast_dtype(pair.device)
    longest = max(
        map(len, prompts)
    )  # one width for all rounds: a static cache may be compiled for it
    print(f"{describe(pair.device)}, {torch.get_num_threads()} threads; batch {arguments.batch}")
    print("| model | | tokens/s | ours to it, median of rounds (all) |")
    print("|---|---|---|---|")
    for name in ("draft", "target"):
        model = load_model(f"checkpoints/nano-python/{name}", dtype=dtype, device=pair.device)
        settings = (model, pair.eos_token_ids, arguments.new_tokens)
        writers: dict[str, Writer] = {
            "ours": ours(*settings),
            "transformers": theirs(*settings, None, longest),
            "transformers, static": theirs(*settings, "static", longest),
        }
        speeds: dict[str, list[float]] = {key: [] for key in writers}
        order = list(writers)
        for number in range(-1, arguments.rounds):  # the first warms up
            first = (number + 1) * arguments.batch % max(1, len(prompts) - arguments.batch)
            batch = prompts[first : first + arguments.batch]
            for key in order:
                started = time.perf_counter()
                tokens = writers[key](batch, number + 1)
                if number >= 0:
                    speeds[key].append(tokens / (time.perf_counter() - started))
            order = [*order[1:], order[0]]
        for key, contender_speeds in speeds.items():
            ratios = [
                numerator / denominator
                for numerator, denominator in zip(speeds["ours"], contender_speeds, strict=True)
            ]
            shown = " ".join(f"{ratio:.2f}" for ratio in sorted(ratios))
            print(
                f"| {name} | {key} | {statistics.median(contender_speeds):,.0f} | "
                f"{statistics.median(ratios):.2f}x ({shown}) |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, help="default: torch's")
    main(parser.parse_args())
