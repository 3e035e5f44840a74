"""Whether a run's draft/ is still the draft that was exported from its best checkpoint.

An evaluation measures the checkpoint and writes the numbers into draft/. They are only true of it
while both are what they were at the export: weights that were damaged or exchanged later, or a
checkpoint that was trained further, would get numbers of another draft. The digests lie in
identity.json.
"""

from __future__ import annotations

import fnmatch

from distillspec.assembly.identity import ExportIdentity, file_digest, keep_export, kept_export
from distillspec.recipe.written_files import MODEL_FILES
from distillspec.workflows.run_folder import BEST, RunFolder

_REWRITTEN = ("README.md", "generation_config.json")  # by each evaluation, and by people


def note_export(folder: RunFolder) -> None:
    """Keep the digests of draft/ as it is, and of the checkpoint that it was made of."""
    keep_export(folder.identity_file, _found(folder))


def why_not_exported(folder: RunFolder) -> str | None:
    """What tells draft/ from the draft that was exported, in words; None where nothing does."""
    kept = kept_export(folder.identity_file)
    if kept is None:
        return "an earlier version exported it, and kept no digests of its files"
    found = _found(folder)
    names = [*kept.files, *(found.files.keys() - kept.files.keys())]
    changed = [name for name in names if kept.files.get(name) != found.files.get(name)]
    if changed:
        return f"{', '.join(sorted(changed))} changed since the export"
    if kept.checkpoint != found.checkpoint:
        return f"{BEST} changed since the export"
    return None


def _found(folder: RunFolder) -> ExportIdentity:
    files = {
        name: file_digest(path)
        for path in sorted(folder.draft.rglob("*"))
        if path.is_file() and _makes_the_model(name := path.relative_to(folder.draft).as_posix())
    }
    return ExportIdentity(file_digest(folder.path / BEST), files)


def _makes_the_model(name: str) -> bool:
    is_ours = any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    return is_ours and name not in _REWRITTEN
