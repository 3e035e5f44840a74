"""A tokenizer with a chat template, made here: the smallest that behaves like a real one."""

from __future__ import annotations

import copy

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.rows import Chats
from distillspec.models.vocabulary.chat_template import ChatTemplate

END = "<|endoftext|>"
TURN_END = "<|end|>"
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def chats_of(tokenizer: PreTrainedTokenizerFast) -> Chats:
    return Chats(ChatTemplate(tokenizer))


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte; end-of-text is id 0, and is the padding too."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(
        models.BPE(vocab={END: 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, merges=[])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=END, pad_token=END)
    made.chat_template = TEMPLATE
    return made


@pytest.fixture(scope="session")
def turning(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """Turns of its chats end with a token of their own, its last, as those of Gemma and Phi do."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": [TURN_END]})
    made.chat_template = TEMPLATE.replace("{{ m.content }}", "{{ m.content }}" + TURN_END)
    return made
