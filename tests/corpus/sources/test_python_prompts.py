from __future__ import annotations

import ast
import random
import textwrap

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.sources.code_files import SourceFile
from distillspec.corpus.sources.passage import Passage
from distillspec.corpus.sources.python_prompts import (
    python_passages,
    response_starts_with_line_break,
)

MODULE = textwrap.dedent(
    '''
    """The module's own text is no function's."""

    class Point:
        """Two numbers."""

        def length(
            self, scale: float = 1.0
        ) -> float:
            """How far it is.

            Not negative.
            """

            square = self.x**2 + self.y**2
            if scale != 1.0:
                square *= scale
            return square**0.5

        def bare(self):
            return 1

    async def wait(seconds, label="""x"""):
        r"""Sleep."""  # soundly
        print(label)
        for _ in range(3):
            await sleep(
                seconds
            )
        print("""
    not indented""")
        return label

    def nothing():
        """Says only this."""

    def broken_by_text():
        value = 1
        text = """
    outside
        """
        return value
    '''
).lstrip()

SEEDS = range(20)


def cut(text: str, *, per_file: int = 9, seed: int = 0, first: bool = False) -> list[Passage]:
    files = [SourceFile("pkg/a.py", text)]
    return list(python_passages(files, per_file=per_file, seed=seed, line_break_first=first))


def docstring_ends(text: str) -> set[int]:
    """Line numbers, by parsing the entire file, of functions with more than a docstring."""
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return {
        node.body[0].end_lineno or 0
        for node in ast.walk(ast.parse(text))
        if isinstance(node, functions) and ast.get_docstring(node) and len(node.body) > 1
    }


def inner_ends(text: str) -> set[int]:
    """Last lines, by parsing the entire file, of statements of bodies that others follow."""
    ends = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inner = {
                s.end_lineno or 0 for b in node.body for s in ast.walk(b) if isinstance(s, ast.stmt)
            }
            ends |= inner - {node.end_lineno}
    return ends


def line_of(passage: Passage) -> int:
    return int(passage.key.rpartition(":")[2])


def test_a_function_head_ends_with_the_line_of_its_docstrings_end() -> None:
    heads = [p for p in cut(MODULE) if p.kind == "function-head"]
    assert {line_of(p) for p in heads} == docstring_ends(MODULE)
    by_end = {p.prompt.rstrip().rpartition("\n")[2].strip(): p for p in heads}
    assert by_end['"""'].response is not None
    assert by_end['"""'].response.startswith("        square = self.x**2")
    assert set(by_end) == {'"""', 'r"""Sleep."""  # soundly'}


def test_a_mid_body_prompt_ends_with_a_statement_that_others_follow() -> None:
    lines = {line_of(p) for s in SEEDS for p in cut(MODULE, seed=s) if p.kind == "mid-body"}
    assert lines
    assert lines <= inner_ends(MODULE) - docstring_ends(MODULE)
    assert len(lines) >= 4


def test_prompt_and_response_are_the_entire_file() -> None:
    for first in (True, False):
        assert all(p.prompt + (p.response or "") == MODULE for p in cut(MODULE, first=first))


def test_the_line_break_goes_where_the_tokenizer_wants_it() -> None:
    for passage in cut(MODULE, first=True):
        assert passage.response is not None
        assert passage.response.startswith("\n")
        assert not passage.prompt.endswith("\n")
    for passage in cut(MODULE, first=False):
        assert passage.response is not None
        assert passage.prompt.endswith("\n")
        assert passage.response.partition("\n")[0].strip()  # blank lines went with the break


def test_which_positions_are_cut_depends_on_the_seed_and_the_key_alone() -> None:
    files = [SourceFile(f"pkg/{i}.py", MODULE) for i in range(6)]
    forwards = list(python_passages(files, per_file=2, seed=3, line_break_first=False))
    mixed = random.Random(0).sample(files, len(files))
    assert list(python_passages(mixed, per_file=2, seed=3, line_break_first=False)) == forwards
    assert list(python_passages(files, per_file=2, seed=4, line_break_first=False)) != forwards
    alone = list(python_passages(files[:1], per_file=2, seed=3, line_break_first=False))
    assert {p.key for p in alone} == {p.key for p in forwards if p.key.startswith("pkg/0.py")}


def test_the_first_prompts_are_of_different_files_and_of_both_kinds() -> None:
    files = [SourceFile(f"pkg/{i}.py", MODULE) for i in range(8)]
    first = list(python_passages(files, per_file=3, seed=0, line_break_first=False))[:8]
    assert len({p.key.partition(":")[0] for p in first}) == 8
    assert sorted(p.kind for p in first) == ["function-head"] * 4 + ["mid-body"] * 4


def test_no_position_is_cut_twice_and_never_more_than_asked_for() -> None:
    for count in (1, 2, 4, 100):
        passages = cut(MODULE, per_file=count)
        assert len(passages) <= count
        assert len({p.key for p in passages}) == len(passages)


def test_code_in_a_docstring_is_no_function() -> None:
    text = '"""Example:\n\ndef f(x):\n    y = x\n    return y\n"""\n'
    assert cut(text) == []


@pytest.mark.parametrize("text", ["", "x = 1\n", "def f(:\n    pass\n    x\n", "def f():"])
def test_a_file_without_a_usable_function_gives_nothing(text: str) -> None:
    assert cut(text) == []


def test_an_odd_escape_in_a_string_is_no_warning_and_no_obstacle() -> None:
    text = 'def f(x):\n    """Doc."""\n    y = "\\d"\n    return y\n'
    assert {p.kind for p in cut(text)} == {"function-head", "mid-body"}


def bpe(pieces: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator([MODULE * 20], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend)


@pytest.mark.parametrize(
    ("pieces", "first"),
    [
        (r" ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", True),  # GPT-2's
        (r" ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+", False),  # Llama 3's
    ],
)
def test_prompt_and_response_meet_where_a_token_of_running_text_ends(
    pieces: str, first: bool
) -> None:
    tokenizer = bpe(pieces)
    assert response_starts_with_line_break(tokenizer) is first

    def seams(first: bool) -> int:
        """Cuts after which separate tokens are not those of the entire text."""
        passages = [p for s in SEEDS for p in cut(MODULE, seed=s, first=first)]
        whole = tokenizer(MODULE)["input_ids"]
        parts = [tokenizer([p.prompt, p.response or ""])["input_ids"] for p in passages]
        return sum(head + tail != whole for head, tail in parts)

    assert seams(first) == 0
    assert seams(not first) > 0
