"""Exact match of completions with references, up to white space; for the `evaluate` library.

Whole text, and first line: the usual measure for code completed line by line, where a reference
continues long after the completion was cut.
"""

import datasets
import evaluate


def squeezed(text: str) -> str:
    return " ".join(text.split())


def first_line(text: str) -> str:
    """The first line that holds anything, or an empty string."""
    return next((squeezed(line) for line in text.splitlines() if line.strip()), "")


class ExactMatchText(evaluate.Metric):
    """exact_match: shares of completions equal to their reference; _line: in the first line."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="predictions, references: strings",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.Value("string"),
                }
            ),
        )

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        whole = sum(squeezed(one) == squeezed(other) for one, other in pairs)
        line = sum(first_line(one) == first_line(other) for one, other in pairs)
        return {
            "exact_match": whole / len(pairs),
            "exact_match_line": line / len(pairs),
            "judged": len(pairs),
        }
