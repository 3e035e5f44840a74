"""How wide the rows of a table are."""

from __future__ import annotations

from html.parser import HTMLParser


class Columns(HTMLParser):
    """How many cells each row of a table has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.counts: list[int] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.counts.append(0)
        elif tag in ("td", "th"):
            self.counts[-1] += 1
