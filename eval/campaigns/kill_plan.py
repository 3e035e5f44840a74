"""What `kill.py` runs: a tiny pair, recipes bounded by steps, and a command for each verb."""

from __future__ import annotations

import gc
import importlib
import json
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

_SUITE = """\
name: {name}
prompts: {{count: 3, texts: 4}}
drafts: [undistilled, distilled]
gammas: [2]
temperatures: [0.0, 1.0]
max_new_tokens: 8
runner: {{kind: eager, dtype: float32}}
"""
_RECIPE = """\
pair: {{target: target, draft: draft}}
data:
  source: {{kind: jsonl, path: rows.jsonl}}
  held_out_percent: 25.0
  max_prompt_tokens: 64
  max_response_tokens: 6
distill:
  divergence: jsd
  source: {source}
  batch_size: 4
  max_steps: 8
  checkpoint_every_steps: 2
  probe: {{every_steps: 3, prompts: 3, gamma: 2, max_new_tokens: 6}}
{more}
optimizer: {{learning_rate: 1.0e-2, warmup_steps: 2}}
hardware: {{device: cpu, precision: float32, threads: 1}}
evaluate: {{suite: suite.yaml, control: false}}
"""
_PRETRAIN = """\
kind: pretrain
output: made
corpus: {kind: jsonl, path: rows.jsonl}
held_out_percent: 25.0
tokenizer: {take_from: target}
model: {hidden_size: 16, intermediate_size: 32, layers: 1, heads: 2}
train: {context: 16, batch_size: 4, max_steps: 20, validate_every_steps: 3, validation_rows: 4,
  warmup_steps: 2}
hardware: {device: cpu, precision: float32, threads: 1}
"""
_COMPARISON = """\
kind: comparison
recipe: tiny.yaml
minutes: 0.01
seeds: [0]
texts: 4
gamma: 2
max_new_tokens: 6
baseline: jsd
variants:
  jsd: {}
  tvd: {distill.divergence: tvd}
"""
_CARD = """\
name: parallel
methods: [{name: card, parallel: {kind: card}}]
"""
# What the package imports late:
_LATE = (
    "datasets",
    "deepspeed",
    "lightning.pytorch.loggers",
    "matplotlib.figure",
    "peft",
    "torch.utils.tensorboard",
)


class Plan(NamedTuple):
    """How a verb is called.

    first, again: the command line, before and after a kill; RUN stands for the run folder. run: the
    recipe's name, where there is one. begins_in: the folder of the template that it needs.
    is_timed: bounded by a clock, so that names alone can be compared. repeats: a file that each
    life adds its lines to.
    """

    name: str
    first: str
    again: str | None = None
    run: str | None = None
    begins_in: str = "plain"
    is_timed: bool = False
    repeats: str | None = None

    def folder(self, box: Path) -> Path | None:
        """The run folder, once there is one with a recipe in it."""
        if self.run is None:
            return None
        # No name with a dot first: a start that was killed has left no run yet, but such a folder.
        recipes = sorted(box.glob(f"checkpoints/runs/{self.run}/[!.]*/recipe.yaml"))
        return recipes[-1].parent if recipes else None

    def command(self, box: Path, is_again: bool) -> list[str]:
        folder = self.folder(box)
        text = self.again if is_again and self.again and folder is not None else self.first
        run_path = "" if folder is None else folder.relative_to(box).as_posix()
        return [run_path if word == "RUN" else word for word in text.split()]


_DECODE = "decode target draft f1(x): --max-new-tokens 24"

PLANS = (
    Plan("train", "train tiny.yaml", "train RUN", "tiny"),
    Plan("rollout", "train rollout.yaml", "train RUN", "rollout"),
    Plan("cached", "train cached.yaml", "train RUN", "cached"),
    Plan("run", "run tiny.yaml", "run RUN", "tiny"),
    Plan("generate", "generate tiny.yaml"),
    Plan("pretrain", "pretrain pre.yaml --resume"),
    Plan("evaluate", "evaluate RUN --suite other.yaml", None, "tiny", "trained"),
    Plan("export", "export RUN", None, "tiny", "trained"),
    Plan("report", "report RUN", None, "tiny", "measured"),
    Plan("decode", f"{_DECODE} --audit audit.jsonl", repeats="audit.jsonl"),
    Plan("compare", "compare cmp.yaml", is_timed=True),
    Plan(
        "tune",
        "tune target draft --prompts rows.jsonl --minutes 0.01 --max-new-tokens 4",
        is_timed=True,
    ),
    Plan("card", f"{_DECODE} --method card --suite card.yaml"),
)
RARE = ("compare", "tune", "card")  # which take long


def warm() -> None:
    """Import and measure all that command lines need, so that forks begin at once."""
    importlib.import_module("transformers").utils.logging.disable_progress_bar()
    package = importlib.import_module("distillspec")
    own = (one.name for one in pkgutil.walk_packages(package.__path__, "distillspec."))
    for name in (*own, *_LATE):
        importlib.import_module(name)
    from distillspec.models.loading.precision import fast_dtype

    fast_dtype("cpu")  # it is measured once a process, and so once for all forks
    gc.collect()
    gc.freeze()  # else each fork's first collection copies all that was imported


def make_template(folder: Path, run: Callable[[Sequence[str], Path], None]) -> Path:
    """The folders that trials begin in: plain, trained (a finished `train`), measured (a `run`).

    run: a command in a folder, to its end.
    """
    warm()
    shutil.rmtree(folder, ignore_errors=True)
    plain = folder / "plain"
    plain.mkdir(parents=True)
    _write_pair(plain)
    rows = ({"prompt": f"def f{i}(x):", "response": f"\n    return x + {i}"} for i in range(60))
    (plain / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    cached = "  target_logits: {kind: cached, k: 16}"
    texts = {
        "suite.yaml": _SUITE.format(name="tiny"),
        "other.yaml": _SUITE.format(name="other"),
        "tiny.yaml": _RECIPE.format(source="{draft: 0.5, target: 0.25, fixed: 0.25}", more=""),
        "rollout.yaml": _RECIPE.format(
            source="{speculative: 0.5, replay: 0.25, target: 0.25}", more=""
        ),
        "cached.yaml": _RECIPE.format(source="{target: 1.0}", more=cached),
        "pre.yaml": _PRETRAIN,
        "cmp.yaml": _COMPARISON,
        "card.yaml": _CARD,
    }
    for name, text in texts.items():
        (plain / name).write_text(text)
    for name, verb in (("trained", "train"), ("measured", "run")):
        shutil.copytree(plain, folder / name)
        run([verb, "tiny.yaml"], folder / name)
    return folder


def _write_pair(folder: Path) -> None:
    """A target and a draft of some kilobytes, with a byte-level tokenizer."""
    import torch

    from distillspec.models.surgery.random_llama import random_llama
    from distillspec.models.vocabulary.train_tokenizer import train_tokenizer
    from distillspec.recipe.start import LlamaShape

    tokenizer = train_tokenizer((f"def f{i}(x):\n    return x + {i}\n" for i in range(99)), 300)
    for name, hidden, layers, seed in (("target", 32, 2, 1), ("draft", 16, 1, 2)):
        shape = LlamaShape(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            layers=layers,
            heads=2,
            max_positions=512,
        )
        model = random_llama(
            shape, vocab_size=300, end_token=int(tokenizer.eos_token_id), seed=seed
        )
        with torch.no_grad():  # so that the models differ
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.mul_(15.0)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
