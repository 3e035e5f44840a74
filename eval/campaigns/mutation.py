"""Mutations of inputs for `fuzz.py`: of trees (JSON, YAML) and of bytes."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import yaml

_NUMBERS = [0, -1, 1, 2, 10**9, 2**31, 2**63, 2**64, 10**30, -(10**30), 10**400, 0.0, -0.0, 0.5]
_NUMBERS += [1e308, -1e308, 1e-320, 5e-324, float("nan"), float("inf"), -float("inf")]
_TEXTS = [
    "",
    " ",
    "a",
    "nan",
    "inf",
    "1e999",
    "0x10",
    "1_000",
    "é",
    "😀",
    "\u202eabc",
    "\x00",
    "**/*",
]
_TEXTS += [
    "\x1b[31mred",
    "\ud800",
    "../../etc/passwd",
    "/etc/passwd",
    "/",
    ".",
    "..",
    "~",
    "[",
    "***",
]
_TEXTS += ["~nobody_here/x", "a/b", "a/b/c", "x" * 300, "x" * 5000, "a\nb", "a\\b", "%s%n", "{0}"]
_TEXTS += [
    "{{x}}",
    "[bold]x[/]",
    "[/]",
    "variant:",
    "variant:zzz",
    "@file",
    "-h",
    "draft",
    "target",
]
_TEXTS += ["http://", "http://[::1", "file:///etc/passwd", "os.path", "os..", ".os", "antigravity"]
_TEXTS += ["\ufeff", "\u2028", "user/name", "org/name/extra", "/dev/zero", "/proc/self/mem"]
SCALARS: list[Any] = [None, True, False, *_NUMBERS, *_TEXTS, [], {}, [[]], [None], {"": None}]
SCALARS += [{"kind": None}, {"kind": "jsonl"}, {"a": {"b": {}}}, list(range(50))]
KEYS = ["kind", "name", "path", "", "x", "<<", "\x00", "é", "__class__", "model_config", "self"]
_PIECES = [b"\x00", b"\xff", b"\xef\xbb\xbf", b"\r\n", b"\n", b"\t", b":", b"- ", b"{", b"}", b"["]
_PIECES += [b"]", b'"', b"'", b"&a ", b"*a", b"<<: *a", b"!!bool x", b"!!int ''", b"!!float x"]
_PIECES += [
    b"!!python/object/apply:os.system ['id']",
    b"!!timestamp x",
    b"!!binary x",
    b"!x",
    b"? ",
]
_PIECES += [b"!!set {a}", b"!!omap [a]", b"!!str 1", b"%YAML 9.9\n", b"--- ", b"...", b"|", b">"]
_PIECES += [
    b"#",
    b"\\ud800",
    b'"\\ud800"',
    b"\x85",
    b"\xc2\x85",
    b"\xe2\x80\xa8",
    b"1" * 5000,
    b"~: 1\n",
]
_PIECES += [
    b"x" * 100_000,
    b"[" * 2000,
    b"{" * 2000,
    b"<<: {a: 1}\n",
    b"<<: [1]\n",
    b"? [a]\n: b\n",
]
_PIECES += [
    b"1: 2\n",
    b".nan",
    b".inf",
    b"1e400",
    b"0o17",
    b"\x1b[2J",
    b"NaN",
    b"Infinity",
    b"null",
]
_TEN = "[" + ",".join(["x"] * 10) + "]"
_LAUGHS = f"a: &a {_TEN}\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD_YAML = [_LAUGHS.encode(), b"a: &a {b: *a}\n", b"&a [*a]\n", b"<<: 1\n", b"a: *nope\n", b"- 1\n"]
ODD_YAML += [b"", b"\n", b"---\n---\n", b"a: 1\n---\nb: 2\n", b"\xff\xfe\x00", b"? ? ? a\n"]
ODD_YAML += [b"\xef\xbb\xbfkind: distill\n", b'a: "\\ud800"\n', b"a: !!bool maybe\n"]
ODD_JSON = [
    b"[" * 100_000,
    b"",
    b"[]",
    b"null",
    b'{"a":' * 3000 + b"1" + b"}" * 3000,
    b"\xff",
    b"1",
]

Place = tuple[Any, ...]


class _NoAlias(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml(tree: Any) -> bytes:
    try:
        text = yaml.dump(tree, Dumper=_NoAlias, sort_keys=False, allow_unicode=False)
    except (ValueError, RecursionError, yaml.YAMLError):
        return as_json(tree)
    return text.encode("utf-8", "surrogatepass")


def as_json(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False).encode("utf-8", "surrogatepass")


def places(tree: Any, prefix: Place = ()) -> Iterator[Place]:
    """Of every part of a tree; of long lists the first thirty."""
    yield prefix
    if isinstance(tree, dict):
        for key, part in tree.items():
            yield from places(part, (*prefix, key))
    elif isinstance(tree, list):
        for index, part in enumerate(tree[:30]):
            yield from places(part, (*prefix, index))


def part_of(tree: Any, path: Place) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _with(tree: Any, path: Place, part: Any) -> Any:
    if not path:
        return part
    part_of(tree, path[:-1])[path[-1]] = part
    return tree


def mutated_tree(tree: Any, rng: random.Random, keys: list[str]) -> Any:
    """A copy with one to three changes; a change that does not fit its place is left out."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        paths = list(places(tree))
        path = rng.choice(paths[1:] or paths)
        try:
            tree = _changed(tree, path, paths, rng, keys)
        except (KeyError, IndexError, TypeError, OverflowError):
            continue
    return tree


