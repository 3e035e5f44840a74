"""Text that came from outside (data, prompts, answers, errors), made safe for a terminal."""

from __future__ import annotations

import re
import sys
from typing import IO

# Everything that moves, colours, reorders or hides what a terminal shows: C0 but tab and newline,
# DEL, C1, soft hyphen, bidirectional controls, zero-width and other invisible formatters, line and
# paragraph separators, tags; and halves of surrogate pairs, which no stream can encode. The joiners
# U+200C and U+200D stay: Persian, Indic scripts and emoji are written with them.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
    "\ud800-\udfff]"
)


def visible(text: str, *, one_line: bool = False) -> str:
    r"""Text in which control characters are written as escapes, such as `\x1b` or `\u202e`.

    Args:
        text: Any text; it may hold halves of surrogate pairs.
        one_line: Whether newlines and tabs are escaped too. Without it they are kept.

    Returns:
        Text that every terminal shows in the order of its characters; unchanged if it held none.
    """
    shown = _HIDDEN.sub(_escape, text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(text: str, file: IO[str] | None = None) -> None:
    """Print a block of text that may hold foreign text; the place of every plain `print`."""
    print(visible(text), file=sys.stdout if file is None else file, flush=True)
