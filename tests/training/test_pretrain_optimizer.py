from __future__ import annotations

import pytest
import torch

from distillspec.models.surgery.random_llama import random_llama
from distillspec.recipe.pretraining import PretrainConfig
from distillspec.recipe.start import LlamaShape
from distillspec.training.pretrain_optimizer import optimizers, rate_share

SHAPE = LlamaShape(hidden_size=16, intermediate_size=32, layers=2, heads=2)


@pytest.mark.parametrize(
    ("name", "kind"), [("muon", torch.optim.Muon), ("adamw", torch.optim.AdamW)]
)
def test_hidden_matrices_have_the_optimizer_and_the_rate_of_the_plan(
    name: str, kind: type[torch.optim.Optimizer]
) -> None:
    plan = PretrainConfig.model_validate(
        {"optimizer": name, "matrix_rate": 0.5, "other_rate": 0.25, "weight_decay": 0.125}
    )
    model = random_llama(SHAPE, vocab_size=20, end_token=0, seed=0)
    matrices, others = optimizers(model, plan)
    assert type(matrices) is kind and type(others) is torch.optim.AdamW
    (hidden,), (rest,) = matrices.param_groups, others.param_groups
    assert (hidden["peak"], rest["peak"]) == (0.5 if name == "muon" else 0.25, 0.25)
    assert (hidden["weight_decay"], rest["weight_decay"]) == (0.125, 0.0)
    # Every weight is in one of the two, and the table of tokens is no hidden matrix.
    parts = [{id(weight) for weight in group["params"]} for group in (hidden, rest)]
    assert parts[0] | parts[1] == {id(weight) for weight in model.parameters()}
    assert not parts[0] & parts[1]
    assert id(model.get_input_embeddings().weight) in parts[1]


def test_the_rate_warms_up_stays_level_and_decays() -> None:
    plan = PretrainConfig(max_steps=100, warmup_steps=10, decay_share=0.5, final_rate_share=0.1)
    shares = [rate_share(step, plan) for step in range(100)]
    assert shares[0] == pytest.approx(0.1)
    assert shares[10:50] == [1.0] * 40
    assert shares[75] == pytest.approx(0.5)
    assert shares[99] == pytest.approx(0.1)


def test_raising_max_steps_before_the_decay_changes_nothing_that_was_done() -> None:
    short = PretrainConfig(max_steps=100, decay_share=0.5)
    long = PretrainConfig(max_steps=200, decay_share=0.5)
    assert [rate_share(s, short) for s in range(50)] == [rate_share(s, long) for s in range(50)]
