from __future__ import annotations

from pathlib import Path

import torch

from distillspec.models.loading.digest import model_digest, weights_digest
from distillspec.models.loading.load import load_model


def test_a_folder_and_the_model_loaded_from_it_have_one_digest(tiny_pair: Path) -> None:
    folder = tiny_pair / "draft"
    model = load_model(str(folder), dtype=torch.float32)
    assert model_digest(folder) == model_digest(str(folder)) == model_digest(model)


def test_every_bit_name_and_shape_counts() -> None:
    weight = torch.arange(6.0)
    digests = {
        weights_digest([("a", weight)]),
        weights_digest([("b", weight)]),
        weights_digest([("a", weight.view(2, 3))]),
        weights_digest([("a", weight.bfloat16())]),
        weights_digest([("a", weight.nextafter(torch.tensor(9.0)))]),
        weights_digest([]),
    }
    assert len(digests) == 6


def test_the_order_does_not_count() -> None:
    first, two = ("a", torch.ones(2)), ("b", torch.zeros(()))
    assert weights_digest([first, two]) == weights_digest([two, first])
