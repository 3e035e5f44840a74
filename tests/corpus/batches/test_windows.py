import pytest
import torch

from distillspec.corpus.batches.windows import Windows, validation_rows
from distillspec.errors import DistillSpecError


def windows(**changes: int) -> Windows:
    settings = {"context": 8, "batch_size": 4, "seed": 3, **changes}
    return Windows(torch.arange(1000, dtype=torch.int32), **settings)


def test_a_step_gets_the_same_rows_in_any_order_of_steps() -> None:
    used = windows()
    for step in (40, 2, 100):
        used.batch(step)
    assert torch.equal(used.batch(17), windows().batch(17))


def test_rows_are_consecutive_tokens() -> None:
    rows = windows().batch(5)
    assert rows.shape == (4, 8)
    assert torch.equal(rows - rows[:, :1], torch.arange(8).expand(4, 8))


def test_an_epoch_visits_each_window_once() -> None:
    w = windows(batch_size=1)
    starts = [int(w.batch(step)[0, 0]) for step in range(w.per_epoch)]
    assert len(set(starts)) == w.per_epoch
    assert len({start % 8 for start in starts}) == 1


def test_epochs_differ_in_order() -> None:
    w = windows(batch_size=1)
    first = [int(w.batch(step)[0, 0]) for step in range(10)]
    second = [int(w.batch(step + w.per_epoch)[0, 0]) for step in range(10)]
    assert first != second


def test_a_corpus_shorter_than_two_windows_is_an_error() -> None:
    with pytest.raises(DistillSpecError, match="fewer than two windows"):
        windows(context=600)


def test_validation_rows_are_spread_evenly() -> None:
    rows = validation_rows(torch.arange(100), context=10, rows=5)
    assert rows[:, 0].tolist() == [0, 20, 40, 60, 80]


def test_held_out_text_shorter_than_a_window_names_both_keys() -> None:
    with pytest.raises(DistillSpecError, match="9 tokens, fewer than one window of 10") as caught:
        validation_rows(torch.arange(9), context=10, rows=5)
    assert caught.value.where == "held_out_percent / train.context"


def test_a_batch_out_of_all_proportion_to_the_corpus_is_refused() -> None:
    with pytest.raises(DistillSpecError, match="1,000,000 rows at one time"):
        windows(batch_size=10**6)
