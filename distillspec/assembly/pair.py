"""The pair that a recipe names, loaded and checked, and the device where it runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from torch import nn

from distillspec.assembly.draft_vocabulary import (
    CrossTokenizerVocabulary,
    DraftVocabulary,
    SameVocabulary,
    TrimmedVocabulary,
)
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.loading.load import empty_model, fetch_model, load_model, load_tokenizer
from distillspec.models.loading.precision import cast_parameters, fast_dtype
from distillspec.models.runners.cache import check_rolls_back
from distillspec.models.runners.eager import context_of_model, max_context_length, vocabulary_size
from distillspec.models.runners.encoder_decoder import check_same_kind, is_seq2seq, start_token
from distillspec.models.surgery.adapters import add_lora, check_targets
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.made_draft import made_draft
from distillspec.models.surgery.sharded import split_over_processes
from distillspec.models.surgery.trainable import without_dropout
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.models.vocabulary.eos_tokens import EosTokens, required_stop_ids
from distillspec.models.vocabulary.tokenizer_pair import (
    check_in_vocabulary,
    check_pair,
    padding_token,
)
from distillspec.models.vocabulary.trimmed_head import settle_head
from distillspec.recipe.capacity import check_threads
from distillspec.recipe.context import check_rows_fit
from distillspec.recipe.schema import HardwareConfig, Recipe
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig
from distillspec.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device_of(hardware: HardwareConfig) -> torch.device:
    """The device of this process. Errors: a GPU is asked for and there is none."""
    if hardware.device == "cpu" or (hardware.device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DistillSpecError(
            "there is no GPU that torch can use",
            where="hardware.device",
            fix="set hardware.device=auto, or install a torch build for your GPU",
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def dtype_of(name: str, device: torch.device) -> torch.dtype:
    """The dtype that a recipe or suite names; "auto" is what `device` multiplies fastest."""
    return fast_dtype(device) if name == "auto" else _DTYPES[name]


def prepare_process(recipe: Recipe) -> None:
    """Threads, determinism, and the initial weights of LoRA."""
    if recipe.hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA begins
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    if recipe.hardware.threads is not None:
        check_threads(recipe.hardware.threads, "hardware.threads")
        torch.set_num_threads(recipe.hardware.threads)
    seed_adapters(recipe.seed)


def seed_adapters(seed: int) -> None:
    """Seed torch's own generator, which draws the initial weights of LoRA."""
    torch.manual_seed(derive_seed(seed, "LoRA"))


