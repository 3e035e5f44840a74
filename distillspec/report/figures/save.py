"""Writes every figure that has data, for a light and a dark page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from distillspec.measure.summary.records import Summary
from distillspec.measure.timed.audit import AuditedRound
from distillspec.report.figures.choosers import arm_shares, entropy_histograms, regret_curves
from distillspec.report.figures.gains import differences, prediction, speedup_maps, tau_and_alpha
from distillspec.report.figures.positions import acceptance_by_context, acceptance_by_position
from distillspec.report.figures.theme import DARK, LIGHT, Theme
from distillspec.report.figures.training import read_curves, training_curves
from distillspec.runtime import atomic


def save_figures(
    summary: Summary,
    metrics_csv: Mapping[str, Path],
    folder: Path,
    rounds: Sequence[AuditedRound] = (),
) -> dict[str, tuple[Path, Path]]:
    """Write every figure that has data to `folder`.

    Args:
        summary: What was measured.
        metrics_csv: Training logs by name of the run.
        folder: Where to write.
        rounds: Audited rounds, if any.

    Returns:
        Name -> (light PNG, dark PNG).
    """
    atomic.make_folder(folder)
    written: dict[str, tuple[Path, Path]] = {}
    drawings: dict[str, Callable[[Theme], Figure | None]] = {
        "speedup": partial(speedup_maps, summary),
        "tau": partial(tau_and_alpha, summary),
        "differences": partial(differences, summary),
        "positions": partial(acceptance_by_position, summary),
        "contexts": partial(acceptance_by_context, summary),
        "prediction": partial(prediction, summary),
        "regret": partial(regret_curves, summary),
        "arms": partial(arm_shares, rounds),
        "entropies": partial(entropy_histograms, rounds),
        "training": partial(training_curves, read_curves(metrics_csv)),
    }
    with rc_context({"text.parse_math": False}):  # a name with two dollar signs is no formula
        for name, draw in drawings.items():
            paths = []
            for look, ending in ((LIGHT, ""), (DARK, "-dark")):
                figure = draw(look)
                if figure is not None:
                    paths.append(_save(figure, folder / f"{name}{ending}.png", look))
            if len(paths) == 2:
                written[name] = (paths[0], paths[1])
    return written


def _save(figure: Figure, path: Path, look: Theme) -> Path:
    FigureCanvasAgg(figure)
    with atomic.replacing_file(path) as temporary:
        figure.savefig(temporary, format="png", dpi=160, facecolor=look.page)
    return path
