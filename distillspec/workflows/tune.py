"""The verb `auto`: a short calibration of decoding methods on the user's own prompts."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from rich.table import Table

from distillspec.corpus.sources.prompts import Prompt, load_all
from distillspec.errors import DistillSpecError
from distillspec.measure.stats.intervals import Interval
from distillspec.measure.timed.bench import Bench, BenchColumn
from distillspec.measure.timed.plan import check
from distillspec.measure.timed.race import (
    FEWEST,
    FIRST_LOOK,
    RaceOutcome,
    RaceStanding,
    Texts,
    race,
)
from distillspec.methods.build import most_slots
from distillspec.methods.candidates import candidates
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import describe, fast_dtype
from distillspec.models.runners.eager import context_of_model, vocabulary_size
from distillspec.models.runners.encoder_decoder import check_same_kind, is_seq2seq, start_token
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.vocabulary.tokenizer_pair import check_in_vocabulary, check_pair
from distillspec.recipe import yaml_text
from distillspec.recipe.data import DataConfig, JsonlSource, PythonSource
from distillspec.recipe.prompt_plan import PromptsConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic, provenance
from distillspec.runtime.plain_files import check_regular
from distillspec.runtime.terminal import Terminal
from distillspec.text.numbers import interval, known, number

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_WRITTEN_BY = "# Found by `distillspec auto`"
_NAME = "auto"
_MOST_PROMPTS = 256
_MOST_CODE = 256  # tokens of a prompt of Python code: their beginning is cut off, not they
_DRAFT = "distilled"  # what suites call the draft that is to be served

_TYPED = 60  # characters of a prompt that a command is suggested with
_PAGE = 160  # columns of a log or a pipe, which have no width of their own
console = Terminal(width=None if sys.stdout.isatty() else _PAGE, soft_wrap=True)


class _Pair(NamedTuple):
    target: PreTrainedModel
    draft: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    device: torch.device


def run(
    target: str,
    draft: str,
    source: JsonlSource | PythonSource,
    *,
    temperature: float,
    max_new_tokens: int,
    minutes: float,
    runner: Literal["eager", "compiled"],
    output: Path,
    seed: int,
) -> int:
    """Time all candidates, print how they stand, write the winner to `output`; 0."""
    _check_output(output)
    pair = _load(target, draft)
    suite = Suite.model_validate(
        {
            "name": _NAME,
            "seed": seed,
            "methods": candidates(temperature, takes_trees=_takes_trees(pair)),
            "temperatures": (temperature,),
            "max_new_tokens": max_new_tokens,
            "runner": {"kind": runner},
        }
    )
    prompts = _prompts(pair, source, suite)
    suite = suite.model_copy(update={"prompts": PromptsConfig(count=len(prompts))})
    columns = [BenchColumn(_DRAFT, method, g) for method in suite.methods for g in suite.of(method)]
    console.print(
        f"{len(columns)} candidates on up to {len(prompts)} prompts x {max_new_tokens} tokens, "
        f"T = {temperature:g}, {runner} runner"
    )
    drafts = {_DRAFT: pair.draft}
    check(suite, pair.target, drafts, prompts)
    with console.status("preparing the models") as status:
        bench = Bench(suite, pair.target, drafts, prompts, columns, pair.device, pair.vocab_size)
        found = bench.prepare_without_times()
        outcome = race(
            _Decoder(bench, columns, temperature),
            ways=len(columns),
            documents=[prompt.document for prompt in prompts],
            seconds=60.0 * minutes,
            confidence=suite.confidence,
            progress=lambda prompt, left: status.update(f"prompt {prompt + 1}, {left} candidates"),
        )
    if runner == "compiled" and set(found.runners.values()) != {"CompiledRunner"}:
        console.print("not every model could be compiled: these times are of eager ones")
    _print(outcome, columns)
    if outcome.documents < FIRST_LOOK:
        console.print(
            f"That was too short to tell them apart: nothing is dropped before {FIRST_LOOK} "
            f"documents. Give more {'prompts' if outcome.all_decoded else '--minutes'}."
        )
    best, winner = outcome.standings[0], columns[outcome.standings[0].way]
    evidence = _evidence(outcome, columns, suite, pair, _named(source))
    atomic.write_text(output, evidence + _entry(winner, suite))
    console.print(f"written: {output}")
    if not _gains(best):
        console.print(f"No gain over autoregressive decoding is shown: {_why_not(best)}.")
    command = ["./launch.sh", "decode", target, draft, _first_line(prompts[0].text)]
    command += ["--suite", str(output), "--method", winner.method.name]
    command += ["--gamma", str(winner.gamma), "--temperature", f"{temperature:g}"]
    console.print(f"next:  {shlex.join(command)}")
    return 0


def _first_line(text: str) -> str:
    """Of a prompt: enough to try a command with."""
    return next((line for line in text.splitlines() if line.strip()), text)[:_TYPED]


# --- what is calibrated --------------------------------------------------------------------------


def _load(target: str, draft: str) -> _Pair:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind = fast_dtype(device)
    tokenizer = load_tokenizer(target, what="target")
    draft_tokenizer = load_tokenizer(draft, what="draft")
    big = load_model(target, dtype=kind, device=device, what="target")
    small = load_model(draft, dtype=kind, device=device, what="draft")
    check_same_kind(big, small, "target and draft of auto")
    vocab_size = check_pair(
        tokenizer,
        draft_tokenizer,
        vocabulary_size(big),
        vocabulary_size(small),
        where="target and draft of auto",
    )
    return _Pair(big, small, tokenizer, vocab_size, device)


def _takes_trees(pair: _Pair) -> bool:
    try:
        for model in (pair.target, pair.draft):
            check_takes_a_tree(model)
    except DistillSpecError as error:
        console.print(f"only chains are tried: {error.what}")
        return False
    return True


def _prompts(pair: _Pair, source: JsonlSource | PythonSource, suite: Suite) -> list[Prompt]:
    """Those that leave room in both contexts for the answer and the largest drafts."""
    holds, reason = min(context_of_model(pair.target), context_of_model(pair.draft))
    room = holds - suite.max_new_tokens - most_slots(suite) - 1
    if room < 1:
        raise DistillSpecError(
            f"the models' contexts hold {holds} tokens, and none is left for a prompt"
            + (f" ({reason})" if reason else ""),
            where=f"auto: --max-new-tokens={suite.max_new_tokens}",
            fix="lower --max-new-tokens",
        )
    if isinstance(source, PythonSource):
        room = min(room, _MOST_CODE)
    data = DataConfig(source=source, max_prompt_tokens=room)
    found = load_all(
        source,
        data,
        pair.tokenizer,
        seed=suite.seed,
        most=_MOST_PROMPTS,
        start=start_token(pair.target) if is_seq2seq(pair.target) else None,
    )
    check_in_vocabulary(
        ((prompt.key, prompt.tokens) for prompt in found), pair.vocab_size, pair.tokenizer
    )
    if len(found) < FEWEST:
        raise DistillSpecError(
            f"{len(found)} prompt is too few to compare anything on",
            where=_named(source),
            fix="give at least 2 prompts that fit the models' contexts; some 50 tell more",
        )
    return found


class _Decoder(NamedTuple):
    """The bench's blocks, as a race wants them."""

    bench: Bench
    columns: Sequence[BenchColumn]
    temperature: float

    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        chosen = [self.columns[way] for way in among]
        timed = self.bench.block(prompt, prompt, self.temperature, chosen)
        rows = [text.row for text in timed]
        plain = [row.seconds for row in rows if row.method is None]
        seconds = {(row.method, row.gamma): row.seconds for row in rows}
        return Texts(
            tokens=len(rows[0].tokens),
            plain_seconds=sum(plain) / len(plain),
            seconds={
                way: seconds[self.columns[way].method.name, self.columns[way].gamma]
                for way in among
            },
        )


