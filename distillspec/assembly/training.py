"""The training of a draft: text, probe, reference and control, and the call of `fit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from distillspec.assembly.draft_vocabulary import CrossTokenizerVocabulary
from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import known_responses
from distillspec.assembly.text import probe_prompts
from distillspec.corpus.batches.data_module import PromptRows
from distillspec.corpus.sources.draft_limit import fitting_prompts
from distillspec.corpus.sources.prompts import Prompt, PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.loading.load import load_model
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.recipe.capacity import check_visits
from distillspec.recipe.distill import DistillConfig
from distillspec.recipe.schema import Recipe
from distillspec.recipe.target_logits import OnlineTargetConfig
from distillspec.recipe.text_source import SourceShares
from distillspec.training.cached_target import CachedTopKTarget
from distillspec.training.callback import ProbeMeasure
from distillspec.training.fit import FitInputs, FitOutcome, fit
from distillspec.training.probe import AcceptanceProbe


class TrainingText(NamedTuple):
    """The text that drafts are trained on, and the probe that measures them.

    Attributes:
        training: Prompts of the training rows.
        responses: The target's responses by prompt key, if the recipe trains on them.
        probe: Chooses the best checkpoint.
        cached: Cached top-k logits of the target, if the recipe reads them.
        notes: Lines for the user about text that was left out.
        seconds: What sampling and caching took, over all runs and processes.
    """

    training: list[Prompt]
    responses: dict[str, Tokens] | None
    probe: ProbeMeasure
    cached: CachedTopKTarget | None
    notes: list[str]
    seconds: float = 0.0


def training_text(
    pair: ModelPair,
    sets: PromptSets,
    responses: dict[str, Tokens] | None,
    cached: CachedTopKTarget | None,
) -> TrainingText:
    """All prompts, or those that fit the context of a draft with another tokenizer.

    Args:
        pair: Target and draft.
        sets: Training and held-out prompts.
        responses: The target's responses by prompt key, None if the recipe trains on other text.
        cached: Cached top-k logits of the target, if the recipe reads them.
    """
    training, held_out, notes = sets.training, sets.held_out, list[str]()
    if isinstance(pair.vocabulary, CrossTokenizerVocabulary):
        plan, limit = pair.recipe.distill, pair.vocabulary.max_context_length
        # Lengths are in the draft's tokens, because the limit is the draft's context.
        readable_training = fitting_prompts(
            training,
            lambda prompt: [
                (*prompt.tokens, *response)
                for response in known_responses(prompt, plan.stored, responses)
            ],
            pair.vocabulary.map,
            limit,
            "training",
        )
        # A token of the target becomes at least one token of the draft.
        limit -= plan.probe.max_new_tokens
        readable_held_out = fitting_prompts(
            held_out, lambda prompt: [prompt.tokens], pair.vocabulary.map, limit, "held-out"
        )
        training, held_out = readable_training.prompts, readable_held_out.prompts
        notes = [*readable_training.notes, *readable_held_out.notes]
    return TrainingText(training, responses, acceptance_probe(pair, held_out), cached, notes)


def train_draft(
    pair: ModelPair,
    recipe: Recipe,
    text: TrainingText,
    folder: Path,
    label: str,
    on_checkpoint: Callable[[int], None] | None = None,
) -> FitOutcome:
    """Train the pair's draft in `folder`, or resume from its last checkpoint.

    Args:
        pair: Target and draft.
        recipe: Of the pair, of its control, or of a variant.
        text: As `Target.training_text` returns it.
        folder: Receives checkpoints and metrics.
        label: Names the draft in progress lines.
        on_checkpoint: Called at each checkpoint with the response tokens since this start.
    """
    # The control reads no logits, even if the run has cached them.
    cached = text.cached if recipe.distill.cached_logits is not None else None
    inputs = FitInputs(
        recipe,
        draft=pair.trainable_draft(),
        target=pair.target if recipe.distill.needs_target else None,
        reference=load_reference(pair, recipe),
        tokenizer=pair.tokenizer,
        data_module=training_rows(recipe, text.training, text.responses),
        probe=text.probe,
        eos_token_ids=pair.eos_token_ids,
        vocab_size=pair.vocab_size,
        cached=cached,
    )
    return fit(inputs, folder=folder, label=label, resume=True, on_checkpoint=on_checkpoint)


def bucket_steps(plan: DistillConfig, prompts: int) -> int:
    """Steps whose sequences are sorted together.

    Raises:
        DistillSpecError: The recipe visits each prompt far too often.
    """
    bucket = min(plan.bucket_steps, plan.max_steps)  # no step follows the last
    # Two checks, so that the error names the key to lower.
    check_visits(plan.batch_size, prompts, "distill.batch_size")
    check_visits(bucket * plan.batch_size, prompts, "distill.bucket_steps")
    return bucket


def training_rows(
    recipe: Recipe, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> PromptRows:
    """The rows of the training; errors as in `bucket_steps`."""
    return PromptRows(
        training,
        [phase.source for phase in recipe.distill.phases],
        batch_size=recipe.distill.batch_size,
        seed=recipe.seed,
        target_responses=target_responses,
        bucket_steps=bucket_steps(recipe.distill, len(training)),
    )


def acceptance_probe(pair: ModelPair, held_out: Sequence[Prompt]) -> AcceptanceProbe:
    """Measures alpha and tau on held-out prompts during training."""
    return AcceptanceProbe(
        pair.target,
        probe_prompts(pair.recipe, held_out),
        pair.recipe.distill.probe,
        temperature=pair.recipe.distill.temperature,
        eos_token_ids=pair.eos_token_ids,
        pad_token=pair.pad_token,
        seed=pair.recipe.seed,
        vocab_size=pair.vocab_size,
        joint=pair.is_split,
    )


def load_reference(pair: ModelPair, recipe: Recipe) -> FrozenTarget | None:
    """The reference of token selection; None if the recipe does not select tokens.

    Raises:
        DistillSpecError: It cannot be loaded, or it knows fewer tokens than the pair.
    """
    select = recipe.distill.select
    if select is None:
        return None
    model = load_model(
        select.reference,
        dtype=pair.target.model.dtype,
        device=pair.device,
        trust_remote_code=recipe.pair.trust_remote_code,
        what="reference",
    )
    size = vocabulary_size(model)
    if size < pair.vocab_size and pair.token_map is None:
        raise DistillSpecError(
            f"the reference knows {size} tokens, and target and draft share {pair.vocab_size}",
            where=f"distill.select.reference={select.reference}",
            fix="name a draft that was distilled from the draft of this pair",
        )
    pair.vocabulary.prepare(model)
    return FrozenTarget(model, pair.vocab_size)


def control_recipe(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe of the control: the same draft, text and optimizer, trained by plain NLL.

    The control trains on the stored part of the recipe's text, from the data set and the target.
    If the recipe stores no text, the control trains on the data set.

    Args:
        recipe: Of the distilled draft.
        minutes: As long as the distillation took.
    """
    stored = recipe.distill.stored
    total = sum(stored.values())
    scaled = {origin: share / total for origin, share in stored.items()}
    shares = SourceShares.model_validate(scaled or {"fixed": 1.0})
    plan = recipe.distill.model_copy(
        update={
            "divergence": "nll",
            "mix": None,
            "select": None,
            "schedule": (),
            "target_logits": OnlineTargetConfig(kind="online"),
            "source": shares,
            # Only the minutes end the training.
            "max_steps": 1_000_000_000,
            "max_minutes": minutes,
        }
    )
    return recipe.model_copy(update={"distill": plan})
