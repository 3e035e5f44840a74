"""A small real run: the tiny pair, prompts of random tokens, the shipped `fit`. Also a program.

As a program it takes the folder of the pair and a JSON list of jobs, so that tests can kill it or
start it under torchrun.
"""

from __future__ import annotations

import copy
import csv
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import top_k_scorer, top_k_store
from distillspec.corpus.batches.data_module import PromptRows, TrainingRow
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.stores.top_k import fill_top_k
from distillspec.models.loading.load import empty_model, load_model, load_tokenizer
from distillspec.models.runners.encoder_decoder import is_encoder_decoder, start_token
from distillspec.models.surgery.adapters import add_lora
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.hidden_states import is_sharded
from distillspec.models.surgery.sharded import split_over_processes
from distillspec.models.surgery.trainable import without_dropout
from distillspec.models.vocabulary.eos_tokens import EosTokens
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import join
from distillspec.runtime.world import World
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.fit import FitInputs, FitOutcome, fit
from distillspec.training.probe import AcceptanceProbe
from distillspec.training.resume import LAST

VOCABULARY = 300
PROMPTS = 24


def prompts(count: int = PROMPTS, *, seed: int = 3, start: int | None = None) -> list[Prompt]:
    """Random prompts of 3 to 8 tokens with random responses of 1 to 9.

    start: what prompts end with for an encoder-decoder pair.
    """
    generator = torch.Generator().manual_seed(seed)

    def tokens(low: int, high: int) -> tuple[int, ...]:
        length = int(torch.randint(low, high + 1, (), generator=generator))
        return tuple(torch.randint(1, VOCABULARY, (length,), generator=generator).tolist())

    made = [Prompt(f"p{i}", tokens(3, 8), tokens(1, 9), "", "plain") for i in range(count)]
    if start is None:
        return made
    return [
        one._replace(tokens=(*(token for token in one.tokens if token != start), start))
        for one in made
    ]


def recipe(**changes: Any) -> Recipe:
    """A recipe of a few quick steps; changes: {"distill": {...}, "optimizer": {...}, ...}."""
    sections: dict[str, Any] = {
        "name": "tiny",
        "pair": {"target": "target", "draft": "draft"},
        "data": {
            "source": {"kind": "jsonl", "path": "unused.jsonl"},
            "max_prompt_tokens": 10,
            "max_response_tokens": 6,
        },
        "distill": {
            "divergence": "forward_kl",
            "source": {"draft": 1.0},
            "batch_size": 4,
            "max_steps": 4,
            "checkpoint_every_steps": 2,
            "chunk_tokens": 16,
            "probe": {"every_steps": 2, "prompts": 3, "gamma": 2, "max_new_tokens": 6},
        },
        "optimizer": {"learning_rate": 1e-2, "warmup_steps": 2},
        "hardware": {"device": "cpu", "precision": "float32"},
    }
    if changes.get("distill", {}).get("schedule"):
        del sections["distill"]["divergence"]  # that of the last phase
    for section, values in changes.items():
        if isinstance(values, dict):
            sections[section] = {**sections.get(section, {}), **values}
        else:
            sections[section] = values
    return Recipe.model_validate(sections)


class Parts(NamedTuple):
    """What `fit` is called with."""

    recipe: Recipe
    draft: nn.Module
    target: FrozenTarget
    tokenizer: PreTrainedTokenizerBase
    data: PromptRows
    probe: AcceptanceProbe
    reference: FrozenTarget | None
    cached: CachedTopKTarget | None


