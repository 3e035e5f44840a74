"""Measuring the drafts of a comparison: all of them on the same texts of the target."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.text import suite_prompts
from distillspec.corpus.sources.prompts import Prompt
from distillspec.measure.exact.target_texts import drawn_texts, text_facts
from distillspec.measure.summary.variants import MeasuredVariant, VariantCost, VariantReading
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.precision import cast_parameters
from distillspec.models.sampling.generate import DrawnText
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.prompt_plan import PromptsConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime import atomic
from distillspec.runtime.plain_files import BoundedText, read_json
from distillspec.runtime.seeds import derive_seed
from distillspec.runtime.terminal import Terminal
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HOME = "held-out"  # prompts of the recipe's own kind

console = Terminal(soft_wrap=True)


class MeasuredTexts(NamedTuple):
    """The target's answers to prompts of one kind.

    Attributes:
        texts: Prompt and answer.
        documents: The document of each prompt; intervals are over documents.
    """

    texts: list[DrawnText]
    documents: list[str]


class VariantMeasure:
    """Measures drafts by alpha and expected tau on texts that the target draws once.

    Attributes:
        plan: The comparison.
        policy: How the target draws its texts.
        texts: By the kind of prompts; `HOME` is the recipe's own.
    """

    def __init__(self, plan: ComparisonConfig, pair: ModelPair, held_out: Sequence[Prompt]) -> None:
        """Draw the texts.

        Args:
            plan: The comparison.
            pair: Target and recipe of all variants.
            held_out: Held-out prompts of the recipe.
        """
        self.plan, self._target = plan, pair.target.model
        self.policy = SamplingPolicy(temperature=pair.recipe.distill.temperature)
        self.texts = {
            name: MeasuredTexts(
                drawn_texts(
                    self._target,
                    prompts,
                    self.policy,
                    tokens=plan.max_new_tokens,
                    # A fixed seed: all runs are measured on the same texts.
                    seed=derive_seed(0, "texts of compare", name),
                    vocab_size=pair.vocab_size,
                ),
                [prompt.document for prompt in prompts],
            )
            for name, prompts in _prompts(plan, pair, held_out).items()
        }
        self._target_digest = model_digest(self._target)

    def measure(
        self, draft: PreTrainedModel, pair: ModelPair, cost: VariantCost | None
    ) -> MeasuredVariant:
        """Measure a draft on all texts; the draft is cast to the target's dtype.

        Args:
            draft: The draft of `pair` with the weights to measure.
            pair: Of the variant.
            cost: What training took; None for the undistilled draft.
        """
        cast_parameters(draft, self._target.dtype)
        readings = {}
        for kind, (texts, documents) in self.texts.items():
            facts = text_facts(
                self._target,
                {"draft": draft.eval()},
                texts,
                self.policy,
                documents=documents,
                ends=pair.eos_token_ids,
                vocab_size=pair.vocab_size,
            )
            readings[kind] = VariantReading(
                facts.expected_tau("draft", self.plan.gamma), facts.alpha("draft")
            )
        return MeasuredVariant(readings, cost)

    def settings(self) -> dict[str, Any]:
        """What readings depend on, apart from the draft; written next to them."""
        texts = {
            kind: [text._asdict() for text in measured.texts]
            for kind, measured in self.texts.items()
        }
        return {
            "gamma": self.plan.gamma,
            "temperature": self.policy.temperature,
            "target": self._target_digest,
            "texts": hashlib.sha256(json.dumps(texts).encode()).hexdigest(),
            "documents": {
                kind: len(set(measured.documents)) for kind, measured in self.texts.items()
            },
        }

    def write(self, path: Path, measured: MeasuredVariant) -> None:
        """Write what was measured, and by which settings."""
        assert measured.cost is not None, "the undistilled draft is measured at each start"
        atomic.write_json(
            path,
            {
                "readings": {kind: value.as_json() for kind, value in measured.readings.items()},
                "cost": measured.cost._asdict(),
                "measured_by": self.settings(),
            },
        )


class StoredMeasurement(NamedTuple):
    """measured.json of a run.

    Attributes:
        readings: By the kind of prompts.
        cost: What training took.
        measured_by: `VariantMeasure.settings` at that time.
    """

    readings: dict[str, VariantReading]
    cost: VariantCost
    measured_by: dict[str, Any]


def read_measurement(path: Path) -> StoredMeasurement:
    """What `VariantMeasure.write` wrote."""
    fix = "delete the file: the run is measured again"
    return read_json(BoundedText(path, "this measurement of a comparison", fix), StoredMeasurement)


def _prompts(
    plan: ComparisonConfig, pair: ModelPair, held_out: Sequence[Prompt]
) -> dict[str, Sequence[Prompt]]:
    """The measured prompts by kind: the recipe's own, then those of other sources."""
    # Measured are the first prompts; the probe takes the last documents.
    probed = pair.recipe.distill.probe.prompts
    if len(held_out) < plan.texts + probed:
        console.print(
            f"{len(held_out)} held-out prompts are fewer than {plan.texts} texts and {probed} "
            "probed prompts: the best steps are chosen on some of the measured prompts"
        )
    kinds: dict[str, Sequence[Prompt]] = {HOME: held_out[: plan.texts]}
    for name, source in plan.elsewhere.items():
        prompts = PromptsConfig(count=plan.texts, source=source)
        suite = Suite(name=name, prompts=prompts, max_new_tokens=plan.max_new_tokens)
        kinds[name], notes = suite_prompts(pair, suite, [])
        for note in notes:
            console.print(f"{name}: {note}")
    return kinds
