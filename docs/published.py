"""The published claims, and which figure of which file in eval/results is ours.

A figure is read by a function from what a file holds. It is None where the file has no such cell.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from distillspec.measure.stats.intervals import Interval
from distillspec.measure.summary.records import Summary
from distillspec.measure.summary.variants_file import ComparisonRound
from distillspec.text.numbers import bracketed, number, with_interval
from docs.kept import BenchTables, Kept


class Figure(NamedTuple):
    """Our figure, and the setting it was measured in, as text."""

    text: str
    setting: str


class Claim(NamedTuple):
    """A row of the first table.

    Attributes:
        system: Name and paper.
        published: The claim.
        setting: Its setting.
        result: Name of the file in eval/results, without suffix.
        command: What measures it.
        figure: Reads our figure.
    """

    system: str
    published: str
    setting: str
    result: str
    command: str
    figure: Callable[[Kept], Figure | None]


# --- evaluations ---------------------------------------------------------------------------------


def faster_than_undistilled(kept: Kept) -> Figure | None:
    """Tokens per second of the distilled draft where the verdict was tested, and over no draft."""
    summary = _summary(kept)
    texts = [
        f"T = {one.temperature:g}, gamma {one.gamma}: {_more(one.relative)} "
        f"({_at_own_gammas(summary, one.temperature)})"
        for one in summary.comparisons
        if one.quantity == "speed" and one.against == "undistilled" and one.verdict != "not tested"
    ]
    return Figure("; ".join(texts), _setting(summary)) if texts else None


def _at_own_gammas(summary: Summary, temperature: float) -> str:
    """Speed-ups over the target alone, each draft at its own fastest gamma."""
    best = {
        draft: max(
            cell.speedup.value
            for cell in summary.of_shown_method()
            if cell.temperature == temperature and cell.draft == draft
        )
        for draft in ("undistilled", "distilled")
    }
    shown = ", ".join(f"{draft} {value:.2f}x" for draft, value in best.items())
    return f"over the target alone, each at its best gamma: {shown}"


def speedup(method: str, gamma: int, temperature: float) -> Callable[[Kept], Figure | None]:
    """Over autoregressive decoding, of the shown draft."""

    def read(kept: Kept) -> Figure | None:
        summary = _summary(kept)
        cell = summary.cell(summary.shown_draft, method, gamma, temperature)
        if cell is None:
            return None
        where = f"{_setting(summary)}; T = {temperature:g}, gamma {gamma}"
        return Figure(with_interval(*cell.speedup, form=".2f", unit="x"), where)

    return read


def over_best_arm(method: str) -> Callable[[Kept], Figure | None]:
    """Tokens per second of a chooser over those of its best arm, known in hindsight."""

    def read(kept: Kept) -> Figure | None:
        summary = _summary(kept)
        for regret in summary.regrets:
            if regret.method == method and regret.quantity == "seconds":
                value, low, high = (1.0 / (1.0 + bound) - 1.0 for bound in regret.relative)
                where = f"{_setting(summary)}; T = {regret.temperature:g}"
                best = f" than {regret.best_arm}, the best of {len(regret.arms)} arms"
                return Figure(_more(Interval(value, high, low)) + best, where)
        return None

    return read


def _summary(kept: Kept) -> Summary:
    assert isinstance(kept.content, Summary), kept.name
    return kept.content


def _setting(summary: Summary) -> str:
    target = Path(summary.environment["models"]["target"]["path"])
    return f"target {target.parent.name}/{target.name}, {summary.documents} documents"


# --- benchmarks and comparisons ------------------------------------------------------------------


def of_bench(
    titles: tuple[str, ...], column: str, **row: object
) -> Callable[[Kept], Figure | None]:
    """A column of the row that has these values, in each table of these titles."""

    def read(kept: Kept) -> Figure | None:
        bench = kept.content
        assert isinstance(bench, BenchTables), kept.name
        texts = []
        for title in titles:
            for found in bench.tables.get(title, ()):
                value = found.get(column)
                if isinstance(value, Interval) and row.items() <= found.items():
                    texts.append(f"{title}: {_words(value, column)}")
        chosen = ", ".join(f"{key} {one}" for key, one in row.items())
        target = bench.settings.get("target")
        pair = f"{Path(target).parent.name} pair, " if isinstance(target, str) else ""
        where = f"{pair}{bench.documents} documents; {chosen}"
        return Figure("; ".join(texts), where) if texts else None

    return read


def _words(value: Interval, column: str) -> str:
    """The column's title, then a percentage or a factor."""
    title = column.removesuffix(", %")
    if title == column:
        return f"{title} {with_interval(*value, form='.2f', unit='x')}"
    if title.startswith("of "):  # a share, and no difference
        share, low, high = value
        return f"{number(share, '.1f')} % {bracketed(low, high, '.1f')} {title}"
    return f"{title} {_more(Interval(*(bound / 100.0 for bound in value)))}"


