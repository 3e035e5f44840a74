"""The pair that a recipe names, loaded and checked, and the device where it runs."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from distillspec.assembly.draft_vocabulary import (
    CrossTokenizerVocabulary,
    DraftVocabulary,
    SameVocabulary,
    TrimmedVocabulary,
)
from distillspec.assembly.pair_models import (
    check_contexts,
    check_draft,
    check_seq2seq,
    end_of_text,
    load_draft,
    load_draft_tokenizer,
    load_stored_target,
    load_target,
    make_draft,
)
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.bare import bare_model
from distillspec.models.loading.load import load_tokenizer
from distillspec.models.loading.precision import CACHED_PRODUCTS, cast_parameters, fast_dtype
from distillspec.models.runners.cache import check_rolls_back
from distillspec.models.runners.eager import max_context_length, vocabulary_size
from distillspec.models.runners.encoder_decoder import (
    check_same_kind,
    is_encoder_decoder,
    start_token,
)
from distillspec.models.surgery.adapters import add_lora
from distillspec.models.surgery.frozen_target import FrozenTarget
from distillspec.models.surgery.trainable import without_dropout
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.models.vocabulary.eos_tokens import EosTokens, require_eos_tokens
from distillspec.models.vocabulary.tokenizer_pair import (
    check_in_vocabulary,
    check_pair,
    padding_token,
)
from distillspec.models.vocabulary.trimmed_head import settle_head
from distillspec.recipe.capacity import check_threads
from distillspec.recipe.schema import HardwareConfig, Recipe
from distillspec.recipe.start import PrunedDraftConfig, RandomDraftConfig
from distillspec.runtime.seeds import derive_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def device_of(hardware: HardwareConfig) -> torch.device:
    """The device of this process.

    Raises:
        DistillSpecError: The recipe asks for a GPU and torch can use none.
    """
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
    """The dtype that a recipe or suite names; "auto" is the fastest that `device` multiplies."""
    return fast_dtype(device) if name == "auto" else _DTYPES[name]


def prepare_process(recipe: Recipe) -> None:
    """Set threads, determinism and torch's caches, and seed the initial weights of LoRA."""
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(CACHED_PRODUCTS))
    if recipe.hardware.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA reads it when it starts
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
        device: The device of both models.
        frozen: The target, or None if it is served behind an endpoint.
        tokenizer: The target's; of a served target the draft's, which must be the same.
        vocab_size: Tokens that both models share; with two tokenizers the target's.
        stops: What ends a text.
        start: The initial weights of a made draft; None if the recipe names a folder.
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
            DistillSpecError: The target is served, so this process has no weights.
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
        """Whether the target is split over all processes, which then must ask it together."""
        return self.frozen is not None and self.frozen.is_split

    @property
    def kept(self) -> Tokens | None:
        """The tokens that a trimmed head scores; None without one."""
        is_trimmed = isinstance(self.vocabulary, TrimmedVocabulary)
        return self.vocabulary.scored if is_trimmed else None

    @property
    def token_map(self) -> CrossTokenizerMap | None:
        """The map between two tokenizers; None if there is one tokenizer."""
        vocabulary = self.vocabulary
        return vocabulary.map if isinstance(vocabulary, CrossTokenizerVocabulary) else None

    @property
    def start_token(self) -> int | None:
        """The token that ends each prompt of an encoder-decoder pair; None for a causal pair."""
        model = None if self.frozen is None else self.frozen.model
        return start_token(model) if model is not None and is_encoder_decoder(model) else None

    @property
    def pad_token(self) -> int:
        return padding_token(self.tokenizer, self.vocab_size, min(self.eos_token_ids))

    def check_tokens(self, texts: Iterable[tuple[str, Sequence[int]]]) -> None:
        """Check that the models know all tokens.

        Args:
            texts: Name and tokens of each text.

        Raises:
            DistillSpecError: A text has a token outside the vocabulary.
        """
        check_in_vocabulary(texts, self.vocab_size, self.tokenizer)

    def trimmed_to(self, tokens: Tokens) -> ModelPair:
        """The pair with a draft whose head scores these tokens only."""
        return replace(self, vocabulary=TrimmedVocabulary(tokens))

    def draft(self, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
        """The undistilled draft, ready to decode with."""
        draft = self._plain_draft(dtype)
        self.vocabulary.prepare(draft)
        settle_head(draft)
        return draft

    def _plain_draft(self, dtype: torch.dtype) -> PreTrainedModel:
        if self.start is None:
            return load_draft(self.recipe, dtype, self.device)
        draft = copy.deepcopy(self.start)
        cast_parameters(draft, dtype)
        torch.nn.Module.to(draft, self.device)
        return draft

    def trainable_draft(self) -> nn.Module:
        """The undistilled draft in float32, with LoRA adapters if the recipe asks for them."""
        plain = self._plain_draft(torch.float32)
        # Before LoRA is added, because the dropout of LoRA stays on.
        without_dropout(plain)
        draft = plain if self.recipe.lora is None else add_lora(plain, self.recipe.lora)
        self.vocabulary.prepare(bare_model(draft))
        return draft


def load_pair(recipe: Recipe, dtype: torch.dtype | None = None) -> ModelPair:
    """Load the target and check the pair.

    The tokenizers load before any weight. A made draft has the target's tokenizer. A target behind
    an endpoint has nothing to load or to compare.

    Args:
        recipe: Names the pair.
        dtype: Of the target's weights; None takes the precision in hardware.

    Raises:
        DistillSpecError: A model cannot be loaded, or the two models do not fit together.
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
    draft_tokenizer = load_draft_tokenizer(recipe)
    target = load_target(recipe, dtype, device)
    return _given_pair(recipe, target, tokenizer, draft_tokenizer)


def _given_pair(
    recipe: Recipe,
    target: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    draft_tokenizer: PreTrainedTokenizerBase,
) -> ModelPair:
    """Check a loaded target with the draft that the recipe names."""
    pair, device = recipe.pair, device_of(recipe.hardware)
    # This copy on the CPU is only for the checks. `draft` loads the model again.
    draft = load_draft(recipe, torch.float32, torch.device("cpu"))
    check_rolls_back(target)
    check_rolls_back(draft)
    check_contexts(recipe, target, draft)
    check_draft(recipe, draft)
    names = f"pair.target={pair.target}, pair.draft={pair.draft}"
    if check_same_kind(target, draft, names):
        check_seq2seq(recipe)
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
    """The pair of a target behind an endpoint."""
    tokenizer = load_draft_tokenizer(recipe)
    draft = load_draft(recipe, torch.float32, torch.device("cpu"))
    if is_encoder_decoder(draft):
        raise DistillSpecError(
            "an endpoint needs a causal draft, and this one has an encoder",
            where=f"pair.draft={recipe.pair.draft}",
            fix="name the target's folder or Hub id in pair.target, in place of pair.endpoint",
        )
    check_contexts(recipe, draft)
    check_draft(recipe, draft)
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
    """A target, and the draft that is made from the stored weights of the target."""
    device = device_of(recipe.hardware)
    target = load_stored_target(recipe)
    check_rolls_back(target)
    stops = _stops(recipe, target, tokenizer, "target")
    size = vocabulary_size(target)
    vocab_size = check_pair(tokenizer, tokenizer, size, size, f"pair.target={recipe.pair.target}")
    # Before the cast, so that the draft is made from the stored weights.
    start = make_draft(recipe, plan, target, end_of_text(tokenizer, stops.ids), recipe.seed)
    cast_parameters(target, dtype)
    torch.nn.Module.to(target, device)
    frozen = FrozenTarget(target, vocab_size)
    return ModelPair(recipe, device, frozen, tokenizer, vocab_size, stops, start)


def with_draft_of(pair: ModelPair, recipe: Recipe) -> ModelPair:
    """The pair with the draft of another recipe for the same target, which stays loaded.

    The seed of a made draft is the pair's, and not the one of `recipe`.
    """
    plan = recipe.pair.draft
    assert recipe.pair.target == pair.recipe.pair.target
    if recipe.pair == pair.recipe.pair:
        return replace(pair, recipe=recipe)
    target = pair.target.model
    if isinstance(plan, str):
        return _given_pair(recipe, target, pair.tokenizer, load_draft_tokenizer(recipe))
    end = end_of_text(pair.tokenizer, pair.eos_token_ids)
    # Loaded again, because the target in use may have been cast.
    start = make_draft(recipe, plan, load_stored_target(recipe), end, pair.recipe.seed)
    size = vocabulary_size(target)
    size = check_pair(
        pair.tokenizer, pair.tokenizer, size, size, f"pair.target={recipe.pair.target}"
    )
    frozen = FrozenTarget(target, size)
    return ModelPair(recipe, pair.device, frozen, pair.tokenizer, size, pair.stops, start)


def _stops(
    recipe: Recipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, what: str
) -> EosTokens:
    return require_eos_tokens(
        model,
        tokenizer,
        what,
        vocab_size=vocabulary_size(model),
        given=recipe.pair.eos_token_ids,
        variables=recipe.template_variables,
    )
