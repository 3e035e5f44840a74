"""The models of `decode`: given or loaded, with the tokens that both know."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.hot_tokens import with_own_head
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.loading.precision import fast_dtype
from distillspec.models.runners.eager import check_text_fits, vocabulary_size
from distillspec.models.runners.encoder_decoder import check_same_kind, start_token
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.models.vocabulary.tokenizer_pair import (
    TokenizersDifferError,
    check_in_vocabulary,
    check_pair,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

_WHERE = "target and draft of decode"


class DecodePair(NamedTuple):
    """Two models that can decode together.

    Attributes:
        target: The target.
        draft: The draft.
        tokenizer: The target's.
        vocab_size: Tokens that both models share; with two tokenizers the target's.
        token_map: Between two tokenizers; None if there is one tokenizer.
        has_encoder: Whether both are encoder-decoder models.
    """

    target: PreTrainedModel
    draft: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    vocab_size: int
    token_map: CrossTokenizerMap | None
    has_encoder: bool

    def encode(self, prompt: str, max_new_tokens: int) -> list[int]:
        """The tokens of a prompt.

        Raises:
            DistillSpecError: It has no tokens, unknown tokens, or no room for an answer.
        """
        ids: list[int] = self.tokenizer.encode(prompt)
        if not ids:
            raise DistillSpecError(
                "the prompt has no tokens", where="decode", fix="give at least one character"
            )
        check_in_vocabulary([("decode: prompt", ids)], self.vocab_size, self.tokenizer)
        if self.has_encoder:
            start = start_token(self.target)
            # The start token ends the source, so the source must not contain it.
            ids = [*(token for token in ids if token != start), start]
        # A draft with another tokenizer proposes nothing once its context is full.
        for model in (self.target,) if self.token_map else (self.target, self.draft):
            check_text_fits(model, len(ids) + max_new_tokens)
        return ids


def load_decode_pair(
    target: PreTrainedModel | str | Path,
    draft: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | None,
    *,
    allows_two_tokenizers: bool,
) -> DecodePair:
    """Load what is not loaded yet, and check that both models fit together.

    Args:
        target: A model in eval mode, or its folder or Hub id.
        draft: The same.
        tokenizer: Of both models; None loads those of their folders.
        allows_two_tokenizers: Whether the method can translate between tokenizers.

    Raises:
        DistillSpecError: The models do not fit together.
    """
    target_model, draft_model = _model(target, "target"), _model(draft, "draft")
    has_encoder = check_same_kind(target_model, draft_model, _WHERE)
    target_tokenizer = tokenizer or load_tokenizer(folder_of(target), what="target")
    draft_tokenizer = tokenizer or load_tokenizer(folder_of(draft), what="draft")
    sizes = vocabulary_size(target_model), vocabulary_size(draft_model)
    token_map = None
    try:
        vocab_size = check_pair(target_tokenizer, draft_tokenizer, *sizes, _WHERE)
        if isinstance(draft, str | Path):
            with_own_head(draft_model, str(draft))
    except TokenizersDifferError:
        if not allows_two_tokenizers or has_encoder:
            raise
        vocab_size = sizes[0]
        token_map = CrossTokenizerMap(target_tokenizer, draft_tokenizer, *sizes, _WHERE)
        log.warning(
            "the tokenizers differ: the draft reads the text in its own tokens and proposes only "
            "the %d of the target's %d tokens that both have",
            len(token_map.target_ids),
            vocab_size,
        )
    return DecodePair(
        target_model, draft_model, target_tokenizer, vocab_size, token_map, has_encoder
    )


def _model(model: PreTrainedModel | str | Path, what: str) -> PreTrainedModel:
    if not isinstance(model, str | Path):
        return model
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(str(model), dtype=fast_dtype(device), what=what)
    torch.nn.Module.to(loaded, device)
    return loaded


def folder_of(model: PreTrainedModel | str | Path) -> str:
    """The folder or Hub id of a model, as far as it is known."""
    return str(model if isinstance(model, str | Path) else model.name_or_path)
