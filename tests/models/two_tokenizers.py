"""Tiny tokenizers of given pieces, in both conventions of spelling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from distillspec.models.surgery.random_llama import random_llama
from distillspec.models.vocabulary.cross_tokenizer import CrossTokenizerMap
from distillspec.models.vocabulary.train_tokenizer import train_tokenizer
from distillspec.recipe.start import LlamaShape

END = "<end>"


def byte_level(
    pieces: Sequence[str], *, special: Sequence[str] = (END,)
) -> PreTrainedTokenizerFast:
    """A byte-level BPE without merges: its tokens have the ids of their places."""
    backend = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return _whole(backend, special)


def sentencepiece(
    pieces: Sequence[str], *, special: Sequence[str] = (END,)
) -> PreTrainedTokenizerFast:
    """One with bytes to fall back on, as Llama 2 has it."""
    vocab_size = {p: i for i, p in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocab_size, merges=[], byte_fallback=True))
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return _whole(backend, special)


def word_level(pieces: Sequence[str]) -> PreTrainedTokenizerFast:
    """One whose tokens spell text in neither way."""
    vocab_size = {p: i for i, p in enumerate(pieces)}
    backend = Tokenizer(models.WordLevel(vocab=vocab_size, unk_token=pieces[0]))
    backend.decoder = decoders.WordPiece()
    return _whole(backend, ())


def wide_bridge() -> CrossTokenizerMap:
    """For two tiny models: 61 tokens each, in another order; every third is the target's alone."""
    letters = [chr(ord("a") + i % 26) for i in range(60)]
    names = [f"{letter}{i // 26}" for i, letter in enumerate(letters)]
    target = byte_level([END, *names])
    alphabet = sorted({*letters, "0", "1", "2"})
    shared = [name for i, name in enumerate(names) if i % 3][: 60 - len(alphabet)]
    return CrossTokenizerMap(
        target, byte_level([*alphabet, *reversed(shared), END]), 61, 61, "here"
    )


def save_other_draft(folder: Path, max_positions: int = 512) -> PreTrainedTokenizerBase:
    """Save a tiny draft of 310 tokens with another tokenizer, and return the tokenizer."""
    tokenizer = train_tokenizer([Path(__file__).read_text(encoding="utf-8")], 290)
    shape = LlamaShape(
        hidden_size=16, intermediate_size=32, layers=1, heads=2, max_positions=max_positions
    )
    end = int(tokenizer.eos_token_id)
    random_llama(shape, vocab_size=310, end_token=end, seed=7).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _whole(backend: Tokenizer, special: Sequence[str]) -> PreTrainedTokenizerFast:
    backend.add_special_tokens(list(special))
    end = {"eos_token": special[0]} if special else {}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **end)
