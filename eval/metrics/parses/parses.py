"""Share of code completions that keep the program parseable; for the `evaluate` library.

A completion is cut at a token limit, so whole programs cannot be asked for: prompt + completion,
without its last unfinished line, must be a *valid beginning* of some Python program. CPython's own
parser decides: it tells "incomplete input" from a syntax error (the flag behind `codeop`).
"""

import ast
import warnings

import datasets
import evaluate

_INCOMPLETE_INPUT = 0x4000  # PyCF_ALLOW_INCOMPLETE_INPUT, Include/cpython/compile.h
_NO_IMPLIED_DEDENT = 0x0200  # PyCF_DONT_IMPLY_DEDENT
_FLAGS = ast.PyCF_ONLY_AST | _INCOMPLETE_INPUT | _NO_IMPLIED_DEDENT


def is_valid_beginning(source: str) -> bool:
    """Whether `source`, whole lines, could be continued to a module that parses."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SyntaxWarning: invalid escapes in the judged text
            compile(source, "<completion>", "exec", _FLAGS, dont_inherit=True)
    except SyntaxError as error:
        return "incomplete input" in str(error)
    except (ValueError, MemoryError, RecursionError):
        return False
    return True


def opened(line: str) -> str:
    """`if 1:` blocks that make an indented first line legal (prompts may start inside a file)."""
    indent = len(line) - len(line.lstrip(" "))
    return "".join(" " * width + "if 1:\n" for width in range(0, indent, 4))


def judge(prompt: str, completion: str, finished: bool) -> bool | None:
    """True, False, or None where there is nothing to judge.

    None: the completion ends within its first line, or the prompt itself cannot be parsed from any
    of its lines on.
    """
    text = prompt + completion
    whole = text if finished else text[: text.rfind("\n") + 1]
    if len(whole) <= len(prompt):
        return None
    first_break = text.find("\n", len(prompt))
    if not finished and first_break < 0:
        return None
    known = prompt[: prompt.rfind("\n") + 1]
    starts = [0] + [at + 1 for at, letter in enumerate(known) if letter == "\n"]
    for start in starts:
        head = opened(text[start:].partition("\n")[0])
        if is_valid_beginning(head + known[start:]):
            return is_valid_beginning(head + whole[start:])
    return None


class Parses(evaluate.Metric):
    """parses: share of the judged completions that parse; judged: how many were."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=__doc__,
            citation="",
            inputs_description="prompts, predictions: strings; finished: whether the text ended",
            features=datasets.Features(
                {
                    "prompts": datasets.Value("string"),
                    "predictions": datasets.Value("string"),
                    "finished": datasets.Value("bool"),
                }
            ),
        )

    def _compute(
        self, prompts: list[str], predictions: list[str], finished: list[bool]
    ) -> dict[str, float]:
        verdicts = [
            judge(prompt, completion, done)
            for prompt, completion, done in zip(prompts, predictions, finished, strict=True)
        ]
        judged = [verdict for verdict in verdicts if verdict is not None]
        share = sum(judged) / len(judged) if judged else float("nan")
        return {"parses": share, "judged": len(judged)}
