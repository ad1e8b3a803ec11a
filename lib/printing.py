"""Print the book to a PDF: its pages as one, with a cover and contents, by a Chromium that is installed.

    python -m lib.printing [FILE]    # what `make pdf` runs, into _build/companion.pdf

It is the committed book. What is folded on the pages, code and the numbers behind a picture, is left out.
"""

import argparse
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from sphinx_external_toc.parsing import parse_toc_yaml

from lib import pages
from lib.files import atomic_write
from lib.markup import last_commit
from lib.settings import folder_argument

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WIDTH = 657  # pixels between the margins of an A4 sheet, in book/_static/print.css
FOOT = '<div style="font-size: 8px; width: 100%; text-align: center"><span class="pageNumber"></span></div>'
# What is still too wide is made smaller, once the formulas and the pictures that one would scroll to are there.
FITTED = """async () => {
  await window.MathJax?.startup?.promise;
  for (const one of document.images) one.loading = 'eager';
  await Promise.all([...document.images].filter(one => !one.complete).map(
    one => new Promise(done => { one.onload = one.onerror = done; })));
  for (const one of document.querySelectorAll('table, pre, mjx-container, .sd-container-fluid')) {
    const width = one.parentElement.clientWidth;
    if (width && one.scrollWidth > width) one.style.zoom = width / one.scrollWidth;
  }
}"""


def as_one(folder: Path) -> Path:
    """Build the committed book as one page, and on it a cover, the contents and numbered parts."""
    pages.stage(ROOT, folder / "source", {}, {})
    program = Path(sysconfig.get_path("scripts")) / "jupyter-book"
    build = [program, "build", folder / "source", "--path-output", folder, "--builder", "custom"]
    finished = subprocess.run([*build, "--custom-builder", "singlehtml"], capture_output=True, text=True, check=False)
    page = folder / "_build/singlehtml/book/intro.html"
    if finished.returncode or not page.is_file():
        raise RuntimeError(f"the book does not build as one page:\n{finished.stdout[-2000:]}{finished.stderr[-2000:]}")
    soup = BeautifulSoup(page.read_text(encoding="utf-8"), "html.parser")
    article = soup.article.extract()
    contents = soup.new_tag("nav", attrs={"class": "chapters"})
    contents.append(named(soup, "h1", "Contents"))
    parts = [part.caption for part in parse_toc_yaml(ROOT / "_toc.yml").root.subtrees]
    for number, (caption, part) in enumerate(zip(parts, article.select("div.toctree-wrapper"), strict=True), start=1):
        name = f"Part {number}. {caption}"
        part["class"] = "part"
        part.insert(0, named(soup, "h1", name))
        contents.append(named(soup, "h2", name))
        contents.append(listed(soup, part))
    first = article.section
    cover = soup.new_tag("div", attrs={"class": "cover"})
    told = last_commit()
    for kind, text in (
        ("h1", soup.title.get_text()),
        ("p", soup.select_one("p.component-author").get_text(strip=True)),
        ("p", f"{told['date']} · commit {told['commit']}"),
    ):
        cover.append(named(soup, kind, text))
    first.insert_before(cover, contents)
    soup.body.clear()
    soup.body.append(article)
    soup.head.append(soup.new_tag("link", rel="stylesheet", href="_static/print.css"))
    # Its links are those of a page at the top.
    at_top = page.parents[1] / "print.html"
    at_top.write_text(str(soup), encoding="utf-8")
    return at_top


def named(soup: BeautifulSoup, kind: str, text: str) -> Tag:
    made = soup.new_tag(kind)
    made.string = text
    return made


def listed(soup: BeautifulSoup, part: Tag) -> Tag:
    """The chapters of a part as links to them."""
    chapters = soup.new_tag("ol")
    for section in part.find_all("section", recursive=False):
        link = soup.new_tag("a", href=f"#{section['id']}")
        link.string = section.find(["h1", "h2"]).find(string=True).strip()
        chapters.append(named(soup, "li", ""))
        chapters.contents[-1].append(link)
    return chapters


def printed(page: Path, file: Path) -> None:
    """Print a page. Raises ``RuntimeError`` where no Chromium is installed."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise RuntimeError(f"printing takes a Chromium, and none of {', '.join(BROWSERS)} is on the path: install one")
    from playwright.sync_api import sync_playwright  # here, since only tests and this need it

    with sync_playwright() as play, play.chromium.launch(executable_path=browser) as chromium:
        sheet = chromium.new_page(viewport={"width": WIDTH, "height": 980})
        fit(sheet, page)
        how = {"prefer_css_page_size": True, "print_background": True, "tagged": True, "outline": True}
        with atomic_write(file) as aside:
            sheet.pdf(path=aside, display_header_footer=True, header_template="<p></p>", footer_template=FOOT, **how)


def fit(sheet: Any, page: Path) -> None:
    """Open the page as paper shows it, with its formulas, and make smaller what is wider than the sheet."""
    sheet.emulate_media(media="print")
    # A busy machine can leave the network idle before the page is read to its end: only "load" says that it was.
    sheet.goto(page.as_uri(), wait_until="load", timeout=300_000)
    sheet.evaluate(FITTED)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m lib.printing", description="Print the book to a PDF.")
    parser.add_argument(
        "file", type=folder_argument, nargs="?", default=ROOT / "_build/companion.pdf", help="to be replaced"
    )
    file = parser.parse_args(arguments).file
    try:
        with tempfile.TemporaryDirectory() as folder:
            printed(as_one(Path(folder)), file)
    except (OSError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The book is in {file}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
