"""Composition root: the one place where a recipe and a loaded pair become objects."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.assembly.pair import ModelPair
from distillspec.corpus.batches.batching import Batch, collate
from distillspec.corpus.batches.module import PromptRows, check_fixed
from distillspec.corpus.served.question import check_fits
from distillspec.corpus.sources.frequent import Frequent, frequent_tokens
from distillspec.corpus.sources.prompts import Prompt, PromptSets, load_prompts
from distillspec.corpus.sources.readable import readable
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.corpus.sources.traffic import Traffic, load_traffic
from distillspec.corpus.stores.responses import SampledBy, Sampler, StoredResponses, row_seed
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.corpus.stores.top_k import Scorer, TopKStore, TopKText
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.errors import DistillSpecError
from distillspec.measure.exact.corpus_alpha import mass
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import load_model
from distillspec.models.runners.eager import context_of_model, vocabulary_size
from distillspec.models.sampling.generate import DrawnText, generate
from distillspec.models.surgery.frozen import FrozenTarget
from distillspec.models.vocabulary.cross_tokenizer import attach
from distillspec.models.vocabulary.tokenizers import vocabulary_digest
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.recipe.capacity import check_visits
from distillspec.recipe.distill import (
    CachedTargetConfig,
    DistillConfig,
    OnlineTargetConfig,
    SourceShares,
)
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Recipe
from distillspec.recipe.suite import Suite
from distillspec.runtime.seeds import derive_seed
from distillspec.speculation.chance import GeneratorSource, RowSource
from distillspec.speculation.sampling import SamplingPolicy, check_finite
from distillspec.training.objective import predicts_response
from distillspec.training.probe import AcceptanceProbe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# --- text ----------------------------------------------------------------------------------------


def prompts(pair: ModelPair) -> PromptSets:
    endpoint = pair.recipe.pair.endpoint
    sets = load_prompts(
        pair.recipe.data,
        pair.tokenizer,
        seed=pair.recipe.seed,
        start=pair.start_token,
        variables=pair.recipe.template_variables,
        stops=pair.stops,
        answers_wanted=pair.recipe.distill.source.fixed > 0.0,
    )
    sets = sets._replace(notes=[*pair.stops.notes, *sets.notes])
    if pair.recipe.distill.on_prompts and sets.template_hash is not None:
        raise DistillSpecError(
            "the data are chats, and their prompts hold the template and other people's turns",
            where="distill.on_prompts=true",
            fix="set distill.on_prompts=false: then the loss is over the responses",
        )
    check_fixed(sets.training, pair.recipe.distill.source)
    pair.check_tokens(
        (prompt.key, (*prompt.tokens, *(prompt.response or ())))
        for prompt in (*sets.training, *sets.held_out)
    )
    if endpoint is not None:
        check_fits([*sets.held_out, *sets.training], endpoint.api)
    return sets


def suite_prompts(pair: ModelPair, suite: Suite, drafts: Sequence[PreTrainedModel]) -> Traffic:
    """The prompts of a suite that brings its own, as long as its plan and the contexts allow."""
    recipe = pair.recipe
    holds, reason = min(context_of_model(model) for model in (pair.target.model, *drafts))
    room = holds - suite.max_new_tokens - suite.reach
    if room < 1:
        raise DistillSpecError(
            f"max_new_tokens and a block need {suite.max_new_tokens + suite.reach} of the "
            f"{holds} positions of the models' contexts: none is left for a prompt"
            + (f" ({reason})" if reason else ""),
            where=f"evaluation suite {suite.name}",
            fix="lower max_new_tokens in the suite",
        )
    traffic = load_traffic(
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


def overlap(recipe: Recipe, sets: PromptSets) -> list[str]:
    """A note where there are too few held-out documents for probe and evaluation to differ."""
    if recipe.pair.endpoint is not None:  # there will be no evaluation
        return []
    suite = load_suite(recipe.evaluate.suite)
    taken = recipe.distill.probe.prompts + suite.prompts.most
    measured = {prompt.document for prompt in sets.held_out[: suite.prompts.most]}
    probed = {prompt.document for prompt in probe_prompts(recipe, sets.held_out)}
    if suite.prompts.named or not measured & probed:
        return []
    documents = len({prompt.document for prompt in sets.held_out})
    return [
        f"{len(sets.held_out)} held-out prompts of {documents} documents are too few for the "
        f"{taken} that probe and suite ask for: the best checkpoint is chosen on some of the "
        "documents that it is measured on"
    ]


def preview(pair: ModelPair, training: Sequence[Prompt]) -> Batch | None:
    """The first rows of fixed text with their masks, as many as the recipe wants to show."""
    rows = [(p.tokens, p.response) for p in training if p.response is not None]
    rows = rows[: pair.recipe.data.preview]
    if not rows:
        return None
    return collate(rows, pair.pad_token, on_prompts=pair.recipe.distill.on_prompts)


def target_store(pair: ModelPair, training: Sequence[Prompt]) -> StoredResponses:
    """The target's responses to `training`, in a folder that all that determines them names.

    The chat template is no part of that: a row knows its prompt's tokens.
    """
    recipe = pair.recipe
    return StoredResponses(
        _place(pair, recipe.data.store),
        training,
        SampledBy(
            seed=recipe.seed,
            temperature=recipe.distill.temperature,
            model=model_digest(pair.target.model),
            settings={
                "max_response_tokens": recipe.data.max_response_tokens,
                "dtype": str(pair.target.model.dtype).removeprefix("torch."),
                "tokenizer": vocabulary_digest(pair.tokenizer),
                "vocabulary": pair.vocab_size,
                "end_tokens": ",".join(map(str, sorted(pair.eos_token_ids))),
            },
        ),
    )


def _place(pair: ModelPair, root: str) -> StoreFolder:
    recipe = pair.recipe
    return StoreFolder(Path(root), recipe.pair.target_name, former=recipe.name)


def target_sampler(pair: ModelPair) -> Sampler:
    """Draws the target's responses to prompts, each from a seed of its own."""

    def sample(batch: list[Prompt], seeds: list[int]) -> list[list[int]]:
        most = pair.recipe.data.max_response_tokens
        responses = generate(
            pair.target.model,
            [torch.tensor(prompt.tokens) for prompt in batch],
            max_new_tokens=most,
            policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
            chance=RowSource.seeded(seeds, most, pair.device),
            eos_token_ids=pair.eos_token_ids,
            pad_token=pair.pad_token,
            vocab_size=pair.vocab_size,
        )
        return [response.tolist() for response in responses]

    return sample