def parts(pair: Path, plan: Recipe) -> Parts:
    tokenizer = load_tokenizer(str(pair / "target"))
    target = FrozenTarget(_target(pair, plan))
    draft: nn.Module = load_model(str(pair / "draft"), dtype=torch.float32)
    assert isinstance(draft, PreTrainedModel)
    without_dropout(draft)
    if plan.lora is not None:
        torch.manual_seed(plan.seed)
        draft = add_lora(draft, plan.lora)
    start = start_token(target.model) if is_encoder_decoder(target.model) else None
    rows = prompts(start=start)
    responses = {row.key: (5, 6, 7) for row in rows}
    data = PromptRows(
        rows,
        [phase.source for phase in plan.distill.phases],
        batch_size=plan.distill.batch_size,
        seed=plan.seed,
        target_responses=responses,
    )
    probe = AcceptanceProbe(
        target,
        prompts(4, seed=9, start=start),
        plan.distill.probe,
        temperature=plan.distill.temperature,
        eos_token_ids=frozenset({0}),
        pad_token=0,
        seed=plan.seed,
        joint=is_sharded(target.model),
    )
    reference = None
    if plan.distill.select is not None:  # the target's own shape serves: any model will do
        reference = FrozenTarget(load_model(str(pair / "target"), dtype=torch.float32))
    cached, signal = None, plan.distill.cached_logits
    if signal is not None:
        cpu = torch.device("cpu")
        whole = ModelPair(
            plan, cpu, target, tokenizer, VOCABULARY, EosTokens(frozenset({0}), None, ())
        )
        store = top_k_store(whole, signal, rows, responses)
        fill_top_k(store, top_k_scorer(whole, signal))
        cached = CachedTopKTarget(store)
    return Parts(plan, draft, target, tokenizer, data, probe, reference, cached)


def _target(pair: Path, plan: Recipe) -> PreTrainedModel:
    folder, kind = str(pair / "target"), torch.float32
    if not plan.hardware.shard_target or World.from_environment().size == 1:
        return load_model(folder, dtype=kind)
    join()
    return split_over_processes(
        lambda: load_model(folder, dtype=kind),
        lambda: empty_model(folder, dtype=kind),
        torch.device("cpu"),
    )


def run(made: Parts, folder: Path, *, resume: bool = False, probed: bool = True) -> FitOutcome:
    inputs = FitInputs(
        made.recipe,
        draft=made.draft,
        target=made.target if made.recipe.distill.needs_target else None,
        tokenizer=made.tokenizer,
        data_module=made.data,
        probe=made.probe if probed else None,
        reference=made.reference,
        cached=made.cached,
    )
    return fit(inputs, folder=folder, label="tiny", resume=resume)


def rows_of(folder: Path) -> list[dict[str, str]]:
    """metrics.csv, a dict a row."""
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


class Interrupted(PromptRows):
    """Rows like any other, but before those of step `at` are handed out something happens.

    Lightning asks for rows one step ahead: it happens when `at` - 1 steps are done.
    """

    at: int
    happens: Callable[[], None]

    def rows(self, step: int, rank: int = 0, world: int = 1) -> list[TrainingRow]:
        if step == self.at:
            self.happens()
        return super().rows(step, rank, world)


def interrupted(made: Parts, at: int, happens: Callable[[], None]) -> Parts:
    data = copy.copy(made.data)
    data.__class__ = Interrupted
    assert isinstance(data, Interrupted)
    data.at, data.happens = at, happens
    return made._replace(data=data)


def by_tvd_plus(plan: Recipe) -> Recipe:
    """TVD++ on whatever text the plan has: recipes refuse it, while its sums ask not who wrote."""
    distill = plan.distill.model_copy(update={"divergence": "tvd_plus"})
    return plan.model_copy(update={"distill": distill})


def damage(checkpoint: Path) -> None:
    """Flip a bit of it, or of the largest file of a folder."""
    files = [checkpoint]
    if checkpoint.is_dir():
        files = [file for file in checkpoint.rglob("*") if file.is_file()]
    file = max(files, key=lambda one: one.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def main(pair: str, jobs: str) -> None:
    """jobs: a JSON list of {"folder", "recipe", "tvd_plus", "resume", "probed", "sleeps_at",
    "damaged": the newest checkpoint is, before the run resumes}.
    """
    torch.set_num_threads(1)
    for job in json.loads(jobs):
        plan = recipe(**job.get("recipe", {}))
        made = parts(Path(pair), by_tvd_plus(plan) if job.get("tvd_plus") else plan)
        if job.get("damaged") and not World.from_environment().rank:
            damage(Path(job["folder"]) / LAST)
        if "sleeps_at" in job:
            made = interrupted(made, job["sleeps_at"], lambda: time.sleep(600))
        run(
            made,
            Path(job["folder"]),
            resume=job.get("resume", False),
            probed=job.get("probed", True),
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
