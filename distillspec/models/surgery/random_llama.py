"""A Llama model with random weights: the start of a nano pair."""

from __future__ import annotations

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from distillspec.errors import DistillSpecError
from distillspec.recipe.capacity import WEIGHT_BYTES, check_memory, llama_parameters
from distillspec.recipe.start import LlamaShape
from distillspec.runtime.seeds import derive_seed


def random_llama(
    shape: LlamaShape, *, vocab_size: int, end_token: int, seed: int
) -> LlamaForCausalLM:
    """A float32 Llama on the CPU with tied embeddings and `end_token` as bos and eos.

    The same seed gives the same weights. The caller's random state does not change.

    Args:
        shape: Sizes of the model.
        vocab_size: Number of tokens.
        end_token: The token that starts and ends a text.
        seed: Seed of the weights.

    Raises:
        DistillSpecError: The model does not fit into memory.
    """
    parameters = llama_parameters(shape, vocab_size)
    check_memory(parameters, WEIGHT_BYTES, "the shape of a model with random weights")
    config = LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads or shape.heads,
        max_position_embeddings=shape.max_positions,
        bos_token_id=end_token,
        eos_token_id=end_token,
        tie_word_embeddings=True,
        dtype=torch.float32,
    )
    # Only the CPU generator is seeded: `torch.manual_seed` would also change the GPUs' generators.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(derive_seed(seed, "weights of a llama"))
        try:
            model = LlamaForCausalLM(config)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
                raise
            raise DistillSpecError(
                f"there is not enough free memory for a model of {parameters:,} parameters",
                where="the shape of a model with random weights",
                fix="lower hidden_size, intermediate_size or layers, or end other programs",
            ) from error
    model.set_attn_implementation("sdpa")
    return model
