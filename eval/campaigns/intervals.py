"""How often intervals and verdicts are wrong: simulated evaluations with a known truth.

    python eval/campaigns/intervals.py                               # the committed documents
    python eval/campaigns/intervals.py RUN/evaluation/SUITE/rows.jsonl
    python eval/campaigns/intervals.py rows.jsonl --keep documents.json   # sums of these rows

documents.json: 32 documents of a main job (recipes/nano-python.yaml, compiled runner, 64 tokens).

Three things are counted, `--evaluations` of each, with the functions that evaluations call
(`distillspec.measure.stats.intervals`; races repeat the steps of
`distillspec.measure.timed.race` on arrays):

coverage   How often a 95 % interval holds the truth. `real`: documents of a run, drawn with
           replacement; the truth is that of all of them. `clustered`: the same, each document
           drawn with 1 to 8 copies of its size. `lognormal`: ratios of lognormal(0.5) documents of
           lognormal(0.5) sizes.
reports    How often a report of equal drafts states any difference. `real`: the drafts' names are
           shuffled within each drawn document; the gamma is the one at which the first draft was
           fastest, as in a report. `lognormal`: all drafts have lognormal(0.5) noise.
races      Of 12 ways that are equally fast: how often way 0, or any, is dropped, and how often the
           winner's interval holds its speed-up. `lookup`: way 0 takes 0.4 of the time on a text in
           ten; `outlier`: 1.9 of it.

The last line is JSON: for every bound its worst value, and `"failed"`, the names of those missed.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from distillspec.measure.stats.intervals import FEWEST, Jackknifed, holm, jackknife, logarithm
from distillspec.measure.timed import race

Floats = NDArray[np.float64]
DOCUMENTS = Path(__file__).with_name("documents.json")
CONFIDENCE = 0.95
UNITS = (FEWEST, 12, 16, 32, 64)
COVERED = {FEWEST: 0.92}  # at least, by documents; from 12 on
COVERED_FROM_12 = 0.93
FALSE_REPORTS = 0.06
DROPPED = 0.01
DRAFTS = ("distilled", "undistilled", "control")
_CHUNK = 250


class Real(NamedTuple):
    """Sums by document. counted: [drafts, gammas, temperatures, 5, documents]: emitted,
    verifications, accepted, drafted, tokens; seconds: [..., documents]; plain: [temperatures,
    documents], seconds of the baseline.
    """

    counted: Floats
    seconds: Floats
    plain: Floats


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="?", type=Path, default=DOCUMENTS)
    parser.add_argument("--keep", type=Path, help="write the sums of the rows here, and no more")
    parser.add_argument("--evaluations", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    table = read(arguments.rows)
    if arguments.keep is not None:
        arguments.keep.write_text(json.dumps(table) + "\n", encoding="utf-8")
        return
    real = arrays(table)
    rng = np.random.default_rng(arguments.seed)
    began, results = time.monotonic(), dict[str, float]()
    print(f"{real.plain.shape[-1]} documents, {arguments.evaluations} evaluations each")
    failed = [
        *coverage(real, rng, arguments.evaluations, results),
        *reports(real, rng, arguments.evaluations, results),
        *races(rng, arguments.evaluations, results),
    ]
    print(f"{time.monotonic() - began:.0f} s")
    print(json.dumps({"evaluations": arguments.evaluations, **results, "failed": failed}))


# --- documents of a run ---------------------------------------------------------------------------


def read(path: Path) -> dict[str, Any]:
    """Sums by document of a rows.jsonl, or such sums that were kept."""
    if path.suffix == ".json":
        return dict(json.loads(path.read_text(encoding="utf-8")))
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    cells = sorted({(r["draft"], r["gamma"], r["temperature"]) for r in rows if r["draft"]})
    plain_cells = sorted({r["temperature"] for r in rows})
    sums: dict[str, dict[Any, list[float]]] = {}
    for row in rows:
        document = row.get("document") or row["prompt_key"].rpartition(":")[0]
        of = sums.setdefault(document, {})
        counts, key = row["counts"], (row["draft"], row["gamma"], row["temperature"])
        counted = [counts[n] for n in ("emitted", "verifications", "accepted", "drafted")]
        added = [*counted, len(row["tokens"]), row["seconds"]]
        before = of.get(key, [0.0] * len(added))
        of[key] = [a + b for a, b in zip(before, added, strict=True)]
    keys = [*cells, *((None, None, t) for t in plain_cells)]
    complete = [of for of in sums.values() if all(key in of for key in keys)]
    return {
        "gammas": sorted({gamma for _, gamma, _ in cells}),
        "temperatures": plain_cells,
        "documents": [
            {"/".join(map(str, key)): [round(x, 4) for x in of[key]] for key in keys}
            for of in complete
        ],
    }


def arrays(table: dict[str, Any]) -> Real:
    documents, gammas, temperatures = (table[k] for k in ("documents", "gammas", "temperatures"))

    def of(draft: str | None, gamma: int | None, at: float, field: int) -> list[float]:
        return [document[f"{draft}/{gamma}/{at}"][field] for document in documents]

    counted = [
        [[[of(d, g, t, i) for i in range(5)] for t in temperatures] for g in gammas] for d in DRAFTS
    ]
    seconds = [[[of(d, g, t, 5) for t in temperatures] for g in gammas] for d in DRAFTS]
    plain = [of(None, None, t, 5) for t in temperatures]
    return Real(np.array(counted), np.array(seconds), np.array(plain))


# --- coverage -------------------------------------------------------------------------------------


def coverage(real: Real, rng: np.random.Generator, M: int, results: dict[str, float]) -> list[str]:
    """Prints a line for each kind and number of documents; returns the bounds that are missed."""
    print("\ncoverage of 95 % intervals" + "".join(f"{f'n = {n}':>9}" for n in UNITS))
    failed = []
    for name, kind, quantity in _quantities():
        held = [_covered(real, rng, M, n, kind, quantity) for n in UNITS]
        print(f"{kind:>11} {name:20}" + "".join(f"{share:9.3f}" for share in held), flush=True)
        for n, share in zip(UNITS, held, strict=True):
            bound, key = (
                COVERED.get(n, COVERED_FROM_12),
                f"coverage_{'8' if n == FEWEST else 'from_12'}",
            )
            results[key] = min(results.get(key, 1.0), round(share, 4))
            if share < bound:
                failed.append(f"coverage {kind} {name} n={n}")
    return failed


def _quantities() -> Iterator[tuple[str, str, str]]:
    for kind in ("real", "clustered"):
        for quantity in ("tau", "acceptance", "speedup"):
            yield quantity, kind, quantity
            if quantity != "speedup":
                yield f"{quantity} difference", kind, f"{quantity}-"
    for quantity in ("ratio", "ratio-"):
        yield {"ratio": "ratio", "ratio-": "ratio difference"}[quantity], "lognormal", quantity


def _covered(
    real: Real, rng: np.random.Generator, M: int, n: int, kind: str, quantity: str
) -> float:
    """Share of M evaluations of n documents whose interval holds the truth."""
    scale = np.asarray if quantity.endswith("-") else logarithm
    if kind == "lognormal":
        parts, truth = _lognormal(rng, (M, n), 4 if quantity.endswith("-") else 2)
    else:
        sums = _sums(real, quantity)
        drawn = rng.integers(0, sums[0].shape[-1], (M, n))
        size = rng.integers(1, 9, (M, n)) if kind == "clustered" else np.ones((M, n))
        parts = [total[drawn] * size for total in sums]
        truth = float(jackknife(scale, sums).value)
    interval = jackknife(scale, parts)
    return float((np.abs(interval.value - truth) <= interval.reach(CONFIDENCE)).mean())


def _sums(real: Real, quantity: str) -> list[Floats]:
    """Of the distilled draft (and the undistilled one) at the last gamma and temperature."""
    if quantity == "speedup":
        return [real.plain[-1], real.seconds[0, -1, -1]]
    first = {"tau": 0, "acceptance": 2}[quantity.rstrip("-")]
    sides = (0, 1) if quantity.endswith("-") else (0,)
    return [real.counted[d, -1, -1, first + part] for d in sides for part in (0, 1)]


def _lognormal(
    rng: np.random.Generator, shape: tuple[int, int], parts: int
) -> tuple[list[Floats], float]:
    """Ratios with lognormal(0.5) noise; of four parts the difference of two, which is 0."""
    size = np.exp(0.5 * rng.standard_normal(shape))
    noisy = [size * np.exp(0.5 * rng.standard_normal(shape)) for _ in range(parts // 2)]
    made = [part for noise in noisy for part in (noise, size)]
    return made, 0.0 if parts == 4 else 0.125


# --- reports --------------------------------------------------------------------------------------


def reports(real: Real, rng: np.random.Generator, M: int, results: dict[str, float]) -> list[str]:
    """Equal drafts: the share of the reports that state a difference."""
    print("\nreports of equal drafts with a verdict" + "".join(f"{f'n = {n}':>9}" for n in UNITS))
    failed = []
    for kind in ("real", "lognormal"):
        shares, first = [], []
        for n in UNITS:
            p = np.concatenate(
                [
                    _p_values(real, rng, min(_CHUNK, M - done), n, kind)
                    for done in range(0, M, _CHUNK)
                ]
            )
            shares.append(float(holm(p, 1.0 - CONFIDENCE).any(axis=-1).mean()))
            first.append(float((p < 1.0 - CONFIDENCE).any(axis=-1).mean()))
            results[f"false_reports_{kind}"] = max(
                results.get(f"false_reports_{kind}", 0.0), round(shares[-1], 4)
            )
            if kind == "real" and shares[-1] > FALSE_REPORTS:
                failed.append(f"reports {kind} n={n}")
        for name, line in (("Holm", shares), ("each alone", first)):
            words = f"{kind}, {p.shape[-1]} verdicts, {name}"
            print(f"{words:>38}" + "".join(f"{share:9.3f}" for share in line), flush=True)
    return failed


def _p_values(real: Real, rng: np.random.Generator, M: int, n: int, kind: str) -> Floats:
    """[M, verdicts]: each temperature, quantity and other draft, at the gamma that is stated."""
    drafts, _, temperatures = real.seconds.shape[:3]
    drawn = rng.integers(0, real.plain.shape[-1], (M, n))
    names = np.argsort(rng.random((M, n, drafts)), axis=-1)  # who is called what, by document
    counted = np.moveaxis(real.counted[..., drawn], (4, 5), (0, 1))
    seconds = np.moveaxis(real.seconds[..., drawn], (3, 4), (0, 1))
    if kind == "lognormal":
        counted = np.broadcast_to(counted[:, :, :1], counted.shape).copy()
        for column in (0, 2):
            counted[..., column] *= np.exp(0.5 * rng.standard_normal(counted.shape[:-1]))
        seconds = np.broadcast_to(seconds[:, :, :1], seconds.shape)
        seconds = seconds * np.exp(0.5 * rng.standard_normal(seconds.shape))
    else:
        counted = np.take_along_axis(counted, names[..., None, None, None], axis=2)
        seconds = np.take_along_axis(seconds, names[..., None, None], axis=2)
    tokens, plain = counted[..., 4], np.moveaxis(real.plain[:, drawn], 0, -1)
    values = []
    for t in range(temperatures):
        speed = plain[..., t].sum(axis=1)[:, None] / seconds[:, :, 0, :, t].sum(axis=1)
        stated = speed.argmax(axis=-1)  # [M]: the gamma at which the first draft was fastest
        of_gamma = counted[np.arange(M), :, :, stated, t]
        times = seconds[np.arange(M), :, :, stated, t]
        length = tokens[np.arange(M), :, :, stated, t]
        for rival in range(1, drafts):
            for above, below in (
                (of_gamma[..., 0], of_gamma[..., 1]),
                (of_gamma[..., 2], of_gamma[..., 3]),
                (length, times),
            ):
                sides = [part[:, :, draft] for draft in (0, rival) for part in (above, below)]
                values.append(jackknife(logarithm, sides).p())
    return np.stack(values, axis=-1)


# --- races ----------------------------------------------------------------------------------------

_WAYS = 12
_KINDS = ("lognormal .1", "lognormal .3", "lookup", "outlier")


def races(rng: np.random.Generator, M: int, results: dict[str, float]) -> list[str]:
    print(f"\nraces of {_WAYS} equal ways{'documents':>14}{'way 0 dropped':>15}{'any':>8}"
          f"{'winner covered':>16}")  # fmt: skip
    failed = []
    for kind in _KINDS:
        for n in (24, 48, 96, 192):
            parts = [_race(rng, min(_CHUNK, M - done), n, kind) for done in range(0, M, _CHUNK)]
            dropped = np.concatenate([part for part, _ in parts])
            covered = float(np.concatenate([part for _, part in parts]).mean())
            first, any_of = float(dropped[:, 0].mean()), float(dropped.any(axis=1).mean())
            print(f"{kind:>26}{n:14d}{first:15.4f}{any_of:8.4f}{covered:16.3f}", flush=True)
            rare = "_rare" if kind in ("lookup", "outlier") else ""
            results["dropped"] = max(results.get("dropped", 0.0), round(first, 4))
            results["any_dropped"] = max(results.get("any_dropped", 0.0), round(any_of, 4))
            key = f"winner_covered{rare}"
            results[key] = min(results.get(key, 1.0), round(covered, 4))
            if max(first, any_of / _WAYS) > DROPPED:
                failed.append(f"races {kind} n={n}: dropped")
            if not rare and covered < COVERED_FROM_12:
                failed.append(f"races {kind} n={n}: winner")
    return failed


def _race(rng: np.random.Generator, M: int, n: int, kind: str) -> tuple[NDArray[np.bool_], Any]:
    """[M, ways] that were dropped, [M] whether the winner's interval holds its speed-up, 2."""
    raced, fresh = race.split([str(i) for i in range(n)])
    hard = np.exp(0.15 * rng.standard_normal((M, n)))
    seconds = hard[:, None] * _factors(rng, (M, _WAYS, n), kind)
    left = np.ones((M, _WAYS), dtype=np.bool_)
    looks = race.looks(len(raced))
    for look in (race.FIRST_LOOK * 2**k for k in range(looks)):
        if look <= len(raced):
            left &= ~_slower(seconds[..., raced[:look]], left, (_WAYS - 1) * looks)
    speed = np.where(left, 1.0 / seconds[..., raced].sum(axis=-1), -1.0)
    winner = speed.argmax(axis=1)
    where = fresh if fresh else raced
    winner_seconds = seconds[np.arange(M), winner][:, where]
    interval = jackknife(logarithm, [2.0 * hard[:, where], winner_seconds])
    among = 1 if fresh else _WAYS
    return ~left, np.abs(interval.value - math.log(2.0)) <= interval.reach(CONFIDENCE, among)


