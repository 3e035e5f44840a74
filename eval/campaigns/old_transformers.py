"""Do transformers 4.57 and 5 read what we export as it was trained?

Tiny random models of each family in our recipes, and of some others, and the embedded pair, are
exported; both versions then read each folder, in an interpreter of its own. Logits, token ids,
special tokens and chats must be those of the trained model and its tokenizer. As a control, the
same folders without the old keys must be read wrongly where RoPE is not the default one.

    python3.11 -m venv OLD && OLD/bin/pip install torch==2.13.0 transformers==4.57.6
    .venv/bin/python eval/campaigns/old_transformers.py OLD/bin/python [--only FAMILY ...]

The last line is `N tried, M faults`; exit status 1 if M is not 0. Long, because each family needs
a tokenizer of its kind.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5Tokenizer,
)

from distillspec.export.folder import export_draft
from distillspec.export.old_readers import old_config_keys
from distillspec.models.vocabulary.train_tokenizer import train_tokenizer

READER = Path(__file__).with_name("read_folder.py")
NANO = Path(__file__).parents[2] / "checkpoints" / "nano-python"
TEXTS = [
    "def f(x):\n    return x + 1\n",
    "Hello, world: 12345 <|im_end|> it's  two  spaces\n\n\tand a tab",
    " leading space, naïve café 中文 🙂",
]
CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
CHAT_READ = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nx = 1<|im_end|>\n"
VOCABULARY = 400
TOLERANCE = 2e-4  # of logits of some units; a wrong base moves them by more than 1e-2
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.3,  # so that attention looks at some positions more than at others
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5e5,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


class Family(NamedTuple):
    """kind: transformers' model type. more: of its configuration."""

    name: str
    kind: str
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    more: dict[str, Any]


def _rope(theta: float, **more: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta, **more}}


# --- tokenizers ----------------------------------------------------------------------------------


def _texts() -> list[str]:
    return [READER.read_text(encoding="utf-8"), Path(__file__).read_text(encoding="utf-8")]


