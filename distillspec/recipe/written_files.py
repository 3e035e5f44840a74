"""The files that this program writes into a model folder, which it may replace.

In a run folder or a cache their names are enough (`atomic.check_replaceable`). A folder that the
user names may hold a model of the user's, with the same names: there a marker, which lists the
SHA-256 of each written file, tells what is the program's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.runtime.atomic import names_in, refuse_foreign, write_json
from distillspec.runtime.file_digest import file_digest
from distillspec.runtime.plain_files import BoundedText, read_json

MARKER = "pretraining.json"
README = "README.md"  # the user's, and kept

HOT_TOKENS = "hot_token_ids.json"
SHARED_EMBEDDINGS = "shared_embeddings.json"  # names the weight that a shipped draft is without
LICENCE, NOTICE = "LICENSE", "NOTICE"  # of a published model, and of what is made of it

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
    LICENCE,
    NOTICE,
)

# What `pretrain` writes in place of the model that it goes on from, whoever wrote that one.
PRETRAINED_FILES = (
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    README,
    MARKER,
)


class _Marker(NamedTuple):
    written_by: str
    sha256: dict[str, str]


def mark_written(folder: Path) -> None:
    """Write the marker: all files that `folder` holds now are this program's."""
    sums = {name: _sum(folder / name) for name in names_in(folder)}
    write_json(folder / MARKER, _Marker("distillspec pretrain", sums)._asdict())


def check_marked(folder: Path) -> None:
    """Refuse a folder that holds anything but what its marker lists, unchanged, and a README.md.

    Raises:
        DistillSpecError: It names the files. Nothing has been changed.
    """
    written = _marked(folder)
    refuse_foreign(
        folder,
        [
            name
            for name in names_in(folder)
            if name != README
            and not (name == MARKER and written)
            and (name not in written or _sum(folder / name) != written[name])
        ],
    )


def _marked(folder: Path) -> dict[str, str]:
    """Digests by the marker; none where there is no marker of this program."""
    try:
        return read_json(BoundedText(folder / MARKER, "the marker", "-"), _Marker).sha256
    except DistillSpecError:
        return {}


def _sum(path: Path) -> str:
    """SHA-256 (hex) of a plain file; none of a link, a pipe or what cannot be read."""
    if path.is_symlink() or not path.is_file():
        return ""
    try:
        return file_digest(path)
    except OSError:
        return ""