def signal_store(
    pair: ModelPair,
    signal: CachedTargetConfig,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
) -> TopKStore:
    """Where the target's distributions over all texts of the training are kept.

    Where the draft scores a part of the vocabulary, they are the target's distributions given that
    part, and a token is known by its place in it: training compares the draft with nothing else.
    """
    plan, scored = pair.recipe.distill, pair.scored
    texts = [
        TopKText((*prompt.tokens, *response), 1 if plan.on_prompts else len(prompt.tokens))
        for prompt in training
        for response in _known_responses(prompt, plan.source, target_responses)
    ]
    return TopKStore(
        _place(pair, signal.store),
        texts,
        signal,
        vocab_size=pair.vocab_size if scored is None else len(scored),
        temperature=plan.temperature,
        model=model_digest(pair.target.model),
        tokenizer=vocabulary_digest(pair.tokenizer),
        settings={
            "target_dtype": str(pair.target.model.dtype).removeprefix("torch."),
            "on_prompts": plan.on_prompts,
            **({} if scored is None else {"scored_tokens": _digest_of(scored)}),
        },
    )


def _known_responses(
    prompt: Prompt, source: SourceShares, target_responses: dict[str, Tokens] | None
) -> list[Tokens]:
    """Those that training may show with the prompt."""
    found = []
    if source.fixed:
        assert prompt.response is not None, "the prompts have been checked"
        found.append(prompt.response)
    if source.target:
        assert target_responses is not None
        found.append(target_responses[prompt.key])
    return found


def _digest_of(tokens: Tokens) -> str:
    return hashlib.sha256(json.dumps(tokens).encode()).hexdigest()


