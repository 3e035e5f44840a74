"""The folder of a store, named by a digest of all that determines its content.

Recipes that request the same from a target share a store, since its name has no recipe in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distillspec.errors import DistillSpecError
from distillspec.runtime.atomic import make_folder, write_json
from distillspec.runtime.journal import appending
from distillspec.runtime.plain_files import BoundedText, read_bytes, read_json
from distillspec.runtime.typed import typed

log = logging.getLogger(__name__)

Setting = str | int | float | bool | None

_DIGITS = 12  # of the digest: 48 bits
_SECONDS = "seconds-{:05d}.jsonl"


class StoreFolder(NamedTuple):
    """The parent folder of the stores of one target.

    Attributes:
        root: The folder of all stores.
        target: The target's name, whose last parts begin the folder's name for readers.
        former: The recipe's name, which earlier versions gave to a store in `root`.
    """

    root: Path
    target: str
    former: str

    def folder(self, entries: Mapping[str, Setting]) -> Path:
        """The folder of the store that `entries` determine, whether it exists or not.

        A store that an earlier version named after the recipe is renamed to this folder, if it is
        the same store. Otherwise a warning reports that it is not used.
        """
        digest = hashlib.sha256(json.dumps(dict(entries), sort_keys=True).encode()).hexdigest()
        digest = digest[:_DIGITS]
        # The digest alone names a store. The part before it is for people.
        known = sorted(self.root.glob(f"*-{digest}"))
        folder = known[0] if known else self.root / f"{self._readable()}-{digest}"
        self._adopt(folder, entries)
        return folder

    def _readable(self) -> str:
        parts = [part for part in re.split(r"[^A-Za-z0-9_.]+", self.target) if part.strip(".")]
        return "-".join(parts)[-48:].strip("-.") or "target"

    def _adopt(self, folder: Path, entries: Mapping[str, Setting]) -> None:
        former = self.root / self.former
        if not (self.former and (former / "manifest.json").exists()):
            return
        try:
            same = _manifest(former / "manifest.json") == entries
            if same and not folder.exists():
                former.rename(folder)
                log.warning(
                    "%s is now %s: stores are no longer named after recipes", former, folder
                )
                return
        except (OSError, DistillSpecError):
            pass  # the warning below reports that it is not used
        log.warning(
            "%s is not used: an earlier version or other settings stored it under the recipe's "
            "name. %s is used instead. Delete the former when you no longer need it",
            former,
            folder,
        )


def begin_store(folder: Path, entries: Mapping[str, Setting], what: str) -> None:
    """Make a store's folder with its manifest, or check the manifest that is there.

    Args:
        folder: The folder that `StoreFolder.folder` has returned.
        entries: The entries that the folder is named by.
        what: The content of the store, in the plural, for errors.

    Raises:
        DistillSpecError: The manifest differs from `entries`, or cannot be written.
    """
    make_folder(folder)
    path = folder / "manifest.json"
    if not path.exists():
        write_json(path, dict(entries))
        return
    try:
        stored = _manifest(path)
    except DistillSpecError:
        stored = {}
    if stored != entries:
        raise DistillSpecError(
            f"the manifest of the {what} is damaged: it does not match the folder's name",
            where=str(path),
            fix=f"delete {path} if nothing else in {folder} was changed, or {folder} to make the "
            f"{what} again",
        )


class _Seconds(NamedTuple):
    names: list[str]
    seconds: float


def _manifest(path: Path) -> dict[str, Any]:
    return read_json(BoundedText(path, "the manifest of a store", "delete it"), dict[str, Any])


def note_seconds(folder: Path, rank: int, names: Iterable[str], seconds: float) -> None:
    """Record the time spent on some parts of a store.

    Args:
        folder: The store's folder.
        rank: Number of this process, which appends to a separate file.
        names: The parts, which share the time evenly.
        seconds: Time spent on all of them together.
    """
    parts = list(names)
    with appending(folder / _SECONDS.format(rank)) as append:
        append([{"names": parts, "seconds": round(seconds / len(parts), 6)}])


def seconds_of(folder: Path, names: Iterable[str]) -> float:
    """Time spent on these parts of a store, over all processes; 0 where nothing is recorded."""
    wanted, total = set(names), 0.0
    for path in sorted(folder.glob("seconds-*.jsonl")):
        text = BoundedText(path, "the times of a store", "correct the file's permissions")
        for line in read_bytes(text).splitlines():
            try:
                row: _Seconds = typed(_Seconds, json.loads(line))
            except (ValueError, RecursionError):
                continue  # no result depends on the times
            total += row.seconds * len(wanted.intersection(row.names))
    return total
