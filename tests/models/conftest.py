"""Tiny models of several architectures, and what runners are asked of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

VOCABULARY = 61


def tiny_model(kind: str, *, seed: int = 0) -> PreTrainedModel:
    """A float32 model in eval mode: hidden 32, 2 layers, 61 tokens; windows are 8 positions."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    config = {
        "llama": lambda: LlamaConfig(**shape, tie_word_embeddings=True),
        "mistral": lambda: MistralConfig(**shape, sliding_window=8),
        "gemma2": lambda: Gemma2Config(**shape, sliding_window=8, final_logit_softcapping=3.0),
        "gpt2": lambda: GPT2Config(vocab_size=VOCABULARY, n_positions=128, n_embd=32, n_layer=2,
                                   n_head=4, bos_token_id=1, eos_token_id=2),
    }[kind]()  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        with torch.no_grad():  # fresh weights give nearly equal logits
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(6.0)
    model.eval()
    return model


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return tiny_model("llama")


@pytest.fixture(scope="session")
def text() -> torch.Tensor:
    """48 tokens, long [1, 48]."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(3, VOCABULARY, (1, 48), generator=generator)


@pytest.fixture(scope="session")
def tokenizer(tiny_pair: Path) -> PreTrainedTokenizerBase:
    from distillspec.models.loading.load import load_tokenizer

    return load_tokenizer(str(tiny_pair / "target"))


def one_pass(model: PreTrainedModel, text: torch.Tensor) -> torch.Tensor:
    """Logits [1, T, V] of the whole text at once, without any cache."""
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=text, use_cache=False).logits
    return logits


# A tree: 5 continues the text, 6 and 7 continue 5, 8 continues 7, 9 also continues the text.
TREE, PARENTS, PATHS = [5, 6, 7, 8, 9], [-1, 0, 0, 2, -1], [[0], [0, 1], [0, 2], [0, 2, 3], [4]]


def tree_parents(length: int) -> list[int]:
    return [length + parent if parent >= 0 else length - 1 for parent in PARENTS]
