"""Training the variants of a comparison: each in a run folder that resumes and is measured once."""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from distillspec.assembly.identity import (
    IDENTITY,
    check_identity,
    pair_identity,
    responses_identity,
)
from distillspec.assembly.pair import ModelPair, seed_adapters, with_draft_of
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.assembly.training import train_draft, training_text
from distillspec.assembly.trimmed_head import with_head
from distillspec.corpus.sources.prompts import PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.export.folder import export_draft
from distillspec.export.markdown import words
from distillspec.measure.summary.variants import MeasuredVariant, VariantCost
from distillspec.models.surgery.adapters import merged
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.loading import dump_yaml, load_recipe
from distillspec.recipe.schema import Recipe
from distillspec.runtime import atomic
from distillspec.runtime.processes import join
from distillspec.runtime.terminal import Terminal
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.resume import BEST, load_best
from distillspec.workflows.compare_measure import VariantMeasure, read_measurement
from distillspec.workflows.compare_variants import source_in_words, variant_recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MEASURED = "measured.json"

console = Terminal(soft_wrap=True)


class _TargetText(NamedTuple):
    """What a variant reads of the target.

    Attributes:
        responses: Stored responses by prompt key, None if the variant trains on other text.
        cached: Cached top-k logits, if the variant reads them.
        seconds: What making both took, over all starts.
        caching: What caching the logits took of it.
    """

    responses: dict[str, Tokens] | None
    cached: CachedTopKTarget | None
    seconds: float
    caching: float


