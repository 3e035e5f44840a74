"""The pair and the prompts that the decoding benchmarks measure, from their common arguments."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distillspec.corpus.sources.prompts import Prompt, load_prompts
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import fast_dtype
from distillspec.models.runners.compiled import make_runner
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.vocabulary.tokenizer_pair import check_pair
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.speculation.draft.proposal import DraftContext
from distillspec.speculation.draft.stop import StopRule
from distillspec.speculation.random_source import RandomSource
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

CONFIDENCE = 0.95  # of every interval


class BenchPair(NamedTuple):
    target: PreTrainedModel
    draft: PreTrainedModel
    vocab_size: int
    prompts: list[Tensor]
    dtype: torch.dtype

    def runners(
        self,
        kind: Literal["eager", "compiled"],
        block_sizes: tuple[int, ...],
        room: int,
        *,
        computes_entropy: bool = False,
    ) -> tuple[Runner, Runner]:
        """Target and draft, with room for that many tokens after any prompt."""
        capacity = max(len(prompt) for prompt in self.prompts) + room
        return (
            make_runner(self.target, kind, capacity, block_sizes, vocab_size=self.vocab_size),
            make_runner(
                self.draft,
                kind,
                capacity,
                (1, 2),
                computes_entropy=computes_entropy,
                vocab_size=self.vocab_size,
            ),
        )


class Models(NamedTuple):
    """Two models that decode together, and the tokens that both know."""

    target: PreTrainedModel
    draft: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int


def add_arguments(parser: argparse.ArgumentParser, *, prompts: int) -> None:
    parser.add_argument("--target", default="checkpoints/nano-python/target")
    parser.add_argument("--draft", default="checkpoints/nano-python/draft")
    parser.add_argument("--recipe", default="recipes/nano-plateau.yaml", help="names the prompts")
    parser.add_argument("--prompts-file", help="JSONL with `prompt`, in place of the recipe's")
    parser.add_argument("--prompts", type=int, default=prompts, help="number of prompts")
    parser.add_argument("--new-tokens", type=int, default=64, help="tokens decoded per prompt")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 1.0])
    parser.add_argument("--dtype", choices=["auto", "float32", "bfloat16"], default="auto")
    parser.add_argument("--threads", type=int, help="default: torch's")
    parser.add_argument("--seed", type=int, default=0)


def basis(
    draft: Runner, text: Tensor, policy: SamplingPolicy, random_source: RandomSource, stop: StopRule
) -> DraftContext:
    """To draft after text, long [T], with that runner."""
    return DraftContext(
        text.tolist(), text[-1:], draft, draft.vocab_size, policy, random_source, stop
    )


def load(arguments: argparse.Namespace) -> BenchPair:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    dtype = fast_dtype("cpu") if arguments.dtype == "auto" else getattr(torch, arguments.dtype)
    models = load_models(arguments.target, arguments.draft, dtype)
    prompts = _read_prompts(arguments, models.tokenizer)
    return BenchPair(models.target, models.draft, models.vocab_size, prompts, dtype)


def load_models(target_path: str, draft_path: str, dtype: torch.dtype) -> Models:
    tokenizer = load_tokenizer(target_path, what="target")
    target = load_model(target_path, dtype=dtype, what="target")
    draft = load_model(draft_path, dtype=dtype, what="draft")
    vocab_size = check_pair(
        tokenizer,
        load_tokenizer(draft_path, what="draft"),
        vocabulary_size(target),
        vocabulary_size(draft),
        where=f"{target_path}, {draft_path}",
    )
    return Models(target, draft, tokenizer, vocab_size)


def held_out_prompts(path: str, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
    """Those of the recipe at `path`, one of each document: intervals take them as independent."""
    recipe = _recipe(path)
    return one_of_each(load_prompts(recipe.data, tokenizer, seed=recipe.seed).held_out)


def one_of_each(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The first prompt of each document."""
    first: dict[str, Prompt] = {}
    for prompt in prompts:
        first.setdefault(prompt.document, prompt)
    return list(first.values())


def _recipe(path: str) -> Recipe:
    recipe = load_recipe(path)
    if not isinstance(recipe, Recipe):
        raise DistillSpecError(
            "this recipe makes a model; it names no prompts",
            where=path,
            fix="give the recipe of a distillation",
        )
    return recipe


def _read_prompts(
    arguments: argparse.Namespace, tokenizer: PreTrainedTokenizerBase
) -> list[Tensor]:
    """Held-out prompts of the recipe, or of a JSONL file with the field `prompt`."""
    if arguments.prompts_file is not None:
        lines = Path(arguments.prompts_file).read_text(encoding="utf-8").splitlines()
        texts = [json.loads(line)["prompt"] for line in lines if line.strip()]
        max_tokens = _recipe(arguments.recipe).data.max_prompt_tokens
        rows = [tokenizer.encode(text)[-max_tokens:] for text in texts]
    else:
        rows = [list(prompt.tokens) for prompt in held_out_prompts(arguments.recipe, tokenizer)]
    return [torch.tensor(row) for row in rows[: arguments.prompts]]
