"""Composition root: the one place where a recipe becomes objects, and where the seed is applied."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from distillspec.corpus.batching import Batch, collate
from distillspec.corpus.frequent import Frequent, frequent_tokens
from distillspec.corpus.module import PromptRows, check_fixed
from distillspec.corpus.prompts import Prompt, PromptSets, load_prompts
from distillspec.corpus.question import check_fits
from distillspec.corpus.signal_store import Scorer, SignalStore, SignalText
from distillspec.corpus.stored import StoredResponses
from distillspec.corpus.tokenizing import Tokens
from distillspec.corpus.traffic import Traffic, load_traffic
from distillspec.divergence.top_tokens import TopTokens, top_tokens
from distillspec.errors import DistillSpecError
from distillspec.measure.completions import end_tokens
from distillspec.measure.corpus_alpha import DrawnText, mass
from distillspec.models.adapters import add_lora, check_targets
from distillspec.models.bridge import Bridge, attach
from distillspec.models.digest import model_digest
from distillspec.models.frozen import FrozenTarget
from distillspec.models.generate import generate
from distillspec.models.hidden import causal_model
from distillspec.models.loading import load_model, load_tokenizer
from distillspec.models.precision import cast_parameters, fast_dtype
from distillspec.models.runner import most_positions, vocabulary_size
from distillspec.models.start import made_draft
from distillspec.models.template import template_hash
from distillspec.models.trimmed_head import settle_head, trim_head
from distillspec.models.vocabulary import check_pair, vocabulary_digest
from distillspec.recipe.distill import CachedSignal, OnlineSignal, Shares
from distillspec.recipe.loading import load_suite
from distillspec.recipe.schema import Hardware, Recipe
from distillspec.recipe.start import Pruned, Random
from distillspec.recipe.suite import Suite
from distillspec.speculation.chance import GeneratorChance
from distillspec.speculation.sampling import SamplingPolicy
from distillspec.training.objective import predicts_response
from distillspec.training.probe import Probe

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device(hardware: Hardware) -> torch.device:
    """The device of this process. Errors: a GPU is asked for and there is none."""
    if hardware.device == "cpu" or (hardware.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DistillSpecError(
            "there is no GPU that torch can use",
            where="hardware.device",
            mend="set hardware.device=auto, or install a torch build for your GPU",
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def dtype(name: str, where: torch.device) -> torch.dtype:
    """The dtype that a recipe or suite names; "auto" is what `where` multiplies fastest."""
    return fast_dtype(where) if name == "auto" else _DTYPES[name]


def prepare_process(recipe: Recipe) -> None:
    """Threads, determinism, and the global seed (LoRA's initial weights; all sampling has streams
    of its own).
    """
    if recipe.hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if recipe.hardware.threads is not None:
        torch.set_num_threads(recipe.hardware.threads)
    torch.manual_seed(recipe.seed)


# --- the pair ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A checked pair. vocabulary: tokens that both models share. start: a draft that is made.

    frozen: the target, or None where it is an endpoint; the tokenizer is then the draft's.
    kept: the tokens that a draft with a trimmed head scores, once they are known. bridge: between
    the target's tokens and those of a draft with a tokenizer of its own; `vocabulary` is then the
    target's.
    """

    recipe: Recipe
    device: torch.device
    frozen: FrozenTarget | None
    tokenizer: PreTrainedTokenizerBase
    vocabulary: int
    end_tokens: frozenset[int]
    start: PreTrainedModel | None = None
    kept: Tokens | None = None
    bridge: Bridge | None = None
    draft_tokenizer: PreTrainedTokenizerBase | None = None  # where it is not the target's

    @property
    def target(self) -> FrozenTarget:
        """Errors: a target whose weights are elsewhere."""
        if self.frozen is None:
            raise DistillSpecError(
                "this needs the target's weights, and the target is an endpoint",
                where=f"pair.endpoint: {self.recipe.pair.target_name}",
                mend="name a folder or a Hub id in pair.target, in place of pair.endpoint",
            )
        return self.frozen

    @property
    def pad_token(self) -> int:
        """Any token serves: masks come from lengths."""
        pad = self.tokenizer.pad_token_id
        return int(min(self.end_tokens) if pad is None else pad)

    def exported_vocabulary(self, draft: PreTrainedModel) -> int:
        """Rows of the draft's embedding once it is exported: as many as the target has."""
        if self.bridge is not None or self.frozen is None:
            return vocabulary_size(draft)  # its own
        return vocabulary_size(self.frozen.model)

    def draft(self, kind: torch.dtype = torch.float32) -> PreTrainedModel:
        """The undistilled draft, fresh from its folder or as it was made, to decode with."""
        draft = self._plain_draft(kind)
        if self.kept is not None:
            trim_head(draft, self.kept)
            settle_head(draft)
        return draft

    def _plain_draft(self, kind: torch.dtype) -> PreTrainedModel:
        if self.start is None:
            given = _draft(self.recipe, kind, self.device)
            if self.bridge is not None:
                attach(given, self.bridge)
            return given
        draft = copy.deepcopy(self.start)
        cast_parameters(draft, kind)
        torch.nn.Module.to(draft, self.device)
        return draft

    def trainable_draft(self) -> nn.Module:
        """The undistilled draft in float32, with LoRA adapters if the recipe asks for them."""
        plain = self._plain_draft(torch.float32)
        draft = plain if self.recipe.lora is None else add_lora(plain, self.recipe.lora)
        if self.kept is not None:
            trim_head(causal_model(draft), self.kept)
        return draft


