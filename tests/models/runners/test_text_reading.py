from __future__ import annotations

import pytest
import torch
from torch import Tensor

from distillspec.models.runners.encoder_decoder_reading import EncoderDecoderReading
from distillspec.models.runners.text_reading import CausalReading, reading
from tests.models.conftest import one_pass, tiny_model
from tests.seq2seq import tiny_t5


def test_each_kind_of_model_has_its_reading() -> None:
    assert isinstance(reading(tiny_model("llama")), CausalReading)
    assert isinstance(reading(tiny_t5()), EncoderDecoderReading)


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_copies_go_on_by_themselves_from_where_the_text_was(kind: str, text: Tensor) -> None:
    model = tiny_model(kind)
    whole = reading(model)
    with torch.no_grad():
        whole.feed(text[:, :12])
        whole.keep(10)
        rows = whole.repeated(2)
        assert (whole.rows, rows.rows) == (1, 2)
        ends = torch.stack([text[0, 20:24], text[0, 30:34]])
        rows.feed(ends)
        copied = rows.one_row(1, 13)
        by_name = {"whole": whole.feed(text[:, 10:14]), "row": copied.feed(text[:, 33:36])}
    texts = {
        "whole": text[:, :14],
        "row": torch.cat([text[:, :10], text[:, 30:33], text[:, 33:36]], dim=1),
    }
    for name, logits in by_name.items():
        expected = one_pass(model, texts[name])[:, -logits.shape[1] :]
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
