"""Whether output head and input embedding are one matrix: the weights decide, not the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PretrainedConfig, PreTrainedModel

from distillspec.models.vocabulary.trimmed_head import TrimmedHead


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head is one tensor with the input embedding."""
    head = model.get_output_embeddings()
    head = head.whole if isinstance(head, TrimmedHead) else head
    weight = getattr(head, "weight", None)
    return weight is not None and weight is getattr(model.get_input_embeddings(), "weight", None)


def state_tying(model: PreTrainedModel) -> bool:
    """Let the configuration say what the weights are; True where it called two matrices one.

    Whatever reads the flag later (resizing, saving, an engine that loads the export) would make one
    matrix of two, or look for a second one that was never stored. Encoder-decoder models are left
    alone: their families read other things from the flag, and load two matrices rightly.
    """
    tied, stated = is_tied(model), bool(model.config.tie_word_embeddings)
    if tied == stated or model.config.is_encoder_decoder:
        return False
    for config in _configs(model):
        config.tie_word_embeddings = tied
    return stated


@contextmanager
def tied_as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """Within, the flag is the truth: `resize_token_embeddings` ties whatever it calls tied."""
    before = [(config, config.tie_word_embeddings) for config in _configs(model)]
    tied = is_tied(model)
    for config, _ in before:
        config.tie_word_embeddings = tied
    try:
        yield
    finally:
        for config, flag in before:
            config.tie_word_embeddings = flag


def _configs(model: PreTrainedModel) -> list[PretrainedConfig]:
    """The whole one and that of the text: one object, unless the model reads images too."""
    whole, text = model.config, model.config.get_text_config(decoder=True)
    return [whole] if text is whole else [whole, text]
