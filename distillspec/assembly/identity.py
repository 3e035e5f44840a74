"""What a run was started with, by digests: a resumed run is compared with them before it works.

A target whose weights were exchanged, or responses that were edited, would else give a draft that
was trained on two things, without a word. Covered are:

- of a local model folder (of a GGUF file: its conversion), config.json and every byte of the weight
  files that are loaded, which are read again only where size or times have changed; of a model of
  the Hub, its commit;
- tokenizers, chat template and stop ids;
- the tokens of all prompts and responses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from distillspec.assembly.pair import ModelPair
from distillspec.corpus.sources.prompts import Prompt, PromptSets
from distillspec.corpus.sources.tokenizing import Tokens
from distillspec.errors import DistillSpecError
from distillspec.models.loading.digest import model_digest
from distillspec.models.loading.load import loaded_folder
from distillspec.recipe.hub_id import is_hub_id
from distillspec.recipe.model_files import model_files
from distillspec.runtime.atomic import write_json
from distillspec.runtime.plain_files import BoundedText, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDENTITY = "identity.json"
_EXPORT = "export"

_WORDS = {
    "target": "the target's weights or its config.json",
    "draft": "the draft that it begins with",
    "tokenizer": "the tokenizer",
    "draft_tokenizer": "the draft's tokenizer",
    "chat_template": "the chat template",
    "end_tokens": "the token ids that end a text",
    "training": "the training prompts or their own responses",
    "held_out": "the held-out prompts",
    "responses": "the target's responses",
}
_CHANGES_WITH_SAVING = ("_name_or_path", "_commit_hash", "transformers_version")
_PIECE = 1 << 22
_THREADS = 8

Value = str | list[int] | None


class Identity(NamedTuple):
    """Digests of what a run works on, by the names of `_WORDS`, and what they are of.

    places: file or key that a digest is of. files: of weight files, by path, what `_stamp` says and
    their SHA-256.
    """

    digests: dict[str, Value]
    places: dict[str, str]
    files: dict[str, list[Any]]

    def only(self, *names: str) -> Identity:
        """A part of it."""
        kept = {name: value for name, value in self.digests.items() if name in names}
        return self._replace(digests=kept)

    def without(self, *names: str) -> Identity:
        """All but these."""
        return self.only(*(name for name in self.digests if name not in names))


def check_identity(path: Path, found: Identity, *, has_trained: bool) -> list[str]:
    """Compare `found` with the digests in the file `path`, then keep there what is new.

    Args:
        path: identity.json of a run folder.
        found: Of now; it may be a part.
        has_trained: Whether the run has a checkpoint: without digests it is of an earlier version.

    Returns:
        Notes for the user.

    Raises:
        DistillSpecError: Something is another than when the run was started.
    """
    stored = _read(path)
    digests: dict[str, Value] = stored.get("digests", {})
    changed = [
        name
        for name, value in found.digests.items()
        if digests.get(name) is not None and digests[name] != value
    ]
    if changed:
        places = [found.places[name] for name in changed if name in found.places]
        raise DistillSpecError(
            f"{' and '.join(_WORDS[name] for name in changed)} changed since this run was started",
            where="; ".join([*dict.fromkeys(places), str(path)]),
            fix="put back what the run was started with, or start a new run from the recipe",
        )
    new = {**stored, "digests": {**digests, **found.digests}}
    new["files"] = {**stored.get("files", {}), **found.files}
    if new != stored:
        write_json(path, new)
    if has_trained and "tokenizer" not in digests:
        return [
            "an earlier version began this run and kept no digests: whether target, draft and text "
            "are as they were is not known; from now on it is"
        ]
    return []


def pair_identity(pair: ModelPair, path: Path) -> Identity:
    """Of models and tokenizers. path: identity.json, whose digests of unchanged files are taken."""
    plan = pair.recipe.pair
    known, files = _read(path).get("files", {}), dict[str, list[Any]]()
    digests: dict[str, Value] = {
        "tokenizer": tokenizer_digest(pair.tokenizer),
        "chat_template": _text_digest(json.dumps(pair.tokenizer.chat_template, sort_keys=True)),
        "end_tokens": sorted(pair.eos_token_ids),
    }
    places = {"draft": "pair.draft"}
    draft_tokenizer = pair.vocabulary.exported_tokenizer(pair.tokenizer)
    if draft_tokenizer is not pair.tokenizer:
        digests["draft_tokenizer"] = tokenizer_digest(draft_tokenizer)
    if pair.frozen is not None:
        digests["target"] = _model(plan.target_weights, plan.target_revision, known, files)
        places |= dict.fromkeys(("target", "tokenizer", "chat_template"), plan.target_weights)
    if isinstance(plan.draft, str):
        digests["draft"] = _model(plan.draft, plan.draft_revision, known, files)
        places |= dict.fromkeys(("draft", "draft_tokenizer"), plan.draft)
    else:
        assert pair.start is not None
        digests["draft"] = model_digest(pair.start)
        places["draft"] = f"pair.draft: made of {plan.draft.in_words()}, by the torch of run.json"
    return Identity(digests, places, files)


def text_identity(sets: PromptSets, place: str) -> Identity:
    """Of the data. place: where it comes from, for errors."""
    digests: dict[str, Value] = {
        "training": prompts_digest(sets.training),
        "held_out": prompts_digest(sets.held_out),
    }
    return Identity(digests, dict.fromkeys(digests, place), {})


def responses_identity(responses: Mapping[str, Tokens], place: str) -> Identity:
    """Of the target's responses that are trained on, by the key of their prompt."""
    lines = (json.dumps([key, list(responses[key])]) for key in sorted(responses))
    return Identity({"responses": _text_digest(*lines)}, {"responses": place}, {})


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of all that cuts a text into tokens; padding and truncation, which calls set,
    left out.
    """
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _text_digest(json.dumps(sorted(tokenizer.get_vocab().items())), special)
    rules = json.loads(backend.to_str())
    for name in ("padding", "truncation"):
        rules.pop(name, None)
    return _text_digest(json.dumps(rules, sort_keys=True), special)


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 (hex) of keys, tokens and own responses, whatever their order."""
    lines = (json.dumps([one.key, one.tokens, one.response]) for one in prompts)
    return _text_digest(*sorted(lines))


