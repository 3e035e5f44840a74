"""Names of the files that this program writes into a model folder.

A folder that is replaced as a whole may hold these and nothing else (`atomic.check_replaceable`).
"""

from __future__ import annotations

HOT_TOKENS = "hot_token_ids.json"

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)

MODEL_FILES = (
    *TOKENIZER_FILES,
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "configuration_*.py",  # of models that bring their own code
    "modeling_*.py",
    "tokenization_*.py",
    "README.md",
    HOT_TOKENS,
)
