"""Responses of an encoder-decoder model, sampled for many sources at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers.modeling_outputs import BaseModelOutput

from distillspec.models.bare import bare_model
from distillspec.models.runners.encoder_decoder import start_token
from distillspec.models.runners.encoder_decoder_reading import both_caches, empty_caches
from distillspec.models.sampling.forward import Forward


class EncoderDecoderBatch:
    """Rows whose responses are being written, each after its own source (`sampling.generate`).

    Responses start and grow together. Sources are padded on the right and masked.
    """

    def __init__(self, prompts: list[Tensor], max_new_tokens: int, forward: Forward) -> None:
        """Start a batch.

        Args:
            prompts: Long [t] each: a source and the start token, nothing after it.
            max_new_tokens: Tokens of the longest response.
            forward: The model.
        """
        self._forward = forward
        start = start_token(bare_model(forward.model))
        for prompt in prompts:
            assert int((prompt == start).int().argmax()) == len(prompt) - 1 > 0, "no start token"
        self._input = torch.full((len(prompts), 1), start, device=forward.device)
        sources = [prompt[:-1].to(forward.device) for prompt in prompts]
        lengths = torch.tensor([len(source) for source in sources], device=forward.device)
        self._source = pad_sequence(sources, batch_first=True, padding_value=start)
        columns = torch.arange(self._source.shape[1], device=forward.device)
        self._mask = (columns < lengths[:, None]).long()
        self._encoded: Tensor | None = None
        self._cache = empty_caches()
        self._max_new_tokens = max_new_tokens

    def next_logits(self) -> Tensor:
        """[B, V] after the last token of each row."""
        known = (
            {"input_ids": self._source}
            if self._encoded is None
            else {"encoder_outputs": BaseModelOutput(last_hidden_state=self._encoded)}
        )
        output = self._forward.run(
            {
                **known,
                "attention_mask": self._mask,
                "decoder_input_ids": self._input,
                "past_key_values": self._cache,
                "use_cache": True,
            }
        )
        # The cache has its layers only after the first forward.
        if self._encoded is None:
            self._encoded = output.encoder_last_hidden_state
            both_caches(self._cache)[0].reserve(self._max_new_tokens)
        logits: Tensor = output.logits
        return logits[:, -1]

    def append(self, tokens: Tensor) -> None:
        """Add one token to each row, long [B]."""
        self._input = tokens[:, None]

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these rows, long [B']."""
        for cache in both_caches(self._cache):
            cache.keep_rows(rows)
        self._input, self._mask = self._input[rows], self._mask[rows]
        if self._encoded is not None:
            self._encoded = self._encoded[rows]
