from __future__ import annotations

import io

import pytest
from transformers import PreTrainedTokenizerFast

from distillspec.corpus.batches.batching import Batch, collate
from distillspec.corpus.batches.preview import coloured_preview, parts, plain_preview, show
from distillspec.runtime.terminal import Terminal


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerFast) -> Batch:
    def ids(text: str) -> list[int]:
        return list(tokenizer(text)["input_ids"])

    return collate([(ids("ask [x]"), [*ids("say"), 0]), (ids("a"), ids("a longer one"))], 0)


def test_what_is_shown_is_what_the_masks_say(
    batch: Batch, tokenizer: PreTrainedTokenizerFast
) -> None:
    first, second = parts(batch, tokenizer)
    assert [(p.text, p.tokens, p.in_loss) for p in first] == [
        ("ask [x]", 7, False),
        ("say<|endoftext|>", 4, True),
    ]
    assert [p.text for p in second] == ["a", "a longer one"]
    wrong = batch._replace(is_response=batch.is_token)  # a mask that is one part off is seen
    assert [p.in_loss for p in parts(wrong, tokenizer)[0]] == [True]


def test_the_plain_form_marks_what_is_in_the_loss(
    batch: Batch, tokenizer: PreTrainedTokenizerFast
) -> None:
    text = plain_preview(batch, tokenizer)
    assert "row 1: 7 tokens masked, 4 tokens in the loss" in text
    assert "ask [x]>>>say<|endoftext|><<<" in text


def test_terminals_get_dim_and_bright_text_and_files_get_markers(
    batch: Batch, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    styles = {span.style for span in coloured_preview(batch, tokenizer).spans}
    assert {"dim", "bold green"} <= styles
    terminal, file = io.StringIO(), io.StringIO()
    show(batch, tokenizer, Terminal(file=terminal, force_terminal=True))
    show(batch, tokenizer, Terminal(file=file, force_terminal=False))
    assert "\x1b[2mask [x]" in terminal.getvalue()
    assert ">>>" not in terminal.getvalue()
    assert file.getvalue() == plain_preview(batch, tokenizer) + "\n"


def test_of_long_rows_the_lines_around_the_first_token_in_the_loss_are_shown(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    prompt, answer = ("\n".join(f"{word} {i}" for i in range(100)) for word in ("line", "word"))
    row = list(tokenizer(prompt)["input_ids"]), list(tokenizer(answer)["input_ids"])
    text = plain_preview(collate([row], 0), tokenizer)
    assert "[... 94 lines ...] line 94" in text
    assert "line 99>>>word 0↵<<<" in text
    assert ">>>word 5↵<<< [... 94 lines ...]" in text
    assert "line 50" not in text


@pytest.mark.parametrize("rows", [1, 2, 3, 4])
def test_a_preview_has_at_most_twelve_lines(rows: int, tokenizer: PreTrainedTokenizerFast) -> None:
    text = "\n".join(f"line {i} {'x' * 500}" for i in range(40))
    ids = list(tokenizer(text)["input_ids"])
    batch = collate([(ids, ids)] * rows, 0)
    for shown in (plain_preview(batch, tokenizer), coloured_preview(batch, tokenizer).plain):
        assert shown.count("--- row") == rows
        assert len(shown.splitlines()) <= 12
        assert max(map(len, shown.splitlines())) < 250