@dataclasses.dataclass(frozen=True)
class VariantTraining:
    """Trains variants for equal minutes, each in the folder of its run.

    Attributes:
        plan: The comparison.
        folder: Of the comparison.
        pair: Of the variant that the others are compared with.
        prompts: Training and held-out prompts of all variants.
        measure: Measures what was trained.
    """

    plan: ComparisonConfig
    folder: Path
    pair: ModelPair
    prompts: PromptSets
    measure: VariantMeasure

    def run(self, run_folder: Path, variant: str, seed: int, minutes: float) -> MeasuredVariant:
        """Train and measure a variant, or read what an earlier start has measured.

        Args:
            run_folder: ROUND/VARIANT/seed-SEED in the folder of the comparison.
            variant: Its name.
            seed: Of the recipe.
            minutes: Budget of the run, with the time of stored text if the plan counts it.

        Raises:
            DistillSpecError: Stored text has used up the budget, or the folder holds a run of
                another recipe.
        """
        # 1. The recipe, with its minutes less the time of stored text.
        drafts = self._drafts_it_reads(run_folder, variant, seed, minutes)
        recipe = variant_recipe(self.plan, variant, seed, drafts)
        text = self._target_text(recipe)
        recipe = self._with_minutes_left(recipe, variant, minutes, text)
        # 2. The folder must hold this recipe, draft and text.
        self._check_recipe(run_folder, recipe)
        pair = with_head(with_draft_of(self.pair, recipe), self.prompts.training, text.responses)
        self._check_start(run_folder, pair, text.responses)
        name = run_folder.relative_to(self.folder)
        # 3. An earlier start has trained it: read its result, or measure again.
        if (run_folder / MEASURED).exists():
            stored = read_measurement(run_folder / MEASURED)
            if stored.measured_by == self.measure.settings():
                return MeasuredVariant(stored.readings, stored.cost)
            console.print(f"{name}: measured again, because the measured texts have changed")
            return self._measured(run_folder, variant, pair, stored.cost)
        # 4. Train and measure.
        console.print(f"{name}: {source_in_words(recipe)}")
        rows = training_text(pair, self.prompts, text.responses, text.cached)
        for note in rows.notes:
            console.print(note)
        # LoRA's initial weights depend on the seed alone, not on earlier runs.
        seed_adapters(seed)
        outcome = train_draft(pair, recipe, rows, run_folder, f"{variant} {seed}")
        cost = VariantCost(
            outcome.steps, outcome.response_tokens, outcome.seconds_by_phase, text.seconds
        )
        return self._measured(run_folder, variant, pair, cost)

    def _drafts_it_reads(
        self, run_folder: Path, variant: str, seed: int, minutes: float
    ) -> dict[str, Path]:
        """The drafts of variants that this one begins with, trained if they are missing."""
        siblings = run_folder.parents[1]
        # In the same round, with the same seed.
        drafts = {
            name: siblings / name / run_folder.name / "draft" for name in self.plan.needs(variant)
        }
        for name, path in drafts.items():
            if not path.exists():  # finals do not train every variant
                self.run(path.parent, name, seed, minutes)
        return drafts

    def _with_minutes_left(
        self, recipe: Recipe, variant: str, minutes: float, text: _TargetText
    ) -> Recipe:
        """The recipe with the minutes that stored text leaves for training."""
        counts = self.plan.counts_stored_text
        seconds = text.caching if counts == "logits" else text.seconds if counts else 0.0
        left = round(minutes - seconds / 60.0, 6)
        if left <= 0.0:
            raise DistillSpecError(
                f"sampling and caching of the target's text took {seconds / 60.0:.1f} of the "
                f"{minutes:g} minutes of a run: nothing is left for training",
                where=f"variant {variant}",
                fix="raise minutes, lower data.max_prompts, or set counts_stored_text: false",
            )
        plan = recipe.distill.model_copy(update={"max_minutes": left})
        return recipe.model_copy(update={"distill": plan})

    def _target_text(self, recipe: Recipe) -> _TargetText:
        """Read the target's text from stores that all variants share; sample what is missing."""
        # The seed of the pair, so that all runs read the same stored text.
        shared = recipe.model_copy(update={"seed": self.pair.recipe.seed})
        pair = dataclasses.replace(self.pair, recipe=shared)
        world, training = join(), self.prompts.training
        responses, sampling, caching = None, 0.0, 0.0
        if "target" in recipe.distill.stored:
            stored = target_responses(pair, training, world)
            responses, sampling = stored.by_key, stored.seconds
        cached = cached_target(with_head(pair, training, responses), training, responses, world)
        if cached is not None:
            caching = cached.store.seconds
        return _TargetText(responses, cached, round(sampling + caching, 3), round(caching, 3))

    def _check_recipe(self, run_folder: Path, recipe: Recipe) -> None:
        """Check that an earlier start used the same recipe, and write it.

        Keys that a later version added count with their defaults, and are written too.
        """
        path, text = run_folder / "recipe.yaml", dump_yaml(recipe)
        if path.is_file() and path.read_bytes() == text.encode():
            return
        if path.exists() and not _holds(path, recipe):
            raise DistillSpecError(
                "this run was made by another recipe",
                where=str(run_folder),
                fix="give the comparison another name, or delete this folder to run it again",
            )
        atomic.make_folder(run_folder)
        atomic.write_text(path, text)

    def _check_start(
        self, run_folder: Path, pair: ModelPair, responses: dict[str, Tokens] | None
    ) -> None:
        """Check that a resumed run has the draft and the responses that it began with."""
        path = run_folder / IDENTITY
        models = pair_identity(pair, self.folder / IDENTITY).only("draft", "draft_tokenizer")
        check_identity(path, models, has_trained=False)
        if responses is not None:
            texts = responses_identity(responses, str(self.folder / "responses"))
            check_identity(path, texts, has_trained=False)

    def _measured(
        self, run_folder: Path, variant: str, pair: ModelPair, cost: VariantCost
    ) -> MeasuredVariant:
        """Measure the best draft in the run folder, and write the result."""
        trained = pair.trainable_draft()
        load_best(trained, run_folder / BEST)
        draft = merged(trained)
        # Only drafts that another variant begins with are written as folders.
        if any(variant in self.plan.needs(name) for name in self.plan.variants):
            self._export(draft, pair, run_folder / "draft", variant)
        measured = self.measure.measure(draft, pair, cost)
        self.measure.write(run_folder / MEASURED, measured)
        gc.collect()
        return measured

    def _export(self, draft: PreTrainedModel, pair: ModelPair, folder: Path, variant: str) -> None:
        """Write the draft for the variants that begin with it."""
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


def _holds(path: Path, recipe: Recipe) -> bool:
    """Whether the file holds this recipe; False if this version cannot read the file.

    The evaluation plan may differ: a comparison does not read it.
    """
    try:
        stored = load_recipe(path, is_stored=True)
        return stored.model_copy(update={"evaluate": recipe.evaluate}) == recipe
    except DistillSpecError:
        return False