def over_baseline(variant: str) -> Callable[[Kept], Figure | None]:
    """Expected tau of a variant over the baseline's, on the recipe's own prompts."""

    def read(kept: Kept) -> Figure | None:
        compared = kept.content
        assert isinstance(compared, ComparisonRound), kept.name
        table = compared.tables[0]
        for standing in table.standings:
            if standing.variant == variant:
                recipe = f"recipe {compared.plan['recipe']}, {table.documents} documents"
                cost = f"{compared.minutes:g} minutes, {len(compared.seeds)} seeds"
                at = f"T = {compared.temperature:g}, gamma {compared.gamma}"
                text = f"expected tau {_more(standing.relative)} against {compared.against}"
                return Figure(text, f"{recipe}; {at}; {cost}")
        return None

    return read


def _more(share: Interval) -> str:
    value, low, high = (100.0 * bound for bound in share)
    return f"{number(value, '+.1f')} % {bracketed(low, high, '.1f')}"


# --- the table -----------------------------------------------------------------------------------

_KEPT = ("T = 0, 88% of drafted tokens kept", "T = 1, 78% of drafted tokens kept")
_VERIFY = "eval/bench/verify.py --counts 8"
CLAIMS = (
    *(
        Claim(
            "DistillSpec, 2310.08461",
            f"10 to 45 % faster than with the undistilled draft{drift}",
            "T5 pairs on XSum, CNN/DM, WMT and GSM8K; T = 0 and 1",
            recipe,
            f"./launch.sh recipes/{recipe}.yaml",
            faster_than_undistilled,
        )
        for recipe, drift in (
            ("nano-python", ". Ours: a target that was fine-tuned on another library"),
            ("nano-cpp", ". Ours: a target that was fine-tuned on another language"),
            ("nano-plateau", ". Ours: a draft that was trained to its plateau"),
        )
    ),
    Claim(
        "DistillSpec, 2310.08461",
        "target distilled first, then the draft: 6.4x and 10.7x in all",
        "XSum and GSM8K, T5 pairs",
        "chain",
        "eval/bench/chain.py --pair target TARGET DRAFT --pair half MIDDLE DRAFT",
        of_bench(
            ("decoding, T = 0", "decoding, T = 1"), "times target, alone", decoding="half, gamma 4"
        ),
    ),
    Claim(
        "SpecTr, 2310.15141",
        "2.13x over autoregressive decoding",
        "PaLM-2 Gecko for Bison, LM1B; K = L = 8, T = 1",
        "methods",
        "distillspec evaluate RUN-FOLDER --suite methods",
        speedup("spectr", 8, 1.0),
    ),
    Claim(
        "BanditSpec, 2505.15141 (UCBSpec)",
        "13 and 19 % more tokens/s than the best single method",
        "LLaMA3-8B and Qwen2-7B, one benchmark",
        "bandits",
        "distillspec evaluate RUN-FOLDER --suite bandits",
        over_best_arm("ucbspec"),
    ),
    Claim(
        "BanditSpec, 2505.15141 (EXP3Spec)",
        "13 and 19 % more tokens/s than the best single method",
        "LLaMA3-8B and Qwen2-7B, one benchmark",
        "bandits",
        "distillspec evaluate RUN-FOLDER --suite bandits",
        over_best_arm("exp3spec"),
    ),
    Claim(
        "CARD, 2508.04462",
        "up to 4.83x over autoregressive decoding",
        "targets of 3B to 70B, two to three devices",
        "methods",
        "distillspec evaluate RUN-FOLDER --suite methods",
        speedup("card", 8, 0.0),
    ),
    Claim(
        "AdaEDL, 2410.18351",
        "10 to 57 % more tokens/s than a fixed length",
        "7B targets",
        "adaedl",
        "eval/bench/adaedl.py",
        of_bench(
            ("T = 0", "T = 1"),
            "predicted speed against the best fixed gamma, %",
            **{"wanted rate": 0.9},
        ),
    ),
    Claim(
        "AdaEDL with our default rule, which follows measured costs",
        "10 to 57 % more tokens/s than a fixed length",
        "7B targets",
        "walk-none",
        "eval/bench/walk.py",
        of_bench(
            tuple(f"{kept}; c = 0.19, v = 1.25" for kept in _KEPT),
            "of the best fixed gamma, %",
            contender="adaedl",
        ),
    ),
    Claim(
        "block verification, 2403.10444",
        "8.3 % more tokens per target forward",
        "gamma 8",
        "verify",
        _VERIFY,
        of_bench(("T = 1",), "more tau, %", rule="block", L=8),
    ),
    Claim(
        "LK-alpha, 2602.23881",
        "8 to 10 % longer accepted drafts than with KL",
        "targets of 8B to 685B",
        "objectives",
        "distillspec compare objectives",
        over_baseline("lk_alpha"),
    ),
)