def signal_scorer(pair: ModelPair, signal: CachedTargetConfig) -> Scorer:
    """Forwards texts through the target and keeps the likeliest tokens of each position, among
    those that the draft scores.
    """
    plan, target = pair.recipe.distill, pair.target
    scored = None if pair.scored is None else torch.tensor(pair.scored, device=pair.device)
    size = plan.micro_batch_size or plan.batch_size

    def score(texts: list[TopKText]) -> list[TopTokens]:
        distributions: list[TopTokens] = []
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            pairs = [(text.tokens[: text.first], text.tokens[text.first :]) for text in part]
            batch = collate(pairs, pair.pad_token).to(pair.device)
            predicts = predicts_response(batch)
            head = target.head
            states = target.logits if head is None else target.hidden
            rows = states(batch.tokens, batch.is_token)[predicts]
            if scored is not None and head is None:
                rows = rows[:, scored]
            elif scored is not None and head is not None:
                head = head.only(scored)
            found = top_tokens(
                rows,
                head,
                k=signal.k,
                temperature=plan.temperature,
                chunk_tokens=plan.chunk_tokens,
            )
            check_finite("the target", found.log_probability[:, 0])
            distributions += found.split([text.predicted for text in part])
        return distributions

    return score


class TextForDraft(NamedTuple):
    """training: prompts for rows; held_out: for the probe; notes: of what is left out of them."""

    training: list[Prompt]
    held_out: list[Prompt]
    notes: list[str]


def text_for_draft(
    pair: ModelPair, sets: PromptSets, target_responses: dict[str, Tokens] | None
) -> TextForDraft:
    """All there is, or, with a tokenizer of its own, what the draft can read of it."""
    if pair.bridge is None:
        return TextForDraft(sets.training, sets.held_out, [])
    plan, places = pair.recipe.distill, pair.draft_positions
    training = readable(
        sets.training,
        lambda prompt: [
            (*prompt.tokens, *response)
            for response in _known_responses(prompt, plan.source, target_responses)
        ],
        pair.bridge,
        places,
        "training",
    )
    left = places - plan.probe.max_new_tokens  # a token of the target's is one of its own, or more
    held_out = readable(sets.held_out, lambda one: [one.tokens], pair.bridge, left, "held-out")
    return TextForDraft(training.prompts, held_out.prompts, [*training.notes, *held_out.notes])


def bucket_steps(plan: DistillConfig, prompts: int) -> int:
    """Steps whose sequences are sorted together; DistillSpecError for far more than there is."""
    bucket = min(plan.bucket_steps, plan.max_steps)  # later steps are never taken
    check_visits(plan.batch_size, prompts, "distill.batch_size")
    check_visits(bucket * plan.batch_size, prompts, "distill.bucket_steps")
    return bucket


