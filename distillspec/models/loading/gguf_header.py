"""The header of a GGUF file: settings and tensor names. Damaged or truncated files are refused."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from distillspec.errors import DistillSpecError

ROPE_FACTORS = "rope_freqs.weight"
_MAX_NAMED = 3
# Long lists that the conversion does not read: 150,000 tokens take seconds.
_LISTS = frozenset(
    f"tokenizer.ggml.{name}" for name in ("tokens", "merges", "scores", "token_type")
)


class GgufHeader(NamedTuple):
    """A GGUF file without its weights.

    Attributes:
        file: The GGUF file.
        settings: The metadata, without the lists of tokens and merges.
        tensors: Names of the tensors.
        rope_factors: The divisor of each rotary frequency (Llama 3.x), or None if the file has
            none.
    """

    file: Path
    settings: dict[str, Any]
    tensors: tuple[str, ...]
    rope_factors: tuple[float, ...] | None

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture, the first part of each model setting's name."""
        return str(self.settings["general.architecture"])

    @property
    def model_settings(self) -> dict[str, Any]:
        """The settings of the model, without the architecture in front of their names."""
        start = f"{self.architecture}."
        return {
            key.removeprefix(start): value
            for key, value in self.settings.items()
            if key.startswith(start)
        }

    def refuse(self, what: str, names: Sequence[str] = ()) -> NoReturn:
        """Raise DistillSpecError for what the conversion would leave out.

        Args:
            what: The message.
            names: Names to append to it; the first three are shown.
        """
        if names:
            first_names = ", ".join(names[:_MAX_NAMED])
            what += f": {first_names}{', ...' if len(names) > _MAX_NAMED else ''}"
        raise DistillSpecError(
            what,
            where=str(self.file),
            fix="use the Hugging Face folder that the file was made from",
        )


def read_header(file: Path) -> GgufHeader:
    """The header of `file`; also checks that the file holds every tensor.

    Raises:
        DistillSpecError: The file is damaged, truncated, or of a version that the package does not
            know.
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
    except Exception as error:  # of any class: it depends on the damage
        raise DistillSpecError(
            f"the GGUF file is damaged or truncated: {str(error) or type(error).__name__}",
            where=str(file),
            fix="download or copy the file again; if it is complete, it may be newer than the "
            "package that reads it: pip install --upgrade gguf",
        ) from error
    return header
