"""A store of the target's distributions: complete shards, and one range of records per text."""

from __future__ import annotations

import signal as signals
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from distillspec.corpus.stores import top_k
from distillspec.corpus.stores.store_folder import StoreFolder
from distillspec.corpus.stores.top_k import TopKStore, TopKText, fill_top_k, size_in_words
from distillspec.divergence.top_tokens import TopTokens
from distillspec.errors import DistillSpecError
from distillspec.recipe.target_logits import CachedTargetConfig

VOCABULARY, K = 300, 3
TEXTS = [TopKText(tuple(range(1, 4 + n % 9)), 1 + n % 3) for n in range(3)] + [
    TopKText((n, 2, 3, *range(n % 7)), 2) for n in range(20)
]
SIGNAL = CachedTargetConfig(kind="cached", k=K)


def store(folder: Path, texts: list[TopKText] = TEXTS, **changed: Any) -> TopKStore:
    made: dict[str, Any] = {
        "signal": SIGNAL,
        "vocab_size": VOCABULARY,
        "temperature": 0.7,
        "model": "abc123",
        "tokenizer": "def456",
        "settings": {"target_dtype": "float32"},
        "shard_bytes": 16 * 8,
        **changed,
    }
    return TopKStore(StoreFolder(folder, "target", ""), texts, **made)


def distribution(text: TopKText) -> TopTokens:
    """A pure function of the text will do; values that half precision holds exactly."""
    size = sum(text.tokens) + text.first
    rows = torch.arange(text.predicted)[:, None]
    ids = (rows * 7 + torch.arange(K) + size) % VOCABULARY
    values = -(ids.float() % 16) / 4.0
    return TopTokens(ids.to(torch.int32), values, -rows[:, 0].float() - size, VOCABULARY)


def scorer(texts: list[TopKText]) -> list[TopTokens]:
    return [distribution(text) for text in texts]


def filled(folder: Path, **changed: Any) -> TopKStore:
    made = store(folder, **changed)
    fill_top_k(made, scorer)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    """Shards and manifests, by their place."""
    files = [*folder.rglob("shard-*"), *folder.rglob("manifest.json")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files)}


def assert_reads(made: TopKStore, texts: list[TopKText]) -> None:
    actual, expected = made.read(texts), [distribution(text) for text in texts]
    assert torch.equal(actual.ids, torch.cat([part.ids for part in expected]))
    assert torch.equal(
        actual.log_probability, torch.cat([part.log_probability for part in expected])
    )
    assert torch.equal(actual.log_rest, torch.cat([part.log_rest for part in expected]))


def test_each_text_gets_its_own_records_in_any_order(tmp_path: Path) -> None:
    made = filled(tmp_path)
    assert made.missing() == [] and made.shards > 3
    with_tokens = [text for text in TEXTS if text.predicted]
    assert_reads(made, with_tokens)
    assert_reads(made, with_tokens[::-3] + with_tokens[:2])
    assert made.read([]).ids.shape == (0, K)


