"""Shards hold entire texts in their order, within the bound."""

from __future__ import annotations

from distillspec.corpus.stores.shard_layout import RecordRange, ShardLayout

SIZES = {b"a": 2, b"b": 1, b"c": 5, b"d": 1}


def test_texts_fill_a_shard_up_to_the_bound_and_a_longer_text_has_one_alone() -> None:
    layout = ShardLayout(SIZES, record_bytes=10, shard_bytes=30)
    assert layout.texts == [[b"a", b"b"], [b"c"], [b"d"]]
    assert layout.rows == [3, 5, 1]
    assert layout.ranges[b"b"] == RecordRange(shard=0, nth=1, start=2, stop=3)


def test_a_file_is_its_records_and_a_checksum_of_four_bytes_per_text() -> None:
    layout = ShardLayout(SIZES, record_bytes=10, shard_bytes=30)
    assert [layout.file_bytes(number) for number in range(3)] == [38, 54, 14]
    assert layout.record_bytes(0) == 30


def test_a_store_without_texts_has_no_shard() -> None:
    layout = ShardLayout({}, record_bytes=10)
    assert (layout.texts, layout.rows, layout.ranges) == ([], [], {})
