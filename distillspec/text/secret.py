"""What looks like a secret is not repeated: in commands, errors and tracebacks."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

HIDDEN = "***"
# Words of an option's name; `tokens` (plural) is a count in this field, never a secret.
_WORDS = {"token", "secret", "password", "passwd", "credential", "credentials", "apikey"}
_WORDS |= {"authorization", "bearer"}
_PAIRS = {("api", "key"), ("access", "key"), ("private", "key"), ("secret", "key")}
_SHAPES = re.compile(
    r"(?<![A-Za-z0-9])(?:hf_[A-Za-z0-9]{8,}|api_org_[A-Za-z0-9]{8,}|gh[opsur]_[A-Za-z0-9]{8,}"
    r"|github_pat_\w{8,}|sk-[\w-]{8,})"
    r"|(?<=://)[^/\s@]+(?=@)"
    r"|(?<=[Bb]earer )[^\s'\"]{8,}"
)
_SHORTEST = 8  # characters: shorter values of variables are words, such as `none`


def masked(text: str) -> str:
    """`text` without known shapes of tokens and without the logins in its URLs."""
    return _SHAPES.sub(HIDDEN, text)


def masked_values(text: str, command: Sequence[str] = ()) -> str:
    """`masked`, without the values of secret options in `command` and of secret variables.

    For what is printed last, such as a traceback: its text may come from any library.
    """
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST and (names_a_secret(name) or name.lower().endswith("_key"))
    }
    values |= {v for v in _secret_values(command) if len(v) >= _SHORTEST}
    # Longest first, because one value may contain another.
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return masked(text)


def without_secrets(command: Sequence[str]) -> tuple[str, ...]:
    """The command with the values of secret options, known token shapes and URL logins hidden."""
    shown: list[str] = []
    hide_next = False
    for word in command:
        name, equals, _ = word.partition("=")
        if hide_next:
            word = HIDDEN
        elif equals and names_a_secret(name):
            word = f"{name}={HIDDEN}"
        hide_next = not equals and not hide_next and word.startswith("-") and names_a_secret(word)
        shown.append(masked(word))
    return tuple(shown)


def names_a_secret(name: str) -> bool:
    """Whether an option, a key or a variable of this name holds a secret."""
    # Only what follows the last dot: `section.key=value` overrides are named by their key.
    words = re.split(r"[_-]+", name.lower().rsplit(".", 1)[-1].strip("-_"))
    return words[-1] in _WORDS or tuple(words[-2:]) in _PAIRS


def _secret_values(command: Sequence[str]) -> set[str]:
    """The values that `without_secrets` hides because of their option's name."""
    hidden = without_secrets(command)
    changed = [(w, h) for w, h in zip(command, hidden, strict=True) if w != h and HIDDEN in h]
    return {
        word.partition("=")[2] if shown.endswith(f"={HIDDEN}") else word for word, shown in changed
    }
