"""The style sheet stands alone."""

from __future__ import annotations

import re

from distillspec.measure.timed.rows import FATES
from distillspec.report.style import STYLE


def test_nothing_is_fetched() -> None:
    assert not re.search(r"url\(|@import|https?:", STYLE)


def test_each_fate_of_a_speculated_token_has_a_colour() -> None:
    for fate in set(FATES.values()) - {"plain"}:
        assert f".piece.{fate} {{" in STYLE
        assert STYLE.count(f"--{fate}:") == 2


def test_every_colour_of_the_dark_page_has_its_light_one() -> None:
    light, dark = (set(re.findall(r"(--\w+):", part)) for part in STYLE.split("@media (prefers", 1))
    assert dark <= light
