from __future__ import annotations

from pathlib import Path

import pytest
import torch

from distillspec.assembly.draft_vocabulary import (
    CrossTokenizerVocabulary,
    DraftVocabulary,
    SameVocabulary,
    TrimmedVocabulary,
)
from distillspec.models.loading.load import load_model, load_tokenizer
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap, token_map_of
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from tests.models.two_tokenizers import byte_level

ENDS = frozenset({0})


@pytest.fixture
def vocabularies(tiny_pair: Path) -> dict[str, DraftVocabulary]:
    own = load_tokenizer(str(tiny_pair / "target"))
    pieces = sorted(own.get_vocab(), key=own.get_vocab().__getitem__)
    shared = [piece for i, piece in enumerate(pieces) if len(piece) == 1 or i % 2 == 0]
    other = byte_level(shared[::-1], special=(pieces[0],))
    return {
        "same": SameVocabulary(),
        "trimmed": TrimmedVocabulary((0, 5, 9)),
        "cross": CrossTokenizerVocabulary(
            CrossTokenizerMap(own, other, 300, len(other), "here"), other, 512
        ),
    }


def test_only_what_the_draft_scores_is_compared(vocabularies: dict[str, DraftVocabulary]) -> None:
    assert vocabularies["same"].scored is None
    assert vocabularies["trimmed"].scored == (0, 5, 9)
    scored = vocabularies["cross"].scored
    assert scored is not None and 0 < len(scored) < 300 and list(scored) == sorted(scored)


def test_a_draft_is_prepared_by_its_own_vocabulary_alone(
    tiny_pair: Path, vocabularies: dict[str, DraftVocabulary]
) -> None:
    for name, vocabulary in vocabularies.items():
        draft = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
        vocabulary.prepare(draft)
        assert (kept_tokens(draft) is not None) == (name == "trimmed")
        assert (token_map_of(draft) is not None) == (name == "cross")


def test_an_export_has_the_targets_size_and_ends_but_for_another_tokenizer(
    tiny_pair: Path, vocabularies: dict[str, DraftVocabulary]
) -> None:
    own = load_tokenizer(str(tiny_pair / "target"))
    draft = load_model(str(tiny_pair / "draft"), dtype=torch.float32)
    target = load_model(str(tiny_pair / "target"), dtype=torch.float32)
    target.resize_token_embeddings(310)
    for name in ("same", "trimmed"):
        vocabulary = vocabularies[name]
        assert vocabulary.exported_tokenizer(own) is own
        assert vocabulary.exported_eos_ids(ENDS) == ENDS
        assert vocabulary.exported_size(draft, target) == 310
        assert vocabulary.exported_size(draft, None) == 300
    cross = vocabularies["cross"]
    assert cross.exported_tokenizer(own) is not own
    assert cross.exported_eos_ids(ENDS) == frozenset()
    assert cross.exported_size(draft, target) == 300


def test_a_card_warns_of_what_its_numbers_are_limited_to(
    vocabularies: dict[str, DraftVocabulary],
) -> None:
    cautions = {name: vocabulary.caution() for name, vocabulary in vocabularies.items()}
    assert cautions["same"] is None
    assert "3 tokens" in str(cautions["trimmed"])
    assert "TLI" in str(cautions["cross"])
