"""How the tokens of a draft relate to the target's: the same, a part of them, or others.

`load_pair` chooses one `DraftVocabulary` for a pair. Training, probe, export and report ask it
instead of the recipe.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.models.runners.eager import vocabulary_size
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, attach_token_map
from distillspec.models.vocabulary.trimmed_head import trim_head
from distillspec.recipe.written_files import HOT_TOKENS

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class DraftVocabulary(Protocol):
    """The relation between the tokens of draft and target."""

    @property
    def scored(self) -> Tokens | None:
        """The target's tokens that the draft scores, ascending; None if it scores all."""

    def prepare(self, draft: PreTrainedModel) -> None:
        """Change a loaded model in place into a draft with this vocabulary."""

    def exported_tokenizer(self, target: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        """The tokenizer of an exported draft."""

    def exported_eos_ids(self, target: frozenset[int]) -> frozenset[int]:
        """The end tokens that the export writes; empty if the draft's own config names them."""

    def exported_size(self, draft: PreTrainedModel, target: PreTrainedModel | None) -> int:
        """Rows of the embedding of an exported draft.

        Args:
            draft: The trained draft.
            target: None if the target is served.
        """

    def caution(self) -> str | None:
        """A warning for the model card; None if none is needed."""


@dataclass(frozen=True)
class SameVocabulary:
    """Draft and target share their tokenizer and all of its tokens."""

    @property
    def scored(self) -> Tokens | None:
        return None

    def prepare(self, draft: PreTrainedModel) -> None:
        """Nothing to change."""

    def exported_tokenizer(self, target: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return target

    def exported_eos_ids(self, target: frozenset[int]) -> frozenset[int]:
        return target

    def exported_size(self, draft: PreTrainedModel, target: PreTrainedModel | None) -> int:
        return vocabulary_size(draft if target is None else target)

    def caution(self) -> str | None:
        return None


@dataclass(frozen=True)
class TrimmedVocabulary:
    """The draft scores only the most frequent of the target's tokens (VocabTrim, 2506.22694).

    Attributes:
        tokens: The kept tokens, ascending.
    """

    tokens: Tokens

    @property
    def scored(self) -> Tokens | None:
        return self.tokens

    def prepare(self, draft: PreTrainedModel) -> None:
        trim_head(draft, self.tokens)

    def exported_tokenizer(self, target: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return target

    def exported_eos_ids(self, target: frozenset[int]) -> frozenset[int]:
        return target

    def exported_size(self, draft: PreTrainedModel, target: PreTrainedModel | None) -> int:
        return vocabulary_size(draft if target is None else target)  # the full head is exported

    def caution(self) -> str | None:
        return (
            f"All numbers were measured with an output head that scores only the "
            f"{len(self.tokens):,} tokens of `{HOT_TOKENS}`. The folder holds the full head. An "
            "engine that does not read that file drafts with the full head: its distribution "
            "differs, and drafting is no faster."
        )


@dataclass(frozen=True)
class CrossTokenizerVocabulary:
    """Draft and target have different tokenizers (TLI, 2502.05202).

    Attributes:
        map: Between the target's tokens and the draft's.
        tokenizer: The draft's.
        max_context_length: Of the draft, in its own tokens.
    """

    map: CrossTokenizerMap
    tokenizer: PreTrainedTokenizerBase
    max_context_length: int

    @property
    def scored(self) -> Tokens | None:
        return tuple(self.map.target_ids.tolist())

    def prepare(self, draft: PreTrainedModel) -> None:
        attach_token_map(draft, self.map)

    def exported_tokenizer(self, target: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
        return self.tokenizer

    def exported_eos_ids(self, target: frozenset[int]) -> frozenset[int]:
        return frozenset()

    def exported_size(self, draft: PreTrainedModel, target: PreTrainedModel | None) -> int:
        return vocabulary_size(draft)

    def caution(self) -> str | None:
        return (
            "This draft and its target have different tokenizers. All numbers were measured with "
            f"the {len(self.map.target_ids):,} tokens that both share (TLI). Of the launch lines "
            "below only the one of transformers can work, with tokenizer= and "
            "assistant_tokenizer= given to generate. It translates by other rules."
        )
