"""The verb `tune`: find the fastest decoding method on the user's prompts in a few minutes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch

from distillspec.corpus.sources.prompts import Prompt, load_source_prompts
from distillspec.errors import DistillSpecError
from distillspec.measure.timed.bench import Bench, BenchColumn
from distillspec.measure.timed.plan import check
from distillspec.measure.timed.race import (
    FEWEST,
    FIRST_LOOK,
    RaceOutcome,
    Texts,
    race,
)
from distillspec.methods.build import max_slots
from distillspec.methods.candidates import candidates
from distillspec.models.loading.hot_tokens import with_own_head
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import fast_dtype
from distillspec.models.runners.eager import context_of_model, vocabulary_size
from distillspec.models.runners.encoder_decoder import (
    check_same_kind,
    is_encoder_decoder,
    start_token,
)
from distillspec.models.runners.tree_mask import check_takes_a_tree
from distillspec.models.vocabulary.tokenizer_pair import check_in_vocabulary, check_pair
from distillspec.recipe.data import DataConfig, JsonlSource, PythonSource
from distillspec.recipe.prompt_plan import PromptsConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic
from distillspec.runtime.terminal import Terminal
from distillspec.text.command import command
from distillspec.workflows.tune_output import (
    DRAFT,
    NAME,
    check_output,
    entry,
    evidence,
    gains,
    standings_table,
    why_no_gain,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_MOST_PROMPTS = 256
_MOST_CODE = 256  # tokens of a prompt of Python code; longer prompts lose their beginning
_SHOWN = 60  # characters of a prompt in the suggested command
_PAGE = 160  # columns of a log or a pipe, which have no width
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
    """Time all candidates, print their standings, and write the fastest as a suite.

    Args:
        target: Folder or Hub id.
        draft: The same.
        source: Of the prompts.
        temperature: Of target and draft.
        max_new_tokens: Of each text.
        minutes: Budget of the timing; loading and compiling come before it.
        runner: How the models run.
        output: The suite to write.
        seed: Of prompts and sampling.

    Raises:
        DistillSpecError: The pair, the prompts or the output cannot be used.
    """
    # 1. Refuse an output that may not be replaced, before models are loaded.
    check_output(output)
    # 2. The pair, its candidates and its prompts.
    pair = _load(target, draft)
    suite = Suite.model_validate(
        {
            "name": NAME,
            "seed": seed,
            "methods": candidates(temperature, takes_trees=_takes_trees(pair)),
            "temperatures": (temperature,),
            "max_new_tokens": max_new_tokens,
            "runner": {"kind": runner},
        }
    )
    prompts = _prompts(pair, source, suite)
    suite = suite.model_copy(update={"prompts": PromptsConfig(count=len(prompts))})
    columns = [
        BenchColumn(DRAFT, method, gamma) for method in suite.methods for gamma in suite.of(method)
    ]
    console.print(
        f"{len(columns)} candidates on up to {len(prompts)} prompts x {max_new_tokens} tokens, "
        f"T = {temperature:g}, {runner} runner"
    )
    # 3. Time the candidates against each other.
    outcome = _race(pair, suite, prompts, columns, minutes)
    _print(outcome, columns)
    winner = columns[outcome.standings[0].way]
    # 4. Write the winner as a suite, and name the next command.
    comment = evidence(outcome, columns, suite, pair.target, _named(source))
    atomic.write_text(output, comment + entry(winner, suite))
    console.print(f"written: {output}")
    if not gains(outcome.standings[0]):
        reason = why_no_gain(outcome.standings[0])
        console.print(f"No gain over autoregressive decoding is shown: {reason}.")
    decode = ["decode", target, draft, _first_line(prompts[0].text)]
    decode += ["--suite", str(output), "--method", winner.method.name]
    decode += ["--gamma", str(winner.gamma), "--temperature", f"{temperature:g}"]
    console.print(f"next:  {command(*decode)}")
    return 0


def _race(
    pair: _Pair,
    suite: Suite,
    prompts: Sequence[Prompt],
    columns: Sequence[BenchColumn],
    minutes: float,
) -> RaceOutcome:
    """Prepare the models, then time the candidates against each other."""
    drafts = {DRAFT: pair.draft}
    check(suite, pair.target, drafts, prompts)
    with (
        console.status("preparing the models") as status,
        closing(
            Bench(suite, pair.target, drafts, prompts, columns, pair.device, pair.vocab_size)
        ) as bench,
    ):
        prepared = bench.prepare_stop_rules()
        outcome = race(
            _Decoder(bench, columns, suite.temperatures[0]),
            ways=len(columns),
            documents=[prompt.document for prompt in prompts],
            seconds=60.0 * minutes,
            confidence=suite.confidence,
            progress=lambda prompt, left: status.update(f"prompt {prompt + 1}, {left} candidates"),
        )
    if suite.runner.kind == "compiled" and set(prepared.runners.values()) != {"CompiledRunner"}:
        console.print("a model could not be compiled: its times are of the eager runner")
    return outcome


def _print(outcome: RaceOutcome, columns: Sequence[BenchColumn]) -> None:
    console.print(standings_table(outcome, columns))
    console.print(
        f"ended after {outcome.prompts} prompts of {outcome.documents} documents: "
        f"{outcome.why_it_ended}"
    )
    if outcome.fresh:
        console.print(
            f"the fastest was timed again on {outcome.fresh} prompts of further documents"
        )
    if outcome.documents < FIRST_LOOK:
        console.print(
            f"too short to compare the candidates: none is dropped before {FIRST_LOOK} "
            f"documents. Give more {'prompts' if outcome.all_decoded else '--minutes'}."
        )


def _first_line(text: str) -> str:
    """The first line of a prompt, short enough for a command line."""
    return next((line for line in text.splitlines() if line.strip()), text)[:_SHOWN]


def _load(target: str, draft: str) -> _Pair:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = fast_dtype(device)
    tokenizer = load_tokenizer(target, what="target")
    draft_tokenizer = load_tokenizer(draft, what="draft")
    target_model = load_model(target, dtype=dtype, device=device, what="target")
    draft_model = load_model(draft, dtype=dtype, device=device, what="draft")
    check_same_kind(target_model, draft_model, "target and draft of tune")
    vocab_size = check_pair(
        tokenizer,
        draft_tokenizer,
        vocabulary_size(target_model),
        vocabulary_size(draft_model),
        where="target and draft of tune",
    )
    return _Pair(target_model, with_own_head(draft_model, draft), tokenizer, vocab_size, device)


def _takes_trees(pair: _Pair) -> bool:
    try:
        for model in (pair.target, pair.draft):
            check_takes_a_tree(model)
    except DistillSpecError as error:
        console.print(f"only chains are tried: {error.what}")
        return False
    return True


def _prompts(pair: _Pair, source: JsonlSource | PythonSource, suite: Suite) -> list[Prompt]:
    """The prompts that leave room in both contexts for the answer and the longest drafts."""
    holds, reason = min(context_of_model(pair.target), context_of_model(pair.draft))
    room = holds - suite.max_new_tokens - max_slots(suite) - 1
    if room < 1:
        raise DistillSpecError(
            f"the models' contexts hold {holds} tokens, and none is left for a prompt"
            + (f" ({reason})" if reason else ""),
            where=f"tune: --max-new-tokens={suite.max_new_tokens}",
            fix="lower --max-new-tokens",
        )
    if isinstance(source, PythonSource):
        room = min(room, _MOST_CODE)
    data = DataConfig(source=source, max_prompt_tokens=room)
    prompts = load_source_prompts(
        source,
        data,
        pair.tokenizer,
        seed=suite.seed,
        most=_MOST_PROMPTS,
        start=start_token(pair.target) if is_encoder_decoder(pair.target) else None,
    )
    check_in_vocabulary(
        ((prompt.key, prompt.tokens) for prompt in prompts), pair.vocab_size, pair.tokenizer
    )
    if len(prompts) < FEWEST:
        raise DistillSpecError(
            f"{len(prompts)} prompt is too few to compare anything on",
            where=_named(source),
            fix="give at least 2 prompts that fit the models' contexts; about 50 give a "
            "clear result",
        )
    return prompts


class _Decoder(NamedTuple):
    """Decodes a prompt with some candidates, as a race asks for it."""

    bench: Bench
    columns: Sequence[BenchColumn]
    temperature: float

    def __call__(self, prompt: int, among: Sequence[int]) -> Texts:
        chosen = [self.columns[way] for way in among]
        # The prompt's number rotates the order of the candidates, too.
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


def _named(source: JsonlSource | PythonSource) -> str:
    return (
        source.path if isinstance(source, JsonlSource) else f"code of {', '.join(source.packages)}"
    )
