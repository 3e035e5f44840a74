"""A tiny pair with three drafts, evaluated once, and a summary made by hand."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from distillspec.measure.stats.intervals import NOTHING, Interval
from distillspec.measure.summary.breakdown import FEW
from distillspec.measure.summary.cells import Baseline, CategoryCell, Cell, ContextBin
from distillspec.measure.summary.definitions import DEFINITIONS
from distillspec.measure.summary.records import (
    DraftComparison,
    Example,
    GreedyDivergence,
    Oracle,
    Piece,
    Quality,
    Ranked,
    Recommendation,
    Regret,
    Summary,
)
from distillspec.measure.summary.tally import Tally
from distillspec.recipe.suite import Suite
from tests.measure.two_prompts import CONFIDENCE, FACTS, STEPS, rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CODE = "def add(one, other):\n    return one + other\n\n\nclass Sum:\n    total = 0\n"


class TinyPrompt(NamedTuple):
    key: str
    tokens: tuple[int, ...]
    text: str
    response: tuple[int, ...] | None
    category: str | None = None

    @property
    def document(self) -> str:
        return self.key


@dataclass
class Setting:
    """What `evaluate` takes, but for the suite and the folder."""

    target: PreTrainedModel
    drafts: dict[str, PreTrainedModel]
    tokenizer: PreTrainedTokenizerBase
    prompts: list[TinyPrompt]

    def arguments(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "drafts": self.drafts,
            "tokenizer": self.tokenizer,
            "prompts": self.prompts,
            "device": "cpu",
        }


class Measured(NamedTuple):
    suite: Suite
    folder: Path
    summary: Summary


@pytest.fixture(scope="session")
def setting(tiny_pair: Path) -> Setting:
    """The distilled draft is the target with a little noise, the control one with more."""
    import torch

    from distillspec.models.loading.load import load_model, load_tokenizer

    target = load_model(str(tiny_pair / "target"), dtype=torch.float32, what="target")
    draft = load_model(str(tiny_pair / "draft"), dtype=torch.float32, what="draft")
    tokenizer = load_tokenizer(str(tiny_pair / "target"))

    def noisy(size: float) -> PreTrainedModel:
        model = copy.deepcopy(target)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for weight in model.parameters():
                noise = torch.randn(weight.shape, generator=generator)
                weight.add_(size * weight.std() * noise)
        return model

    texts = [CODE[start : start + 24] for start in (0, 7, 19, 30)]
    prompts = [
        TinyPrompt(
            key=f"code.py:{number}",
            tokens=tuple(tokenizer.encode(text, add_special_tokens=False)),
            text=text,
            response=tuple(tokenizer.encode("one + two\n", add_special_tokens=False)),
        )
        for number, text in enumerate(texts)
    ]
    drafts = {"undistilled": draft, "distilled": noisy(0.03), "control": noisy(0.3)}
    return Setting(target, drafts, tokenizer, prompts)


@pytest.fixture(scope="session")
def tiny_suite() -> Suite:
    return Suite.model_validate(
        {
            "name": "tiny",
            "prompts": {"count": 4},
            "gammas": (1, 3),
            "temperatures": (0.0, 1.0),
            "max_new_tokens": 12,
            "noise_floor": False,
            "runner": {"kind": "eager"},
            "quality": str(Path(__file__).parents[1] / "eval" / "metrics" / "parses"),
        }
    )


@pytest.fixture(scope="session")
def measured(
    setting: Setting, tiny_suite: Suite, tmp_path_factory: pytest.TempPathFactory
) -> Measured:
    """One full evaluation; read-only by convention."""
    from distillspec.measure.evaluation import evaluate

    folder = tmp_path_factory.mktemp("evaluation")
    return Measured(tiny_suite, folder, evaluate(tiny_suite, folder=folder, **setting.arguments()))


# --- by hand -------------------------------------------------------------------------------------


def changed(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`values` with the changes; a number for an interval changes its estimate alone."""
    intervals = {name: value for name, value in values.items() if isinstance(value, Interval)}
    joined = {
        name: intervals[name]._replace(value=change) if isinstance(change, float) else change
        for name, change in changes.items()
        if name in intervals
    }
    return {**values, **changes, **joined}