def _byte_level() -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(_texts(), 380)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def _merges() -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(train_tokenizer(_texts(), 380).backend_tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def _of_class(kind: type, end: str = "<|endoftext|>") -> PreTrainedTokenizerBase:
    """A byte-level tokenizer of one of transformers' own classes."""
    vocab_size, merges = _merges()
    tokens = {"eos_token": end, "bos_token": end, "unk_token": end, "pad_token": end}
    tokenizer: PreTrainedTokenizerBase = kind(vocab=vocab_size, merges=merges, **tokens)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


def _unigrams(special: list[str]) -> list[tuple[str, float]]:
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=280, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    lines = [line for text in _texts() for line in text.splitlines()]
    backend.train_from_iterator(lines, trainer)
    return [(piece, score) for piece, score in json.loads(backend.to_str())["model"]["vocab"]]


def _t5() -> PreTrainedTokenizerBase:
    return T5Tokenizer(vocab=_unigrams(["<pad>", "</s>", "<unk>"]), extra_ids=20)


def _sentencepiece_bpe(kind: type) -> PreTrainedTokenizerBase:
    """Characters and bytes alone: enough to show whether a space is put before a text."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({c for text in _texts() for c in text if c.isalnum()} | {"▁"})
    vocab_size = {piece: index for index, piece in enumerate([*pieces, *letters])}
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    tokenizer: PreTrainedTokenizerBase = kind(vocab=vocab_size, merges=[], **names)
    return tokenizer


def _llama2() -> PreTrainedTokenizerBase:
    return _sentencepiece_bpe(LlamaTokenizer)


def _gemma() -> PreTrainedTokenizerBase:
    return _sentencepiece_bpe(GemmaTokenizer)


# --- models --------------------------------------------------------------------------------------

_LAYERS = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 64}
FAMILIES = (
    Family("llama-3", "llama", _byte_level,
           {"rope_parameters": LLAMA3, "tie_word_embeddings": True}),
    Family("llama-3-untied", "llama", _byte_level, {"rope_parameters": LLAMA3}),
    Family("qwen2.5", "qwen2", lambda: _of_class(Qwen2Tokenizer),
           {**_rope(1e6), "tie_word_embeddings": True}),
    Family("qwen3", "qwen3", lambda: _of_class(Qwen2Tokenizer),
           {**_rope(1e6), "head_dim": 32, "tie_word_embeddings": True}),
    Family("smollm2", "llama", lambda: _of_class(GPT2Tokenizer),
           {**_rope(1e5), "tie_word_embeddings": True}),
    Family("pythia", "gpt_neox", lambda: _of_class(GPTNeoXTokenizer),
           _rope(1e4, partial_rotary_factor=0.25)),
    Family("gpt-neox-other-base", "gpt_neox", lambda: _of_class(GPTNeoXTokenizer),
           _rope(3e5, partial_rotary_factor=0.5)),
    Family("flan-t5", "t5", _t5,
           {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_decoder_layers": 2,
            "num_heads": 4, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
            "decoder_start_token_id": 0}),
    Family("lm1b", "llama", _byte_level, _rope(1e4)),
    Family("llama-2", "llama", _llama2, _rope(1e4)),
    Family("llama-yarn", "llama", _byte_level,
           _rope(2e5, rope_type="yarn", factor=4.0, original_max_position_embeddings=128)),
    Family("mistral", "mistral", _llama2, _rope(1e6)),
    Family("gpt2", "gpt2", lambda: _of_class(GPT2Tokenizer),
           {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}),
    Family("phi", "phi", lambda: _of_class(GPT2Tokenizer), _rope(3e5, partial_rotary_factor=0.5)),
    Family("phi3-longrope", "phi3", _llama2,
           {**_rope(3e5, rope_type="longrope", short_factor=[1.5] * 8, long_factor=[3.0] * 8),
            "original_max_position_embeddings": 128}),
    Family("stablelm", "stablelm", lambda: _of_class(GPT2Tokenizer),
           _rope(3e5, partial_rotary_factor=0.25)),
    Family("falcon", "falcon", lambda: _of_class(GPT2Tokenizer), _rope(3e5)),
    Family("gemma2", "gemma2", _gemma, {**_rope(3e5), **_LAYERS, "head_dim": 16}),
    Family("gemma3", "gemma3_text", _gemma, {**_LAYERS, "head_dim": 16, "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}}}),
    Family("olmo2", "olmo2", lambda: _of_class(GPT2Tokenizer), _rope(5e5)),
    Family("olmo3", "olmo3", lambda: _of_class(GPT2Tokenizer), {**_LAYERS, "rope_parameters": {
        "full_attention": {"rope_type": "yarn", "factor": 8.0, "rope_theta": 5e5,
                           "original_max_position_embeddings": 64, "attention_factor": 1.2,
                           "beta_fast": 32.0, "beta_slow": 1.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e5}}}),
    # As long as the texts: beyond it 5 takes the short factors still, and 4.57 the long ones.
    Family("phimoe-longrope", "phimoe", _llama2,
           {**_rope(3e5, rope_type="longrope", short_factor=[1.5] * 8, long_factor=[3.0] * 8,
                    short_mscale=1.2, long_mscale=1.4, original_max_position_embeddings=256),
            "num_local_experts": 2, "num_experts_per_tok": 2}),
    Family("gemma3-images", "gemma3", _gemma, {
        "text_config": {**SIZES, **_LAYERS, "head_dim": 16, "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 3e4}}},
        "vision_config": {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                          "num_attention_heads": 2, "image_size": 28, "patch_size": 14},
        "boi_token_index": 390, "eoi_token_index": 391, "image_token_index": 392,
        "mm_tokens_per_image": 4}),
)  # fmt: skip


def _model(family: Family) -> PreTrainedModel:
    config = AutoConfig.for_model(family.kind, **{**SIZES, **family.more})
    torch.manual_seed(0)
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model: PreTrainedModel = auto.from_config(config, dtype=torch.float32)
    if family.kind == "t5":  # FLAN's head is its own; transformers 5 ties it in a new model
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.set_attn_implementation("eager")  # as in read_folder.py
    model.eval()
    return model


def _pairs(only: list[str]) -> Iterator[tuple[str, PreTrainedModel, PreTrainedTokenizerBase]]:
    for family in FAMILIES:
        if not only or family.name in only:
            yield family.name, _model(family), family.tokenizer()
    if only:
        return
    for name in ("draft", "target"):
        model = AutoModelForCausalLM.from_pretrained(NANO / name, dtype=torch.float32)
        model.set_attn_implementation("eager")
        yield f"nano-{name}", model.eval(), AutoTokenizer.from_pretrained(NANO / name)


# --- the campaign --------------------------------------------------------------------------------


class Expected(NamedTuple):
    """What the trained model and its tokenizer say."""

    logits: torch.Tensor
    answers: dict[str, Any]
    has_rope_of_its_own: bool


def _tokens() -> list[int]:
    generator = torch.Generator().manual_seed(1)
    drawn: list[int] = torch.randint(3, 256, (200,), generator=generator).tolist()
    return drawn


@torch.no_grad()
def _expected(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Expected:
    inputs = {"input_ids": torch.tensor([_tokens()])}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    ids = tokenizer(TEXTS)["input_ids"]
    answers = {
        "stored dtype": "float32",
        "chat": CHAT_READ if tokenizer.chat_template else None,
        "ids": ids,
        "bare ids": [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS],
        "special": sorted(map(str, tokenizer.all_special_tokens)),
        "eos, bos, pad": [tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id],
        "decoded": [tokenizer.decode(tokens) for tokens in ids],
        "inputs": ["attention_mask", "input_ids"],
    }
    keys = old_config_keys(model.config.get_text_config().to_dict()) or {}
    own = bool(keys.get("rope_scaling")) or keys.get("rope_theta", 1e4) != 1e4
    return Expected(model(**inputs).logits[0], answers, own)


def _without_old_keys(folder: Path, bare: Path) -> None:
    """A copy of the folder whose config.json is that of transformers 5 alone."""
    bare.mkdir()
    for file in folder.iterdir():
        (bare / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config", {})):
        for key in old_config_keys(part) or {}:
            part.pop(key, None)
    (bare / "config.json").write_text(json.dumps(config), encoding="utf-8")


def _read_by(python: str, folders: dict[str, Path], out: Path) -> dict[str, dict[str, Any]]:
    out.mkdir()
    job = {
        "texts": TEXTS,
        "tokens": _tokens(),
        "folders": {name: str(folder) for name, folder in folders.items()},
        "out": str(out),
    }
    (out / "job").write_text(json.dumps(job), encoding="utf-8")
    subprocess.run([python, str(READER), str(out / "job")], check=True)
    return {name: json.loads((out / f"{name}.json").read_text()) for name in folders}


def _faults(output: dict[str, Any], expected: Expected, logits_file: Path) -> Iterator[str]:
    """What one version reads otherwise; a line for each question that was asked."""
    if "error" in output:
        yield output["error"]
        return
    logits = load_file(logits_file)["logits"][:, : expected.logits.shape[1]]
    apart = float((logits - expected.logits).abs().max())
    if not apart <= TOLERANCE:
        yield f"logits differ by up to {apart:.3g}"
    for question, answer in expected.answers.items():
        if output[question] != answer:
            yield f"{question}: {output[question]!r}, expected {answer!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", help="interpreter of an environment with transformers 4.57")
    names = [family.name for family in FAMILIES]
    parser.add_argument("--only", nargs="+", default=[], choices=names, metavar="FAMILY")
    arguments = parser.parse_args()
    old = arguments.old
    tried = faults = 0
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        folders: dict[str, Path] = {}
        bare: dict[str, Path] = {}
        expected: dict[str, Expected] = {}
        for family, model, tokenizer in _pairs(arguments.only):
            embeddings: Any = model.get_input_embeddings()
            rows: int = embeddings.weight.shape[0]
            expected[family] = _expected(model, tokenizer)
            folders[family] = export_draft(
                model, tokenizer, folder=work / family, target_vocabulary=rows,
                num_assistant_tokens=4, card="", dtype=torch.float32,
            )  # fmt: skip
            if expected[family].has_rope_of_its_own:
                bare[family] = work / f"{family}-bare"
                _without_old_keys(folders[family], bare[family])
        readers = {"5": sys.executable, "4.57": old}
        answers = {v: _read_by(py, folders, work / f"by-{v}") for v, py in readers.items()}
        for family in folders:
            for version, answer in answers.items():
                file = work / f"by-{version}" / f"{family}.safetensors"
                wrong = list(_faults(answer[family], expected[family], file))
                tried += 1 + len(expected[family].answers)
                faults += len(wrong)
                version_name = answer[family].get("transformers", "?")
                print(f"{family}, transformers {version_name}: {'; '.join(wrong) or 'as trained'}")
        controls = _read_by(old, bare, work / "by-control")
        for family in bare:
            file = work / "by-control" / f"{family}.safetensors"
            wrong = list(_faults(controls[family], expected[family], file))
            tried += 1
            faults += not wrong
            print(f"{family} without the old keys, 4.57: {'; '.join(wrong) or 'read rightly'}")
    print(f"{tried} tried, {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