def load_pair(recipe: Recipe, kind: torch.dtype | None = None) -> Pair:
    """Load the target (in `kind`; default: the hardware's precision) and check the pair.

    The tokenizers are compared before any weight is read. A draft that is made has the target's.
    Of a target behind an endpoint there is nothing to load or to compare.
    """
    pair, where = recipe.pair, device(recipe.hardware)
    if pair.endpoint is not None:
        return _load_draft_alone(recipe, where)
    kind = kind or dtype(recipe.hardware.precision, where)
    tokenizer = load_tokenizer(
        pair.target_weights,
        trust_remote_code=pair.trust_remote_code,
        revision=pair.target_revision,
        what="target",
    )
    if not isinstance(pair.draft, str):
        return _made_pair(recipe, pair.draft, tokenizer, kind)
    draft_tokenizer = _draft_tokenizer(recipe)
    target = load_model(
        pair.target_weights,
        dtype=kind,
        device=where,
        trust_remote_code=pair.trust_remote_code,
        revision=pair.target_revision,
        what="target",
    )
    return _given_pair(recipe, target, tokenizer, draft_tokenizer)


def _given_pair(
    recipe: Recipe,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
) -> Pair:
    """A target and the draft that the recipe names."""
    pair, where = recipe.pair, device(recipe.hardware)
    draft = _draft(recipe, torch.float32, torch.device("cpu"))
    _check_length(recipe, target, draft)
    _check_draft(recipe, draft)
    names = f"pair.target={pair.target}, pair.draft={pair.draft}"
    sizes = vocabulary_size(target), vocabulary_size(draft)
    ends = _ends(target, tokenizer, "target")
    if pair.tokenizers == "bridged":
        bridge = Bridge(tokenizer, draft_tokenizer, *sizes, names)
        return Pair(
            recipe,
            where,
            FrozenTarget(target),
            tokenizer,
            sizes[0],
            ends,
            bridge=bridge,
            draft_tokenizer=draft_tokenizer,
        )
    vocabulary = check_pair(tokenizer, draft_tokenizer, *sizes, names)
    return Pair(recipe, where, FrozenTarget(target, vocabulary), tokenizer, vocabulary, ends)


def _load_draft_alone(recipe: Recipe, where: torch.device) -> Pair:
    tokenizer = _draft_tokenizer(recipe)
    draft = _draft(recipe, torch.float32, torch.device("cpu"))
    _check_length(recipe, draft)
    _check_draft(recipe, draft)
    size = vocabulary_size(draft)
    check_pair(tokenizer, tokenizer, size, size, f"pair.draft={recipe.pair.draft}")
    return Pair(recipe, where, None, tokenizer, size, _ends(draft, tokenizer, "draft"))


def _made_pair(
    recipe: Recipe, plan: Pruned | Random, tokenizer: PreTrainedTokenizerBase, kind: torch.dtype
) -> Pair:
    """A target and the draft that is made for it, from the target's weights as they are stored."""
    where = device(recipe.hardware)
    target = _stored_target(recipe)
    ends = _ends(target, tokenizer, "target")
    start = _made(recipe, plan, target, _end_of_text(tokenizer, ends), recipe.seed)
    vocabulary = vocabulary_size(target)
    cast_parameters(target, kind)
    torch.nn.Module.to(target, where)
    frozen = FrozenTarget(target, vocabulary)
    return Pair(recipe, where, frozen, tokenizer, vocabulary, ends, start)


