from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from distillspec.errors import DistillSpecError
from distillspec.models.loading.hot_tokens import hot_tokens, with_own_head
from distillspec.models.loading.load import load_model
from distillspec.models.vocabulary.trimmed_head import kept_tokens
from tests.conftest import VOCABULARY


@pytest.fixture
def draft(tiny_pair: Path, tmp_path: Path) -> Path:
    """A copy of the draft's folder, to write into."""
    return Path(shutil.copytree(tiny_pair / "draft", tmp_path / "draft"))


def write_tokens(draft: Path, content: object) -> None:
    (draft / "hot_token_ids.json").write_text(json.dumps(content))


def test_a_draft_decodes_with_the_head_that_its_folder_names(draft: Path) -> None:
    write_tokens(draft, [0, 7, 9])
    model = with_own_head(load_model(str(draft), dtype=torch.float32), str(draft))
    kept = kept_tokens(model)
    assert kept is not None and kept.tolist() == [0, 7, 9]
    with torch.no_grad():
        logits = model(torch.tensor([[5, 6]])).logits
    assert (logits > -torch.inf).nonzero()[:, 2].tolist() == [0, 7, 9] * 2


def test_a_folder_without_the_file_has_its_whole_head(draft: Path) -> None:
    assert hot_tokens(str(draft), None, VOCABULARY) is None
    model = with_own_head(load_model(str(draft), dtype=torch.float32), str(draft))
    assert kept_tokens(model) is None


@pytest.mark.parametrize(
    ("content", "what"),
    [
        ([0, VOCABULARY], f"not all in the vocabulary of {VOCABULARY}"),
        ([-1, 3], "not all in the vocabulary"),
        ([3, 3], "must ascend"),
        ([7, 3], "must ascend"),
        ([], "there must be some"),
        (["a"], "hot_token_ids.json"),
        ({"tokens": [1]}, "hot_token_ids.json"),
    ],
)
def test_a_damaged_file_is_refused(draft: Path, content: object, what: str) -> None:
    write_tokens(draft, content)
    with pytest.raises(DistillSpecError) as refused:
        hot_tokens(str(draft), None, VOCABULARY)
    assert what in str(refused.value)
    assert "whole head" in str(refused.value)


def test_another_number_of_ids_is_passed_over_before_they_are_checked(draft: Path) -> None:
    write_tokens(draft, [0, VOCABULARY])
    assert hot_tokens(str(draft), None, VOCABULARY, keep=3) is None
    with pytest.raises(DistillSpecError, match="not all in the vocabulary"):
        hot_tokens(str(draft), None, VOCABULARY, keep=2)
