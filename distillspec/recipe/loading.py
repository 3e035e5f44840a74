"""Files and overrides to checked recipes and suites, and back to YAML that loads identically."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from distillspec.errors import DistillSpecError
from distillspec.recipe import builtin, yaml_text
from distillspec.recipe.aliases import renew, renew_changes, renew_override
from distillspec.recipe.comparison import ComparisonConfig
from distillspec.recipe.complaint import complaint
from distillspec.recipe.defaults import with_cached_logits, with_defaults
from distillspec.recipe.expectation import root
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.pretraining import PretrainRecipe
from distillspec.recipe.schema import Recipe
from distillspec.recipe.section import SCHEMA_VERSION, Section
from distillspec.recipe.suite import Suite
from distillspec.runtime.plain_files import BoundedText, read_text
from distillspec.text.nearest import nearest

_Form = TypeVar("_Form", bound=Section)
_KINDS: dict[str, type[Recipe] | type[PretrainRecipe]] = {
    "distill": Recipe,
    "pretrain": PretrainRecipe,
}


def load_recipe(
    path: str | Path, overrides: Sequence[str] = (), *, is_stored: bool = False
) -> Recipe | PretrainRecipe:
    """Load the recipe in a YAML file, or the built-in one of that name.

    Args:
        path: The file.
        overrides: `section.key=value` texts that change it.
        is_stored: Whether a run has written the file, so that its old names are no news.

    Returns:
        The recipe, of either kind, with all defaults.

    Raises:
        DistillSpecError: The file cannot be read, or does not fit the schema.
    """
    written, path = path, builtin.find("recipe", path)
    data = _read(path, "recipe", written)
    # Old names first; overrides get new names too, so both meet in one key.
    renew(data, str(path), is_stored=is_stored)
    changed = _override(data, overrides, str(path))
    data |= {"name": path.stem} if data.get("name") in (None, "") else {}
    kind = data.get("kind", "distill")
    model = _KINDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        guess = nearest(str(kind), list(_KINDS))
        raise DistillSpecError(
            f"'kind' must be one of {', '.join(_KINDS)}, not {json.dumps(kind)}",
            where=f"{path}: top level",
            fix=f"did you mean '{guess}'?" if guess else "leave it out for a distillation",
        )
    if model is PretrainRecipe:
        return _validate(PretrainRecipe, data, str(path), changed)
    return with_cached_logits(_validate(Recipe, with_defaults(data), str(path), changed))


def load_suite(path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Load the evaluation suite in a YAML file, or the built-in one, like `load_recipe`."""
    written, path = path, _suite_file(path)
    data = _read(path, "suite", written)
    if data.get("kind") == "comparison":
        raise DistillSpecError(
            "this file is a comparison, which trains drafts, and not a suite",
            where=str(path),
            fix=f"start it with: distillspec compare {path}",
        )
    renew(data, str(path))
    changed = _override(data, overrides, str(path))
    data |= {"name": path.stem} if data.get("name") in (None, "") else {}
    return _validate(Suite, data, str(path), changed)


def load_comparison(path: str | Path, overrides: Sequence[str] = ()) -> ComparisonConfig:
    """Load the comparison in a YAML file, or the built-in one, like `load_recipe`."""
    written, path = path, _suite_file(path)
    data = _read(path, "comparison", written)
    if "kind" not in data:
        raise DistillSpecError(
            "this is no comparison: it has no `kind: comparison`",
            where=f"{path}: top level",
            fix="name one such as objectives; a suite is measured with: "
            f"distillspec evaluate RUN-FOLDER --suite {path}",
        )
    changed = _override(data, overrides, str(path))
    # After the overrides, which may set old names inside of these mappings.
    _renew_comparison(data, str(path))
    data |= {"name": path.stem} if data.get("name") in (None, "") else {}
    return _validate(ComparisonConfig, data, str(path), changed)


def _renew_comparison(data: dict[str, Any], where: str) -> None:
    """What it changes of the recipe: new names in place of the old ones."""
    if "changes" in data:
        data["changes"] = renew_changes(data["changes"], where)
    variants = data.get("variants")
    if isinstance(variants, dict):
        data["variants"] = {
            name: renew_changes(changes, where) for name, changes in variants.items()
        }


def is_of_suite(override: str) -> bool:
    """Whether an override changes the suite: it has a key that only suites have, or `suite.`."""
    key = re.split("[.=]", override, maxsplit=1)[0]
    return key == "suite" or (key in Suite.model_fields and key not in Recipe.model_fields)


def dump_yaml(model: Section) -> str:
    """`model` with every default written out, as YAML that loads to an equal model."""
    return yaml_text.write(model.model_dump(mode="json"))


def json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of recipes of both kinds, for editors."""
    return _schema(Recipe | PretrainRecipe, "distillspec recipe")


def suite_json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of evaluation suites, for editors."""
    return _schema(Suite, "distillspec evaluation suite")


