"""All runners of an evaluation: prepared together, then timed block by block."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from distillspec.measure.exact.prompt import MeasuredPrompt
from distillspec.measure.timed.audit import AuditedRound, Decoded
from distillspec.measure.timed.parallel import ParallelBench
from distillspec.measure.timed.plan import Prepared, Steps
from distillspec.measure.timed.rows import CellRow, drafted_at, letters
from distillspec.methods.build import (
    configuration,
    draft_block_sizes,
    drafts_by_entropy,
    fixed_arms,
    graph_sizes,
    max_slots,
    models,
    protocols_of,
)
from distillspec.methods.choosers import chooser, with_fallback
from distillspec.methods.measure_steps import measure_steps
from distillspec.methods.step_times import middle_prompt
from distillspec.models.runners.compiled import make_runner
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.choose.chooser import Chooser, RoundOutcome
from distillspec.speculation.choose.configuration import Configuration
from distillspec.speculation.choose.fixed import Fixed
from distillspec.speculation.decoding.engine import AutoregressiveDecoder, SpeculativeDecoder
from distillspec.speculation.random_source import GeneratorSource, RandomSource
from distillspec.speculation.records import Generation
from distillspec.speculation.runner import Runner
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

_WARM_UP_ROUNDS = 3


class BenchColumn(NamedTuple):
    """One way to decode, at any temperature; `again`: timed twice, for the noise floor."""

    draft: str
    method: MethodConfig
    gamma: int
    again: bool = False

    def __str__(self) -> str:
        return f"{self.draft}/{self.method.name}@{self.gamma}{' again' * self.again}"


class TimedTexts(NamedTuple):
    """A timed text, and its audited rounds if the suite asks for them."""

    row: CellRow
    rounds: list[AuditedRound]


class Bench:
    """All runners of an evaluation in one process, so that cells can be interleaved."""

    def __init__(
        self,
        suite: Suite,
        target: PreTrainedModel,
        drafts: Mapping[str, PreTrainedModel],
        prompts: Sequence[MeasuredPrompt],
        grid: Sequence[BenchColumn],
        device: torch.device,
        vocab_size: int | None,
    ) -> None:
        self._suite, self._prompts, self._grid, self._device = suite, prompts, grid, device
        longest = max(len(p.tokens) for p in prompts)
        capacity = longest + suite.max_new_tokens + max_slots(suite) + 1
        kind = suite.runner.kind
        blocks, trees, rows = graph_sizes(suite)
        self._target = make_runner(
            target, kind, capacity, blocks, tree_sizes=trees, vocab_size=vocab_size
        )
        self._drafts: dict[str, Runner] = {
            name: make_runner(
                model,
                kind,
                capacity,
                draft_block_sizes(suite),
                tree_sizes=rows,
                computes_entropy=drafts_by_entropy(suite),
                vocab_size=vocab_size,
                prompts=[prompt.tokens for prompt in prompts],
            )
            for name, model in drafts.items()
        }
        self._ways: dict[tuple[BenchColumn, float], Chooser] = {}
        # Of choosers that draw at random.
        self._arms: dict[tuple[BenchColumn, float], torch.Generator] = {}
        self._parallel = ParallelBench(suite, target, drafts, capacity, vocab_size)
        self._run = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}"

    def prepare(self) -> Prepared:
        """Run every shape once, then time isolated steps of every method at every temperature."""
        self._warm_up()
        return self._begun(self._steps(self._suite.methods))

    def prepare_stop_rules(self) -> Prepared:
        """The same with step times only for stop rules that follow them; not for choosers."""
        self._warm_up()
        return self._begun(self._steps([one for one in self._suite.methods if one.follows_costs]))

    def _begun(self, steps: Steps) -> Prepared:
        self._ways.clear()
        for temperature in self._suite.temperatures:
            for column in self._grid:
                if column.method.parallel is not None:
                    continue
                way = self._way(column, temperature, steps)
                self._ways[column, temperature] = with_fallback(
                    self._suite, column.method, way, column.draft
                )
        runners = {"target": self._target, **self._drafts}
        kinds = {name: type(runner).__name__ for name, runner in runners.items()}
        shared = self._parallel.bytes().items()
        kinds |= {name: f"own process, {size:,} bytes shared" for name, size in shared}
        return Prepared(steps, kinds)

    def state(self) -> dict[str, Any]:
        """The state of choosers and stop rules, by column and temperature."""
        return {f"{column} T={at:g}": way.state() for (column, at), way in self._ways.items()}

    def restore(self, path: Path) -> None:
        """Restore the state of choosers and stop rules of an interrupted evaluation."""
        if not path.exists():  # it was killed after its first block
            log.warning(
                "no stored state of the decoding methods: they start without what they learned"
            )
            return
        fix = "delete the file: measured rows stay, and the methods start without what they learned"
        file = BoundedText(path, "the state of the decoding methods", fix)
        states = read_json(file, dict[str, Any])
        for (column, at), way in self._ways.items():
            way.restore(states.get(f"{column} T={at:g}"), where=str(path))

    def close(self) -> None:
        """End the processes of parallel methods."""
        self._parallel.close()

    def _warm_up(self) -> None:
        """Run every shape of every method and arm, so that nothing compiles while timing."""
        prompt = self._tokens(0)
        parallel = [
            BenchColumn(name, method, gamma)
            for name in self._suite.drafts
            if name in self._drafts
            for method, _, gamma in protocols_of(self._suite)
        ]
        arms = [
            BenchColumn(name, *arm)
            for name in self._drafts
            for arm in fixed_arms(self._suite)
            if self._suite.measures(name, arm[0])
        ]
        for temperature in self._suite.temperatures:
            for column in (None, *arms, *parallel):
                gamma = 0 if column is None else column.gamma
                length = min(self._suite.max_new_tokens, _WARM_UP_ROUNDS * (gamma + 1))
                if column is not None and column.method.parallel is None:
                    arm_configuration = configuration(column.method, column.gamma, column.draft)
                    self._ways[column, temperature] = Fixed(arm_configuration)
                seed = derive_seed(self._suite.seed, "warm-up")
                self._decode(prompt, column, temperature, seed=seed, length=length)

    def _way(self, column: BenchColumn, temperature: float, steps: Steps) -> Chooser:
        """The chooser of this column, which keeps its state from prompt to prompt."""
        at_this = {name: times for (name, at), times in steps.items() if at == temperature}
        if column.method.choose is None:
            timed = at_this.get(column.method.name)
            return Fixed(configuration(column.method, column.gamma, column.draft, timed))
        generator = self._arms[column, temperature] = torch.Generator()  # drawn on the host
        random_source = GeneratorSource(generator)
        return chooser(self._suite, column.method, random_source, at_this, column.draft)

    def _steps(self, methods: Sequence[MethodConfig]) -> Steps:
        texts = [prompt.tokens for prompt in self._prompts]
        middle = middle_prompt(texts, self._drafts.values(), max_slots(self._suite))
        prompt = torch.tensor(middle, device=self._device)
        return {
            (method.name, temperature): measure_steps(
                self._target,
                {
                    name: runner
                    for name, runner in self._drafts.items()
                    if self._suite.measures(name, method)
                },
                [configuration(method, gamma) for gamma in self._suite.of(method)],
                prompt,
                policy=self._policy(temperature),
                random_source=self._random_source(
                    derive_seed(self._suite.seed, "timing of bench", method.name, temperature)
                ),
            )
            for method in methods
            if method.choose is None and method.parallel is None
            for temperature in self._suite.temperatures
        }

    def block(
        self,
        number: int,
        prompt: int,
        temperature: float,
        among: Sequence[BenchColumn] | None = None,
    ) -> Iterator[TimedTexts]:
        """Time the baseline and then every cell, `repeats` times, and the baseline at the end.

        The order of the cells rotates from block to block, so that no cell is always first.

        Args:
            number: Number of the block.
            prompt: Number of the prompt.
            temperature: Of the target and the drafts.
            among: Cells to time; None: all of the grid.
        """
        grid = self._grid if among is None else among
        order: list[tuple[BenchColumn | None, int]] = [(None, 0)]
        for repeat in range(self._suite.repeats):
            turn = (number + repeat) % len(grid)
            rotated = [*grid[turn:], *grid[:turn]]
            order += [(column, repeat) for column in rotated]
            order.append((None, repeat + 1))
        for position, (column, repeat) in enumerate(order):
            yield self._timed(prompt, temperature, column, repeat, position)

    def _timed(
        self,
        prompt: int,
        temperature: float,
        column: BenchColumn | None,
        repeat: int,
        position: int,
    ) -> TimedTexts:
        key = self._prompts[prompt].key
        generation = self._decode(
            self._tokens(prompt),
            column,
            temperature,
            seed=derive_seed(self._suite.seed, "text", key, str(column), temperature, repeat),
            length=self._suite.max_new_tokens,
        )
        rounds: list[AuditedRound] = []
        if column is not None and self._suite.audit and not column.again:
            text = Decoded(
                prompt, key, temperature, column.draft, column.method.name, column.gamma, repeat
            )
            rounds = text.lines(generation.rounds, generation.statuses)
        row = CellRow(
            prompt=prompt,
            prompt_key=key,
            temperature=temperature,
            draft=None if column is None else column.draft,
            method=None if column is None else column.method.name,
            gamma=None if column is None else column.gamma,
            repeat=repeat,
            place=position,
            run=self._run,
            seconds=generation.decode_seconds,
            prefill_seconds=generation.prefill_seconds,
            tokens=generation.tokens,
            fates=letters(generation),
            counts=generation.counts(),
            target_busy_seconds=generation.busy.target_seconds if generation.busy else None,
            draft_busy_seconds=generation.busy.draft_seconds if generation.busy else None,
            rounds=drafted_at(generation, len(self._prompts[prompt].tokens)),
            category=self._prompts[prompt].category,
            document=self._prompts[prompt].document,
            again=column is not None and column.again,
        )
        return TimedTexts(row, rounds)

    def _decode(
        self, prompt: Tensor, column: BenchColumn | None, temperature: float, seed: int, length: int
    ) -> Generation:
        """Decode a text. End-of-text is ignored, so that compared texts have equal lengths."""
        policy = self._policy(temperature)
        random_source = self._random_source(derive_seed(seed, "tokens of bench"))
        if column is None:
            plain = AutoregressiveDecoder(self._target, policy, random_source)
            return plain.decode(prompt, max_new_tokens=length)
        if (column, temperature) in self._arms:  # so that a resumed evaluation draws the same
            self._arms[column, temperature].manual_seed(derive_seed(seed, "arms of bench"))
        if column.method.choose is not None and column.method.choose.per == "text":
            of_texts = self._ways[column, temperature]
            of_texts.begin()
            arm = of_texts.choose()
            chosen = BenchColumn(column.draft, self._suite.named(arm.name), arm.gamma)
            generation = self._decode_with(chosen, arm, prompt, policy, random_source, seed, length)
            of_texts.learn(RoundOutcome(len(generation.tokens), generation.decode_seconds))
            return generation
        way = self._ways.get((column, temperature))
        return self._decode_with(column, way, prompt, policy, random_source, seed, length)

    def _decode_with(
        self,
        column: BenchColumn,
        way: Configuration | Chooser | None,
        prompt: Tensor,
        policy: SamplingPolicy,
        random_source: RandomSource,
        seed: int,
        length: int,
    ) -> Generation:
        """way: None for parallel methods, which have their own."""
        draft, method, gamma, _ = column
        if method.parallel is not None:
            return self._parallel.decode(
                method, gamma, draft, prompt, policy, random_source, seed=seed, length=length
            )
        assert way is not None
        speculative = SpeculativeDecoder(
            self._target,
            {name: self._drafts[name] for name in models(self._suite, method, draft)},
            way,
            policy,
            random_source,
            audited=self._suite.audit,
        )
        return speculative.decode(prompt, max_new_tokens=length)

    def _tokens(self, prompt: int) -> Tensor:
        return torch.tensor(self._prompts[prompt].tokens, device=self._device)

    def _policy(self, temperature: float) -> SamplingPolicy:
        return SamplingPolicy(temperature, self._suite.top_k, self._suite.nucleus)

    def _random_source(self, seed: int) -> GeneratorSource:
        return GeneratorSource(torch.Generator(self._device).manual_seed(seed))
