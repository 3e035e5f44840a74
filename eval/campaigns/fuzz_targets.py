"""What `fuzz.py` feeds: the readers of recipes, data, model folders, and files of runs.

Long, because all targets are made of the one run that `Targets` holds.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import yaml

from distillspec.commands.dispatch import _dispatch
from distillspec.corpus.served.answers import ReceivedAnswers
from distillspec.corpus.served.request import ApiRequest
from distillspec.corpus.sources.prompts import load_prompts
from distillspec.corpus.sources.tokenizing import Encoder
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.export.card import CardFacts, draft_card, recommended_gamma
from distillspec.export.engines import engine_verdicts
from distillspec.measure.summary.file import read_summary
from distillspec.measure.timed import audit
from distillspec.measure.timed.bench import Bench
from distillspec.measure.timed.plan import read_plan
from distillspec.measure.timed.rows import RowLog
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.model_facts import folder_facts
from distillspec.recipe.data import DataConfig
from distillspec.recipe.loading import dump_yaml, load_recipe, load_suite
from distillspec.recipe.pretraining import PretrainConfig
from distillspec.report.figures.training import read_curves
from distillspec.report.page import write_report
from distillspec.report.terminal import summary_table
from distillspec.runtime import provenance
from distillspec.runtime.terminal import Terminal
from distillspec.training import resume
from distillspec.training.metrics_csv import MetricsCsv
from distillspec.training.pretrain import _keep_rows, _restore
from distillspec.training.pretrain_optimizer import optimizers
from distillspec.training.state_file import write_state
from eval.campaigns.mutation import KEYS, ODD_JSON, ODD_YAML, SCALARS, part_of, places

ROOT = Path(__file__).parents[2]
_CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
_OVERRIDES = (
    b"distill.temperature=0.8\ndistill.batch_size=4",
    b"pair.draft={kind: pruned, layers: 3}",
    b"data.source.packages=[transformers]\nlora.rank=4",
    b"distill.source={draft: 1.0}\ndistill.divergence=tvd_plus",
    b"pair.endpoint.url=http://h/v1\npair.endpoint.model=m\npair.target=null",
)


class Target(NamedTuple):
    """form: yaml, json, jsonl, bytes; or tree, where `run` mutates by the seed that it gets."""

    name: str
    seeds: Sequence[bytes]
    run: Callable[[bytes], None]
    form: str
    weight: float
    odd: Sequence[bytes] = ()

    def trees(self) -> list[Any]:
        """The seeds parsed; none for bytes."""
        parsers: dict[str, Callable[[bytes], Any]] = {"yaml": yaml.safe_load, "json": json.loads}
        read = parsers.get(self.form)
        if self.form == "jsonl":
            return [[json.loads(line) for line in seed.splitlines()] for seed in self.seeds]
        return [read(seed) for seed in self.seeds] if read else []

    def keys(self) -> list[str]:
        named = (key for tree in self.trees() for path in places(tree) for key in path)
        return sorted({*KEYS, *(key for key in named if isinstance(key, str))})


class Targets:
    """All of them, in a scratch folder with the measured run of `kill_plan.make_template`."""

    def __init__(self, scratch: Path, work: Path) -> None:
        self.scratch, self.work = scratch, work
        self.run_folder = next(work.glob("checkpoints/runs/tiny/*"))
        self.evaluation = self.run_folder / "evaluation/tiny"
        self.tokenizer = load_tokenizer(str(work / "target"))
        self.tokenizer.chat_template = _CHAT
        self.draft = load_model(str(work / "draft"), dtype=torch.float32)
        self.whole = load_model(str(work / "draft"), dtype=torch.float32)
        rows = (self.evaluation / "rows.jsonl").read_bytes().splitlines(keepends=True)
        self.rows, self.rows_per_block = b"".join(rows[:12]), 1

    def all(self) -> list[Target]:
        suites = [path.read_bytes() for path in sorted((ROOT / "eval/suites").glob("*.yaml"))]
        comparisons = [suite for suite in suites if b"kind: comparison" in suite]
        recipes = [path.read_bytes() for path in sorted((ROOT / "recipes").glob("*.yaml"))]
        plain = [suite for suite in suites if suite not in comparisons]
        return [
            Target("recipe", recipes, self._recipe, "yaml", 30, ODD_YAML),
            Target("suite", plain, self._suite, "yaml", 20, ODD_YAML),
            Target("comparison", comparisons, self._comparison, "yaml", 6, ODD_YAML),
            Target("override", _OVERRIDES, self._override, "bytes", 10, [b"a=*a", b"=", b"a.=1"]),
            Target("data rows", self._data_seeds(), self._data_rows, "jsonl", 12, ODD_JSON),
            *self._models(),
            *self._stored(),
            *self._checkpoints(),
        ]

    # --- recipes, suites, overrides, data ---

    def _file(self, name: str, data: bytes) -> Path:
        path = self.scratch / name
        path.write_bytes(data)
        return path

    def _recipe(self, data: bytes) -> None:
        path = self._file("r.yaml", data)
        verb = "pretrain" if b"pretrain" in data else "run"
        recipe = load_recipe(path)
        again = load_recipe(self._file("again.yaml", dump_yaml(recipe).encode()))
        assert again.model_copy(update={"name": recipe.name}) == recipe, "it is not read back"
        for argv in ([verb], ["evaluate"]) if verb == "run" else ([verb],):
            _dispatch([*argv, str(path), "--dry-run"])

    def _suite(self, data: bytes) -> None:
        path = self._file("s.yaml", data)
        suite = load_suite(path)
        again = load_suite(self._file("again.yaml", dump_yaml(suite).encode()))
        assert again.model_copy(update={"name": suite.name}) == suite, "it is not read back"
        recipe = str(ROOT / "recipes/nano-python.yaml")
        _dispatch(["evaluate", recipe, "--suite", str(path), "--dry-run"])

    def _comparison(self, data: bytes) -> None:
        _dispatch(["compare", str(self._file("c.yaml", data)), "--dry-run"])

    def _override(self, data: bytes) -> None:
        words = data.decode("utf-8", "surrogateescape").replace("\0", "").split("\n")
        given = [word for word in words if word and not word.startswith("-")]
        _dispatch(["run", str(ROOT / "recipes/nano-python.yaml"), "--dry-run", *given])

    def _data_seeds(self) -> list[bytes]:
        plain = (self.work / "rows.jsonl").read_bytes()[:900].rsplit(b"\n", 1)[0] + b"\n"
        chat = {"c": "x", "turns": ["a b c d", "e"], "a": {"b": "inner"}}
        answer = {"role": "assistant", "content": "yo"}
        rows = (
            {"messages": [{"role": "user", "content": f"hi {i}"}, answer], **chat} for i in range(8)
        )
        return [plain, b"".join(json.dumps(row).encode() + b"\n" for row in rows)]

    def _data_rows(self, data: bytes) -> None:
        rng = random.Random(len(data))
        odd: list[dict[str, Any]] = [
            {},
            {"turns": "turns"},
            {"category": "c"},
            {"after_words": 2},
            {"prompt": "a.b"},
        ]
        source = {"kind": "jsonl", "path": str(self._file("d.jsonl", data)), **rng.choice(odd)}
        limits = {"held_out_percent": 40.0, "max_prompt_tokens": 40, "max_response_tokens": 8}
        sets = load_prompts(
            DataConfig.model_validate({"source": source, **limits}), self.tokenizer, seed=0
        )
        for prompt in [*sets.training, *sets.held_out]:
            prompt.text.encode()

    # --- model folders ---

    def _models(self) -> list[Target]:
        folder = self.work / "draft"
        weights = {"config.json": 3.0, "tokenizer_config.json": 1.5, "tokenizer.json": 1.0}
        targets = [
            Target(
                f"model {name}",
                [(folder / name).read_bytes()],
                lambda data, name=name: self._model(name, data),  # type: ignore[misc]
                "json",
                weight,
                ODD_JSON,
            )
            for name, weight in {**weights, "generation_config.json": 0.5}.items()
        ]
        raw = (folder / "model.safetensors").read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        self._body = raw[8 + length :]
        index = {"weight_map": dict.fromkeys(json.loads(raw[8 : 8 + length]), "model.safetensors")}
        return [
            *targets,
            Target("safetensors header", [raw[8 : 8 + length]], self._header, "json", 4, ODD_JSON),
            Target("safetensors bytes", [raw], self._weights, "bytes", 1, [b"", b"\xff" * 100]),
            Target(
                "model index",
                [json.dumps(index).encode()],
                lambda data: self._model("model.safetensors.index.json", data),
                "json",
                1,
                ODD_JSON,
            ),
        ]

    def _model(self, name: str, data: bytes) -> None:
        folder = self.scratch / "model"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.work / "draft", folder)
        (folder / name).write_bytes(data)
        facts = folder_facts(str(folder))
        engine_verdicts(facts, facts)
        load_tokenizer(str(folder)).encode("def f(x): return 1")
        model = load_model(str(folder), dtype=torch.float32)
        with torch.no_grad():
            model(torch.tensor([[1, 2, 3]]))

    def _header(self, data: bytes) -> None:
        self._weights(struct.pack("<Q", len(data)) + data + self._body)

    def _weights(self, data: bytes) -> None:
        self._model("model.safetensors", data)

    # --- files of runs and stores ---

    def _stored(self) -> list[Target]:
        evaluation, run = self.evaluation, self.run_folder
        readers: dict[str, tuple[bytes, Callable[[Path], Any], str, float]] = {
            "run.json": ((run / "run.json").read_bytes(), self._run_json, "json", 6),
            "summary.json": ((evaluation / "summary.json").read_bytes(), self._summary, "json", 6),
            "rows.jsonl": (self.rows, self._rows, "jsonl", 6),
            "plan.json": ((evaluation / "plan.json").read_bytes(), self._plan, "json", 4),
            "chooser_state.json": (
                (evaluation / "chooser_state.json").read_bytes(),
                self._chooser_state,
                "json",
                2,
            ),
            "metrics.csv": ((run / "metrics.csv").read_bytes(), self._metrics, "bytes", 4),
            "audit.jsonl": (b'{"prompt": 1, "prompt_key": "k"}\n', audit.read, "jsonl", 1),
            "received.jsonl": (self._answers(), self._received, "jsonl", 4),
        }
        return [
            Target(
                name,
                [seed],
                lambda data, name=name, read=read: read(self._file(name, data)),  # type: ignore[misc]
                form,
                weight,
                ODD_JSON,
            )
            for name, (seed, read, form, weight) in readers.items()
        ]

    def _run_json(self, path: Path) -> None:
        provenance.RunLog(path, provenance.gather(["fuzz"])).record(tokens=1)

    def _summary(self, path: Path) -> None:
        summary = read_summary(path)
        Terminal(file=open(os.devnull, "w"), width=160).print(summary_table(summary))  # noqa: SIM115
        gamma = recommended_gamma(summary)
        facts = CardFacts("x", "y", None, "z", num_assistant_tokens=gamma or 2, training="t")
        draft_card(facts, summary)
        if random.Random(path.stat().st_size).random() < 0.1:  # figures take a second
            folder = self.scratch / "report"
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder / "summary.json")
            write_report(folder, {})

    def _rows(self, path: Path) -> None:
        for row in RowLog(path, rows_per_block=self.rows_per_block).rows:
            sum(row.tokens) + row.counts.verifications + len(row.fates)
            [decoded.context + decoded.drafted for decoded in row.rounds]

    def _plan(self, path: Path) -> None:
        read_plan(path, json.loads((self.evaluation / "plan.json").read_bytes())["plan"])

    def _chooser_state(self, path: Path) -> None:
        bench = Bench.__new__(Bench)
        bench._ways = {}
        bench.restore(path)

    def _metrics(self, path: Path) -> None:
        read_curves({"distilled": path})
        _keep_rows(path, 4)
        MetricsCsv(path).start_after(4)
        read_curves({"distilled": path})

    def _questions(self) -> list[ApiRequest]:
        return [ApiRequest(f"k{i}", "x") for i in range(8)]

    def _answers(self) -> bytes:
        lines = []
        for i, question in enumerate(self._questions()):
            answer = {"text": f"hi {i}", "ended": bool(i % 2), "tokens": 3, "maker": "m"}
            what = {"answer": answer} if i % 5 else {"unanswered": "no"}
            lines.append(json.dumps({"key": question.key, "asked": question.digest(), **what}))
        return "\n".join(lines).encode() + b"\n"

    def _received(self, path: Path) -> None:
        root = self.scratch / "received"
        shutil.rmtree(root, ignore_errors=True)
        store = ReceivedAnswers(StoreFolder(root, "t", "f"), {"a": 1})
        shutil.copy(path, store.folder / "received-00000.jsonl")
        store.received(self._questions(), Encoder(self.tokenizer), 8)

    # --- checkpoints ---

    def _checkpoints(self) -> list[Target]:
        files = {name: self.run_folder / name for name in ("best.ckpt", "last.ckpt")}
        state = self.scratch / "state.pt"
        self._write_pretraining(state)
        targets = []
        for name, file in {**files, "state.pt": state}.items():
            if file.exists():
                use = {"best.ckpt": self._best, "last.ckpt": self._last}.get(name, self._pretrained)
                tree = torch.load(file, map_location="cpu", weights_only=True)
                targets += [
                    Target(f"{name} bytes", [file.read_bytes()], self._of_bytes(use), "bytes", 2),
                    Target(f"{name} tree", [b"seed"], self._of_tree(use, tree), "tree", 3),
                ]
        return targets

    def _of_bytes(self, use: Callable[[Path], None]) -> Callable[[bytes], None]:
        return lambda data: use(self._file("x.ckpt", data))

    def _of_tree(self, use: Callable[[Path], None], tree: Any) -> Callable[[bytes], None]:
        def run(data: bytes) -> None:
            rng = random.Random(data)
            state = copy.deepcopy(tree)
            for _ in range(rng.choice([1, 1, 2])):
                leaf = rng.choice(
                    [candidate for candidate in places(state) if 0 < len(candidate) <= 3]
                )
                with contextlib.suppress(KeyError, IndexError, TypeError):
                    _change(part_of(state, leaf[:-1]), leaf[-1], rng)
            if rng.random() < 0.05:
                state = rng.choice([[], 1, None, "x", {}])
            path = self.scratch / "x.ckpt"
            path.unlink(missing_ok=True)
            write_state(state, path)
            use(path)

        return run

    def _best(self, path: Path) -> None:
        position = resume.Position(best_step=0, best_alpha=0.1)
        resume.note_best(path, position)
        resume.load_best(self.draft, path)

    def _last(self, path: Path) -> None:
        holder: Any = SimpleNamespace(load_state_dict=lambda *given: None)
        position = resume.load_position(path, holder, holder, 0)
        dict(position.seconds)
        assert position.step + 1 > 0 and position.training_seconds + 1.0 > 0.0

    def _pretrained(self, path: Path) -> None:
        model = copy.deepcopy(self.whole)
        _restore(path, model, optimizers(model, PretrainConfig()))

    def _write_pretraining(self, path: Path) -> None:
        model = copy.deepcopy(self.whole)
        steppers = [stepper.state_dict() for stepper in optimizers(model, PretrainConfig())]
        state = {"model": model.state_dict(), "optimizers": steppers, "step": 3, "seconds": 1.0}
        write_state({**state, "losses": torch.zeros(0)}, path)


def _change(parent: Any, key: Any, rng: random.Random) -> None:
    how = rng.randrange(4)
    if how == 0:
        del parent[key]
    elif how == 1:
        parent[key] = copy.deepcopy(rng.choice(SCALARS))
    elif how == 2:
        parent[rng.choice(["x", "step", "alpha", 0])] = parent.pop(key)
    else:
        parent[key] = torch.zeros(rng.choice([(0,), (1,), (3, 3)]))
