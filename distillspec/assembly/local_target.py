"""A target with loaded weights, in this process or split over all processes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import cached_target, target_responses
from distillspec.assembly.text import drafted_texts, drawn_texts
from distillspec.assembly.training import TrainingText, training_text
from distillspec.assembly.trimmed_head import with_head
from distillspec.corpus.sources.prompts import PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.export.folder import verify_export, verify_reload
from distillspec.measure.exact.corpus_alpha import acceptance, surprise
from distillspec.models.vocabulary.trimmed_head import whole_head
from distillspec.recipe.schema import Recipe
from distillspec.recipe.written_files import HOT_TOKENS
from distillspec.runtime.world import World
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class LocalTarget:
    """The target of a run that holds all weights in this process."""

    @property
    def evaluates(self) -> bool:
        return True

    def control_refusal(self) -> str | None:
        return None

    def try_out(self, pair: ModelPair, sets: PromptSets) -> None:
        return None

    def training_text(
        self,
        pair: ModelPair,
        sets: PromptSets,
        world: World,
        settle: Callable[[dict[str, Tokens] | None], ModelPair],
    ) -> TrainingText:
        responses, seconds = None, 0.0
        if "target" in pair.recipe.distill.stored:
            sampled = target_responses(pair, sets.training, world)
            responses, seconds = sampled.by_key, sampled.seconds
        # The trimmed head comes first, because cached logits cover only its tokens.
        pair = settle(responses)
        cached = cached_target(pair, sets.training, responses, world)
        seconds += 0.0 if cached is None else cached.store.seconds
        return training_text(pair, sets, responses, cached)._replace(seconds=seconds)

    def fill_stores(self, pair: ModelPair, sets: PromptSets, world: World) -> list[str]:
        distill, lines, responses = pair.recipe.distill, list[str](), None
        # Without cached logits, responses are all that can be stored.
        if "target" in distill.stored or distill.cached_logits is None:
            stored = target_responses(pair, sets.training, world)
            responses = stored.by_key
            lines.append(f"{len(responses)} responses stored under {stored.folder}")
        pair = with_head(pair, sets.training, responses)
        cached = cached_target(pair, sets.training, responses, world)
        if cached is not None:
            lines.append(f"distributions stored under {cached.store.folder}")
        return lines

    def export_proof(
        self, pair: ModelPair, draft: PreTrainedModel, sets: PromptSets, folder: Path
    ) -> str:
        """Compare alpha on the target's text."""
        policy = SamplingPolicy(temperature=pair.recipe.distill.temperature)
        texts = drawn_texts(pair, sets.held_out)

        def alpha_of(model: PreTrainedModel) -> float:
            sums = acceptance(pair.target.model, model, texts, policy, vocab_size=pair.vocab_size)
            return sums.mean()

        expected = alpha_of(draft)
        alpha = verify_export(
            folder,
            pair.target.model,
            texts,
            policy,
            expected_alpha=expected,
            vocab_size=pair.vocab_size,
            kept=pair.kept,
            token_map=pair.token_map,
        )
        proof = (
            f"its alpha on {len(texts)} other held-out texts is {alpha:.4f}, and was "
            f"{expected:.4f} before the export"
        )
        if pair.kept is None:
            return proof
        # Changes the draft in place, so it comes after the comparison.
        whole_head(draft)
        return (
            f"{proof}; an engine that does not read {HOT_TOKENS} drafts with the full head, which "
            f"has alpha {alpha_of(draft):.4f}"
        )

    def closing_lines(self, folder: Path, draft: Path) -> list[str]:
        return []


@dataclass(frozen=True)
class ShardedTarget(LocalTarget):
    """The target of a run that splits the weights over all processes, which ask it together.

    The target scores text for training and for the probe. The processes end with the training.
    So the export is compared on text of the draft, and nothing is evaluated.
    """

    @property
    def evaluates(self) -> bool:
        return False

    def export_proof(
        self, pair: ModelPair, draft: PreTrainedModel, sets: PromptSets, folder: Path
    ) -> str:
        texts = drafted_texts(pair, draft, sets.held_out)
        nats = verify_reload(folder, draft, texts, vocab_size=pair.vocab_size)
        trained = surprise(draft, texts, vocab_size=pair.vocab_size).mean()
        return (
            f"its loss on text that it drew is {nats:.4f} nats (before rounding to bfloat16 "
            f"{trained:.4f})"
        )

    def closing_lines(self, folder: Path, draft: Path) -> list[str]:
        return [
            "not evaluated: the target is split over processes that have ended. Measure tau and "
            f"speed-up in a serving engine, or run `distillspec evaluate {folder}` on a machine "
            "that holds the target in one process"
        ]


def check_writes_text(recipe: Recipe) -> None:
    """Check, before any model is loaded, that the target can write responses.

    Raises:
        DistillSpecError: The target is split over processes.
    """
    if recipe.hardware.shard_target:
        raise DistillSpecError(
            "a target that is split over processes writes no responses",
            where="hardware.shard_target=true",
            fix="let a server write them (pair.endpoint in another recipe), or train on text of "
            "the draft or of the data",
        )
