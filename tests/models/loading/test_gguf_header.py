from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_header import GgufHeader, read_header
from tests.models.gguf_files import needs_gguf, written


@needs_gguf
def test_a_header_names_settings_and_tensors(tiny_pair: Path, tmp_path: Path) -> None:
    factors = np.array([1, 1, 1, 1, 1, 1, 1, 8], dtype=np.float32)
    file = written(
        tiny_pair / "target",
        tmp_path / "tiny.gguf",
        add=lambda writer: writer.add_tensor("rope_freqs.weight", factors),
    )
    header = read_header(file)
    assert (header.file, header.architecture) == (file, "llama")
    assert header.model_settings["block_count"] == 2
    assert header.settings["tokenizer.ggml.pre"] == "gpt-2"
    assert len(header.tensors) == 21
    assert header.rope_factors == tuple(factors)
    assert read_header(written(tiny_pair / "target", file)).rope_factors is None


@needs_gguf
def test_a_file_that_is_cut_anywhere_is_damaged(tiny_pair: Path, tmp_path: Path) -> None:
    file = written(tiny_pair / "target", tmp_path / "tiny.gguf")
    whole = file.read_bytes()
    for length in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
        file.write_bytes(whole[:length])
        with pytest.raises(DistillSpecError, match="damaged") as caught:
            read_header(file)
        assert "download or copy the file again" in caught.value.fix
        assert caught.value.where == str(file)


@needs_gguf
@pytest.mark.parametrize("content", [b"not a model", b"GGUF\x63\0\0\0" + b"\0" * 99])
def test_a_file_of_another_kind_or_version_is_one_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd.gguf").write_bytes(content)
    with pytest.raises(DistillSpecError, match="damaged") as caught:
        read_header(tmp_path / "odd.gguf")
    assert "upgrade gguf" in caught.value.fix


def test_a_refusal_names_the_first_of_what_is_left_out() -> None:
    header = GgufHeader(Path("tiny.gguf"), {"general.architecture": "llama"}, ("a",), None)
    with pytest.raises(DistillSpecError, match="^left out: a, b, c, ...\n") as caught:
        header.refuse("left out", ["a", "b", "c", "d"])
    assert caught.value.where == "tiny.gguf"
    with pytest.raises(DistillSpecError, match="^left out\n"):
        header.refuse("left out")
