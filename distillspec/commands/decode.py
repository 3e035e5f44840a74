"""`decode`: continue a prompt speculatively, with the status of each token in colour."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from distillspec.commands.arguments import number, whole
from distillspec.recipe.loading import load_suite
from distillspec.recipe.methods import MethodConfig
from distillspec.recipe.suite import Suite
from distillspec.runtime.plain_files import BoundedText, read_text

if TYPE_CHECKING:
    from distillspec.runtime.terminal import Terminal
    from distillspec.speculation.records import RoundRecord
    from distillspec.workflows.decode import DecodedToken

_MOST_PROMPT_BYTES = 16 * 2**20
_SUITE = "methods"
_STYLES = {"accepted": "green", "corrected": "red", "bonus": "cyan", "plain": ""}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="a folder or Hub id")
    parser.add_argument("draft", metavar="DRAFT", help="a folder or Hub id")
    parser.add_argument("prompt", metavar="PROMPT", help="a text, or @FILE")
    parser.add_argument(
        "--method", default="standard", help="a method of --suite by its name; default: standard"
    )
    parser.add_argument(
        "--suite",
        default=_SUITE,
        help=f"suite with the method and its arms; default: {_SUITE}",
    )
    parser.add_argument(
        "--gamma",
        type=whole(1, 64),
        default=4,
        help="most tokens drafted per round, 1 to 64; default: 4. A method that chooses uses the "
        "gammas of its arms",
    )
    parser.add_argument(
        "--temperature", type=number(0.0, 4.0), default=1.0, help="0 is greedy; default: 1"
    )
    parser.add_argument("--max-new-tokens", type=whole(1, 2**24), default=128, help="default: 128")
    parser.add_argument(
        "--seed", type=whole(0, 2**32 - 1), default=0, help="seed of sampling; default: 0"
    )
    parser.add_argument(
        "--audit", metavar="FILE", help="append a line per round to this JSONL file"
    )


def main(arguments: Namespace) -> int:
    suite = None
    # `standard` needs no suite, unless one is named.
    if arguments.method != "standard" or arguments.suite != _SUITE:
        suite = load_suite(arguments.suite)
    prompt = _prompt(arguments.prompt)
    # Imported late: torch loads slowly, and errors in arguments come before it.
    from rich.text import Text

    from distillspec.runtime.terminal import Terminal
    from distillspec.workflows.decode import decode

    console = Terminal(soft_wrap=True)
    tokens = decode(
        arguments.target,
        arguments.draft,
        prompt,
        method=arguments.method,
        suite=suite,
        gamma=arguments.gamma,
        temperature=arguments.temperature,
        max_new_tokens=arguments.max_new_tokens,
        seed=arguments.seed,
        audit=arguments.audit,
    )
    plan = None if suite is None else _named(suite, arguments.method)
    is_parallel = plan is not None and plan.parallel is not None
    console.print(prompt, end="", style="dim")
    summary = _print_tokens(console, _timed(tokens, with_printing=is_parallel))
    legend = Text.assemble(("accepted", "green"), " ", ("corrected", "red"), " ", ("bonus", "cyan"))
    console.print(legend.append(f"   {summary}", style=""))
    if suite is not None and arguments.method in suite.lossy_methods():
        console.print("LOSSY: this text does not follow the target's distribution")
    return 0


def _print_tokens(console: Terminal, tokens: Iterable[tuple[DecodedToken, float]]) -> str:
    """Print each token as it comes; return the counts and the speed in words."""
    rounds: list[RoundRecord] = []
    seconds = 0.0
    emitted = in_first_round = 0
    try:
        for token, waited in tokens:
            if token.begins_round:
                rounds.append(token.round)
            if len(rounds) == 1:  # its time is reading the prompt, too
                in_first_round += 1
            else:
                seconds += waited
            console.print(token.text, end="", style=_STYLES[token.status.name.lower()])
            emitted += 1
    finally:  # an error begins on a new line, too
        console.print()
    speed = ""
    if len(rounds) > 1:
        speed = f", {(emitted - in_first_round) / seconds:.0f} tokens/s (not compiled)"
    return f"{emitted} tokens in {len(rounds)} target forwards: {_tau(rounds)}{speed}"


def _tau(rounds: Sequence[RoundRecord]) -> str:
    from distillspec.speculation.records import Counts

    counts = Counts.of(rounds)
    if not counts.verifications:
        return "tau unknown, every round was cut short"
    tau = f"tau {counts.block_efficiency():.2f}"
    if counts.verifications < len(rounds):
        tau += f" over the {counts.verifications} that no limit cut short"
    return tau


def _timed(
    tokens: Iterable[DecodedToken], *, with_printing: bool
) -> Iterator[tuple[DecodedToken, float]]:
    """Each with the seconds that it took; printing counts only where a draft works meanwhile."""
    began = time.perf_counter()
    for token in tokens:
        done = time.perf_counter()
        yield token, done - began
        began = done if with_printing else time.perf_counter()


def _named(suite: Suite, name: str) -> MethodConfig | None:
    return next((method for method in suite.methods if method.name == name), None)


def _prompt(text: str) -> str:
    if not text.startswith("@"):
        return text
    fix = "give a text file in UTF-8, or the text itself"
    return read_text(BoundedText(Path(text[1:]), "the prompt", fix), most=_MOST_PROMPT_BYTES)
