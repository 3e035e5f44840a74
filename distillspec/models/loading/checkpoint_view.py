"""A folder of links in which transformers finds the chosen files of a model and nothing else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distillspec.recipe.model_files import CONFIG, ModelFiles
from distillspec.runtime import atomic

_READ = (CONFIG, "generation_config.json")


@contextmanager
def checkpoint_view(files: ModelFiles, *, with_code: bool) -> Iterator[Path]:
    """A temporary folder with links to `files`, for one call of `from_pretrained`.

    transformers looks for more than weights: it applies an adapter that lies beside them, prefers
    an older `model.safetensors` to newer shards, and takes distributed checkpoints. Here it finds
    what `recipe.model_files` has chosen and what was checked.

    Args:
        files: The chosen files.
        with_code: Link everything else but weights too: a model's own code may need it.

    Yields:
        The folder; it has the name of the original, after which transformers calls loaded code.
    """
    try:
        with atomic.scratch_folder("view") as root:
            view = root / (files.folder.resolve().name or "model")
            view.mkdir()
            for path in _linked(files, with_code):
                link = view / path.relative_to(files.folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(path.absolute())
            yield view
    except OSError as error:
        raise atomic.explain(error, Path(tempfile.gettempdir())) from error


def _linked(files: ModelFiles, with_code: bool) -> Iterator[Path]:
    chosen = [*files.weights, *([files.listing] if files.listing is not None else [])]
    yield from chosen
    taken = {path.relative_to(files.folder).parts[0] for path in chosen}
    for path in sorted(files.folder.iterdir()):
        if path.name in _READ or (with_code and _is_beside(path) and path.name not in taken):
            yield path


def _is_beside(path: Path) -> bool:
    """Code and its data: no weights, and nothing of an adapter."""
    return not path.name.startswith((".", "adapter_")) and ".safetensors" not in path.name
