"""What every test shares: an offline, quiet, single-threaded process, and a tiny pair on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Before anything imports huggingface_hub or tokenizers, which read these once.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.pop("DISTILLSPEC_STARTED_AS", None)  # launch.sh sets it

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    from tests.served import Served

pytest_plugins = ["tests.measured"]

END_OF_TEXT = "<|endoftext|>"
VOCABULARY = 300


@pytest.hookimpl(tryfirst=True)  # before -m chooses by marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of `slow.txt`, whose lines are files, functions or cases."""
    lines = Path(__file__).with_name("slow.txt").read_text(encoding="utf-8").splitlines()
    slow = {line for line in lines if not line.startswith("#")}
    for item in items:
        file, _, case = item.nodeid.partition("::")
        if slow & {file, f"{file}::{case.partition('[')[0]}", item.nodeid}:
            item.add_marker("slow")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Tiny matrices: threads cost more than they bring, and sums depend on their number."""
    import torch

    torch.set_num_threads(1)


def _byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE of `VOCABULARY` tokens; end of text has id 0."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text = Path(__file__).read_text(encoding="utf-8")
    backend.train_from_iterator([text], trainer)
    assert backend.get_vocab_size() == VOCABULARY
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        model_max_length=512,
    )


def _sharpen(model: LlamaForCausalLM) -> None:
    """Fresh weights say nearly the same of every token; larger ones make the models differ."""
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(15.0)


@pytest.fixture(scope="session")
def tiny_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `target/` (2 layers, hidden 32) and `draft/` (1 layer, hidden 16).

    Both: a float32 Llama with random weights, 300 tokens, byte-level BPE, end of text = id 0.
    Read-only by convention: a test that changes a model folder copies it first.
    """
    from distillspec.models.surgery.random_llama import random_llama
    from distillspec.recipe.start import LlamaShape

    folder = tmp_path_factory.mktemp("tiny-pair")
    tokenizer = _byte_level_tokenizer()
    for name, hidden, layers, seed in (("target", 32, 2, 1), ("draft", 16, 1, 2)):
        shape = LlamaShape(
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            layers=layers,
            heads=2,
            max_positions=512,
        )
        model = random_llama(shape, vocab_size=VOCABULARY, end_token=0, seed=seed)
        _sharpen(model)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The nano target behind `transformers serve` on loopback, for text and for chats."""
    from tests.served import serving

    with serving(tmp_path_factory.mktemp("served")) as found:
        yield found
