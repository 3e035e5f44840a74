"""Small encoder-decoder models of the T5 family, with random weights, and a tokenizer for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

VOCABULARY = 320
START, END = 0, 1


def tiny_t5(
    *, seed: int = 0, hidden: int = 16, layers: int = 1, tied: bool = True, **more: Any
) -> T5ForConditionalGeneration:
    """In eval mode, float32; its padding token 0 begins responses, token 1 ends them.

    tied: the first T5, whose head is its embedding; else as 1.1 and FLAN, with a head of its own.
    """
    settings = {
        "vocab_size": VOCABULARY,
        "d_model": hidden,
        "d_kv": 8,
        "d_ff": 2 * hidden,
        "num_layers": layers,
        "num_heads": 2,
        "decoder_start_token_id": START,
        "eos_token_id": END,
        **more,
    }
    if not tied:
        settings |= {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = T5ForConditionalGeneration(T5Config(**settings))
        if not tied:
            model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
        with torch.no_grad():  # fresh weights say nearly the same of every token
            for name, parameter in model.named_parameters():
                if name.endswith(("SelfAttention.q.weight", "EncDecAttention.q.weight")):
                    parameter.mul_(8.0)
    model.eval()
    return model


def t5_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of at most `VOCABULARY` tokens; puts </s> behind a text, as T5's does."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    backend.post_processor = _end_behind()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", pad_token="<pad>", model_max_length=512
    )


def unigram_tokenizer() -> PreTrainedTokenizerFast:
    """Of T5's own kind: sentencepiece unigrams whose words begin with "▁"."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=VOCABULARY - 20,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    backend.train_from_iterator(Path(__file__).read_text(encoding="utf-8").splitlines(), trainer)
    backend.post_processor = _end_behind()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_max_length=512,
    )


def _end_behind() -> processors.TemplateProcessing:
    return processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", END)])


def written_pair(
    folder: Path, tokenizer: PreTrainedTokenizerBase | None = None, **more: Any
) -> Path:
    """`folder` with `target/` (2 layers a side, hidden 32) and `draft/` (1 layer, hidden 16).

    tokenizer: default: T5's. more: of the models' configurations.
    """
    tokenizer = tokenizer or t5_tokenizer()
    for name, hidden, layers, seed in (("target", 32, 2, 1), ("draft", 16, 1, 2)):
        tiny_t5(seed=seed, hidden=hidden, layers=layers, **more).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder
