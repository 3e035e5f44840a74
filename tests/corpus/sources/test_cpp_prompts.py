from __future__ import annotations

import textwrap

import pytest

from distillspec.corpus.sources.code_files import SourceFile
from distillspec.corpus.sources.cpp_prompts import cpp_passages
from distillspec.corpus.sources.passage import Passage

HEADER = textwrap.dedent(
    """\
    #pragma once
    int before;

    namespace space {

    // a comment with { and ;
    struct Point {
      int x = '}';

      const char* text = "{;";
      /* several lines {
         of text; */
      int sum() const {
        return x + 1'000;
      }
    };
    }
    int after;
    """
)


def cuts(text: str, count: int = 20, *, line_break_first: bool = True) -> list[Passage]:
    files = [SourceFile("pkg/a.h", text)]
    return list(cpp_passages(files, per_file=count, seed=0, line_break_first=line_break_first))


def test_prompts_end_with_lines_of_code_inside_braces() -> None:
    last = sorted(passage.prompt.splitlines()[-1].strip() for passage in cuts(HEADER))
    assert last == sorted(
        [
            "namespace space {",
            "struct Point {",
            "int x = '}';",
            'const char* text = "{;";',
            "int sum() const {",
            "return x + 1'000;",
            "}",
            "};",
        ]
    )


def test_prompt_and_response_make_up_the_file() -> None:
    for line_break_first in (True, False):
        for passage in cuts(HEADER, line_break_first=line_break_first):
            assert passage.response is not None
            assert passage.prompt + passage.response == HEADER
            assert passage.response.startswith("\n") == line_break_first


def test_the_key_names_the_last_line_of_the_prompt() -> None:
    for passage in cuts(HEADER):
        assert passage.key == f"pkg/a.h:{len(passage.prompt.splitlines())}"
        assert passage.document == "pkg/a.h"


def test_each_file_gives_a_passage_before_any_gives_a_second() -> None:
    files = [SourceFile(f"pkg/{i}.h", HEADER) for i in range(5)]
    passages = list(cpp_passages(files, per_file=2, seed=1, line_break_first=True))
    documents = [passage.document for passage in passages]
    assert len(set(documents[:5])) == len(set(documents[5:])) == 5
    assert documents != sorted(documents)
    again = list(cpp_passages(files[::-1], per_file=2, seed=1, line_break_first=True))
    assert [passage.key for passage in again] == [passage.key for passage in passages]


@pytest.mark.parametrize("text", ["", "int x;\n", "// { ;\n", '"{"\n;\n'])
def test_a_file_without_a_body_gives_none(text: str) -> None:
    assert not cuts(text)


def test_raw_strings_are_no_code() -> None:
    text = 'void f() {\n  auto s = R"x(\n}; {\n)x";\n  g();\n}\nint y;\n'
    assert {p.prompt.splitlines()[-1].strip() for p in cuts(text)} == {"void f() {", ')x";', "g();"}


def test_braces_of_other_literals_and_of_both_branches_do_not_count() -> None:
    text = "auto c = u8'{';\nint x;\n}\n}\nvoid f() {\n  g();\n}\nint y;\n"
    assert {p.prompt.splitlines()[-1].strip() for p in cuts(text)} == {"void f() {", "g();"}
