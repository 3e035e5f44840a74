from __future__ import annotations

import pytest
import torch
from torch import nn

from distillspec.training.running_average import ExponentialMovingAverage


def moved(model: nn.Linear, value: float) -> None:
    with torch.no_grad():
        model.weight.fill_(value)


def test_the_average_follows_with_its_decay_and_faster_at_first() -> None:
    model = nn.Linear(2, 1, bias=False)
    moved(model, 0.0)
    average = ExponentialMovingAverage(model, 0.9)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 5.0, 3.0)):
        moved(model, value)
        average.update()
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with average.placed():
        assert model.weight.flatten().tolist() == pytest.approx([expected] * 2)
    assert model.weight.flatten().tolist() == [3.0, 3.0]


def test_weights_come_back_when_something_fails() -> None:
    model = nn.Linear(2, 1, bias=False)
    average = ExponentialMovingAverage(model, 0.9)
    moved(model, 4.0)
    with pytest.raises(RuntimeError), average.placed():
        raise RuntimeError
    assert model.weight.flatten().tolist() == [4.0, 4.0]


def test_frozen_weights_are_left_out() -> None:
    model = nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    assert set(ExponentialMovingAverage(model, 0.9).state_dict()) == {"weight", "steps"}


def test_an_average_goes_on_where_it_was_saved() -> None:
    model = nn.Linear(2, 1, bias=False)
    one, other = ExponentialMovingAverage(model, 0.9), ExponentialMovingAverage(model, 0.9)
    moved(model, 2.0)
    one.update()
    other.load_state_dict({name: value.clone() for name, value in one.state_dict().items()})
    moved(model, 7.0)
    for average in (one, other):
        average.update()
    assert torch.equal(one.state_dict()["weight"], other.state_dict()["weight"])
