"""report.html: self-contained, well-formed, complete."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest

from distillspec.errors import DistillSpecError
from distillspec.measure.summary.file import write_summary
from distillspec.measure.summary.records import Summary
from distillspec.measure.timed.audit import append
from distillspec.measure.timed.rows import FATES
from distillspec.report.page import render, write_report
from distillspec.report.payback import Cost
from tests.measure.timed.test_audit import a_round
from tests.measured import a_place, a_regret, summary_by_hand

CSS = files("distillspec.report").joinpath("templates/style.css").read_text(encoding="utf-8")
VOID = {"meta", "img", "source", "link", "br"}


class Balance(HTMLParser):
    """Raises unless every element is closed by its own tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("page")
    write_summary(summary_by_hand(), folder / "summary.json")
    log = folder / "metrics.csv"
    log.write_text("step,train/divergence_nats,probe/alpha\n1,2.0,\n2,1.0,0.5\n")
    path = write_report(folder, {"distilled": log, "control": folder / "absent.csv"})
    assert path == folder / "report.html"
    assert len(list((folder / "figures").glob("*.png"))) == 12
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(page: str) -> None:
    links = re.findall(r'(?:src|srcset|href)="([^"]{0,30})', page)
    assert links
    assert all(link.startswith("data:image/png;base64,") for link in links)
    assert "<script" not in page
    assert not re.search(r"https?://", page)


def test_every_element_is_closed(page: str) -> None:
    Balance(page)


def test_the_page_shows_all_that_was_promised(page: str) -> None:
    for title in (
        "Findings",
        "Measured speed-up over autoregressive decoding",
        "Tokens per target forward, and acceptance",
        "Acceptance by position in the block",
        "What distillation changed",
        "Training",
        "What it looks like",
        "All cells",
        "Definitions",
        "Environment",
    ):
        assert f"<h2>{title}</h2>" in page
    assert page.count("<picture>") == 6
    assert page.count("prefers-color-scheme: dark") >= 7


def test_names_are_escaped_and_findings_stand_in_words(page: str) -> None:
    assert "hand &lt;made&gt;" in page
    assert "<li>No difference in tau is shown at any gamma.</li>" in page
    assert "a &lt; b &amp; c" in page


def test_five_findings_are_shown_and_the_others_folded(by_hand: Summary) -> None:
    html = render(replace(by_hand, notes=[f"finding {n}" for n in range(7)]), {})
    Balance(html)
    shown, folded = html.split("<summary>2 more findings</summary>")
    assert shown.count("<li>finding ") == 5
    assert folded.count("<li>finding ") == 2


def test_cautions_are_never_folded(by_hand: Summary) -> None:
    notes = [*(f"finding {n}" for n in range(7)), "be careful"]
    html = render(replace(by_hand, notes=notes, cautions=["be careful"]), {})
    Balance(html)
    shown, folded = html.split("<summary>2 more findings</summary>")
    assert "<h3>Cautions</h3>" in shown and "<li>be careful</li>" in shown
    assert "be careful" not in folded


def test_the_cost_of_distilling_is_on_the_page_where_it_is_known(
    by_hand: Summary, tmp_path: Path
) -> None:
    write_summary(by_hand, tmp_path / "summary.json")
    assert "<h2>Cost</h2>" not in write_report(tmp_path, {}).read_text(encoding="utf-8")
    page = write_report(tmp_path, {}, Cost(1800.0, 1800.0, 1), 2.5).read_text(encoding="utf-8")
    Balance(page)
    assert "<h2>Cost</h2>" in page
    assert "Distilling took 1:00:00" in page and "it cost 2.50." in page


def test_sections_without_content_are_left_out(by_hand: Summary) -> None:
    fields = {**vars(by_hand), "comparisons": [], "examples": [], "quality": []}
    html = render(Summary(**{**fields, "greedy_divergences": []}), {})
    Balance(html)
    for title in ("Drafts compared", "What it looks like", "Task quality", "greedy texts"):
        assert title not in html


