"""What a GGUF file states about itself; a file that is damaged or cut is refused here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from distillspec.errors import DistillSpecError

ROPE_FACTORS = "rope_freqs.weight"
_MAX_NAMED = 3
# Long lists that nobody here reads: a vocabulary of 150,000 tokens takes seconds.
_LISTS = frozenset(
    f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type")
)


class GgufHeader(NamedTuple):
    """A GGUF file without its weights.

    settings: the metadata, except for the lists of tokens and merges. tensors: their names.
    rope_factors: what each rotary frequency is divided by (Llama 3.x), None where the file does not
    say.
    """

    file: Path
    settings: dict[str, Any]
    tensors: tuple[str, ...]
    rope_factors: tuple[float, ...] | None

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, which begins the names of the model's settings."""
        return str(self.settings["general.architecture"])

    @property
    def model_settings(self) -> dict[str, Any]:
        """The settings of the model, without the name of the architecture before them."""
        start = f"{self.architecture}."
        return {
            key.removeprefix(start): value
            for key, value in self.settings.items()
            if key.startswith(start)
        }

    def refuse(self, what: str, names: Sequence[str] = ()) -> NoReturn:
        """DistillSpecError for what the conversion would leave out; the first `names` follow it."""
        if names:
            some = ", ".join(names[:_MAX_NAMED])
            what += f": {some}{', ...' if len(names) > _MAX_NAMED else ''}"
        raise DistillSpecError(
            what,
            where=str(self.file),
            fix="name the Hugging Face folder that the file was made from",
        )


def read_header(file: Path) -> GgufHeader:
    """The header of `file`, with every tensor's place in the file checked.

    Raises:
        DistillSpecError: The file is damaged, cut, or of a version that the package does not know.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        settings = {
            key: field.contents() for key, field in reader.fields.items() if key not in _LISTS
        }
        factors = [tensor.data for tensor in reader.tensors if tensor.name == ROPE_FACTORS]
        header = GgufHeader(
            file=file,
            settings=settings,
            tensors=tuple(tensor.name for tensor in reader.tensors),
            rope_factors=tuple(map(float, factors[0])) if factors else None,
        )
        if not header.architecture or not header.tensors:
            raise ValueError("it holds no model")
    except Exception as error:  # of any class: each way of being broken raises another one
        raise DistillSpecError(
            f"the GGUF file is damaged or cut: {str(error) or type(error).__name__}",
            where=str(file),
            fix="download or copy the file again; if it is whole, it may be newer than the "
            "package that reads it: pip install --upgrade gguf",
        ) from error
    return header