def a_cell(draft: str, gamma: int, temperature: float, **changes: Any) -> Cell:
    values: dict[str, Any] = {
        "draft": draft,
        "method": "standard",
        "gamma": gamma,
        "temperature": temperature,
        "prompts": 24,
        "alpha": Interval(0.7, 0.65, 0.75),
        "alpha_argmax": Interval(0.6, 0.55, 0.65),
        "tau": Interval(2.2, 2.0, 2.4),
        "texts": 20,
        "expected_tau": Interval(2.2, 2.1, 2.3),
        "tau_iid": 2.19,
        "draft_acceptance": 0.6,
        "acceptance_by_position": [0.7 / (i + 1) for i in range(gamma)],
        "draft_steps": float(gamma),
        "draft_to_target_time": 0.1,
        "v": 1.1,
        "predicted_speedup": 1.7,
        "predicted_from_alpha": 1.68,
        "speedup": Interval(1.6, 1.5, 1.7),
        "speedup_with_prefill": 1.5,
        "measured_over_predicted": 0.94,
        "tokens_per_second": 400.0,
        "break_even_alpha": 0.1,
        "perfect_draft_cap": 4.0,
        "perfect_draft_gamma": 6,
        "repeated_ngram_share": 0.1 if temperature == 0.0 else None,
    }
    return Cell(**changed(values, changes))


def a_comparison(**changes: Any) -> DraftComparison:
    values: dict[str, Any] = {
        "quantity": "tau",
        "draft": "distilled",
        "against": "undistilled",
        "method": "standard",
        "gamma": 2,
        "temperature": 1.0,
        "prompts": 24,
        "value": 2.2,
        "against_value": 2.0,
        "difference": Interval(0.2, 0.1, 0.3),
        "relative": Interval(0.1, 0.05, 0.15),
        "verdict": "higher",
        "documents": 10,
    }
    return DraftComparison(**changed(values, changes))


def a_baseline(temperature: float, **changes: Any) -> Baseline:
    values: dict[str, Any] = {
        "temperature": temperature,
        "prompts": 24,
        "tokens_per_second": Interval(250.0, 240.0, 260.0),
        "prefill_seconds": 0.02,
        "target_step_seconds": 0.004,
        "step_spread": 0.05,
        "entropy_nats": 1.4,
        "after_end_share": 0.0,
        "repeated_ngram_share": 0.1 if temperature == 0.0 else None,
    }
    return Baseline(**changed(values, changes))


def a_recommendation(temperature: float | None, draft: str = "distilled") -> Recommendation:
    return Recommendation(
        draft, "standard", temperature, 4, Interval(1.6, 1.5, 1.7), "gamma 4: 1.60x [1.50, 1.70]"
    )


def a_place(**changes: Any) -> Ranked:
    values: dict[str, Any] = {
        "draft": "distilled",
        "method": "spectr",
        "gamma": 4,
        "temperature": 1.0,
        "tokens_per_second": 321.0,
        "tau": 3.4,
        "drafted_per_token": 9.5,
        "wasted_per_token": 8.75,
        "forwards_per_token": 0.29,
        "target_busy": float("nan"),
        "draft_busy": float("nan"),
        "relative": Interval(-0.125, -0.2, -0.05),
        "verdict": "slower",
    }
    return Ranked(**changed(values, changes))


def an_oracle(**changes: Any) -> Oracle:
    values: dict[str, Any] = {
        "draft": "distilled",
        "method": "standard",
        "gamma": 8,
        "temperature": 1.0,
        "tokens_per_second": 555.0,
        "tau": 3.1,
        "drafted_per_token": 0.68,
        "forwards_per_token": 0.32,
        "relative": Interval(0.25, 0.2, 0.3),
    }
    return Oracle(**changed(values, changes))


def a_regret(**changes: Any) -> Regret:
    values: dict[str, Any] = {
        "draft": "distilled",
        "method": "ucb<spec>",
        "temperature": 1.0,
        "quantity": "rounds",
        "arms": ["standard@2", "standard@4"],
        "untimed_arms": [],
        "best_arm": "standard@4",
        "chosen": 66.0,
        "best": 60.0,
        "mean": 72.0,
        "relative": Interval(0.1, 0.05, 0.15),
        "regret": [4.0, 5.0, 6.0],
        "mean_regret": [4.0, 8.0, 12.0],
    }
    return Regret(**changed(values, changes))


def a_category(draft: str, temperature: float, name: str, prompts: int) -> CategoryCell:
    few = prompts < FEW
    rates = (Interval(0.6, 0.5, 0.7), Interval(2.2, 2.0, 2.4), Interval(1.6, 1.5, 1.7))
    numbers = (NOTHING,) * 3 if few else rates
    place = (draft, "standard", 4, temperature)
    return CategoryCell(*place, name, prompts, 100, 60, 85, 25, *numbers)


