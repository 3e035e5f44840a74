"""The pair and the prompts that the decoding benchmarks measure, from their common arguments."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distillspec.corpus.prompts import load_prompts
from distillspec.errors import DistillSpecError
from distillspec.models.compiled import make_runner
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.models.precision import fast_dtype
from distillspec.models.runner import vocabulary_size
from distillspec.models.vocabulary import check_pair
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.speculation.chance import Chance
from distillspec.speculation.draft.proposal import Basis
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy


class BenchPair(NamedTuple):
    target: PreTrainedModel
    draft: PreTrainedModel
    vocabulary: int
    prompts: list[Tensor]
    dtype: torch.dtype

    def runners(
        self,
        kind: Literal["eager", "compiled"],
        block_sizes: tuple[int, ...],
        room: int,
        *,
        tells_entropy: bool = False,
    ) -> tuple[Runner, Runner]:
        """Target and draft, with room for that many tokens after any prompt."""
        capacity = max(len(prompt) for prompt in self.prompts) + room
        return (
            make_runner(self.target, kind, capacity, block_sizes, vocabulary=self.vocabulary),
            make_runner(
                self.draft,
                kind,
                capacity,
                (1, 2),
                tells_entropy=tells_entropy,
                vocabulary=self.vocabulary,
            ),
        )


def add_arguments(parser: argparse.ArgumentParser, *, prompts: int) -> None:
    parser.add_argument("--target", default="checkpoints/nano-python/target")
    parser.add_argument("--draft", default="checkpoints/nano-python/draft")
    parser.add_argument("--recipe", default="recipes/nano-python.yaml", help="names the prompts")
    parser.add_argument("--prompts-file", help="JSONL with `prompt`, in place of the recipe's")
    parser.add_argument("--prompts", type=int, default=prompts, help="number of prompts")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens decoded per prompt")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seed", type=int, default=0)


def basis(
    draft: Runner, text: Tensor, policy: SamplingPolicy, chance: Chance, stop: StopRule
) -> Basis:
    """To draft after text, long [T], with that runner."""
    return Basis(text.tolist(), text[-1:], draft, draft.vocabulary, policy, chance, stop)


def load(arguments: argparse.Namespace) -> BenchPair:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = fast_dtype("cpu") if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    tokenizer = load_tokenizer(arguments.target, what="target")
    target = load_model(arguments.target, dtype=dtype, what="target")
    draft = load_model(arguments.draft, dtype=dtype, what="draft")
    vocabulary = check_pair(
        tokenizer,
        load_tokenizer(arguments.draft, what="draft"),
        vocabulary_size(target),
        vocabulary_size(draft),
        where=f"{arguments.target}, {arguments.draft}",
    )
    return BenchPair(target, draft, vocabulary, _read_prompts(arguments, tokenizer), dtype)


def _read_prompts(
    arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase
) -> list[Tensor]:
    """Held-out prompts of the recipe, or of a JSONL file with the field `prompt`."""
    recipe = load_recipe(arguments.recipe)
    if not isinstance(recipe, Recipe):
        raise DistillSpecError(
            "this recipe makes a model; it names no prompts",
            where=arguments.recipe,
            mend="give the recipe of a distillation",
        )
    data = recipe.data
    if arguments.prompts_file is not None:
        lines = Path(arguments.prompts_file).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["prompt"] for line in lines if line.strip()]
        rows = [tokenizer.encode(text)[-data.max_prompt_tokens :] for text in texts]
    else:
        held_out = load_prompts(data, tokenizer, seed=recipe.seed).held_out
        rows = [list(prompt.tokens) for prompt in held_out]
    return [torch.tensor(row) for row in rows[: arguments.prompts]]
