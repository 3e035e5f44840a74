from __future__ import annotations

import pytest
import torch

from distillspec.models.sampling import masked_reader
from distillspec.models.sampling.forward import forward_of
from distillspec.models.sampling.masked_reader import MaskedReader
from tests.models.conftest import one_pass, tiny_model
from tests.models.sampling.test_generate import greedy_one_by_one, prompts_of
from tests.models.sampling.test_speculative import close_draft, speculated_texts


@torch.no_grad()
def test_a_hidden_column_leaves_no_trace() -> None:
    model = tiny_model("llama")
    texts = prompts_of([3, 5])
    tokens = torch.tensor([[7, 8], [9, 10]])
    is_text = torch.ones(2, 2, dtype=torch.bool)
    with forward_of(model) as forward:
        reader = MaskedReader(forward, texts)
        reader.logits(tokens, is_text)
        reader.hide(torch.tensor([[False, True], [True, True]]))
        last = reader.last_logits(tokens[:, 1:], is_text[:, 1:])
    for row, before in enumerate(([7, 8], [10])):
        whole = torch.cat([texts[row], torch.tensor(before)])[None]
        torch.testing.assert_close(last[row], one_pass(model, whole)[0, -1], atol=1e-4, rtol=1e-4)


def test_columns_that_nobody_sees_are_tidied_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masked_reader, "_MAX_HIDDEN", 4)
    target = tiny_model("llama")
    prompts = prompts_of([9, 3, 14])
    texts = speculated_texts(target, close_draft(noise=0.3), prompts, max_new_tokens=60)
    for prompt, text in zip(prompts, texts, strict=True):
        assert text.response.tolist() == greedy_one_by_one(target, prompt, 60, set())
