"""Tables of the report's page; everything foreign is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def table(
    columns: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, words: int = 1
) -> str:
    """rows: (class, cells). The first `words` columns are text, the others numbers."""
    kind = ["" if i < words else ' class="n"' for i in range(len(columns))]
    head = "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kind, columns, strict=True))
    body = "".join(
        f'<tr class="{escape(style)}">'
        + "".join(f"<td{k}>{escape(c)}</td>" for k, c in zip(kind, cells, strict=True))
        + "</tr>"
        for style, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