def test_the_size_is_known_before_anything_is_written(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert not list(tmp_path.rglob("shard*"))
    expected_bytes = made.size_bytes
    fill_top_k(made, scorer)
    assert sum(path.stat().st_size for path in tmp_path.rglob("shard*")) == expected_bytes
    assert expected_bytes == made.tokens * made.bytes_per_token + 4 * made.texts
    assert made.tokens == sum(text.predicted for text in set(TEXTS))


def test_shards_are_small_in_a_small_store_and_bounded_in_a_large_one(tmp_path: Path) -> None:
    """One of 112 KiB, a part of 9 MiB, and the most that a shard may have, of 340 MiB."""
    texts = [TopKText((*range(80), n), 1) for n in range(100)]
    assert store(tmp_path / "small", texts, shard_bytes=None).shards == 1
    wide = CachedTargetConfig(kind="cached", k=300)
    some = store(tmp_path / "some", texts, signal=wide, shard_bytes=None)
    assert some.shard_bytes == some.tokens * some.bytes_per_token // 32 > 2**18
    assert 32 <= some.shards <= 36
    long = [TopKText((n,) * 2000, 1) for n in range(150)]
    large = store(tmp_path / "large", long, signal=wide, shard_bytes=None)
    assert large.shard_bytes == 2**23


def test_equal_texts_are_kept_once_and_empty_ones_not_at_all(tmp_path: Path) -> None:
    empty = TopKText((1, 2), 2)
    made = filled(tmp_path, texts=[*TEXTS, *TEXTS, empty])
    assert (made.texts, made.tokens) == (len(set(TEXTS)), filled(tmp_path).tokens)
    assert made.read([empty]).ids.shape == (0, K)


def test_where_the_prediction_begins_distinguishes_texts(tmp_path: Path) -> None:
    tokens = (5, 6, 7, 8)
    early, late = TopKText(tokens, 1), TopKText(tokens, 3)
    made = filled(tmp_path, texts=[early])
    with pytest.raises(DistillSpecError, match="no distributions are cached"):
        made.read([late])


def test_an_interrupted_making_gives_what_an_uninterrupted_one_gives(tmp_path: Path) -> None:
    calls = 0

    def failing(texts: list[TopKText]) -> list[TopTokens]:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise KeyboardInterrupt
        return scorer(texts)

    with pytest.raises(KeyboardInterrupt):
        fill_top_k(store(tmp_path / "a"), failing)
    again = store(tmp_path / "a")
    assert again.missing() == list(range(2, again.shards))
    seen: list[tuple[int, int]] = []
    fill_top_k(again, scorer, progress=lambda done, all_: seen.append((done, all_)))
    assert seen == [(n, again.shards) for n in range(2, again.shards + 1)]
    filled(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_processes_make_disjoint_shards_and_together_what_one_makes(tmp_path: Path) -> None:
    taken: list[list[TopKText]] = [[], []]

    def of(rank: int) -> Any:
        def take(texts: list[TopKText]) -> list[TopTokens]:
            taken[rank] += texts
            return scorer(texts)

        return take

    for rank in (1, 0):
        fill_top_k(store(tmp_path / "two"), of(rank), rank=rank, world=2)
    assert taken[0] and taken[1] and not set(taken[0]) & set(taken[1])
    filled(tmp_path / "one")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_the_order_of_the_texts_changes_nothing(tmp_path: Path) -> None:
    filled(tmp_path)
    turned = store(tmp_path, TEXTS[::-1])
    assert turned.missing() == []
    assert_reads(turned, [text for text in TEXTS if text.predicted])


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"tokenizer": "other"},
        {"temperature": 1.0},
        {"vocab_size": 301},
        {"signal": SIGNAL.model_copy(update={"k": 4})},
        {"signal": SIGNAL.model_copy(update={"dtype": "float32"})},
        {"texts": TEXTS[1:]},
        {"settings": {"target_dtype": "bfloat16"}},
    ],
    ids=str,
)
def test_another_making_is_another_store_and_what_is_there_is_kept(
    change: dict[str, Any], tmp_path: Path
) -> None:
    filled(tmp_path)
    before = contents(tmp_path)
    second = store(tmp_path, **change)
    assert len(second.missing()) == second.shards
    assert contents(tmp_path).items() > before.items()
    assert store(tmp_path).missing() == []


