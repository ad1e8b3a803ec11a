"""The book on people's screens: every page in a real browser, on a desk and on a phone, light and dark."""

import re
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = re.findall(r"(?:file|root): book/(\S+)", (ROOT / "_toc.yml").read_text())
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
QUIET += ["--disable-component-update", "--disable-sync"]
DESK, PHONE = 1_300, 390
AXE = (Path(find_spec("axe_playwright_python").origin).parent / "axe.min.js").read_text(encoding="utf-8")
# What the theme writes around a chapter is the theme's: its search and colour buttons are called otherwise than what
# stands on them, and the book's name stands outside of all landmarks.
THEME_S = [".search-button-field", ".theme-switch-button", ".sidebar-primary-items__start"]

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium here: install chromium, chromium-browser or google-chrome"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(reduced_motion="reduce")
    yield context.new_page()
    context.close()


def show(page: Page, html: Path, stem: str, width: int) -> None:
    """Open a chapter from its file, as a reader does, and wait for its formulas."""
    page.set_viewport_size({"width": width, "height": 900})
    page.goto((html / f"book/{stem}.html").as_uri())
    page.evaluate("() => window.MathJax?.startup?.promise")


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with the page, and with its colours in both themes, but for what is the theme's own."""
    colours = ["color-contrast", "link-in-text-block"]
    rules = {"label-content-name-mismatch": {"enabled": True}} | {rule: {"enabled": False} for rule in colours}
    found = run_axe(page, THEME_S, rules=rules)
    for theme in ("dark", "light"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        # From the third on, the rows of a table have the colours of the first two.
        of_theme = run_axe(page, [*THEME_S, "tbody tr:nth-child(n+3)"], runOnly={"type": "rule", "values": colours})
        found += [f"{theme}: {one}" for one in of_theme]
    return found


def run_axe(page: Page, exclude: list[str], **options: Any) -> list[str]:
    where = [{"exclude": exclude}, {"resultTypes": ["violations"], "selectors": False, **options}]
    found = page.evaluate("([where, options]) => axe.run(where, options)", where)
    return [f"{one['id']}: {node['html'][:200]}" for one in found["violations"] for node in one["nodes"]]


@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("stem", CHAPTERS)
def test_a_page_can_be_read(built_book: Path, page: Page, stem: str, width: int) -> None:
    asked: list[Request] = []
    failed: list[Request] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request))
    page.on("requestfailed", lambda request: failed.append(request))
    page.on("pageerror", lambda error: errors.append(str(error)))
    show(page, built_book, stem, width)

    assert [one.url for one in asked if not one.url.startswith(("file:", "data:"))] == []
    assert page.evaluate("() => [...document.scripts].map(one => one.text).filter(text => /https?:/.test(text))") == []
    # The theme asks for its styles a second time, from its script, which a browser refuses for files.
    assert [one.url for one in failed if one.resource_type not in ("xhr", "fetch")] == []
    assert errors == []

    article = page.locator("article").first
    assert not re.search(r"\\[(\[]|\\begin", article.inner_text())
    assert page.locator("mjx-merror").count() == 0
    written = len(re.findall(r'<(?:span|div) class="math ', (built_book / f"book/{stem}.html").read_text()))
    assert page.locator("article .math mjx-container").count() == written

    # A formula begins within the page; a wider one scrolls.
    formulas = """() => [...document.querySelectorAll('article mjx-container')].map(one =>
        one.matches('[display=true]') && one.scrollWidth > one.clientWidth && getComputedStyle(one).overflowX != 'auto'
        ? -1 : one.getBoundingClientRect().left)"""
    assert min(page.evaluate(formulas), default=0) >= 0
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width

    page.evaluate(AXE)
    assert violations(page) == []


@pytest.mark.parametrize("width", [390, 800, 1_100, 1_300])
def test_both_drawers_open(built_book: Path, page: Page, width: int) -> None:
    show(page, built_book, "posterior", width)
    for toggle, drawer in ((".primary-toggle", ".bd-sidebar-primary"), (".secondary-toggle", ".bd-sidebar-secondary")):
        buttons, link = page.locator(toggle).locator("visible=true"), page.locator(f"{drawer} a").first
        if link.is_hidden():
            expect(buttons).to_have_count(1)
            buttons.click()
            expect(link).to_be_visible()
            page.keyboard.press("Escape")
            expect(link).to_be_hidden()
        elif buttons.count():
            buttons.click()
            expect(link).to_be_hidden()
    assert page.locator("header.bd-header:visible").count() == 0
    assert page.get_by_role("button", name="Search").locator("visible=true").count() <= 1


def test_captions_are_as_dark_as_the_text(built_book: Path, page: Page) -> None:
    show(page, built_book, "posterior", DESK)
    for theme in ("light", "dark"):
        page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
        look = """() => ['figcaption .caption-text', 'article p'].map(where => {
            const style = getComputedStyle(document.querySelector(where)); return [style.color, style.fontWeight]})"""
        caption, text = page.evaluate(look)
        assert caption == [text[0], "400"]


def test_the_slider_tells_its_number(built_book: Path, page: Page) -> None:
    show(page, built_book, "averaging", DESK)
    slider, told = page.get_by_role("slider"), page.locator(".by-samples output")
    assert (slider.get_attribute("aria-valuetext"), told.inner_text()) == ("S = 1", "S = 1")
    slider.press("End")
    assert (slider.get_attribute("aria-valuetext"), told.inner_text()) == ("S = 32", "S = 32")
    assert page.locator(".by-samples img:visible").count() == 2


def test_citations_are_labelled_as_the_text_cites_them(built_book: Path, page: Page) -> None:
    show(page, built_book, "method", DESK)
    cited = dict(
        page.eval_on_selector_all(
            "article a[href*='references.html#id']", "links => links.map(a => [a.hash.slice(1), a.textContent])"
        )
    )
    assert len(cited) > 3
    show(page, built_book, "references", DESK)
    for place, text in cited.items():
        assert text.strip("[]") in page.locator(f"[id='{place}'] .label").inner_text()


def test_the_first_page_fits_two_screens(built_book: Path, page: Page) -> None:
    show(page, built_book, "intro", DESK)
    doors = page.locator(".claims").last
    assert doors.bounding_box()["y"] + doors.bounding_box()["height"] <= 2 * 900
    assert len(page.locator("article").first.inner_text().split()) <= 350
    assert page.locator("article figure img").count() == 1


def test_code_fits_its_column(built_book: Path, page: Page) -> None:
    for stem in ("01_data", "02_training", "03_evaluation", "network", "method", "estimators"):
        show(page, built_book, stem, DESK)
        wide = """() => [...document.querySelectorAll('.cell_input pre')].filter(
            one => one.scrollWidth > one.clientWidth).map(one => one.innerText.slice(0, 80))"""
        assert page.evaluate(wide) == [], stem


def test_a_table_can_be_taken_along(built_book: Path, page: Page) -> None:
    show(page, built_book, "spread", DESK)
    link = page.locator("#tab-spread-learnt a[download]")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "tab-spread-learnt.csv"
    assert Path(download.value.path()).read_text(encoding="utf-8").startswith(",")


def test_the_numbers_are_folded_and_open_by_keys(built_book: Path, page: Page) -> None:
    show(page, built_book, "posterior", DESK)
    fold = page.locator("details:has(#tab-posterior-nll)")
    expect(fold.locator("table")).to_be_hidden()
    assert fold.locator("> summary").inner_text() == "The numbers"
    fold.locator("> summary").press("Enter")
    expect(fold.locator("table")).to_be_visible()