@dataclass(frozen=True)
class ModelPair:
    """A checked pair.

    Attributes:
        recipe: Names the pair.
        device: Where both models are.
        frozen: The target, or None if it is served behind an endpoint.
        tokenizer: The target's; of a served target the draft's, which must be the same.
        vocab_size: Tokens that both models share; with two tokenizers the target's.
        stops: What ends a text.
        start: A draft that is made, as it begins; None if the recipe names one.
        vocabulary: How the draft's tokens relate to the target's.
    """

    recipe: Recipe
    device: torch.device
    frozen: FrozenTarget | None
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    stops: EosTokens
    start: PreTrainedModel | None = None
    vocabulary: DraftVocabulary = field(default_factory=SameVocabulary)

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The tokens that end a text."""
        return self.stops.ids

    @property
    def target(self) -> FrozenTarget:
        """The target's weights.

        Raises:
            DistillSpecError: The target is served, so its weights are elsewhere.
        """
        if self.frozen is None:
            raise DistillSpecError(
                "this needs the target's weights, and the target is an endpoint",
                where=f"pair.endpoint: {self.recipe.pair.target_name}",
                fix="name a folder or a Hub id in pair.target, in place of pair.endpoint",
            )
        return self.frozen

    @property
    def is_split(self) -> bool:
        """Whether the target lies on all processes, which then must ask it together."""
        return self.frozen is not None and self.frozen.is_split

    @property
    def kept(self) -> Tokens | None:
        """The tokens that a trimmed head scores; None without one."""
        is_trimmed = isinstance(self.vocabulary, TrimmedVocabulary)
        return self.vocabulary.scored if is_trimmed else None

    @property
    def bridge(self) -> CrossTokenizerMap | None:
        """The map between two tokenizers; None if there is one tokenizer."""
        own = self.vocabulary
        return own.map if isinstance(own, CrossTokenizerVocabulary) else None

    @property
    def start_token(self) -> int | None:
        """What a prompt ends with for an encoder-decoder pair; None for a causal one."""
        model = None if self.frozen is None else self.frozen.model
        return start_token(model) if model is not None and is_seq2seq(model) else None

    @property
    def pad_token(self) -> int:
        return padding_token(self.tokenizer, self.vocab_size, min(self.eos_token_ids))

    def check_tokens(self, texts: Iterable[tuple[str, Sequence[int]]]) -> None:
        """DistillSpecError for a text (name, tokens) with a token that the models do not have."""
        check_in_vocabulary(texts, self.vocab_size, self.tokenizer)

    def trimmed_to(self, tokens: Tokens) -> ModelPair:
        """The pair with a draft whose head scores these tokens only."""
        return replace(self, vocabulary=TrimmedVocabulary(tokens))

    def draft(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """The undistilled draft, from its folder or as it was made, to decode with."""
        draft = self._plain_draft(dtype)
        self.vocabulary.prepare(draft)
        settle_head(draft)
        return draft

    def _plain_draft(self, dtype: torch.dtype) -> PreTrainedModel:
        if self.start is None:
            return _draft(self.recipe, dtype, self.device)
        draft = copy.deepcopy(self.start)
        cast_parameters(draft, dtype)
        torch.nn.Module.to(draft, self.device)
        return draft

    def trainable_draft(self) -> nn.Module:
        """The undistilled draft in float32, with LoRA adapters if the recipe asks for them."""
        plain = self._plain_draft(torch.float32)
        without_dropout(plain)
        draft = plain if self.recipe.lora is None else add_lora(plain, self.recipe.lora)
        self.vocabulary.prepare(bare_model(draft))
        return draft


def load_pair(recipe: Recipe, dtype: torch.dtype | None = None) -> ModelPair:
    """Load the target (in `dtype`; default: the hardware's precision) and check the pair.

    The tokenizers are compared before any weight is read. A draft that is made has the target's.
    Of a target behind an endpoint there is nothing to load or to compare.
    """
    pair, device = recipe.pair, device_of(recipe.hardware)
    if pair.endpoint is not None:
        return _load_draft_alone(recipe, device)
    dtype = dtype or dtype_of(recipe.hardware.precision, device)
    tokenizer = load_tokenizer(
        pair.target_weights,
        trust_remote_code=pair.trust_remote_code,
        revision=pair.target_revision,
        what="target",
    )
    if not isinstance(pair.draft, str):
        return _made_pair(recipe, pair.draft, tokenizer, dtype)
    draft_tokenizer = _draft_tokenizer(recipe)
    target = _target(recipe, dtype, device)
    return _given_pair(recipe, target, tokenizer, draft_tokenizer)


def _target(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Whole on this process, or split over all of them where the recipe wants it."""
    pair = recipe.pair
    shared: Any = {
        "dtype": dtype,
        "trust_remote_code": pair.trust_remote_code,
        "revision": pair.target_revision,
        "what": "target",
    }
    several = torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1
    if not (recipe.hardware.shard_target and several):
        return load_model(pair.target_weights, device=device, **shared)
    # Now, not while the others wait for the first process: a Hub's files take their time.
    fetch_model(pair.target_weights, **{key: shared[key] for key in shared if key != "dtype"})
    return split_over_processes(
        lambda: load_model(pair.target_weights, **shared),
        lambda: empty_model(pair.target_weights, **shared),
        device,
    )


def _given_pair(
    recipe: Recipe,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
) -> ModelPair:
    """A target and the draft that the recipe names."""
    pair, device = recipe.pair, device_of(recipe.hardware)
    draft = _draft(recipe, torch.float32, torch.device("cpu"))
    check_rolls_back(target)
    check_rolls_back(draft)
    _check_length(recipe, target, draft)
    _check_draft(recipe, draft)
    names = f"pair.target={pair.target}, pair.draft={pair.draft}"
    if check_same_kind(target, draft, names):
        _check_seq2seq(recipe)
    sizes = vocabulary_size(target), vocabulary_size(draft)
    stops = _stops(recipe, target, tokenizer, "target")
    if pair.tokenizers == "cross-tokenizer":
        vocabulary = CrossTokenizerVocabulary(
            CrossTokenizerMap(tokenizer, draft_tokenizer, *sizes, names),
            draft_tokenizer,
            max_context_length(draft),
        )
        frozen = FrozenTarget(target)
        return ModelPair(recipe, device, frozen, tokenizer, sizes[0], stops, vocabulary=vocabulary)
    vocab_size = check_pair(tokenizer, draft_tokenizer, *sizes, names)
    return ModelPair(recipe, device, FrozenTarget(target, vocab_size), tokenizer, vocab_size, stops)


def _load_draft_alone(recipe: Recipe, device: torch.device) -> ModelPair:
    tokenizer = _draft_tokenizer(recipe)
    draft = _draft(recipe, torch.float32, torch.device("cpu"))
    if is_seq2seq(draft):
        raise DistillSpecError(
            "an endpoint answers for causal drafts, and this one has an encoder",
            where=f"pair.draft={recipe.pair.draft}",
            fix="name the target's folder or Hub id in pair.target, in place of pair.endpoint",
        )
    _check_length(recipe, draft)
    _check_draft(recipe, draft)
    size = vocabulary_size(draft)
    size = check_pair(tokenizer, tokenizer, size, size, f"pair.draft={recipe.pair.draft}")
    return ModelPair(
        recipe, device, None, tokenizer, size, _stops(recipe, draft, tokenizer, "draft")
    )


def _made_pair(
    recipe: Recipe,
    plan: PrunedDraftConfig | RandomDraftConfig,
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
) -> ModelPair:
    """A target and the draft that is made for it, from the target's weights as they are stored."""
    device = device_of(recipe.hardware)
    target = _stored_target(recipe)
    check_rolls_back(target)
    stops = _stops(recipe, target, tokenizer, "target")
    size = vocabulary_size(target)
    vocab_size = check_pair(tokenizer, tokenizer, size, size, f"pair.target={recipe.pair.target}")
    start = _made(recipe, plan, target, _end_of_text(tokenizer, stops.ids), recipe.seed)
    cast_parameters(target, dtype)
    torch.nn.Module.to(target, device)
    frozen = FrozenTarget(target, vocab_size)
    return ModelPair(recipe, device, frozen, tokenizer, vocab_size, stops, start)


def with_draft_of(pair: ModelPair, recipe: Recipe) -> ModelPair:
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
    end = _end_of_text(pair.tokenizer, pair.eos_token_ids)
    start = _made(recipe, plan, _stored_target(recipe), end, pair.recipe.seed)
    size = vocabulary_size(target)
    size = check_pair(
        pair.tokenizer, pair.tokenizer, size, size, f"pair.target={recipe.pair.target}"
    )
    frozen = FrozenTarget(target, size)
    return ModelPair(recipe, pair.device, frozen, pair.tokenizer, size, pair.stops, start)


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
    recipe: Recipe,
    plan: PrunedDraftConfig | RandomDraftConfig,
    target: PreTrainedModel,
    end_token: int,
    seed: int,
) -> PreTrainedModel:
    if is_seq2seq(target):
        raise DistillSpecError(
            "of an encoder-decoder target no draft can be made",
            where="pair.draft",
            fix="name the folder or Hub id of a smaller model of its family, such as t5-small",
        )
    start = made_draft(plan, target, end_token=end_token, seed=seed)
    _check_length(recipe, target, start)
    _check_draft(recipe, start)
    return start


