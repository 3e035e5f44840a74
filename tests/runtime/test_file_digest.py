from __future__ import annotations

import hashlib
from pathlib import Path

from distillspec.runtime.file_digest import file_digest


def test_the_digest_is_of_all_bytes(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    for content in (b"", b"\x00\n" * 3_000_000):
        file.write_bytes(content)
        assert file_digest(file) == hashlib.sha256(content).hexdigest()
