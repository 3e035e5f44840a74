from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from distillspec.runtime.seeds import derive_seed

ROOT = Path(__file__).parents[2]

# What seeds a generator: in torch, numpy, the standard library, transformers and Lightning.
SEEDING = {
    "manual_seed",
    "manual_seed_all",
    "default_rng",
    "RandomState",
    "SeedSequence",
    "Random",
    "random.seed",
    "set_seed",
    "seed_everything",
}

# Calls whose seed was derived by their caller. All others derive it themselves.
DERIVED_BY_THE_CALLER = {
    ("distillspec/measure/timed/bench.py", "_random_source"),
    (
        "distillspec/speculation/random_source.py",
        "seeded",
    ),  # corpus.stores.responses derives one per row
    ("distillspec/training/probe.py", "_random_source"),
}


def test_seeds_are_the_same_on_every_machine() -> None:
    assert derive_seed(0, "rollout", 3, 1) == 5234004227850966598


def test_seed_purpose_and_each_position_make_another_seed() -> None:
    streams: list[tuple[int, str, *tuple[str | int | float | None, ...]]] = [
        (0, "a"), (1, "a"), (0, "b"), (0, "a", 0), (0, "a", 1), (0, "a", 0, 0), (0, "a", 11),
        (0, "a", 1, 1), (0, "a", "1"), (0, "a", "1,1"), (0, 'a", "1'), (0, "a", None), (0, "a", 0.5)
    ]  # fmt: skip
    seeds = {derive_seed(*stream) for stream in streams}
    assert len(seeds) == len(streams)
    assert all(0 <= seed < 2**63 for seed in seeds)


class Call(NamedTuple):
    """A call with at least one argument. inside: the function that it is in."""

    path: str
    inside: str
    name: str
    argument: ast.expr
    line: int


def calls(path: str, source: str) -> Iterator[Call]:
    yield from _calls(path, "", ast.parse(source))


def _calls(path: str, inside: str, node: ast.AST) -> Iterator[Call]:
    for child in ast.iter_child_nodes(node):
        is_function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        yield from _calls(path, child.name if is_function else inside, child)
        if isinstance(child, ast.Call) and (child.args or child.keywords):
            first = child.args[0] if child.args else child.keywords[0].value
            yield Call(path, inside, _name(child.func), first, child.lineno)


def _name(called: ast.expr) -> str:
    """`torch.manual_seed` -> `manual_seed`, but `random.seed` and `np.random.seed` as one name."""
    *before, last = ast.unparse(called).split(".")
    return "random.seed" if last == "seed" and before[-1:] == ["random"] else last


def of_the_package(*folders: str) -> list[Call]:
    return [
        call
        for folder in folders
        for file in sorted((ROOT / folder).rglob("*.py"))
        for call in calls(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8"))
    ]


def underived(found: list[Call]) -> list[str]:
    """Places that seed a generator by anything but a seed derived on the spot."""
    return [
        f"{call.path}:{call.line} {call.name}"
        for call in found
        if call.name in SEEDING
        and (call.path, call.inside) not in DERIVED_BY_THE_CALLER
        and not (isinstance(call.argument, ast.Call) and _name(call.argument.func) == "derive_seed")
    ]


def purposes(source_of: dict[str, str]) -> Counter[str]:
    """How many places derive a seed for each purpose."""
    counted: Counter[str] = Counter()
    for path, source in source_of.items():
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and _name(node.func) == "derive_seed":
                purpose = node.args[1]
                assert isinstance(purpose, ast.Constant), f"{path}:{node.lineno}: write it out"
                counted[str(purpose.value)] += 1
    return counted


@pytest.mark.parametrize(
    "source",
    [
        "torch.Generator().manual_seed(seed)",
        "torch.manual_seed(0)",
        "np.random.default_rng([seed, 1])",
        "random.Random(seed)",
        "random.seed(seed)",
        "np.random.seed(seed)",
        "transformers.set_seed(seed)",
        "np.random.RandomState(seed=seed)",
        "def f(seed):\n    return torch.Generator().manual_seed(seed + 1)",
    ],
)
def test_the_check_sees_a_generator_that_is_seeded_directly(source: str) -> None:
    assert len(underived(list(calls("x.py", source)))) == 1


def test_every_generator_is_seeded_by_a_derived_seed() -> None:
    """Campaigns are left out: each makes its inputs from one stream, beside which no other runs."""
    assert underived(of_the_package("distillspec", "eval/bench", "eval/metrics")) == []


def test_no_two_places_of_the_package_derive_a_seed_for_the_same_purpose() -> None:
    files = sorted((ROOT / "distillspec").rglob("*.py"))
    counted = purposes({file.as_posix(): file.read_text(encoding="utf-8") for file in files})
    assert len(counted) > 15
    assert [purpose for purpose, count in counted.items() if count > 1] == []
