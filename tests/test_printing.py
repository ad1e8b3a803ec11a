"""The book on paper: all of it, with a cover and contents, and nothing wider than the sheet."""

import re
import shutil
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from playwright.sync_api import sync_playwright

from lib import printing

CHROMIUM = next(filter(None, map(shutil.which, printing.BROWSERS)), None)
WITH_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
MOST_PAGES = 160


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    return printing.as_one(tmp_path_factory.mktemp("print"))


def test_the_contents_name_every_chapter_of_every_part(page):
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    listed = re.findall(r"file: book/(\S+)", (printing.ROOT / "_toc.yml").read_text())
    links = soup.select("nav.chapters a")
    assert len(links) == len(listed)
    assert all(soup.find(id=link["href"].removeprefix("#")) for link in links)
    assert [one.get_text() for one in soup.select("nav.chapters h2")] == [
        "Part 1. The paper", "Part 2. Its claims on real speech", "Part 3. Beyond it", "Part 4. Reference"
    ]  # fmt: skip
    assert soup.select_one(".cover h1").get_text() == "Practical Bayesian inference for speech SNNs: a companion"


@WITH_CHROMIUM
def test_it_is_printed_on_few_enough_sheets_and_nothing_is_cut(page, tmp_path):
    printing.printed(page, tmp_path / "book.pdf")
    sheets = len(re.findall(rb"/Type\s*/Page\b", (tmp_path / "book.pdf").read_bytes()))
    assert 80 < sheets <= MOST_PAGES
    with sync_playwright() as play, play.chromium.launch(executable_path=CHROMIUM) as chromium:
        sheet = chromium.new_page(viewport={"width": printing.WIDTH, "height": 980})
        printing.fit(sheet, page)
        # What MathJax keeps for screen readers is clipped to a point, and on no sheet.
        wide = """width => [...document.querySelectorAll('article *')]
            .filter(one => !one.closest('mjx-assistive-mml'))
            .filter(one => one.getClientRects().length && one.getBoundingClientRect().right > width + 2)
            .map(one => one.tagName + ' ' + one.className + ' ' + one.textContent.slice(0, 60))"""
        assert sheet.evaluate(wide, printing.WIDTH) == []


def test_without_a_browser_it_says_what_is_wanted(page, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(RuntimeError, match=r"printing takes a Chromium, and none of chromium, .* install one"):
        printing.printed(page, tmp_path / "book.pdf")
    assert not list(tmp_path.iterdir())
