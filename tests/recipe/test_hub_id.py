from __future__ import annotations

from pathlib import Path

import pytest

from distillspec.recipe.hub_id import is_hub_id


def test_a_hub_id_is_a_name_of_two_parts_that_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert is_hub_id("Qwen/Qwen3-0.6B")
    assert not any(map(is_hub_id, ["here/model", "here/absent", "./a/b", "/a/b", "a/b/c", "a"]))
    assert not any(map(is_hub_id, ["a b/c", "a/<b>", "a/b\n", "-a/b", "a/b|c", "é/b", "a/", "/b"]))