def _slower(seconds: Floats, left: NDArray[np.bool_], comparisons: int) -> NDArray[np.bool_]:
    ones = np.ones_like(seconds)
    best = np.where(left, seconds.sum(axis=-1), np.inf).argmin(axis=1)
    fastest = np.take_along_axis(seconds, best[:, None, None], axis=1)
    fastest = np.broadcast_to(fastest, seconds.shape)
    beyond: Jackknifed = jackknife(logarithm, [ones, seconds, ones, fastest])
    high = np.exp(beyond.value + beyond.reach(race.CLEARLY, comparisons)) - 1.0
    is_best = np.arange(_WAYS) == best[:, None]
    is_slower: NDArray[np.bool_] = left & ~is_best & (high <= -race.unseen(seconds.shape[-1]))
    return is_slower


def _factors(rng: np.random.Generator, shape: Sequence[int], kind: str) -> Floats:
    """Times of the ways over that of the text, 1 on average."""
    spread = {"lognormal .1": 0.1, "lognormal .3": 0.3}.get(kind, 0.03)
    factors: Floats = np.exp(spread * rng.standard_normal(shape) - spread**2 / 2)
    rarely = rng.random((shape[0], shape[2])) < 0.1
    if kind == "lookup":
        factors[:, 0] *= np.where(rarely, 0.4, (1 - 0.04) / 0.9)
    if kind == "outlier":
        factors[:, 0] *= np.where(rarely, 1.9, 0.9)
    return factors


if __name__ == "__main__":
    main()
