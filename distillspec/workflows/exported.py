"""Whether draft/ of a run is still the draft that was exported from its best checkpoint.

An evaluation measures the checkpoint and writes the numbers into draft/. This is wrong if draft/
was changed after the export, or if the checkpoint was trained further. The digests are in
identity.json.
"""

from __future__ import annotations

import fnmatch

from distillspec.assembly.identity import ExportIdentity, read_export, write_export
from distillspec.recipe.written_files import LICENCE, MODEL_FILES, NOTICE
from distillspec.runtime.file_digest import file_digest
from distillspec.workflows.run_folder import BEST, RunFolder

# By each evaluation, or by users.
_REWRITTEN = ("README.md", "generation_config.json", LICENCE, NOTICE)


def note_export(folder: RunFolder) -> None:
    """Store the digests of draft/ and of the checkpoint that it was exported from."""
    write_export(folder.identity_file, _current(folder))


def why_not_exported(folder: RunFolder) -> str | None:
    """Why draft/ may differ from the exported draft; None if it is the same."""
    exported = read_export(folder.identity_file)
    if exported is None:
        return "an earlier version exported it, and stored no digests of its files"
    current = _current(folder)
    # Files of both sides, so that an added or removed file counts.
    names = [*exported.files, *(current.files.keys() - exported.files.keys())]
    changed = [name for name in names if exported.files.get(name) != current.files.get(name)]
    if changed:
        return f"{', '.join(sorted(changed))} changed since the export"
    if exported.checkpoint != current.checkpoint:
        return f"{BEST} changed since the export"
    return None


def _current(folder: RunFolder) -> ExportIdentity:
    files = {
        name: file_digest(path)
        for path in sorted(folder.draft.rglob("*"))
        if path.is_file() and _makes_the_model(name := path.relative_to(folder.draft).as_posix())
    }
    return ExportIdentity(file_digest(folder.path / BEST), files)


def _makes_the_model(name: str) -> bool:
    is_ours = any(fnmatch.fnmatchcase(name, pattern) for pattern in MODEL_FILES)
    return is_ours and name not in _REWRITTEN