def test_methods_stand_in_the_order_of_their_speed(by_hand: Summary) -> None:
    html = render(Summary(**{**vars(by_hand), "ranking": [a_place(), a_place(gamma=8)]}), {})
    Balance(html)
    assert html.count(">spectr<") == 2
    assert "<h2>Methods by speed</h2>" in html
    assert "Methods by speed" not in render(by_hand, {})


def test_what_chose_stands_against_its_arms_with_its_figures(
    by_hand: Summary, tmp_path: Path
) -> None:
    choosing = replace(by_hand, regrets=[a_regret(), a_regret(quantity="seconds")])
    write_summary(choosing, tmp_path / "summary.json")
    arms = ["standard@2", "standard@4"] * 20
    append(tmp_path / "audit.jsonl", [a_round(round=i, arm=arm) for i, arm in enumerate(arms)])
    html = write_report(tmp_path, {}).read_text(encoding="utf-8")
    Balance(html)
    for title in ("Choosers against their arms", "Regret", "Who decoded", "How unsure the draft"):
        assert f"<h2>{title}" in html
    assert "ucb&lt;spec&gt;" in html
    (tmp_path / "audit.jsonl").unlink()
    html = write_report(tmp_path, {}).read_text(encoding="utf-8")
    assert "<h2>Regret</h2>" in html
    assert "Who decoded" not in html


def test_a_broken_audit_is_the_users_error(by_hand: Summary, tmp_path: Path) -> None:
    write_summary(by_hand, tmp_path / "summary.json")
    (tmp_path / "audit.jsonl").write_text("{}\n")
    with pytest.raises(DistillSpecError, match="a round of this audit cannot be read"):
        write_report(tmp_path, {})


def test_a_folder_without_a_summary_is_the_users_error(tmp_path: Path) -> None:
    with pytest.raises(DistillSpecError, match="the summary of an evaluation cannot be read"):
        write_report(tmp_path, {})


def test_categories_and_contexts_have_their_place(
    by_hand: Summary, broken_down: Summary, tmp_path: Path
) -> None:
    assert "By category" not in render(by_hand, {})
    write_summary(broken_down, tmp_path / "summary.json")
    html = write_report(tmp_path, {}).read_text(encoding="utf-8")
    Balance(html)
    for title in ("By category", "Acceptance by position in the context"):
        assert f"<h2>{title}</h2>" in html


def test_what_others_wrote_is_escaped(page: str) -> None:
    assert "<b>" not in page
    assert "<script>" not in page
    assert "&lt;b&gt;" in page
    assert "x &amp; y" in page
    assert "<td>a&amp;b.py</td>" in page


def test_tokens_carry_their_fate_and_line_breaks_stay_visible(page: str) -> None:
    for fate in ("accepted", "corrected", "bonus"):
        assert f'<span class="piece {fate}" title="{fate}">' in page
    assert '<span class="break">↵</span>\n' in page


def test_drafts_of_an_example_stand_before_and_after(by_hand: Summary) -> None:
    text = render(replace(by_hand, examples=list(reversed(by_hand.examples))), {})
    assert text.index("undistilled, standard:") < text.index(">distilled, standard:")


# --- the style sheet ------------------------------------------------------------------------------


def test_the_style_sheet_loads_nothing() -> None:
    assert not re.search(r"url\(|@import|https?:", CSS)


def test_each_fate_of_a_speculated_token_has_a_colour() -> None:
    for fate in set(FATES.values()) - {"plain"}:
        assert f".piece.{fate} {{" in CSS
        assert CSS.count(f"--{fate}:") == 2


def test_every_colour_of_the_dark_page_has_its_light_one() -> None:
    light, dark = (set(re.findall(r"(--\w+):", part)) for part in CSS.split("@media (prefers", 1))
    assert dark <= light
