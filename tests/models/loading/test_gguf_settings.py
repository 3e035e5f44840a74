from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, LlamaConfig, LlamaForCausalLM, PretrainedConfig

from distillspec.errors import DistillSpecError
from distillspec.models.loading.gguf_header import GgufHeader
from distillspec.models.loading.gguf_settings import carry_settings
from distillspec.models.loading.load import load_model
from tests.models.gguf_files import needs_gguf, written

THETA, WIDTH = 10000.0, 16
YARN = {
    "rope_type": "yarn",
    "rope_theta": THETA,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}


def header(
    architecture: str = "llama", factors: tuple[float, ...] | None = None, **settings: Any
) -> GgufHeader:
    """A header of settings; `__` in their names is a dot."""
    named = {f"{architecture}.{k.replace('__', '.')}": v for k, v in settings.items()}
    named["general.architecture"] = architecture
    return GgufHeader(Path("tiny.gguf"), named, ("token_embd.weight",), factors)


def llama() -> LlamaConfig:
    return LlamaConfig(
        hidden_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
    )


def refused(header: GgufHeader, config: PretrainedConfig | None = None) -> str:
    with pytest.raises(DistillSpecError) as caught:
        carry_settings(header, config or llama())
    assert "Hugging Face folder" in caught.value.fix
    return caught.value.what


def llama3_factors(factor: float) -> np.ndarray:
    """What llama.cpp's converter divides each frequency by, for Llama 3.x."""
    factors = []
    for pair in range(WIDTH // 2):
        wavelength = 2 * math.pi * THETA ** (2 * pair / WIDTH)
        if wavelength < 8192 / 4:
            factors.append(1.0)
        elif wavelength > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(factors, dtype=np.float32)


def logits_of(model: torch.nn.Module) -> Tensor:
    ids = torch.randint(1, 300, (1, 300), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = model(ids).logits
    assert isinstance(logits, Tensor)
    return logits


# --- rotary positions ----------------------------------------------------------------------------


def linear(writer: Any) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(4.0)


def yarn(writer: Any) -> None:
    from gguf import RopeScalingType

    writer.add_rope_scaling_type(RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(128)


def llama31(writer: Any) -> None:
    writer.add_tensor("rope_freqs.weight", llama3_factors(8.0))


def llama32(writer: Any) -> None:
    writer.add_tensor("rope_freqs.weight", llama3_factors(32.0))


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": THETA,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


@needs_gguf
@pytest.mark.parametrize(
    ("add", "rope"),
    [
        (linear, {"rope_type": "linear", "rope_theta": THETA, "factor": 4.0}),
        (yarn, YARN),
        (llama31, LLAMA3 | {"factor": 8.0}),
        (llama32, LLAMA3 | {"factor": 32.0}),
    ],
)
def test_a_scaled_model_gives_the_logits_of_the_model_with_that_scaling(
    tiny_pair: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    add: Callable[[Any], None],
    rope: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    target = tiny_pair / "target"
    config = AutoConfig.from_pretrained(target)
    config.rope_parameters = rope
    scaled = LlamaForCausalLM.from_pretrained(target, config=config, dtype=torch.float32).eval()
    model = load_model(str(written(target, tmp_path / "tiny.gguf", add=add)), dtype=torch.float32)
    assert model.config.rope_parameters == rope
    torch.testing.assert_close(logits_of(model), logits_of(scaled), rtol=1e-4, atol=1e-4)
    plain = load_model(str(target), dtype=torch.float32)
    assert (logits_of(model) - logits_of(plain)).abs().max() > 0.01


def test_a_file_that_scales_nothing_changes_nothing() -> None:
    for quiet in (
        header(),
        header(rope__scaling__type="none", rope__scaling__factor=4.0),
        header(rope__scaling__original_context_length=128),
        header(factors=(1.0,) * 8),
    ):
        config = llama()
        carry_settings(quiet, config)
        assert config.to_dict() == llama().to_dict()


def test_a_factor_without_a_type_is_linear() -> None:
    config = llama()
    carry_settings(header(rope__scaling__factor=2.0), config)
    assert config.rope_parameters["rope_type"] == "linear"


@pytest.mark.parametrize(
    "scaled",
    [
        header(rope__scaling__type="longrope", rope__scaling__factor=4.0),
        header(rope__scaling__type="linear"),
        header(rope__scaling__type="yarn", rope__scaling__factor=4.0),
        header(
            rope__scaling__type="yarn",
            rope__scaling__factor=4.0,
            rope__scaling__original_context_length=128,
            rope__scaling__yarn_log_multiplier=0.1,
        ),
        header(factors=(1.0, 1.0, 1.0, 1.0, 2.0, 4.0, 8.0, 8.0)),
        header(factors=(1.0, 8.0)),
        header(rope__scaling__factor=2.0, factors=tuple(map(float, llama3_factors(8.0)))),
        header("gemma3", rope__scaling__type="linear", rope__scaling__factor=8.0),
    ],
)
def test_other_scalings_are_refused(scaled: GgufHeader) -> None:
    assert "scales rotary positions" in refused(scaled)


def test_the_betas_of_yarn_are_carried_over() -> None:
    config = llama()
    scaled = header(
        rope__scaling__type="yarn",
        rope__scaling__factor=4.0,
        rope__scaling__original_context_length=128,
        rope__scaling__yarn_beta_fast=16.0,
        rope__scaling__yarn_beta_slow=2.0,
    )
    carry_settings(scaled, config)
    assert config.rope_parameters == YARN | {"beta_fast": 16.0, "beta_slow": 2.0}


# --- other settings ------------------------------------------------------------------------------


def test_a_setting_that_nobody_reads_is_refused_by_name() -> None:
    what = refused(header(logit_scale=0.5, attention__sliding_window=64, some_news=1))
    assert "(3): logit_scale = 0.5, attention.sliding_window = 64, some_news = 1" in what


def test_settings_that_do_nothing_or_are_in_the_configuration_pass() -> None:
    quiet = header(
        context_length=512,
        attention__key_length=16,
        attention__causal=True,
        rope__dimension_count=16,
        expert_count=0,
    )
    carry_settings(quiet, llama())


def test_a_default_of_the_architecture_must_be_what_the_file_states() -> None:
    # transformers reads no rotary base from files of this architecture.
    from transformers import Starcoder2Config

    config = Starcoder2Config()
    carry_settings(header("starcoder2", rope__freq_base=10000.0), config)
    assert "rope.freq_base = 100000.0" in refused(
        header("starcoder2", rope__freq_base=100000.0), config
    )
    assert "rope.dimension_count = 4" in refused(
        header("starcoder2", rope__dimension_count=4), config
    )


def test_architectures_that_transformers_reads_with_a_function_have_no_table() -> None:
    from transformers import Lfm2Config

    carry_settings(header("lfm2", shortconv__l_cache=3), Lfm2Config())