def _end_of_text(tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> int:
    return min(ends) if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)


def _check_length(recipe: Recipe, *models: PreTrainedModel) -> None:
    check_rows_fit(recipe, map(context_of_model, models))


def _check_draft(recipe: Recipe, draft: PreTrainedModel) -> None:
    """Whether what the recipe changes about the draft can be: before a run folder is begun."""
    if recipe.lora is not None:
        check_targets(draft, recipe.lora)
    plan, size = recipe.pair.draft_head, vocabulary_size(draft)
    if plan is not None and plan.keep > size:
        raise DistillSpecError(
            f"the draft's head cannot keep {plan.keep} tokens: it has {size}",
            where=f"pair.draft_head.keep={plan.keep}",
            fix=f"give at most {size}, or leave draft_head out",
        )


def _check_seq2seq(recipe: Recipe) -> None:
    """What needs rows that are predicted from their first token on, or that branch."""
    distill = recipe.distill
    faults = {
        "distill.on_prompts": (distill.on_prompts, "a source is read, and never predicted"),
        "distill.packing": (distill.packing is not None, "a row has one source"),
        "distill.source.speculative": (
            distill.source.speculative > 0,
            "speculation in batches is for causal pairs; take draft, or target",
        ),
        "pair.tokenizers: cross-tokenizer": (
            recipe.pair.tokenizers == "cross-tokenizer",
            "drafts with a tokenizer of their own are for causal pairs",
        ),
    }
    for where, (is_set, reason) in faults.items():
        if is_set:
            raise DistillSpecError(
                f"this cannot be done with encoder-decoder models: {reason}",
                where=where,
                fix="leave it out for this pair",
            )


def _draft_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    assert isinstance(recipe.pair.draft, str), "a made draft has the target's"
    return load_tokenizer(
        recipe.pair.draft,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def _draft(recipe: Recipe, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    assert isinstance(recipe.pair.draft, str), "a made draft is in no folder"
    return load_model(
        recipe.pair.draft,
        dtype=dtype,
        device=device,
        trust_remote_code=recipe.pair.trust_remote_code,
        revision=recipe.pair.draft_revision,
        what="draft",
    )


def _stops(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, what: str
) -> EosTokens:
    return required_stop_ids(
        model,
        tokenizer,
        what,
        vocab_size=vocabulary_size(model),
        given=recipe.pair.eos_token_ids,
        variables=recipe.template_variables,
    )