def a_bin(draft: str, temperature: float, start: int, prompts: int) -> ContextBin:
    acceptance = NOTHING if prompts < FEW else Interval(0.6, 0.5, 0.7)
    place = (draft, "standard", 4, temperature)
    return ContextBin(*place, start, 2 * start, prompts, 25, 100, 60, acceptance)


@pytest.fixture
def by_hand() -> Summary:
    return summary_by_hand()


def summary_by_hand() -> Summary:
    """Three drafts, gamma 2 and 4, temperatures 0 and 1; texts that would break unescaped HTML."""
    drafts = ("undistilled", "distilled", "control")
    return Summary(
        suite="hand <made>",
        created="2026-01-01T00:00:00+00:00",
        prompts=24,
        texts=48,
        documents=20,
        text_documents=40,
        noise_floor=None,
        max_new_tokens=64,
        confidence=0.95,
        standard_methods=["standard"],
        cells=[
            a_cell(
                d,
                g,
                t,
                speedup=1.2 + 0.1 * g * (d == "distilled"),
                break_even_alpha=None if d == "control" else 0.1,
            )
            for d in drafts
            for t in (0.0, 1.0)
            for g in (2, 4)
        ],
        baseline=[a_baseline(0.0), a_baseline(1.0)],
        ranking=[],
        oracles=[],
        regrets=[],
        categories=[],
        contexts=[],
        comparisons=[
            a_comparison(),
            a_comparison(
                gamma=4,
                difference=Interval(0.2, -0.1, 0.3),
                relative=Interval(0.1, -0.05, 0.15),
                verdict="not tested",
            ),
            a_comparison(quantity="alpha", gamma=None, method=None),
            a_comparison(quantity="speed", value=400.0, against_value=360.0),
        ],
        recommendation=[a_recommendation(t) for t in (0.0, 1.0, None)],
        quality=[Quality("target alone", 0.0, "parses", 24, {"parses": 0.9, "judged": 20.0})],
        greedy_divergences=[GreedyDivergence("distilled", "standard", 4, "a&b.py", 7, 0.002)],
        examples=[
            Example(
                draft=d,
                method="standard",
                gamma=4,
                temperature=1.0,
                prompt_key="a&b.py:10",
                prompt="if a < b:\n",
                tau=2.0,
                verifications=2,
                pieces=[
                    Piece("    <b>", "accepted"),
                    Piece("\n", "corrected"),
                    Piece("x & y", "bonus"),
                ],
            )
            for d in ("undistilled", "distilled")
        ],
        notes=["No difference in tau is shown at any gamma.", "a < b & c"],
        cautions=["a < b & c"],
        environment={"command": ["python", "<script>"], "machine": {"cpu": "a cpu"}},
        definitions=dict(DEFINITIONS),
    )


@pytest.fixture
def several_methods(by_hand: Summary) -> Summary:
    """By name the first method is `adaedl`, and at T = 1 block verification is the fastest.

    The standard method was measured at gamma 2 and 4, the others, of the distilled draft, at 8.
    """

    def at(method: str, speedup: float, **changes: Any) -> list[Cell]:
        numbers = {"expected_tau": math.nan, "speedup": speedup, "method": method, **changes}
        return [a_cell("distilled", 8, t, **numbers) for t in (0.0, 1.0)]

    def advice(method: str, gamma: int, speedup: float) -> list[Recommendation]:
        at = (0.0, 1.0, None)
        return [
            Recommendation(
                "distilled", method, t, gamma, Interval(speedup, speedup - 0.1, speedup + 0.1), ""
            )
            for t in at
        ]

    return replace(
        by_hand,
        cells=[*at("adaedl", 1.11), *by_hand.cells, *at("block", 1.7)],
        recommendation=[
            *advice("adaedl", 8, 1.11), *advice("standard", 4, 1.6), *advice("block", 8, 1.7)
        ],
    )  # fmt: skip


@pytest.fixture
def broken_down(by_hand: Summary) -> Summary:
    """By category and context; a category and a bin with too few prompts."""
    both = [(draft, t) for draft in by_hand.drafts() for t in (0.0, 1.0)]
    names, bins = (("q & a", 20), ("rare", 3)), ((64, 20), (128, 24), (256, 2))
    return replace(
        by_hand,
        categories=[a_category(*one, name, count) for one in both for name, count in names],
        contexts=[a_bin(*one, start, count) for one in both for start, count in bins],
    )


@pytest.fixture
def tally() -> Tally:
    """Of the two prompts and two drafts of `two_prompts`."""
    return Tally(rows(), {("standard", 1.0): STEPS}, {1.0: FACTS}, CONFIDENCE, frozenset())
