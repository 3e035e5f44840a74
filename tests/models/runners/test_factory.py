from __future__ import annotations

import errno
import os
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from distillspec.errors import DistillSpecError
from distillspec.models.runners.eager import CausalRunner
from distillspec.models.runners.factory import RunnerFactory, saved
from distillspec.models.vocabulary.trimmed_head import trim_head
from tests.models.conftest import tiny_model


def test_what_arrives_there_is_the_model_that_was_here(text: Tensor) -> None:
    """Weights as they are now, not as they were on disk."""
    model = tiny_model("llama")
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.01)
    with saved(model, "eager", 64, (1, 2), vocab_size=50) as factory:
        sent: RunnerFactory = pickle.loads(pickle.dumps(factory))
        runner = sent()
    assert isinstance(runner, CausalRunner)
    assert runner.vocab_size == 50
    torch.testing.assert_close(
        runner.feed(text), CausalRunner(model, vocab_size=50).feed(text), atol=0, rtol=0
    )


def test_a_trimmed_head_arrives_trimmed(text: Tensor) -> None:
    model = tiny_model("llama")
    trim_head(model, (1, 2, 7))
    with saved(model, "eager", 64, (1, 2)) as factory:
        runner = pickle.loads(pickle.dumps(factory))()
    torch.testing.assert_close(runner.feed(text), CausalRunner(model).feed(text), atol=0, rtol=0)


def test_nothing_is_left_on_disk(llama: PreTrainedModel) -> None:
    with saved(llama, "eager", 64, (1,)) as factory:
        assert Path(factory.folder).exists()
    assert not Path(factory.folder).exists()


def test_a_full_disk_is_the_users_error(
    llama: PreTrainedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(llama, "save_pretrained", full)
    with pytest.raises(DistillSpecError, match="disk is full"), saved(llama, "eager", 64, (1,)):
        pass
