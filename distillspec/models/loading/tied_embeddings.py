"""Whether output head and input embedding are one matrix. The weights decide, not the config."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import PretrainedConfig, PreTrainedModel

from distillspec.models.vocabulary.trimmed_head import TrimmedHead


def is_tied(model: PreTrainedModel) -> bool:
    """Whether the output head and the input embedding are one tensor."""
    head = model.get_output_embeddings()
    head = head.whole if isinstance(head, TrimmedHead) else head
    weight = getattr(head, "weight", None)
    return weight is not None and weight is getattr(model.get_input_embeddings(), "weight", None)


def state_tying(model: PreTrainedModel) -> bool:
    """Correct the configuration's tying flag; True if it tied two separate matrices.

    Resizing, saving and serving engines read the flag. With a wrong flag they would make two
    matrices of one, or look for a matrix that was never stored. Encoder-decoder models keep their
    flag: their families use it for other things, and load two matrices correctly.
    """
    tied, stated = is_tied(model), bool(model.config.tie_word_embeddings)
    if tied == stated or model.config.is_encoder_decoder:
        return False
    for config in _configs(model):
        config.tie_word_embeddings = tied
    return stated


@contextmanager
def tied_as_it_is(model: PreTrainedModel) -> Iterator[None]:
    """Within this context the tying flag is correct, for `resize_token_embeddings`."""
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
    """The model's configuration and that of its text part; one object unless it reads images."""
    config, text = model.config, model.config.get_text_config(decoder=True)
    return [config] if text is config else [config, text]
