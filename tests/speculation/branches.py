"""Exact distributions of shipped decoding code: every random choice walked with its weight, in
float64.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from distillspec.speculation.draft.proposal import DraftContext
from distillspec.speculation.draft.stop import FixedLength, StopRule
from distillspec.speculation.random_source import RandomSource, passes
from distillspec.speculation.records import Round
from distillspec.speculation.runner import Room, Runner
from distillspec.speculation.sampling import SamplingPolicy
from tests.speculation.bigram import BigramRunner

Tokens = tuple[int, ...]
Law = dict[Tokens, float]
Result = TypeVar("Result")


class Branches:
    """A `RandomSource` that takes the prescribed choices, then the first of each there is.

    Outcomes of weight 0 do not exist. `weight` is the probability of the path taken.
    """

    def __init__(self, path: Sequence[int] = ()) -> None:
        self._path = path
        self.taken: list[int] = []
        self.options: list[int] = []
        self.weight = 1.0

    def accept(self, probability: Tensor) -> Tensor:
        sure = [min(h, 1.0) for h in probability.flatten().tolist()]
        accepted = [self._choose([1.0 - h, h]) == 1 for h in sure]
        return torch.tensor(accepted, dtype=torch.bool).view(probability.shape)

    def draw(self, weights: Tensor) -> Tensor:
        distribution = weights / weights.sum(-1, keepdim=True)
        rows = distribution.reshape(-1, distribution.shape[-1]).tolist()
        return torch.tensor([self._choose(row) for row in rows]).view(distribution.shape[:-1])

    def _choose(self, weights: list[float]) -> int:
        possible = [outcome for outcome, weight in enumerate(weights) if weight > 0.0]
        step = len(self.taken)
        choice = self._path[step] if step < len(self._path) else 0
        self.taken.append(choice)
        self.options.append(len(possible))
        self.weight *= weights[possible[choice]]
        return possible[choice]


class GridBranches(Branches):
    """Trials through the shipped comparison: uniforms on {0, 1/grid, ..., (grid-1)/grid}.

    Exact for probabilities that are multiples of 1/grid, and it has the uniform of exactly 0.
    """

    def __init__(
        self,
        path: Sequence[int] = (),
        *,
        grid: int = 4,
        comparison: Callable[[Tensor, Tensor], Tensor] = passes,
    ) -> None:
        super().__init__(path)
        self._grid = grid
        self._comparison = comparison

    def accept(self, probability: Tensor) -> Tensor:
        uniforms = [self._choose([1 / self._grid] * self._grid) for _ in probability.tolist()]
        grid = torch.tensor(uniforms, dtype=probability.dtype) / self._grid
        return self._comparison(grid, probability)


def walk(
    run: Callable[[Branches], Result],
    *,
    begin: Sequence[int] = (),
    random_source: Callable[[Sequence[int]], Branches] = Branches,
) -> Iterator[tuple[Result, Branches]]:
    """Every branch of `run` whose path begins with `begin`: its result, and what it took."""
    path = list(begin)
    while True:
        branches = random_source(path)
        yield run(branches), branches
        path, options = list(branches.taken), branches.options
        while len(path) > len(begin) and path[-1] + 1 == options[len(path) - 1]:
            path.pop()
        if len(path) <= len(begin):
            return
        path[-1] += 1


def distribution_of(run: Callable[[Branches], Sequence[int]]) -> Law:
    """The distribution of the tokens that `run` returns, branch by branch to the very end."""
    distribution: Law = defaultdict(float)
    for tokens, branches in walk(run):
        distribution[tuple(tokens)] += branches.weight
    return dict(distribution)


def distribution_by_rounds(
    stream: Callable[[Branches], Iterator[Round]], state: Callable[[], Hashable]
) -> Law:
    """The same distribution for a stream of rounds, with equal states between rounds walked only
    once.

    state: all that the next round depends on except the tokens emitted so far.
    """
    distribution: Law = defaultdict(float)
    weights: dict[tuple[Tokens, Hashable], float] = {((), ()): 1.0}
    ways: dict[tuple[Tokens, Hashable], tuple[int, list[int]]] = {((), ()): (0, [])}
    while weights:
        state_key = min(weights, key=lambda key: len(key[0]))  # all that leads here has been walked
        weight, (count, way) = weights.pop(state_key), ways[state_key]

        def one_more(random_source: Branches, count: int = count) -> tuple[Tokens, bool]:
            rounds = stream(random_source)
            tokens = [token for _ in range(count) for token in next(rounds).tokens]
            random_source.weight = 1.0
            further = next(rounds, None)
            return (*tokens, *(further.tokens if further else ())), further is None

        for (tokens, is_over), branches in walk(one_more, begin=way):
            if is_over:
                distribution[tokens] += weight
                continue
            next_key = (tokens, state())
            weights[next_key] = weights.get(next_key, 0.0) + weight * branches.weight
            ways.setdefault(next_key, (count + 1, branches.taken))
    return dict(distribution)


def autoregressive_distribution(
    model: Runner,
    policy: SamplingPolicy,
    prompt: Sequence[int],
    max_new_tokens: int,
    eos_token_ids: frozenset[int] = frozenset(),
) -> Law:
    """What the target predicts: each context fed from its first token, no cache, no engine."""
    distribution: Law = {}
    open_ends: Law = {(): 1.0}
    while open_ends:
        tokens, weight = open_ends.popitem()
        if len(tokens) == max_new_tokens or (tokens and tokens[-1] in eos_token_ids):
            distribution[tokens] = weight
            continue
        model.reset()
        logits = model.feed(torch.tensor([[*prompt, *tokens]]))[0, -1]
        for token, p in enumerate(policy.distribution(logits).tolist()):
            if p > 0.0:
                open_ends[(*tokens, token)] = weight * p
    return distribution


def context_of(
    runner: BigramRunner,
    pending: Sequence[int],
    random_source: RandomSource,
    *,
    policy: SamplingPolicy = SamplingPolicy(),  # noqa: B008  # frozen
    stop: StopRule | None = None,
) -> DraftContext:
    """What `runner` drafts from after the text it holds and `pending`."""
    text = [*runner.tokens[0].tolist(), *pending]
    stop = FixedLength() if stop is None else stop
    return DraftContext(
        text, torch.tensor(text[-1:]), runner, runner.vocab_size, policy, random_source, stop
    )


def total_variation(first: Law, second: Law) -> float:
    return 0.5 * sum(abs(first.get(key, 0.0) - second.get(key, 0.0)) for key in {*first, *second})


class HistoryRunner(BigramRunner):
    """Logits that depend on every token of the text and its position: a wrong cache shows."""

    def __init__(self, table: Tensor, *, capacity: int = 1 << 20) -> None:
        super().__init__(table, capacity=capacity)
        self._text: dict[int, list[int]] = {}  # by slot of a tree: the slots it sees

    def feed(self, tokens: Tensor) -> Tensor:
        super().feed(tokens)
        return self._after(self.tokens)[:, -tokens.shape[1] :]

    def feed_tree(self, tokens: Tensor, parents: Sequence[int]) -> Tensor:
        start = self.length
        BigramRunner.feed(self, tokens.unsqueeze(0))
        rows = []
        for offset, parent in enumerate(parents):
            before = self._text.get(parent, list(range(parent + 1)))
            self._text[start + offset] = [*before, start + offset]
            rows.append(self._after(self.tokens[:, self._text[start + offset]])[:, -1])
        return torch.stack(rows, dim=1)

    def keep(self, length: int, slots: Sequence[int], tree: Sequence[int] = ()) -> None:
        super().keep(length, slots, tree)
        text = length + len(slots)
        moved = {slot: text + offset for offset, slot in enumerate(tree)}
        self._text = {
            new: [*range(text), *(moved[slot] for slot in self._text[old] if slot in moved)]
            for old, new in moved.items()
        }

    def _after(self, texts: Tensor) -> Tensor:
        positions = torch.arange(1, texts.shape[1] + 1)
        sums = ((texts + 1) * positions * positions).cumsum(1)
        return self._table[(texts + sums) % self.vocab_size]


class DoubleReader(HistoryRunner):
    """A `PieceReader` whose model reads two pieces for each token."""

    def feed(self, tokens: Tensor) -> Tensor:
        assert min(self.room_after(tokens[0].tolist())) >= 0, "fed beyond the context"
        return super().feed(tokens)

    def room_after(self, tokens: Sequence[int]) -> Room:
        left = self.capacity - 2 * (self.length + len(tokens))
        return Room(left, left)


def mutant(
    function: Callable[..., Any],
    pattern: str,
    broken: str,
    *,
    inside: Callable[..., Any] | None = None,
) -> Callable[..., Any]:
    """The shipped function with one expression or assignment replaced: for tests of the tests.

    The place is found by its structure, so that local names and layout may change.

    Args:
        function: The shipped function.
        pattern: Python, in which `_1`, `_2`, ... stand for any expression, the same one each time.
            It must match exactly one place.
        broken: What replaces it, with the same numbers.
        inside: A function that `function` calls, and which has the place.
    """
    names: dict[str, Any] = dict(inspect.unwrap(function).__globals__)
    changed = inside or function
    tree = ast.parse(_source(changed))
    breaking = _Breaking(_only_statement(pattern), broken)
    tree = ast.fix_missing_locations(breaking.visit(tree))
    found = breaking.matches
    assert found == 1, f"{pattern!r} stands {found} times in {changed.__qualname__}, not once"
    _define(ast.unparse(tree), names)
    if inside is not None:
        _define(_source(function), names)
    result: Callable[..., Any] = names[function.__name__]
    return result


class _Breaking(ast.NodeTransformer):
    """Replaces the nodes that match a pattern."""

    def __init__(self, pattern: ast.stmt, broken: str) -> None:
        self.matches = 0
        is_expression = isinstance(pattern, ast.Expr)
        self._pattern: ast.AST = pattern.value if isinstance(pattern, ast.Expr) else pattern
        self._broken, self._is_expression = broken, is_expression

    def visit(self, node: ast.AST) -> Any:
        bound: dict[str, ast.AST] = {}
        if not _matches(self._pattern, node, bound):
            return self.generic_visit(node)
        self.matches += 1
        replacement = _Binding(bound).visit(_only_statement(self._broken))
        return replacement.value if self._is_expression else replacement


class _Binding(ast.NodeTransformer):
    def __init__(self, bound: Mapping[str, ast.AST]) -> None:
        self._bound = bound

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return self._bound.get(node.id, node)


def _only_statement(source: str) -> ast.stmt:
    (statement,) = ast.parse(source).body
    return statement


def _matches(pattern: ast.AST, node: ast.AST, bound: dict[str, ast.AST]) -> bool:
    """Whether the nodes are the same but for the pattern's numbers, which are bound."""
    if isinstance(pattern, ast.Name) and re.fullmatch(r"_\d", pattern.id):
        if not isinstance(node, ast.expr):
            return False
        first = bound.setdefault(pattern.id, node)
        return ast.unparse(first) == ast.unparse(node)
    if type(pattern) is not type(node):
        return False
    for name in pattern._fields:
        if name in ("ctx", "type_comment"):
            continue
        ours, theirs = getattr(pattern, name), getattr(node, name)
        if isinstance(ours, list):
            if len(ours) != len(theirs):
                return False
            if not all(_matches(a, b, bound) for a, b in zip(ours, theirs, strict=True)):
                return False
        elif isinstance(ours, ast.AST):
            if not isinstance(theirs, ast.AST) or not _matches(ours, theirs, bound):
                return False
        elif ours != theirs:
            return False
    return True


def _source(function: Callable[..., Any]) -> str:
    return textwrap.dedent(inspect.getsource(function))


def _define(source: str, names: dict[str, Any]) -> None:
    exec(compile(source, "<mutant>", "exec"), names)
