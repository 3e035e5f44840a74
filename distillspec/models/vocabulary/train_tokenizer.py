"""Train a byte-level BPE on texts, as a Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distillspec.errors import DistillSpecError
from distillspec.models.vocabulary.cutting import CUTTINGS
from distillspec.recipe.pretraining import Pattern

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(
    texts: Iterable[str], vocab_size: int, pattern: Pattern = "qwen2"
) -> PreTrainedTokenizerFast:
    """A tokenizer of `vocab_size` tokens (fewer on a small corpus); id 0 is end-of-text.

    Any bytes can be encoded and decoded without loss.
    """
    tokenizer = Tokenizer(models.BPE())
    _split_by(tokenizer, pattern)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        bos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
    )


def split_by(tokenizer: PreTrainedTokenizerBase, pattern: Pattern) -> None:
    """Make a byte-level BPE split text by another pattern, in place; its tokens stay the same.

    Raises:
        DistillSpecError: The tokenizer is of another kind.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if (
        backend is None
        or not isinstance(backend.model, models.BPE)
        or not isinstance(backend.decoder, decoders.ByteLevel)
    ):
        raise DistillSpecError(
            "the tokenizer is no byte-level BPE, so its way to split text cannot be replaced",
            where=f"tokenizer.pattern={pattern}",
            fix="remove tokenizer.pattern",
        )
    _split_by(backend, pattern)


def _split_by(tokenizer: Tokenizer, pattern: Pattern) -> None:
    """Split text as llama.cpp does by this name, so that the model can be converted to GGUF.

    llama.cpp normalises no text, whatever the models do that it named the pattern after.
    """
    cutting = CUTTINGS[pattern]
    assert cutting.pattern is not None
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(cutting.pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.model.ignore_merges = cutting.takes_whole
