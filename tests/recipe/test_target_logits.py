from __future__ import annotations

from distillspec.recipe.target_logits import CachedTargetConfig


def test_a_records_size_is_that_of_ids_values_and_rest() -> None:
    signal = CachedTargetConfig(kind="cached")
    assert signal.bytes_per_token(4096) == 64 * (2 + 2) + 4 == 260
    assert signal.bytes_per_token(2**16) == 260
    assert signal.bytes_per_token(128_256) == 64 * (3 + 2) + 4 == 324
    assert CachedTargetConfig(kind="cached", k=10, dtype="float32").bytes_per_token(300) == 64
