"""The tokens that a draft's trimmed head scores, as its export has written them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from distillspec.models.loading.local_folder import TEXT_FILES, local_folder
from distillspec.models.vocabulary.trimmed_head import settle_head, trim_head
from distillspec.recipe.written_files import HOT_TOKENS
from distillspec.runtime.plain_files import BoundedText, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def hot_tokens(
    path: str, revision: str | None, vocab_size: int, keep: int | None = None
) -> tuple[int, ...] | None:
    """The ids in a draft's hot_token_ids.json, ascending; None without that file.

    Args:
        path: A folder, a GGUF file or a Hub id.
        revision: Branch, tag or commit of a Hub repository.
        vocab_size: The tokens that the ids can be of.
        keep: A file with another number of ids counts as none.

    Raises:
        DistillSpecError: The file is damaged, or of another vocabulary.
    """
    file = local_folder(path, revision, "draft", TEXT_FILES, trust_remote_code=False) / HOT_TOKENS
    if not file.is_file():
        return None
    fix = "export the draft again; without this file it drafts with its whole head"
    text = BoundedText(file, "the tokens of the draft's trimmed head", fix)
    tokens = read_json(text, tuple[int, ...])
    if keep is not None and len(tokens) != keep:
        return None
    if not tokens or list(tokens) != sorted(set(tokens)):
        raise text.fault("its ids must ascend, and there must be some")
    if tokens[0] < 0 or tokens[-1] >= vocab_size:
        raise text.fault(f"its ids are not all in the vocabulary of {vocab_size:,}")
    return tokens


def with_own_head(draft: PreTrainedModel, path: str) -> PreTrainedModel:
    """Trim the head of a loaded draft in place, as its folder says, for decoding."""
    tokens = hot_tokens(path, None, int(draft.config.get_text_config(decoder=True).vocab_size))
    if tokens is not None:
        trim_head(draft, tokens)
        settle_head(draft)
    return draft
