"""The text of a run: the prompts of recipe and suite, and answers of target or draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from distillspec.assembly.pair import ModelPair
from distillspec.assembly.target_data import known_responses, target_sampler
from distillspec.corpus.batches.batching import Batch, collate
from distillspec.corpus.batches.data_module import check_fixed
from distillspec.corpus.served.request import check_fits
from distillspec.corpus.sources.prompts import Prompt, PromptSets, load_prompts
from distillspec.corpus.sources.suite_prompts import SuitePrompts, load_suite_prompts
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.stores.responses import row_seed
from distillspec.errors import DistillSpecError
from distillspec.measure.exact.corpus_alpha import mass
from distillspec.measure.stats.intervals import FEWEST
from distillspec.measure.timed.plan import no_verdict
from distillspec.models.runners.eager import context_of_model
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.random_source import GeneratorSource
from distillspec.speculation.sampling import SamplingPolicy

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def pair_prompts(pair: ModelPair) -> PromptSets:
    """Training and held-out prompts of the recipe.

    Raises:
        DistillSpecError: The data cannot be read, or the recipe cannot train on them.
    """
    endpoint = pair.recipe.pair.endpoint
    sets = load_prompts(
        pair.recipe.data,
        pair.tokenizer,
        seed=pair.recipe.seed,
        start=pair.start_token,
        variables=pair.recipe.template_variables,
        stops=pair.stops,
        answers_wanted="fixed" in pair.recipe.distill.origins,
    )
    sets = sets._replace(notes=[*pair.stops.notes, *sets.notes])
    if pair.recipe.distill.on_prompts and sets.template_hash is not None:
        raise DistillSpecError(
            "the data are chats, whose prompts hold the template and the turns of others",
            where="distill.on_prompts=true",
            fix="set distill.on_prompts=false: then the loss is over the responses",
        )
    for phase in pair.recipe.distill.phases:
        check_fixed(sets.training, phase.source)
    # The models would fail on an unknown token in the middle of training.
    pair.check_tokens(
        (prompt.key, (*prompt.tokens, *(prompt.response or ())))
        for prompt in (*sets.training, *sets.held_out)
    )
    if endpoint is not None:
        check_fits([*sets.held_out, *sets.training], endpoint.api)
    return sets


def suite_prompts(pair: ModelPair, suite: Suite, drafts: Sequence[PreTrainedModel]) -> SuitePrompts:
    """The prompts of a suite with other sources, as long as its plan and the contexts allow.

    Args:
        pair: Target and tokenizer.
        suite: Names the prompts.
        drafts: The drafts that decode, whose contexts count too.

    Raises:
        DistillSpecError: The contexts have no room for a prompt.
    """
    recipe = pair.recipe
    context, reason = min(context_of_model(model) for model in (pair.target.model, *drafts))
    room = context - suite.max_new_tokens - suite.reach
    if room < 1:
        raise DistillSpecError(
            f"max_new_tokens and a block need {suite.max_new_tokens + suite.reach} of the "
            f"{context} positions of the models' contexts: none is left for a prompt"
            + (f" ({reason})" if reason else ""),
            where=f"evaluation suite {suite.name}",
            fix="lower max_new_tokens in the suite",
        )
    traffic = load_suite_prompts(
        suite.prompts,
        recipe.data,
        pair.tokenizer,
        seed=recipe.seed,
        room=room,
        start=pair.start_token,
        variables=recipe.template_variables,
        stops=pair.stops,
    )
    pair.check_tokens(
        (prompt.key, (*prompt.tokens, *(prompt.response or ()))) for prompt in traffic.prompts
    )
    return traffic


def overlap_notes(recipe: Recipe, sets: PromptSets) -> list[str]:
    """A note if probe and evaluation must share held-out documents, because there are too few."""
    if recipe.pair.endpoint is not None:  # nothing will be evaluated
        return []
    suite = load_suite(recipe.evaluate.suite)
    taken = recipe.distill.probe.prompts + suite.prompts.most
    # The evaluation takes the first prompts, the probe the last documents.
    measured = {prompt.document for prompt in sets.held_out[: suite.prompts.most]}
    probed = {prompt.document for prompt in probe_prompts(recipe, sets.held_out)}
    if suite.prompts.named or not measured & probed:
        return []
    documents = len({prompt.document for prompt in sets.held_out})
    return [
        f"{len(sets.held_out)} held-out prompts of {documents} documents are too few for the "
        f"{taken} that probe and suite need: the best checkpoint is chosen on documents that it "
        "is also measured on. Raise data.held_out_percent, or name data.held_out"
    ]


def verdict_notes(recipe: Recipe, sets: PromptSets) -> list[str]:
    """A note, before training, if the evaluation will have too few documents for a verdict."""
    if recipe.pair.endpoint is not None:  # nothing will be evaluated
        return []
    prompts = load_suite(recipe.evaluate.suite).prompts
    if prompts.named:  # they are read when the evaluation begins
        return []
    documents = len({prompt.document for prompt in sets.held_out[: prompts.count]})
    return [no_verdict(documents)] if documents < FEWEST else []


def preview_batch(
    pair: ModelPair, training: Sequence[Prompt], responses: dict[str, Tokens] | None
) -> Batch | None:
    """The first data.preview rows that training reads, with their masks.

    Args:
        pair: Target and draft.
        training: Training prompts.
        responses: The target's responses by prompt key, None if the recipe trains on other text.

    Returns:
        None if no text is known before training.
    """
    stored = pair.recipe.distill.stored
    rows = [
        (prompt.tokens, response)
        for prompt in training[: pair.recipe.data.preview]
        for response in known_responses(prompt, stored, responses)[:1]
    ]
    if not rows:
        return None
    return collate(rows, pair.pad_token, on_prompts=pair.recipe.distill.on_prompts)


def drawn_texts(pair: ModelPair, held_out: Sequence[Prompt]) -> list[DrawnText]:
    """Answers of the target to held-out prompts, which an export is compared on."""
    taken = list(held_out[: pair.recipe.distill.probe.prompts])
    # Another stream than that of the stored responses.
    seed = derive_seed(pair.recipe.seed, "proof by the target")
    answers = target_sampler(pair)(taken, [row_seed(seed, prompt) for prompt in taken])
    return [DrawnText(p.tokens, tuple(a)) for p, a in zip(taken, answers, strict=True)]


def drafted_texts(
    pair: ModelPair, draft: PreTrainedModel, held_out: Sequence[Prompt]
) -> list[DrawnText]:
    """Answers of a draft to held-out prompts, which an export without a target is compared on."""
    taken = list(held_out[: pair.recipe.distill.probe.prompts])
    generator = torch.Generator(device=draft.device).manual_seed(
        derive_seed(pair.recipe.seed, "proof by the draft")
    )
    answers = generate(
        draft,
        [torch.tensor(prompt.tokens) for prompt in taken],
        max_new_tokens=pair.recipe.distill.probe.max_new_tokens,
        policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
        random_source=GeneratorSource(generator),
        eos_token_ids=pair.eos_token_ids,
        pad_token=pair.pad_token,
        vocab_size=pair.vocab_size,
    )
    return [
        DrawnText(prompt.tokens, tuple(answer.tolist()))
        for prompt, answer in zip(taken, answers, strict=True)
    ]


def reachable_mass(pair: ModelPair, held_out: Sequence[Prompt]) -> float:
    """The target's mass on the tokens that the draft scores, in [0, 1]: mean over its texts."""
    policy = SamplingPolicy(temperature=pair.recipe.distill.temperature)
    texts = drawn_texts(pair, held_out)
    scored = pair.vocabulary.scored
    assert scored is not None
    return mass(pair.target.model, texts, policy, scored, vocab_size=pair.vocab_size).mean()


def probe_prompts(recipe: Recipe, held_out: Sequence[Prompt]) -> list[Prompt]:
    """The held-out prompts that choose the best checkpoint.

    They are the first prompts of the last documents, because an evaluation takes the first
    documents. If there are too few documents, further prompts follow, the last first.
    """
    first: dict[str, Prompt] = {}
    for prompt in held_out:
        first.setdefault(prompt.document, prompt)
    chosen = list(first.values())[::-1]
    taken = {prompt.key for prompt in chosen}
    chosen += [prompt for prompt in held_out[::-1] if prompt.key not in taken]
    return chosen[: recipe.distill.probe.prompts]
