"""A folder of links that shows transformers the chosen files of a model and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillspec.recipe.model_files import CONFIG, ModelFiles
from distillspec.runtime.os_errors import explain
from distillspec.runtime.temporary_files import scratch_folder

_READ = (CONFIG, "generation_config.json")


@contextmanager
def checkpoint_view(files: ModelFiles, *, with_code: bool) -> Iterator[Path]:
    """A temporary folder with links to `files`, for one call of `from_pretrained`.

    transformers looks for more than weights. It applies an adapter stored next to them, prefers an
    older `model.safetensors` to newer shards, and takes distributed checkpoints. In this folder it
    sees only the files that `recipe.model_files` chose and checked.

    Args:
        files: The chosen files.
        with_code: Link everything but weights too: a model's own code may need it.

    Yields:
        The folder. It has the name of the original, because transformers names loaded code after
        it.
    """
    try:
        with scratch_folder("view") as root:
            view = root / (files.folder.resolve().name or "model")
            view.mkdir()
            for path in _linked(files, with_code):
                link = view / path.relative_to(files.folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
            yield view
    except OSError as error:
        raise explain(error, Path(tempfile.gettempdir())) from error


def _linked(files: ModelFiles, with_code: bool) -> Iterator[Path]:
    chosen = [*files.weights, *([files.listing] if files.listing is not None else [])]
    yield from chosen
    # Weights may lie in a subfolder, which must not be linked a second time.
    chosen_names = {path.relative_to(files.folder).parts[0] for path in chosen}
    for path in sorted(files.folder.iterdir()):
        if path.name in _READ or (with_code and _is_code(path) and path.name not in chosen_names):
            yield path


def _is_code(path: Path) -> bool:
    """Code and its data: neither weights nor adapter files."""
    return not path.name.startswith((".", "adapter_")) and ".safetensors" not in path.name