def comparison_json_schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of comparisons, for editors."""
    return _schema(ComparisonConfig, "distillspec comparison")


def _schema(form: Any, title: str) -> dict[str, Any]:
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": title}
    return head | {k: v for k, v in TypeAdapter(form).json_schema().items() if k != "title"}


def _suite_file(path: str | Path) -> Path:
    """The built-in suite of a name, or the comparison, so that a confusion of both is reported."""
    found = builtin.find("suite", path)
    return found if found != Path(path) else builtin.find("comparison", path)


def _read(path: Path, noun: builtin.Kind, written: str | Path) -> dict[str, Any]:
    """The values in a file; `written` is what the user gave for `path`."""
    if os.path.isdir(path):
        fix = f"give a {noun} file (.yaml)"
        if os.path.isfile(path / "recipe.yaml"):
            fix += f"; to resume this run: distillspec run {path}"
        raise DistillSpecError(f"this is a folder, not a {noun}", where=str(path), fix=fix)
    if _is_missing(path):
        raise DistillSpecError(
            f"no such {noun}", where=str(written), fix=_near(path, noun, written)
        )
    text = read_text(
        BoundedText(path, f"this {noun}", "give a YAML file in UTF-8 that you may read")
    )
    data = yaml_text.parse(text, where=str(path))
    if data is None:
        raise DistillSpecError(
            f"this {noun} is empty",
            where=str(path),
            fix="start from one that is built in: "
            + ", ".join(builtin.names("recipe" if noun == "recipe" else "suite")),
        )
    if not isinstance(data, dict):
        raise DistillSpecError(
            f"this {noun} is not a mapping of keys but a {type(data).__name__}",
            where=str(path),
            fix="write `key: value` lines; `distillspec schema` lists the keys",
        )
    copied: dict[str, Any] = json.loads(json.dumps(data))  # aliases become separate values
    version = copied.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise DistillSpecError(
            f"schema_version {version} is newer than this distillspec reads ({SCHEMA_VERSION})",
            where=f"{path}: schema_version",
            fix="install a newer version of distillspec, or write the file for this one",
        )
    return copied


def _is_missing(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        # It exists, and reading it will report what is wrong.
        return False
    return False


def _near(path: Path, noun: builtin.Kind, written: str | Path) -> str:
    """Names what there is instead of the missing file `path`."""
    try:
        return _nearest_file(path, noun, written)
    except OSError:
        return "check the path and its permissions"


def _nearest_file(path: Path, noun: builtin.Kind, written: str | Path) -> str:
    if path.suffix not in (".yaml", ".yml") and path.parent.is_dir():
        runs = sorted(run.name for run in path.parent.iterdir() if (run / "recipe.yaml").is_file())
        if runs:
            return f"the runs in {path.parent} are: {', '.join(runs[-5:])}"
    if isinstance(written, str) and builtin.is_name(written):
        return builtin.hint(noun, written)
    folder, names = path.parent, _visible(path.parent)
    guess = nearest(path.name, names)
    if guess is not None:
        return f"did you mean '{folder / guess}'?"
    guess = nearest(path.stem, builtin.names(noun))
    if guess is not None:
        return f"did you mean the built-in '{guess}'?"
    if names:
        return f"there are: {', '.join(names)} in {folder}"
    built_in = ", ".join(builtin.names(noun))
    return f"check the path: it is taken from the folder you start in. Built in are {built_in}"


def _visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("[!.]*.yaml"))


def _override(
    data: dict[str, Any], overrides: Sequence[str], source: str
) -> dict[tuple[str | int, ...], str]:
    """Write `section.key=value` texts into `data`; returns which path came from which text."""
    changed: dict[tuple[str | int, ...], str] = {}
    for text in overrides:
        dotted, equals, value = text.partition("=")
        keys = dotted.split(".")
        if not equals or not all(keys):
            raise DistillSpecError(
                f"'{text}' is not an override",
                where="command line",
                fix="write section.key=value, for example distill.temperature=0.8",
            )
        parsed = yaml_text.parse(value, where=f"override '{dotted}=...'")
        keys, parsed = renew_override(keys, parsed, f"override '{dotted}=...'")
        section = data
        for depth, key in enumerate(keys[:-1], start=1):
            if section.get(key) is None:
                section[key] = {}
            section = section[key]
            if not isinstance(section, dict):
                raise DistillSpecError(
                    f"'{'.'.join(keys[:depth])}' is a value, not a section",
                    where=f"override '{dotted}=...' of {source}",
                    fix=f"set the entire value: {'.'.join(keys[:depth])}=VALUE",
                )
        section[keys[-1]] = parsed
        changed[tuple(keys)] = text
    return changed


def method_of(values: Any) -> MethodConfig:
    """A decoding method as a program gives it; DistillSpecError if it is none."""
    if not isinstance(values, Mapping):
        raise DistillSpecError(
            f"{values!r} is no decoding method",
            where="decode: method",
            fix="give 'standard', or draft, stop and verify as a suite has them",
        )
    data = dict(values)
    renew({"methods": [data]}, "decode: method")
    return _validate(MethodConfig, data, "decode: method", {})


def suite_of(values: Mapping[str, Any]) -> Suite:
    """A suite as a program gives it; DistillSpecError if it is none."""
    data = copy.deepcopy(dict(values))
    renew(data, "decode: method")
    return _validate(Suite, data, "decode: method", {})


def _validate(
    model: type[_Form],
    data: dict[str, Any],
    where: str,
    changed: dict[tuple[str | int, ...], str],
) -> _Form:
    try:
        # JSON, because its strict mode takes a list for a tuple but no text for a number.
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        schema = root(model.model_json_schema())
        raise complaint(error, data, schema, where, changed) from None
