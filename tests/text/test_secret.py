from __future__ import annotations

import pytest

from distillspec.text.secret import masked, masked_values, without_secrets


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["--token", "abc"], ("--token", "***")),
        (["--hf-token=abc"], ("--hf-token=***",)),
        (["HF_TOKEN=abc"], ("HF_TOKEN=***",)),
        (["export.api_key=abc"], ("export.api_key=***",)),
        (["--password", "--odd"], ("--password", "***")),
        (["a=hf_abcdefgh1234"], ("a=***",)),
        (["https://user:secret@host/x"], ("https://***@host/x",)),
        (["ghp_abcdefgh1234"], ("***",)),
    ],
)
def test_a_secret_is_hidden(command: list[str], shown: tuple[str, ...]) -> None:
    assert without_secrets(command) == shown


@pytest.mark.parametrize(
    "command",
    [
        ("distill.chunk_tokens=1024",),
        ("--max-new-tokens", "48"),
        ("export.num_assistant_tokens=5",),
        ("train", "recipes/nano-python.yaml", "seed=1"),
        ("token", "ring"),
        ("hf_ok",),
    ],
)
def test_what_is_no_secret_stays(command: tuple[str, ...]) -> None:
    assert without_secrets(command) == command


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("refused: sk-CANARYkeyCANARY0987654321.", "refused: ***."),
        ("at https://user:pass@host/v1", "at https://***@host/v1"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("task-specific-things of hf_ok", "task-specific-things of hf_ok"),
    ],
)
def test_shapes_of_secrets_are_hidden_within_texts(text: str, shown: str) -> None:
    assert masked(text) == shown


def test_values_of_options_and_variables_are_hidden_in_what_is_printed_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", "plain-looking-key")
    monkeypatch.setenv("A_TOKEN", "none")  # too short to be a secret, and an ordinary word
    shown = masked_values(
        "none: plain-looking-key, swordfish99, opensesame",
        ["x", "--password", "swordfish99", "pair.token=opensesame"],
    )
    assert shown == "none: ***, ***, ***"