def rows(
    recipe: Recipe, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> PromptRows:
    """What is trained on; errors as of `bucket_steps`."""
    return PromptRows(
        training,
        recipe.distill.source,
        batch_size=recipe.distill.batch_size,
        seed=recipe.seed,
        target_responses=target_responses,
        bucket_steps=bucket_steps(recipe.distill, len(training)),
    )


def drawn_texts(pair: ModelPair, held_out: Sequence[Prompt]) -> list[DrawnText]:
    """The target's own answers to held-out prompts, as the proof of an export reads them."""
    taken = list(held_out[: pair.recipe.distill.probe.prompts])
    seed = derive_seed(pair.recipe.seed, "proof by the target")
    answers = target_sampler(pair)(taken, [row_seed(seed, prompt) for prompt in taken])
    return [DrawnText(p.tokens, tuple(a)) for p, a in zip(taken, answers, strict=True)]


def drafted_texts(
    pair: ModelPair, draft: PreTrainedModel, held_out: Sequence[Prompt]
) -> list[DrawnText]:
    """A draft's own answers to held-out prompts: they prove an export where no target is."""
    taken = list(held_out[: pair.recipe.distill.probe.prompts])
    generator = torch.Generator(device=draft.device).manual_seed(
        derive_seed(pair.recipe.seed, "proof by the draft")
    )
    answers = generate(
        draft,
        [torch.tensor(prompt.tokens) for prompt in taken],
        max_new_tokens=pair.recipe.distill.probe.max_new_tokens,
        policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
        chance=GeneratorSource(generator),
        eos_token_ids=pair.eos_token_ids,
        pad_token=pair.pad_token,
        vocab_size=pair.vocab_size,
    )
    return [
        DrawnText(prompt.tokens, tuple(answer.tolist()))
        for prompt, answer in zip(taken, answers, strict=True)
    ]


def reach(pair: ModelPair, held_out: Sequence[Prompt]) -> float:
    """The target's mass on the tokens that the draft can propose, mean over its own texts."""
    policy = SamplingPolicy(temperature=pair.recipe.distill.temperature)
    texts = drawn_texts(pair, held_out)
    assert pair.scored is not None
    return mass(pair.target.model, texts, policy, pair.scored, vocab_size=pair.vocab_size).mean()


# --- training ------------------------------------------------------------------------------------


def probe_prompts(recipe: Recipe, held_out: Sequence[Prompt]) -> list[Prompt]:
    """The best checkpoint is chosen on these; an evaluation takes the first held-out prompts.

    One of each of the last documents, so that the first ones stay unseen; where there are fewer
    documents than probed prompts, more of them, the last first.
    """
    first: dict[str, Prompt] = {}
    for prompt in held_out:
        first.setdefault(prompt.document, prompt)
    chosen = list(first.values())[::-1]
    taken = {prompt.key for prompt in chosen}
    chosen += [prompt for prompt in held_out[::-1] if prompt.key not in taken]
    return chosen[: recipe.distill.probe.prompts]


def probe(pair: ModelPair, held_out: Sequence[Prompt]) -> AcceptanceProbe:
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


def kept_tokens(
    pair: ModelPair,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
    keep: int,
) -> Frequent:
    """What a trimmed head of the draft keeps: by the target's responses, or the data's own.

    End-of-text and special tokens are kept whatever their counts.
    """
    own = [prompt.response for prompt in training if prompt.response is not None]
    special = pair.eos_token_ids.union(pair.tokenizer.all_special_ids)
    return frequent_tokens(
        own if target_responses is None else target_responses.values(),
        keep,
        always=frozenset(token for token in special if token < pair.vocab_size),
        vocab_size=pair.vocab_size,
    )


def with_head(
    pair: ModelPair, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> ModelPair:
    """The pair with the tokens that a trimmed head keeps, where the recipe trims it."""
    plan = pair.recipe.pair.draft_head
    if plan is None or pair.kept is not None:
        return pair
    return replace(pair, kept=kept_tokens(pair, training, target_responses, plan.keep).tokens)


class ForeseenHead(NamedTuple):
    """A pair with the head that training will probably keep, and the text its tokens are from."""

    pair: ModelPair
    counted_in: str


def foreseen_head(pair: ModelPair, training: Sequence[Prompt]) -> ForeseenHead | None:
    """Before the target has been asked: by what is known of the text that training counts.

    None where the recipe trims no head.
    """
    plan, source = pair.recipe.pair.draft_head, pair.recipe.distill.source
    if plan is None:
        return None
    texts = target_store(pair, training).known() if "target" in source.stored else {}
    counted_in = f"{len(texts)} of the target's stored responses"
    if not texts:
        texts = {p.key: p.response for p in training if p.response is not None}
        counted_in = "the data's own responses"
    if not texts:
        texts = {prompt.key: prompt.tokens for prompt in training}
        counted_in = "the prompts, since no response is known yet"
    kept = kept_tokens(pair, training, texts, plan.keep).tokens
    return ForeseenHead(replace(pair, kept=kept), counted_in)


def reference(pair: ModelPair, recipe: Recipe) -> FrozenTarget | None:
    """The draft that token selection compares with, where the recipe selects."""
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
    if size < pair.vocab_size and pair.bridge is None:
        raise DistillSpecError(
            f"the reference knows {size} tokens, and the pair has {pair.vocab_size} in common",
            where=f"distill.select.reference={select.reference}",
            fix="name a draft that was distilled from this pair's own draft",
        )
    if pair.kept is not None:
        trim_head(model, pair.kept)
    if pair.bridge is not None:
        attach(model, pair.bridge)
    return FrozenTarget(model, pair.vocab_size)


def control_recipe(recipe: Recipe, minutes: float) -> Recipe:
    """The same draft, text and optimizer, trained for `minutes` by plain NLL.

    The text is the recipe's stored part, of the data set and of the target; where all is written
    during training, the data set's.
    """
    stored = recipe.distill.source.stored
    total = sum(stored.values())
    of = {origin: share / total for origin, share in stored.items()}
    shares = SourceShares.model_validate(of or {"fixed": 1.0})
    plan = recipe.distill.model_copy(
        update={
            "divergence": "nll",
            "mix": None,
            "select": None,
            "target_logits": OnlineTargetConfig(kind="online"),
            "source": shares,
            "max_steps": 1_000_000_000,
            "max_minutes": minutes,
        }
    )
    return recipe.model_copy(update={"distill": plan})