def test_what_making_the_shards_took_is_written_down(tmp_path: Path) -> None:
    made = store(tmp_path)
    assert made.seconds == 0.0
    fill_top_k(made, scorer)
    assert made.seconds > 0.0
    assert store(tmp_path).seconds == made.seconds


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "hurt",
    [damaged, lambda path: path.write_bytes(b""), lambda path: path.unlink(),
     lambda path: path.write_bytes(path.read_bytes()[:-1])],
    ids=["a bit", "empty", "gone", "short"],
)  # fmt: skip
def test_damage_is_an_error_that_names_the_file_to_delete(hurt: Any, tmp_path: Path) -> None:
    made = filled(tmp_path)
    first = made.contents(0)
    hurt(made.folder / "shard-000000.bin")
    again = store(tmp_path)
    with pytest.raises(DistillSpecError, match="missing, damaged or of another store") as caught:
        again.read(first)
    assert "shard-000000.bin" in caught.value.where
    (made.folder / "shard-000000.bin").unlink(missing_ok=True)
    fill_top_k(again, scorer)
    assert_reads(store(tmp_path), first)


def test_a_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    """Same texts, same size: only the manifest differs, and the checksums include it."""
    own = filled(tmp_path / "mine")
    second = filled(tmp_path / "other", model="other")
    name = "shard-000000.bin"
    (own.folder / name).write_bytes((second.folder / name).read_bytes())
    with pytest.raises(DistillSpecError, match="of another store"):
        store(tmp_path / "mine").read(own.contents(0))


def test_more_tokens_than_there_are_cannot_be_kept(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="301 .* of 300 tokens") as caught:
        store(tmp_path / "new", signal=SIGNAL.model_copy(update={"k": 301}))
    assert "at most 300" in caught.value.fix
    assert not (tmp_path / "new").exists()


def test_a_distribution_that_is_not_finite_is_not_kept(tmp_path: Path) -> None:
    made = store(tmp_path)
    poisoned = scorer(made.contents(0))
    poisoned[0].log_probability[0] = torch.nan
    with pytest.raises(DistillSpecError, match="not finite"):
        made.append(0, poisoned)
    assert not list(tmp_path.rglob("*shard*"))


def test_a_disk_without_room_is_an_error_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store(tmp_path)
    usage = top_k.shutil.disk_usage(tmp_path)
    spare = top_k._SPARE_BYTES
    monkeypatch.setattr(
        top_k.shutil, "disk_usage", lambda _: usage._replace(free=spare + made.size_bytes)
    )
    made.check_space()
    monkeypatch.setattr(top_k.shutil, "disk_usage", lambda _: usage._replace(free=spare + 100))
    with pytest.raises(DistillSpecError, match="the disk has 16 MiB free") as caught:
        made.check_space()
    assert f"{made.bytes_per_token} bytes a token" in caught.value.fix
    fill_top_k(made, scorer)
    made.check_space()  # nothing is missing any more


def test_only_the_shards_used_last_stay_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(top_k, "_MOST_OPEN", 2)
    made = filled(tmp_path)
    for number in (0, 1, 0, 2):
        assert_reads(made, made.contents(number))
    assert list(made._open) == [0, 2]


def test_a_killed_process_leaves_complete_shards_only(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.corpus.stores import test_top_k as t\n"
        "def slow(texts):\n"
        "    time.sleep(0.05)\n"
        "    return t.scorer(texts)\n"
        "t.fill_top_k(t.store(Path(sys.argv[1])), slow)\n"
    )
    root = Path(__file__).parents[3]
    running = subprocess.Popen([sys.executable, "-c", program, str(folder)], cwd=root)
    deadline = time.monotonic() + 60.0
    while not list(folder.rglob("shard-000001.bin")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signals.SIGKILL)
    running.wait()
    made = store(folder)
    assert 0 < len(made.missing()) < made.shards
    fill_top_k(made, scorer)
    filled(tmp_path / "whole")
    assert contents(folder) == contents(tmp_path / "whole")


def test_sizes_are_written_in_the_unit_they_reach() -> None:
    assert [size_in_words(size) for size in (260, 2048, 3 * 2**29, 5 * 2**40)] == [
        "260 bytes",
        "2 KiB",
        "1.5 GiB",
        "5 TiB",
    ]
    assert size_in_words(int(np.int64(10))) == "10 bytes"