def _changed(
    tree: Any, path: Place, paths: list[Place], rng: random.Random, keys: list[str]
) -> Any:
    parent: Any = part_of(tree, path[:-1]) if path else None
    how = rng.randrange(12)
    scalar = copy.deepcopy(rng.choice(SCALARS))
    if how <= 4:
        return _with(tree, path, scalar)
    if how == 5 and path:
        del parent[path[-1]]
    elif how == 6 and isinstance(parent, dict):
        parent[rng.choice(keys)] = parent.pop(path[-1])
    elif how == 7 and isinstance(parent, dict):
        parent[rng.choice(keys)] = scalar
    elif how == 8:
        return _with(tree, path, copy.deepcopy(part_of(tree, rng.choice(paths))))
    elif how == 9:
        nested: Any = 1
        for _ in range(rng.choice([3, 40, 300])):
            nested = [nested] if rng.random() < 0.5 else {"a": nested}
        return _with(tree, path, nested)
    elif how == 10:
        return _with(tree, path, _near(part_of(tree, path), rng))
    elif how == 11 and isinstance(parent, list):
        parent.insert(0, scalar)
    return tree


def _near(value: Any, rng: random.Random) -> Any:
    """A value that is nearly the given one."""
    if isinstance(value, bool):
        return not value
    near: list[Any]
    if isinstance(value, int | float):
        near = [-value, value * 10, value + 1, value - 1, str(value), float(value), [value]]
        return rng.choice([*near, value * 1e10, value / 2])
    if isinstance(value, str):
        near = [value + "x", value[:-1], value.upper(), value + "\n", " " + value, [value]]
        return rng.choice([*near, value * 50, {value: value}, value + "\x00"])
    if isinstance(value, list):
        return rng.choice([value * 2, value[:1], value[::-1], dict(enumerate(map(str, value)))])
    return rng.choice([list(value or ()), [value], str(value)[:50]])


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    mutated = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, how = rng.randrange(len(mutated) + 1), rng.randrange(9)
        if how == 0 and mutated:
            mutated[min(at, len(mutated) - 1)] = rng.randrange(256)
        elif how <= 3:
            mutated[at:at] = rng.choice(_PIECES)
        elif how == 4:
            del mutated[at : at + rng.choice([1, 2, 10, 100])]
        elif how == 5:
            del mutated[at:]
        elif how == 6:
            lines = bytes(mutated).split(b"\n")
            lines.insert(rng.randrange(len(lines) + 1), rng.choice(lines))
            mutated = bytearray(b"\n".join(lines))
        elif how == 7:
            mutated = bytearray(bytes(mutated).replace(b"\n", b"\r\n"))
        else:
            mutated[at : at + rng.choice([1, 5, 20])] = rng.choice(_PIECES)
    return bytes(mutated)
