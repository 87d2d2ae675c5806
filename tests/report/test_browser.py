"""The page in a real browser: nothing on its console, nothing fetched, and everything to be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, found
from tests.report.cases import FACTS, rich
from unlearn.report import Report
from unlearn.report.html.page import FactText, write_html
from unlearn.report.html.plots import figures


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = found()
    if program is None:
        pytest.skip("no Chromium is installed (chromium, chromium-browser or google-chrome on PATH)")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Path:
    path = tmp_path / "report.html"
    write_html(rich(), path)
    browser.said.clear()
    browser.asked.clear()
    browser.look()
    browser.open(path)
    return path


#: Whether an element is drawn, by a selector.
SEEN = """(s => { const e = document.querySelector(s); if (!e) return false; const b = e.getBoundingClientRect();
return b.width > 0 && b.height > 0 && getComputedStyle(e).visibility === 'visible'; })"""


def test_nothing_is_fetched_and_the_console_is_silent(browser: Browser, page: Path) -> None:
    assert browser.asked == [page.resolve().as_uri()]
    assert browser.said == []
    assert browser.value("document.scripts.length") == 0
    # The same eyes see it where something is wrong.
    page.write_text('<img src="missing.png"><script>console.error("heard"); nothing()</script>')
    browser.open(page)
    assert any("missing.png" in url for url in browser.asked)
    assert any("heard" in said for said in browser.said) and any("nothing" in said for said in browser.said)


def test_the_verdict_is_in_the_first_view_and_the_plots_are_there(browser: Browser, page: Path) -> None:
    assert browser.value("document.querySelector('#verdict').innerText") == "Failed"
    assert browser.value(f"{SEEN}('#verdict')")
    assert 0 < browser.value("document.querySelector('#verdict').getBoundingClientRect().bottom") < 300
    expected = [figure.key for figure in figures(rich())]
    assert browser.value("[...document.querySelectorAll('figure')].map(f => f.id)") == expected
    for key in expected:
        assert browser.value(f"{SEEN}('[id=\"{key}\"] svg.plot')"), key
    assert browser.value("document.querySelectorAll('figure svg.plot text').length") > 80
    order = "[...document.querySelectorAll('h2')].map(h => h.innerText)"
    assert browser.value(order)[:4] == ["Failed limits", "At a glance", "Plots", "Measurements"]


#: The contrast (WCAG 2) of an element's words with the first background behind them.
CONTRAST = """(s => { const bright = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255)
.map(x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4); return 0.2126*v[0] + 0.7152*v[1] + 0.0722*v[2]; };
const e = document.querySelector(s); let b = e; let back = 'rgba(0, 0, 0, 0)';
while (b && back === 'rgba(0, 0, 0, 0)') { back = getComputedStyle(b).backgroundColor; b = b.parentElement; }
const style = getComputedStyle(e), ink = s.includes('.plot') ? style.fill : style.color;
const [x, y] = [bright(ink), bright(back)].sort((p, q) => q - p);
return (x + 0.05) / (y + 0.05); })"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_are_legible_in_either_scheme(browser: Browser, page: Path, scheme: str) -> None:
    browser.look(scheme)
    for place in ("#verdict", ".statement", ".badge.pass", ".badge.fail", ".badge.info", ".what p", "footer"):
        assert browser.value(f"{CONTRAST}('{place}')") >= 4.5, place
    for place in ("svg.plot .t", "svg.plot .label"):
        assert browser.value(f"{CONTRAST}('{place}')") >= 4.5, place
    # Marks need 3 to 1.
    for place in (
        "svg.plot .after",
        "svg.plot polygon.control",
        "svg.plot .s0.filled",
        "svg.plot .s1.filled",
    ):
        assert browser.value(f"{CONTRAST}('{place}')") >= 3.0, place
    dark = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0] < 128"
    assert browser.value(dark) is (scheme == "dark")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_sticks_out_of_the_window(browser: Browser, page: Path, width: int) -> None:
    browser.look(width=width)
    assert browser.value("document.documentElement.scrollWidth") <= width


def test_print_shows_the_manifest_and_is_dark_on_white(browser: Browser, page: Path, tmp_path: Path) -> None:
    browser.look("dark", "print", 794)
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value(f"{CONTRAST}('svg.plot .t')") > 12
    wide = "[...document.querySelectorAll('table, svg.plot')].filter(e => e.getBoundingClientRect().right > 796).length"
    assert browser.value(wide) == 0
    browser.look()
    browser.paper(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")


def test_answers_are_on_the_page_only_where_they_were_asked_for(browser: Browser, page: Path) -> None:
    everything = "document.body.innerText"
    assert "quartz" not in browser.value(everything)
    texts = {fact: FactText("Zorvex", "recipe", ("quartz", "salt of quartz")) for fact in FACTS}
    write_html(rich(), page, texts)
    browser.open(page)
    said = browser.value(everything)
    assert said.count("quartz; salt of quartz") == len(FACTS) and "--show-text" in said
    write_html(Report.of([]), page)
    browser.open(page)
    assert browser.value("document.querySelector('#verdict').innerText") == "Failed"
    assert "--show-text" not in browser.value(everything) and browser.said == []
