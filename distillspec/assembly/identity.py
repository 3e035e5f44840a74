"""Digests of models and text: a resumed run checks that both are those it was started with.

Without this check, exchanged weights or edited responses would silently give a draft that was
trained on two different things. The digests cover:

- config.json and every byte of the loaded weight files of a local model folder (for a GGUF file, of
  its conversion); a weight file is read again only if its size or times have changed;
- the commit of a model from the Hub;
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
from distillspec.runtime.file_digest import file_digest
from distillspec.runtime.plain_files import BoundedText, read_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IDENTITY = "identity.json"
_EXPORT = "export"

_WORDS = {
    "target": "the target's weights or its config.json",
    "draft": "the initial draft",
    "tokenizer": "the tokenizer",
    "draft_tokenizer": "the draft's tokenizer",
    "chat_template": "the chat template",
    "end_tokens": "the token ids that end a text",
    "training": "the training prompts or their responses in the data",
    "held_out": "the held-out prompts",
    "responses": "the target's responses",
}
_CHANGES_WITH_SAVING = ("_name_or_path", "_commit_hash", "transformers_version")
_THREADS = 8

Value = str | list[int] | None


class Identity(NamedTuple):
    """Digests of models and text.

    Attributes:
        digests: By the names of `_WORDS`.
        places: The file or key behind a digest, for errors.
        files: Of weight files, by path: size, times and inode, then the SHA-256 (hex).
    """

    digests: dict[str, Value]
    places: dict[str, str]
    files: dict[str, list[Any]]

    def only(self, *names: str) -> Identity:
        """The digests with these names."""
        digests = {name: value for name, value in self.digests.items() if name in names}
        return self._replace(digests=digests)

    def without(self, *names: str) -> Identity:
        """The digests without these names."""
        return self.only(*(name for name in self.digests if name not in names))


def check_identity(path: Path, current: Identity, *, has_trained: bool) -> list[str]:
    """Compare digests with those in a file, then add the new ones to the file.

    Args:
        path: identity.json of a run folder.
        current: Digests of this start; a part of them may be given.
        has_trained: Whether the run has a checkpoint. If it has no digests, an earlier version
            started it.

    Returns:
        Notes for the user.

    Raises:
        DistillSpecError: Models or text have changed since the run was started.
    """
    stored = _read(path)
    digests: dict[str, Value] = stored.get("digests", {})
    # A digest that no earlier start has stored is not a change.
    changed = [
        name
        for name, value in current.digests.items()
        if digests.get(name) is not None and digests[name] != value
    ]
    if changed:
        sources = [current.places[name] for name in changed if name in current.places]
        raise DistillSpecError(
            f"{' and '.join(_WORDS[name] for name in changed)} changed since this run was started",
            where="; ".join([*dict.fromkeys(sources), str(path)]),
            fix="restore what the run was started with, or start a new run from the recipe",
        )
    # Stored digests that this start does not give are kept.
    new = {**stored, "digests": {**digests, **current.digests}}
    new["files"] = {**stored.get("files", {}), **current.files}
    if new != stored:
        write_json(path, new)
    if has_trained and "tokenizer" not in digests:
        return [
            "an earlier version started this run without digests, so it is not known whether "
            "target, draft and text have changed; this start has written digests"
        ]
    return []


def pair_identity(pair: ModelPair, path: Path) -> Identity:
    """Digests of models and tokenizers.

    Args:
        pair: Loaded.
        path: identity.json, whose digests of unchanged files are reused.
    """
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
        # A made draft has no files: the digest is of its weights.
        assert pair.start is not None
        digests["draft"] = model_digest(pair.start)
        places["draft"] = f"pair.draft: made as {plan.draft.in_words()}, by the torch of run.json"
    return Identity(digests, places, files)


def text_identity(sets: PromptSets, source: str) -> Identity:
    """Digests of the data; `source` names it in errors."""
    digests: dict[str, Value] = {
        "training": prompts_digest(sets.training),
        "held_out": prompts_digest(sets.held_out),
    }
    return Identity(digests, dict.fromkeys(digests, source), {})


def responses_identity(responses: Mapping[str, Tokens], store: str) -> Identity:
    """Digest of the target's responses, by prompt key; `store` names them in errors."""
    lines = (json.dumps([key, list(responses[key])]) for key in sorted(responses))
    return Identity({"responses": _text_digest(*lines)}, {"responses": store}, {})


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 (hex) of all that determines how a text becomes tokens.

    Padding and truncation are left out, because calls of the tokenizer set them.
    """
    special = json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # A tokenizer without a backend has no rules to read, only its vocabulary.
    if backend is None:
        return _text_digest(json.dumps(sorted(tokenizer.get_vocab().items())), special)
    rules = json.loads(backend.to_str())
    for name in ("padding", "truncation"):
        rules.pop(name, None)
    return _text_digest(json.dumps(rules, sort_keys=True), special)


def prompts_digest(prompts: Iterable[Prompt]) -> str:
    """SHA-256 (hex) of keys, tokens and responses in the data, in any order."""
    lines = (json.dumps([prompt.key, prompt.tokens, prompt.response]) for prompt in prompts)
    return _text_digest(*sorted(lines))


def _model(
    name: str, revision: str | None, known: Mapping[str, Any], files: dict[str, Any]
) -> Value:
    """Digest of a local folder or GGUF file by its content; the commit of a model from the Hub."""
    folder = loaded_folder(name, revision)
    # The Hub's cache names a snapshot's folder by its commit.
    if is_hub_id(name):
        return folder.name
    model = model_files(folder)
    config = {key: value for key, value in model.config.items() if key not in _CHANGES_WITH_SAVING}
    # hashlib releases the GIL, so that several files are hashed at once.
    with ThreadPoolExecutor(_THREADS) as pool:
        sums = pool.map(lambda file: _file_sum(file, known), model.weights)
        for file, (stamp, digest) in zip(model.weights, sums, strict=True):
            files[str(file.absolute())] = [*stamp, digest]
    lines = [f"{file.name} {files[str(file.absolute())][-1]}" for file in model.weights]
    return _text_digest(json.dumps(config, sort_keys=True), *lines)


def _file_sum(file: Path, known: Mapping[str, Any]) -> tuple[list[int], str]:
    """Size, times and inode of a file, and its SHA-256; read again only if the former changed."""
    stat = file.stat()
    # ctime and inode also show a file that was replaced with its old mtime.
    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
    entry = known.get(str(file.absolute()))
    if isinstance(entry, list) and entry[:-1] == stamp:
        return stamp, str(entry[-1])
    return stamp, file_digest(file)


class ExportIdentity(NamedTuple):
    """Digests of an export.

    Attributes:
        checkpoint: SHA-256 (hex) of best.ckpt.
        files: The same of each file in draft/ that the model consists of.
    """

    checkpoint: str
    files: dict[str, str]


def write_export(path: Path, export: ExportIdentity) -> None:
    """Add the digests of an export to `path`, identity.json of a run folder."""
    write_json(path, {**_read(path), _EXPORT: export._asdict()})


def read_export(path: Path) -> ExportIdentity | None:
    """The digests in `path`; None if nothing was exported, or only by an earlier version."""
    stored = _read(path)
    if _EXPORT not in stored:
        return None
    return _stored_text(path).record(ExportIdentity, stored[_EXPORT], _EXPORT)


def _text_digest(*lines: str) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    """The content of the file, {} if it is missing.

    An earlier version stored only the digest of a made draft, in start.json.
    """
    earlier = path.with_name("start.json")
    if not path.exists() and earlier.exists():
        return {"digests": read_json(_stored_text(earlier), dict[str, Value])}
    if not path.exists():
        return {}
    text = _stored_text(path)
    content = read_json(text, dict[str, Any])
    text.record(dict[str, Value], content.get("digests", {}), "digests")
    text.record(dict[str, list[Any]], content.get("files", {}), "files")
    return content


def _stored_text(path: Path) -> BoundedText:
    fix = "restore the file from a copy; if target, draft and data have not changed, delete it"
    return BoundedText(path, "the record of what this run was started with", fix)