def _model(
    name: str, revision: str | None, known: Mapping[str, Any], files: dict[str, Any]
) -> Value:
    """Of a local folder or GGUF file, by content; of a model of the Hub, by its commit."""
    folder = loaded_folder(name, revision)
    if is_hub_id(name):
        return folder.name
    found = model_files(folder)
    config = {key: value for key, value in found.config.items() if key not in _CHANGES_WITH_SAVING}
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(lambda file: _file_sum(file, known), found.weights)
        for file, (stamp, digest) in zip(found.weights, sums, strict=True):
            files[str(file.absolute())] = [*stamp, digest]
    lines = [f"{file.name} {files[str(file.absolute())][-1]}" for file in found.weights]
    return _text_digest(json.dumps(config, sort_keys=True), *lines)


def _file_sum(file: Path, known: Mapping[str, Any]) -> tuple[list[int], str]:
    """Size and times of a file, and its SHA-256; read again only where the former are others."""
    stat = file.stat()
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    before = known.get(str(file.absolute()))
    if isinstance(before, list) and before[:-1] == stamp:
        return stamp, str(before[-1])
    return stamp, file_digest(file)


def file_digest(file: Path) -> str:
    """SHA-256 (hex) of its bytes."""
    digest = hashlib.sha256()
    with file.open("rb") as handle:
        while piece := handle.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


class ExportIdentity(NamedTuple):
    """SHA-256 (hex) of best.ckpt, and of each file of draft/ that makes the model."""

    checkpoint: str
    files: dict[str, str]


def keep_export(path: Path, found: ExportIdentity) -> None:
    """Write it into the file `path`, identity.json of a run folder, beside what is there."""
    write_json(path, {**_read(path), _EXPORT: found._asdict()})


def kept_export(path: Path) -> ExportIdentity | None:
    """Of the file `path`; None where nothing was exported, or by an earlier version."""
    stored = _read(path)
    return (
        _kept(path).record(ExportIdentity, stored[_EXPORT], _EXPORT) if _EXPORT in stored else None
    )


def _text_digest(*lines: str) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The file, {} where there is none; an earlier version kept the digest of made drafts alone."""
    earlier = path.with_name("start.json")
    if not path.exists() and earlier.exists():
        return {"digests": read_json(_kept(earlier), dict[str, Value])}
    if not path.exists():
        return {}
    kept = _kept(path)
    found = read_json(kept, dict[str, Any])
    kept.record(dict[str, Value], found.get("digests", {}), "digests")
    kept.record(dict[str, list[Any]], found.get("files", {}), "files")
    return found


def _kept(path: Path) -> BoundedText:
    fix = "restore the file from a copy; if target, draft and data are as they were, delete it"
    return BoundedText(path, "the record of what this run was started with", fix)