def with_draft_of(pair: Pair, recipe: Recipe) -> Pair:
    """The pair with the draft of another recipe for the same target, which is not loaded again.

    A draft that is made is made from the pair's seed, whatever the recipe's.
    """
    plan = recipe.pair.draft
    assert recipe.pair.target == pair.recipe.pair.target
    if recipe.pair == pair.recipe.pair:
        return replace(pair, recipe=recipe)
    target = pair.target.model
    if isinstance(plan, str):
        return _given_pair(recipe, target, pair.tokenizer, _draft_tokenizer(recipe))
    end = _end_of_text(pair.tokenizer, pair.end_tokens)
    start = _made(recipe, plan, _stored_target(recipe), end, pair.recipe.seed)
    size = vocabulary_size(target)
    frozen = FrozenTarget(target, size)
    return Pair(recipe, pair.device, frozen, pair.tokenizer, size, pair.end_tokens, start)


def _stored_target(recipe: Recipe) -> PreTrainedModel:
    """On the CPU, in the type that its weights are stored in."""
    return load_model(
        recipe.pair.target_weights,
        dtype="auto",
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.target_revision,
        what="target",
    )


def _made(
    recipe: Recipe, plan: Pruned | Random, target: PreTrainedModel, end_token: int, seed: int
) -> PreTrainedModel:
    start = made_draft(plan, target, end_token=end_token, seed=seed)
    _check_length(recipe, target, start)
    _check_draft(recipe, start)
    return start


def _end_of_text(tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> int:
    return min(ends) if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)


def _check_length(recipe: Recipe, *models: PreTrainedModel) -> None:
    data = recipe.data
    source, needed = recipe.distill.source, data.max_prompt_tokens + data.max_response_tokens
    drafted = recipe.distill.speculative.gamma if source.speculative else 0
    holds = min(map(most_positions, models)) - drafted
    if needed > holds:
        beside = f" beside {drafted} drafted tokens" if drafted else ""
        raise DistillSpecError(
            f"a row may have {needed} tokens, and the pair's contexts hold {holds}{beside}",
            where=f"data.max_prompt_tokens={data.max_prompt_tokens}, "
            f"data.max_response_tokens={data.max_response_tokens}",
            mend=f"lower them to {holds} together",
        )


def _check_draft(recipe: Recipe, draft: PreTrainedModel) -> None:
    """Whether what the recipe changes about the draft can be: before a run folder is begun."""
    if recipe.lora is not None:
        check_targets(draft, recipe.lora)
    plan, size = recipe.pair.draft_head, vocabulary_size(draft)
    if plan is not None and plan.keep > size:
        raise DistillSpecError(
            f"the draft's head cannot keep {plan.keep} tokens: it has {size}",
            where=f"pair.draft_head.keep={plan.keep}",
            mend=f"give at most {size}, or leave draft_head out",
        )


