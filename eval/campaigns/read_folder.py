"""Read model folders with whatever transformers this interpreter has; imports nothing of ours.

    PYTHON read_folder.py JOB.json

JOB.json: {"texts": [...], "tokens": [...], "folders": {name: folder}, "out": folder}. Writes
OUT/NAME.json (token ids of the texts, special tokens, names of inputs, rendered chat, type of the
weights; or the error) and OUT/NAME.safetensors (logits after each token).
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "x = 1"}]


def read(folder: str, texts: list[str], tokens: list[int], logits_file: Path) -> dict[str, Any]:
    """What this version of transformers makes of the folder."""
    config = AutoConfig.from_pretrained(folder)
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = kind.from_pretrained(folder, torch_dtype=torch.float32)
    model.set_attn_implementation("eager")  # of both versions the one that does all of Gemma 2
    model.eval()
    inputs = {"input_ids": torch.tensor([tokens])}
    if config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    with torch.no_grad():
        logits = model(**inputs).logits[0].contiguous()
    save_file({"logits": logits}, logits_file)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(texts)
    return {
        "transformers": transformers.__version__,
        "stored dtype": str(config.torch_dtype).removeprefix("torch."),
        "inputs": sorted(encoded.keys()),
        "ids": encoded["input_ids"],
        "decoded": [tokenizer.decode(ids) for ids in encoded["input_ids"]],
        "bare ids": [tokenizer.encode(text, add_special_tokens=False) for text in texts],
        "special": sorted(map(str, tokenizer.all_special_tokens)),
        "eos, bos, pad": [tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id],
        "chat": tokenizer.apply_chat_template(CHAT, tokenize=False)
        if tokenizer.chat_template
        else None,
    }


def main() -> None:
    logging.disable(logging.WARNING)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for name, folder in job["folders"].items():
        out = Path(job["out"]) / f"{name}.json"
        try:
            answer = read(folder, job["texts"], job["tokens"], out.with_suffix(".safetensors"))
        except Exception:  # any failure to read is a finding
            answer = {"error": traceback.format_exc(limit=-3)}
        out.write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
