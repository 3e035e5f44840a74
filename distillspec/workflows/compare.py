"""The verb `compare`: variants of a recipe, trained at equal cost, measured on the same texts."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distillspec.assembly.identity import (
    IDENTITY,
    check_identity,
    pair_identity,
    responses_identity,
    text_identity,
)
from distillspec.assembly.pair import (
    ModelPair,
    load_pair,
    prepare_process,
    seed_adapters,
    with_draft_of,
)
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.assembly.text import pair_prompts, suite_prompts
from distillspec.assembly.training import train_draft, training_text
from distillspec.assembly.trimmed_head import with_head
from distillspec.corpus.sources.prompts import Prompt
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.export.folder import export_draft
from distillspec.export.markdown import words
from distillspec.measure.exact.target_texts import drawn_texts, text_facts
from distillspec.measure.summary.variants import (
    MeasuredVariant,
    VariantCost,
    VariantReading,
    VariantStanding,
    markdown,
    standings,
    tables,
)
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.precision import cast_parameters, describe
from distillspec.models.sampling.generate import DrawnText
from distillspec.models.surgery.adapters import merged
from distillspec.recipe.comparison import UNDISTILLED, ComparisonConfig
from distillspec.recipe.loading import dump_yaml, load_recipe
from distillspec.recipe.output import RUNS
from distillspec.recipe.prompt_plan import PromptsConfig
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic, provenance
from distillspec.runtime.lock import run_lock
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.processes import join
from distillspec.runtime.seeds import derive_seed
from distillspec.runtime.terminal import Terminal
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.resume import BEST, load_best
from distillspec.workflows.compare_variants import checked, source_in_words, variant_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOME = "held-out"  # prompts of the recipe's own kind
_MEASURED = "measured.json"

console = Terminal(soft_wrap=True)


def run(comparison: ComparisonConfig) -> int:
    """Train and measure what is not there yet, then print and write the tables; 0."""
    if join().size > 1:
        raise DistillSpecError(
            "a comparison trains in one process",
            where=f"comparison {comparison.name}",
            fix="start it without NPROC",
        )
    checked(comparison)
    folder = RUNS / "compare" / comparison.name
    atomic.make_folder(folder)
    with run_lock(folder):
        _Comparing(comparison, folder).run()
    return 0


class _Prepared(NamedTuple):
    responses: dict[str, Tokens] | None
    cached: CachedTopKTarget | None
    seconds: float


class _Comparing:
    """A comparison at work in its folder."""

    def __init__(self, comparison: ComparisonConfig, folder: Path) -> None:
        self.plan, self.folder = comparison, folder
        self.base = variant_recipe(comparison, comparison.against, comparison.seeds[0], {})
        prepare_process(self.base)
        self.pair = load_pair(self.base)
        self.prompts = pair_prompts(self.pair)
        self._check_started_with()
        self.policy = SamplingPolicy(temperature=self.base.distill.temperature)
        self.documents: dict[str, list[str]] = {}
        self.texts = self._texts()
        self._target_digest = model_digest(self.pair.target.model)

    def run(self) -> None:
        atomic.write_json(self.folder / "provenance.json", dataclasses.asdict(provenance.gather()))
        console.print(f"{self.folder}: {describe(self.pair.device)}")
        undistilled = self._measured(self.pair.draft(), self.pair, None)
        first = self._round("first", list(self.plan.variants), self.plan.minutes, self.plan.seeds)
        first[UNDISTILLED] = [undistilled]
        self._tell("first", first, self.plan.minutes, self.plan.seeds)
        finals = self.plan.finals
        if finals is None:
            return
        order = [one.variant for one in self._standings(first, HOME)]
        best = [name for name in order if name != UNDISTILLED][: finals.count]
        names = [*dict.fromkeys([self.plan.against, *best])]
        last = self._round("finals", names, finals.minutes, finals.seeds)
        last[UNDISTILLED] = [undistilled]
        self._tell("finals", last, finals.minutes, finals.seeds)

    def _standings(
        self, runs: dict[str, list[MeasuredVariant]], kind: str
    ) -> list[VariantStanding]:
        return standings(runs, self.plan.against, kind, self.plan.confidence)

    def _check_started_with(self) -> None:
        """All variants are of one target and one set of prompts, also those that are there."""
        path = self.folder / IDENTITY
        found = pair_identity(self.pair, path).without("draft", "draft_tokenizer")
        check_identity(path, found, has_trained=False)
        check_identity(path, text_identity(self.prompts, self.plan.recipe), has_trained=False)

    def _check_draft(
        self, place: Path, pair: ModelPair, responses: dict[str, Tokens] | None
    ) -> None:
        """A run that goes on does so with the draft and the responses that it began with."""
        found = pair_identity(pair, self.folder / IDENTITY).only("draft", "draft_tokenizer")
        check_identity(place / IDENTITY, found, has_trained=False)
        if responses is not None:
            texts = responses_identity(responses, str(self.folder / "responses"))
            check_identity(place / IDENTITY, texts, has_trained=False)

    # --- the texts that all drafts are measured on ---

    def _texts(self) -> dict[str, list[DrawnText]]:
        held_out = self.prompts.held_out[: self.plan.texts]
        probed = self.base.distill.probe.prompts
        if len(self.prompts.held_out) < self.plan.texts + probed:
            console.print(
                f"{len(self.prompts.held_out)} held-out prompts are fewer than {self.plan.texts} "
                f"texts and {probed} probed ones: the best steps are chosen on some of the prompts "
                "that are measured on"
            )
        kinds: dict[str, Sequence[Prompt]] = {HOME: held_out}
        for name, source in self.plan.elsewhere.items():
            prompts = PromptsConfig(count=self.plan.texts, source=source)
            suite = Suite(name=name, prompts=prompts, max_new_tokens=self.plan.max_new_tokens)
            kinds[name], notes = suite_prompts(self.pair, suite, [])
            for note in notes:
                console.print(f"{name}: {note}")
        self.documents = {name: [p.document for p in prompts] for name, prompts in kinds.items()}
        return {
            name: drawn_texts(
                self.pair.target.model,
                prompts,
                self.policy,
                tokens=self.plan.max_new_tokens,
                seed=derive_seed(0, "texts of compare", name),
                vocab_size=self.pair.vocab_size,
            )
            for name, prompts in kinds.items()
        }

    def _measured(
        self, draft: PreTrainedModel, pair: ModelPair, cost: VariantCost | None
    ) -> MeasuredVariant:
        cast_parameters(draft, self.pair.target.model.dtype)
        readings = {}
        for kind, texts in self.texts.items():
            facts = text_facts(
                self.pair.target.model,
                {"draft": draft.eval()},
                texts,
                self.policy,
                documents=self.documents[kind],
                ends=pair.eos_token_ids,
                vocab_size=pair.vocab_size,
            )
            readings[kind] = VariantReading(
                facts.expected_tau("draft", self.plan.gamma), facts.alpha("draft")
            )
        return MeasuredVariant(readings, cost)

    # --- training ---

    def _round(
        self, name: str, variants: Sequence[str], minutes: float, seeds: Sequence[int]
    ) -> dict[str, list[MeasuredVariant]]:
        found: dict[str, list[MeasuredVariant]] = {variant: [] for variant in variants}
        for seed in seeds:  # so that a comparison that is cut off has whole rounds of variants
            for variant in self.plan.variants:
                if variant in variants:
                    place = self.folder / name / variant / f"seed-{seed}"
                    found[variant].append(self._one(place, variant, seed, minutes))
        return found

    def _one(self, place: Path, variant: str, seed: int, minutes: float) -> MeasuredVariant:
        """One run: read, if it is there, else trained (or gone on with) and measured."""
        siblings = place.parents[1]
        drafts = {name: siblings / name / place.name / "draft" for name in self.plan.needs(variant)}
        for name, path in drafts.items():
            if not path.exists():  # of finals, in which it does not take part
                self._one(path.parent, name, seed, minutes)
        recipe = variant_recipe(self.plan, variant, seed, drafts)
        responses, cached, text_seconds = self._prepared(recipe)
        spent = text_seconds / 60.0 if self.plan.counts_stored_text else 0.0
        left = round(minutes - spent, 6)
        if left <= 0.0:
            raise DistillSpecError(
                f"asking the target beforehand took {text_seconds / 60.0:.1f} of the "
                f"{minutes:g} minutes of a run: nothing is left for training",
                where=f"variant {variant}",
                fix="raise minutes, lower data.max_prompts, or set counts_stored_text: false",
            )
        plan = recipe.distill.model_copy(update={"max_minutes": left})
        recipe = recipe.model_copy(update={"distill": plan})
        self._check_same(place, recipe)
        pair = self._pair(recipe, responses)
        self._check_draft(place, pair, responses)
        if (place / _MEASURED).exists():
            found, how = _read(place / _MEASURED)
            if how == self._measuring():
                return found
            console.print(f"{place.relative_to(self.folder)}: measured anew, by other texts")
            assert found.cost is not None
            return self._finished(place, variant, pair, found.cost)
        console.print(f"{place.relative_to(self.folder)}: {source_in_words(recipe)}")
        text = training_text(pair, self.prompts, responses, cached)
        for note in text.notes:
            console.print(note)
        seed_adapters(seed)
        outcome = train_draft(pair, recipe, text, place, f"{variant} {seed}")
        spent_on = outcome.seconds_by_phase
        cost = VariantCost(outcome.steps, outcome.response_tokens, spent_on, text_seconds)
        return self._finished(place, variant, pair, cost)

    def _finished(
        self, place: Path, variant: str, pair: ModelPair, cost: VariantCost
    ) -> MeasuredVariant:
        """What the best draft in `place` comes to, measured and written down."""
        trained = pair.trainable_draft()
        load_best(trained, place / BEST)
        draft = merged(trained)
        if any(variant in self.plan.needs(other) for other in self.plan.variants):
            self._keep_draft(draft, pair, place / "draft", variant)
        measured = self._measured(draft, pair, cost)
        atomic.write_json(
            place / _MEASURED,
            {
                "readings": {kind: one.as_json() for kind, one in measured.readings.items()},
                "cost": cost._asdict(),
                "measured_by": self._measuring(),
            },
        )
        gc.collect()
        return measured

    def _measuring(self) -> dict[str, Any]:
        """What readings depend on beside the draft."""
        texts = {kind: [one._asdict() for one in found] for kind, found in self.texts.items()}
        return {
            "gamma": self.plan.gamma,
            "temperature": self.policy.temperature,
            "target": self._target_digest,
            "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
            "documents": {kind: len(set(found)) for kind, found in self.documents.items()},
        }

    def _pair(self, recipe: Recipe, responses: dict[str, Tokens] | None) -> ModelPair:
        """The recipe's draft beside the target; its start is the same for all seeds."""
        pair = with_draft_of(self.pair, recipe)
        return with_head(pair, self.prompts.training, responses)

    def _keep_draft(
        self, draft: PreTrainedModel, pair: ModelPair, folder: Path, variant: str
    ) -> None:
        export_draft(
            draft,
            pair.vocabulary.exported_tokenizer(pair.tokenizer),
            folder=folder,
            target_vocabulary=pair.vocabulary.exported_size(draft, pair.target.model),
            stop_ids=pair.vocabulary.exported_eos_ids(pair.eos_token_ids),
            num_assistant_tokens=self.plan.gamma,
            card=f"The draft of the variant {words(variant)} of the comparison "
            f"{words(self.plan.name)}.\n",
        )

    def _check_same(self, place: Path, recipe: Recipe) -> None:
        """What was trained here before is what would be trained now.

        Keys that have come since count as what they are by default now, and are written down.
        """
        path, text = place / "recipe.yaml", dump_yaml(recipe)
        if path.is_file() and path.read_bytes() == text.encode():
            return
        if path.exists() and not _is_that(path, recipe):
            raise DistillSpecError(
                "this run was made by another recipe",
                where=str(place),
                fix="give the comparison another name, or delete this folder to make it anew",
            )
        atomic.make_folder(place)
        atomic.write_text(path, text)

    def _prepared(self, recipe: Recipe) -> _Prepared:
        """What the recipe reads of the target that is made before training, in the stores that all
        recipes share, and the seconds that making it took, in whichever run.
        """
        base = recipe.model_copy(update={"seed": self.base.seed})
        pair = dataclasses.replace(self.pair, recipe=base)
        world, training = join(), self.prompts.training
        responses, seconds = None, 0.0
        if "target" in recipe.distill.source.stored:
            stored = target_responses(pair, training, world)
            responses, seconds = stored.by_key, stored.seconds
        cached = cached_target(with_head(pair, training, responses), training, responses, world)
        if cached is not None:
            seconds += cached.store.seconds
        return _Prepared(responses, cached, round(seconds, 3))

    # --- what is told ---

    def _tell(
        self,
        name: str,
        runs: dict[str, list[MeasuredVariant]],
        minutes: float,
        seeds: Sequence[int],
    ) -> None:
        against, share = self.plan.against, self.plan.confidence
        parts = []
        for kind in self.texts:
            found = self._standings(runs, kind)
            title = (
                f"{name}: {kind} prompts, {len(self.texts[kind])} texts of "
                f"{len(set(self.documents[kind]))} documents, T = "
                f"{self.policy.temperature:g}, gamma {self.plan.gamma}; {minutes:g} minutes each, "
                f"{len(seeds)} seeds"
            )
            for table in tables(title, found, against, share):
                console.print(table)
            parts.append(f"### {title}\n\n{markdown(found, against, share)}")
        path = self.folder / f"{name}.md"
        atomic.write_text(path, "\n".join(parts))
        console.print(f"written: {path}")


def _is_that(path: Path, recipe: Recipe) -> bool:
    """Whether that file holds this recipe; one that this version cannot read does not.

    The evaluation plan is left out: a comparison does not read it.
    """
    try:
        found = load_recipe(path)
        return found.model_copy(update={"evaluate": recipe.evaluate}) == recipe
    except DistillSpecError:
        return False


class _Stored(NamedTuple):
    readings: dict[str, VariantReading]
    cost: VariantCost
    measured_by: dict[str, Any]


def _read(path: Path) -> tuple[MeasuredVariant, dict[str, Any]]:
    """What was measured, and by what (`_Comparing._measuring`)."""
    fix = "delete the file: the run is measured again"
    found = read_json(BoundedText(path, "this measurement of a comparison", fix), _Stored)
    return MeasuredVariant(found.readings, found.cost), found.measured_by
