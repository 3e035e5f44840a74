"""Training at equal wall-clock: our trainer and TRL's, on the same pair, prompts and machine.

    python eval/bench/training.py                        # 2 minutes each, 2 seeds, 192 texts
    python eval/bench/training.py --minutes 5 --seeds 3

Contenders: `trl` is DistillationTrainer of trl 1.16.0 (extra `bench`), on-policy with forward KL;
`ours` the same by us: the same prompts as the same tokens, batch, lengths, AdamW, rate, bfloat16
autocast of float32 weights. `recipe` is the shipped recipe, half of whose text the target has
written beforehand: the sampling of it is part of its time. No probes, the last weights count. The
clock begins with the first step and is looked at after each.

Each run has a process of its own, and contenders take turns. All drafts are then read on the same
texts of the target: expected tau and alpha, with intervals over texts and runs. Peak memory is
that of training, above what the process held before it (`peak.py`). Our trainer counts the seconds
of rollout, target and update, which is what it stops by; its tokens per second are by the wall, the
last checkpoint included.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peak import PeakMemory

from distillspec.assembly.pair import ModelPair, load_pair
from distillspec.assembly.target_data import target_responses
from distillspec.assembly.text import pair_prompts
from distillspec.assembly.training import training_rows
from distillspec.corpus.batches.data_module import PromptRows, TrainingRow
from distillspec.measure.exact.target_texts import drawn_texts, text_facts
from distillspec.measure.stats.intervals import Sums, ratio_of_runs, relative_of_runs
from distillspec.models.bare import bare_model
from distillspec.models.loading.load import load_model
from distillspec.recipe.loading import load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime.processes import join
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.fit import FitInputs, fit

CONTENDERS = ("trl", "ours", "recipe")
BATCH, PROMPT, RESPONSE, RATE, WARMUP = 32, 96, 128, 3e-4, 20
UNDISTILLED = "undistilled"
_CONFIDENCE = 0.95  # of every interval, over documents and runs


class Trained(NamedTuple):
    """tokens: of responses in the loss. seconds: from the first step to the end."""

    tokens: int
    steps: int
    seconds: float
    peak_mib: float


def recipe_of(contender: str, minutes: float, seed: int) -> Recipe:
    changes = [f"seed={seed}", f"distill.max_minutes={minutes}", "distill.max_steps=1000000"]
    if contender != "recipe":
        changes += [
            f"data.max_prompt_tokens={PROMPT}",
            f"data.max_response_tokens={RESPONSE}",
            "distill.divergence=forward_kl",
            "distill.source={draft: 1.0}",
            "distill.on_prompts=false",
            f"distill.batch_size={BATCH}",
            f"optimizer={{learning_rate: {RATE}, warmup_steps: {WARMUP}, final_rate_share: 1.0}}",
        ]
    recipe = load_recipe("recipes/nano-plateau.yaml", changes)
    assert isinstance(recipe, Recipe)
    return recipe


class Timed(PromptRows):
    """Rows like any others, and when the first of them were asked for."""

    began: float | None = None

    def rows(self, step: int, rank: int = 0, world: int = 1) -> list[TrainingRow]:
        self.began = self.began or time.monotonic()
        return super().rows(step, rank, world)


# --- contenders ----------------------------------------------------------------------------------


def train_ours(contender: str, minutes: float, seed: int, folder: Path) -> Trained:
    data_seed = recipe_of(contender, minutes, 0)
    pair = load_pair(data_seed)
    training = pair_prompts(pair).training
    responses, left = None, minutes
    if "target" in data_seed.distill.source.stored:
        data = data_seed.data.model_copy(update={"store": str(folder / "responses")})
        began = time.monotonic()
        kept = ModelPair(
            data_seed.model_copy(update={"data": data}),
            pair.device,
            pair.frozen,
            pair.tokenizer,
            pair.vocab_size,
            pair.stops,
        )
        responses = target_responses(kept, training, join()).by_key
        left -= (time.monotonic() - began) / 60.0
        assert left > 0.0, "sampling the target's text took longer than all of the time: --minutes"
    recipe = recipe_of(contender, left, seed)
    draft = pair.trainable_draft()
    data_module = training_rows(recipe, training, responses)
    data_module.__class__ = Timed
    assert isinstance(data_module, Timed)
    with PeakMemory(pair.device.type) as memory:
        inputs = FitInputs(
            recipe,
            draft=draft,
            target=pair.target,
            tokenizer=pair.tokenizer,
            data_module=data_module,
            probe=None,
            eos_token_ids=pair.eos_token_ids,
            vocab_size=pair.vocab_size,
        )
        outcome = fit(inputs, folder=folder / "run", label=contender, resume=False)
    assert data_module.began is not None
    seconds = time.monotonic() - data_module.began + 60.0 * (minutes - left)
    bare_model(draft).save_pretrained(folder / "draft")
    return Trained(outcome.response_tokens, outcome.steps, seconds, memory.mib)


def train_trl(minutes: float, seed: int, folder: Path) -> Trained:
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DistillationConfig, DistillationTrainer

    pair = load_pair(recipe_of("trl", minutes, 0))
    dtype = pair.target.model.dtype
    prompts = {prompt.key: list(prompt.tokens) for prompt in pair_prompts(pair).training}

    class Counting(DistillationTrainer):  # type: ignore[misc]
        """TRL's own trainer, given our tokens; it counts those in its loss."""

        tokens = 0

        def _tokenize_prompts(
            self, keys: list[str]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [prompts[key] for key in keys], None, {}

        def _compute_loss(self, student: Any, inputs: Any, count: Any) -> Any:
            self.tokens += int(inputs["completion_mask"].sum())
            return super()._compute_loss(student, inputs, count)

    class Ends(TrainerCallback):
        began = seconds = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.began = self.began or time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.seconds = time.monotonic() - self.began
            control.should_training_stop = self.seconds >= 60.0 * minutes

    ends = Ends()
    draft = load_model("checkpoints/nano-python/draft", dtype=torch.float32)
    target = load_model("checkpoints/nano-python/target", dtype=dtype)
    pair.target.release()
    trainer = Counting(
        model=draft,
        teacher_model=target,
        args=DistillationConfig(
            output_dir=str(folder / "trl"),
            use_cpu=not torch.cuda.is_available(),
            bf16=dtype == torch.bfloat16,
            seed=seed,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            max_completion_length=RESPONSE,
            temperature=1.0,
            beta=0.0,
            learning_rate=RATE,
            lr_scheduler_type="constant_with_warmup",
            warmup_steps=WARMUP,
            max_steps=1_000_000,
            weight_decay=0.0,
            adam_beta2=0.95,
            max_grad_norm=1.0,
            optim="adamw_torch_fused",
            save_strategy="no",
            report_to="none",
            logging_steps=1000,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=pair.tokenizer,
        callbacks=[ends],
    )
    with PeakMemory(pair.device.type) as memory:
        trainer.train()
    draft.save_pretrained(folder / "draft")
    return Trained(trainer.tokens, trainer.state.global_step, ends.seconds, memory.mib)


# --- the comparison ------------------------------------------------------------------------------


def trained_apart(contender: str, minutes: float, seed: int, folder: Path) -> Trained:
    """In a process of its own."""
    command = [sys.executable, __file__, "--child", contender, str(minutes), str(seed), str(folder)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return Trained(**json.loads((folder / "trained.json").read_text()))


def child(contender: str, minutes: str, seed: str, folder_name: str) -> None:
    folder = Path(folder_name)
    if contender == "trl":
        outcome = train_trl(float(minutes), int(seed), folder)
    else:
        outcome = train_ours(contender, float(minutes), int(seed), folder)
    (folder / "trained.json").write_text(json.dumps(outcome._asdict()))


def main(arguments: argparse.Namespace) -> None:
    contenders = [c for c in CONTENDERS if c != "trl" or importlib.util.find_spec("trl")]
    if "trl" not in contenders:
        print("trl is not installed (pip install -e '.[bench]'): it is left out")
    recipe = recipe_of("ours", arguments.minutes, 0)
    pair = load_pair(recipe)
    policy = SamplingPolicy(temperature=1.0)
    held_out = pair_prompts(pair).held_out[: arguments.texts]
    texts = drawn_texts(
        pair.target.model, held_out, policy, tokens=64, seed=0, vocab_size=pair.vocab_size
    )

    def read(folder: str | Path) -> tuple[Sums, Sums]:
        draft = load_model(str(folder), dtype=pair.target.model.dtype)
        facts = text_facts(
            pair.target.model,
            {"draft": draft},
            texts,
            policy,
            documents=[prompt.document for prompt in held_out],
            ends=pair.eos_token_ids,
            vocab_size=pair.vocab_size,
        )
        return facts.expected_tau("draft", 4), facts.alpha("draft")

    trained: dict[str, list[Trained]] = {name: [] for name in contenders}
    sums: dict[str, list[tuple[Sums, Sums]]] = {name: [] for name in contenders}
    with tempfile.TemporaryDirectory() as folder_name:
        for seed in range(arguments.seeds):
            for name in contenders:
                folder = Path(folder_name) / f"{name}-{seed}"
                folder.mkdir()
                trained[name].append(trained_apart(name, arguments.minutes, seed, folder))
                sums[name].append(read(folder / "draft"))
    assert isinstance(recipe.pair.draft, str)
    sums[UNDISTILLED] = [read(recipe.pair.draft)]
    print(
        f"{arguments.minutes:g} minutes each, {arguments.seeds} seeds, {len(texts)} texts, gamma 4"
    )
    print("| | tau [95 %] | to trl | to undistilled | alpha | tokens/s | steps | peak MiB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, readings in sums.items():
        taus = [tau for tau, _ in readings]
        tau = ratio_of_runs(taus, _CONFIDENCE)
        alpha = ratio_of_runs([a for _, a in readings], _CONFIDENCE).value
        relative = [
            relative_of_runs(taus, [t for t, _ in sums[baseline]], _CONFIDENCE)
            if baseline in sums
            else None
            for baseline in ("trl", UNDISTILLED)
        ]
        compared = [
            ""
            if interval is None
            else f"{interval.value:+.1%} [{interval.low:+.1%}, {interval.high:+.1%}]"
            for interval in relative
        ]
        runs = trained.get(name, [])
        speed = sum(r.tokens for r in runs) / max(1e-9, sum(r.seconds for r in runs))
        cost = (
            f"{speed:,.0f} | {sum(r.steps for r in runs) / len(runs):.0f} | "
            f"{max(r.peak_mib for r in runs):.0f}"
            if runs
            else " | | "
        )
        print(
            f"| {name} | {tau.value:.3f} [{tau.low:.3f}, {tau.high:.3f}] | {compared[0]} | "
            f"{compared[1]} | {alpha:.4f} | {cost} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(*sys.argv[2:])
        sys.exit()
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--texts", type=int, default=192)
    main(parser.parse_args())