def _draft_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    assert isinstance(recipe.pair.draft, str), "a made draft has the target's"
    return load_tokenizer(
        recipe.pair.draft,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def _draft(recipe: Recipe, kind: torch.dtype, where: torch.device) -> PreTrainedModel:
    assert isinstance(recipe.pair.draft, str), "a made draft is in no folder"
    return load_model(
        recipe.pair.draft,
        dtype=kind,
        device=where,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, what: str) -> frozenset[int]:
    found = end_tokens(model, tokenizer)
    if not found:
        raise DistillSpecError(
            f"the {what} names no end-of-text token",
            where=f"pair.{what}: generation_config.json and tokenizer",
            mend=f"set eos_token_id in the {what}'s generation_config.json",
        )
    return found


# --- text ----------------------------------------------------------------------------------------


def prompts(pair: Pair) -> PromptSets:
    sets = load_prompts(pair.recipe.data, pair.tokenizer, seed=pair.recipe.seed)
    if pair.recipe.distill.on_prompts and sets.template_hash is not None:
        raise DistillSpecError(
            "the data are chats, and their prompts hold the template and other people's turns",
            where="distill.on_prompts=true",
            mend="set distill.on_prompts=false: then the loss is over the responses",
        )
    check_fixed(sets.training, pair.recipe.distill.source)
    if pair.recipe.pair.endpoint is not None:
        check_fits([*sets.held_out, *sets.training], pair.recipe.pair.endpoint.api)
    return sets


def suite_prompts(pair: Pair, suite: Suite, drafts: Sequence[PreTrainedModel]) -> Traffic:
    """The prompts of a suite that brings its own, as long as its plan and the contexts allow."""
    recipe = pair.recipe
    holds = min(most_positions(model) for model in (pair.target.model, *drafts))
    room = holds - suite.max_new_tokens - suite.reach
    if room < 1:
        raise DistillSpecError(
            f"max_new_tokens and a block need {suite.max_new_tokens + suite.reach} of the "
            f"{holds} positions of the models' contexts: none is left for a prompt",
            where=f"evaluation suite {suite.name}",
            mend="lower max_new_tokens in the suite",
        )
    return load_traffic(suite.prompts, recipe.data, pair.tokenizer, seed=recipe.seed, room=room)


def overlap(recipe: Recipe, sets: PromptSets) -> list[str]:
    """A note where there are too few held-out prompts for probe and evaluation to differ."""
    if recipe.pair.endpoint is not None:  # there will be no evaluation
        return []
    suite = load_suite(recipe.evaluate.suite)
    taken = recipe.distill.probe.prompts + suite.prompts.most
    if suite.prompts.named or len(sets.held_out) >= taken:
        return []
    return [
        f"{len(sets.held_out)} held-out prompts are fewer than the {taken} that probe and suite "
        "ask for: the best checkpoint is chosen on some of the prompts it is measured on"
    ]


def preview(pair: Pair, training: Sequence[Prompt]) -> Batch | None:
    """The first rows of fixed text with their masks, as many as the recipe wants to show."""
    rows = [(p.tokens, p.response) for p in training if p.response is not None]
    rows = rows[: pair.recipe.data.preview]
    if not rows:
        return None
    return collate(rows, pair.pad_token, on_prompts=pair.recipe.distill.on_prompts)


def target_store(pair: Pair, training: Sequence[Prompt]) -> StoredResponses:
    """Where the target's responses to `training` are kept, under a manifest of what made them."""
    has_template = pair.tokenizer.chat_template is not None
    template = template_hash(pair.tokenizer) if has_template else None
    recipe = pair.recipe
    return StoredResponses(
        Path(recipe.data.store) / recipe.name,
        training,
        seed=recipe.seed,
        temperature=recipe.distill.temperature,
        model=model_digest(pair.target.model),
        settings={
            "max_response_tokens": recipe.data.max_response_tokens,
            "dtype": str(pair.target.model.dtype).removeprefix("torch."),
            "vocabulary": pair.vocabulary,
            "end_tokens": ",".join(map(str, sorted(pair.end_tokens))),
            "chat_template": template,
        },
    )


def target_sampler(pair: Pair) -> Callable[[list[Prompt], int], list[list[int]]]:
    """Draws the target's responses to a batch of prompts from a seed of their own."""

    def sample(batch: list[Prompt], seed: int) -> list[list[int]]:
        generator = torch.Generator(device=pair.device).manual_seed(seed)
        responses = generate(
            pair.target.model,
            [torch.tensor(prompt.tokens) for prompt in batch],
            max_new_tokens=pair.recipe.data.max_response_tokens,
            policy=SamplingPolicy(temperature=pair.recipe.distill.temperature),
            chance=GeneratorChance(generator),
            end_tokens=pair.end_tokens,
            pad_token=pair.pad_token,
            vocabulary=pair.vocabulary,
        )
        return [response.tolist() for response in responses]

    return sample


def signal_store(
    pair: Pair,
    signal: CachedSignal,
    training: Sequence[Prompt],
    target_responses: dict[str, Tokens] | None,
) -> SignalStore:
    """Where the target's distributions over all texts of the training are kept."""
    plan = pair.recipe.distill
    texts = [
        SignalText((*prompt.tokens, *response), 1 if plan.on_prompts else len(prompt.tokens))
        for prompt in training
        for response in _known_responses(prompt, plan.source, target_responses)
    ]
    return SignalStore(
        Path(signal.store) / pair.recipe.name,
        texts,
        signal,
        vocabulary=pair.vocabulary,
        temperature=plan.temperature,
        model=model_digest(pair.target.model),
        tokenizer=vocabulary_digest(pair.tokenizer),
        settings={
            "target_dtype": str(pair.target.model.dtype).removeprefix("torch."),
            "on_prompts": plan.on_prompts,
        },
    )


def _known_responses(
    prompt: Prompt, source: Shares, target_responses: dict[str, Tokens] | None
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


def signal_scorer(pair: Pair, signal: CachedSignal) -> Scorer:
    """Forwards texts through the target and keeps the likeliest tokens of each position."""
    plan, target = pair.recipe.distill, pair.target
    size = plan.micro_batch_size or plan.batch_size

    def score(texts: list[SignalText]) -> list[TopTokens]:
        laws: list[TopTokens] = []
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            pairs = [(text.tokens[: text.first], text.tokens[text.first :]) for text in part]
            batch = collate(pairs, pair.pad_token).to(pair.device)
            predicts = predicts_response(batch)
            head = target.head
            states = target.logits if head is None else target.hidden
            found = top_tokens(
                states(batch.tokens, batch.is_token)[predicts],
                head,
                k=signal.k,
                temperature=plan.temperature,
                chunk_tokens=plan.chunk_tokens,
            )
            laws += found.split([text.predicted for text in part])
        return laws

    return score


def rows(
    recipe: Recipe, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None
) -> PromptRows:
    return PromptRows(
        training,
        recipe.distill.source,
        batch_size=recipe.distill.batch_size,
        seed=recipe.seed,
        target_responses=target_responses,
        bucket_steps=recipe.distill.bucket_steps,
    )


def drawn_texts(pair: Pair, held_out: Sequence[Prompt]) -> list[DrawnText]:
    """The target's own answers to held-out prompts, as the proof of an export reads them."""
    taken = list(held_out[: pair.recipe.distill.probe.prompts])
    answers = target_sampler(pair)(taken, pair.recipe.seed)
    return [DrawnText(p.tokens, tuple(a)) for p, a in zip(taken, answers, strict=True)]


def reach(pair: Pair, held_out: Sequence[Prompt]) -> float:
    """The target's mass on the tokens that the draft can propose, mean over its own texts."""
    policy = SamplingPolicy(temperature=pair.recipe.distill.temperature)
    texts = drawn_texts(pair, held_out)
    tokens = pair.kept if pair.bridge is None else pair.bridge.target_ids.tolist()
    assert tokens is not None
    return mass(pair.target.model, texts, policy, tokens, vocabulary=pair.vocabulary).mean()


# --- training ------------------------------------------------------------------------------------


def probe_prompts(recipe: Recipe, held_out: Sequence[Prompt]) -> list[Prompt]:
    """The last of the held-out prompts: the best checkpoint is chosen on them, so that the first
    ones, which an evaluation takes, stay unseen.
    """
    return list(held_out[::-1][: recipe.distill.probe.prompts])


def probe(pair: Pair, held_out: Sequence[Prompt]) -> Probe:
    return Probe(
        pair.target,
        probe_prompts(pair.recipe, held_out),
        pair.recipe.distill.probe,
        temperature=pair.recipe.distill.temperature,
        end_tokens=pair.end_tokens,
        pad_token=pair.pad_token,
        seed=pair.recipe.seed,
        vocabulary=pair.vocabulary,
    )


def kept_tokens(
    pair: Pair, training: Sequence[Prompt], target_responses: dict[str, Tokens] | None, keep: int
) -> Frequent:
    """What a trimmed head of the draft keeps: by the target's responses, or the data's own.

    End-of-text and special tokens are kept whatever their counts.
    """
    own = [prompt.response for prompt in training if prompt.response is not None]
    special = pair.end_tokens.union(pair.tokenizer.all_special_ids)
    return frequent_tokens(
        own if target_responses is None else target_responses.values(),
        keep,
        always=frozenset(token for token in special if token < pair.vocabulary),
        vocabulary=pair.vocabulary,
    )


def reference(pair: Pair, recipe: Recipe) -> FrozenTarget | None:
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
    if size < pair.vocabulary and pair.bridge is None:
        raise DistillSpecError(
            f"the reference knows {size} tokens, and the pair has {pair.vocabulary} in common",
            where=f"distill.select.reference={select.reference}",
            mend="name a draft that was distilled from this pair's own draft",
        )
    if pair.kept is not None:
        trim_head(model, pair.kept)
    if pair.bridge is not None:
        attach(model, pair.bridge)
    return FrozenTarget(model, pair.vocabulary)


def control_recipe(recipe: Recipe, minutes: float) -> Recipe:
    """The same draft, text and optimizer, trained for `minutes` by plain NLL.

    The text is the recipe's stored part, of the data set and of the target; where all is written
    during training, the data set's.
    """
    stored = recipe.distill.source.stored
    total = sum(stored.values())
    of = {origin: share / total for origin, share in stored.items()}
    shares = Shares.model_validate(of or {"fixed": 1.0})
    plan = recipe.distill.model_copy(
        update={
            "divergence": "nll",
            "mix": None,
            "select": None,
            "signal": OnlineSignal(kind="online"),
            "source": shares,
            "max_steps": 1_000_000_000,
            "max_minutes": minutes,
        }
    )
    return recipe.model_copy(update={"distill": plan})