# --- what is told --------------------------------------------------------------------------------


def _print(outcome: RaceOutcome, columns: Sequence[BenchColumn]) -> None:
    table = Table(
        "method", title=f"autoregressive: {known(outcome.plain.value, '.0f', ' tokens/s')}"
    )
    for name in ("gamma", "prompts", "tokens/s", "95%", "speed-up", "95%", "of the fastest"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in outcome.standings:
        column = columns[one.way]
        table.add_row(
            column.method.name,
            str(column.gamma),
            str(one.prompts),
            number(one.tokens_per_second.value, ".0f"),
            _range(one.tokens_per_second, ".0f"),
            number(one.speedup.value, unit="x"),
            _range(one.speedup, ".2f"),
            number(1.0 + one.relative.value, ".0%"),
            _verdict(one, outcome),
        )
    console.print(table)
    console.print(
        f"ended after {outcome.prompts} prompts of {outcome.documents} documents: "
        f"{outcome.why_it_ended}"
    )
    if outcome.fresh:
        console.print(f"the fastest alone, on {outcome.fresh} prompts of documents after these")


def _verdict(one: RaceStanding, outcome: RaceOutcome) -> str:
    if one is outcome.standings[0]:
        return "fastest"
    if one.dropped:
        return "dropped"
    return "within noise of it" if one.is_near else "slower"


def _evidence(
    outcome: RaceOutcome, columns: Sequence[BenchColumn], suite: Suite, pair: _Pair, prompts: str
) -> str:
    """The comment over the suite: what was measured, on what, and how sure it is."""
    best = outcome.standings[0]
    near = [str(columns[one.way]) for one in outcome.standings[1:] if one.is_near]
    now = provenance.gather()
    names = [name.rpartition("/")[2] for name in near]
    lines = [
        f"{_WRITTEN_BY} on {now.started}: {shlex.join(now.command)}",
        f"# {describe(pair.device)}; {torch.get_num_threads()} threads, "
        f"{suite.runner.kind} runner, {str(pair.target.dtype).removeprefix('torch.')}",
        f"# {best.prompts} prompts of {prompts} x {suite.max_new_tokens} tokens "
        f"({outcome.documents} documents), T = {suite.temperatures[0]:g}; {len(columns)} "
        f"candidates; {outcome.why_it_ended}",
        f"# {known(best.tokens_per_second.value, '.0f', ' tokens/s')} "
        f"[{_range(best.tokens_per_second, '.0f')}], {known(best.speedup.value, unit='x')} "
        f"[{_range(best.speedup, '.2f')}] the "
        f"{known(outcome.plain.value, '.0f')} of autoregressive decoding",
        f"# of {best.documents} documents"
        + (
            " that it was not picked by"
            if outcome.fresh
            else f"; intervals allow for its having been picked out of {len(columns)}"
        ),
        f"# within noise of it: {', '.join(names) or 'nothing'}",
    ]
    if outcome.documents < FIRST_LOOK:
        lines.append("# TOO FEW DOCUMENTS to tell the candidates apart")
    if not _gains(best):
        lines.append(f"# NO GAIN over autoregressive decoding is shown: {_why_not(best)}")
    return "\n".join(line.replace("\n", " ") for line in lines) + "\n"


def _gains(best: RaceStanding) -> bool:
    return best.gain == "higher"


def _why_not(best: RaceStanding) -> str:
    if best.gain == "too few documents":
        return f"{best.documents} documents are too few"
    return "its interval reaches 1"


def _entry(winner: BenchColumn, suite: Suite) -> str:
    method = winner.method.model_dump(mode="json", exclude_defaults=True)
    named = {"name": winner.method.name}
    return yaml_text.write(
        {
            "name": _NAME,
            "seed": suite.seed,
            "drafts": [_DRAFT],
            "methods": [{**named, **method, "gammas": [winner.gamma]}],
            "temperatures": list(suite.temperatures),
            "max_new_tokens": suite.max_new_tokens,
            "runner": {"kind": suite.runner.kind},
        }
    )


def _check_output(output: Path) -> None:
    """A suite that a person wrote is not overwritten."""
    fix = "give another --output, or move it away"
    check_regular(output, "the suite to write", fix)
    if not output.exists():
        atomic.make_folder(output.parent)
        return
    try:
        is_ours = output.read_text(encoding="utf-8").startswith(_WRITTEN_BY)
    except (OSError, UnicodeDecodeError):
        is_ours = False
    if not is_ours:
        raise DistillSpecError(
            "this is there already, and not from an earlier calibration",
            where=str(output),
            fix=fix,
        )


def _named(source: JsonlSource | PythonSource) -> str:
    return (
        source.path if isinstance(source, JsonlSource) else f"code of {', '.join(source.packages)}"
    )


def _range(found: Interval, form: str) -> str:
    return interval(found.low, found.high, form, " - ", "too few prompts")
