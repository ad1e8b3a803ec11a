"""A Sphinx extension, which _config.yml names: pages that ask no other host, and that screen readers can read.

A finished page is put right as a whole, so that notebooks may show plain DataFrames, and those that are stored need not
be executed again.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.util.fileutil import copy_asset
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle
from sphinxcontrib.bibtex.style.template import join, year

# What a page may ask MathJax for: formulas, their fonts, rarer commands, and what its menu offers to blind readers.
MATHJAX = "tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions", "a11y", "sre/mathmaps"

# A number alone, with its spread, or with its interval; or the dash where there is none.
NUMBER = re.compile(r"–|[-−]?\d[\d.,e-]*( ± [\d.]+| \(\S+, \S+\))?")


class AuthorYearLabels(BaseLabelStyle):
    """The labels of the list of references are what the text cites: authors and year."""

    def format_labels(self, sorted_entries: list[Entry]) -> Iterator[str]:
        cited = AuthorYearReferenceStyle()
        label = join(sep=cited.author_year_sep)[cited.person.author_or_editor_or_title(full=False), year]
        for entry in sorted_entries:
            yield str(label.format_data({"entry": entry, "style": cited}))


class AuthorYear(Style):
    default_label_style = AuthorYearLabels


def setup(app: Sphinx) -> dict[str, Any]:
    register_plugin("pybtex.style.formatting", "author_year", AuthorYear)
    app.config.mathjax_path = "mathjax/tex-mml-chtml.js"
    app.config.myst_substitutions |= {"authors": app.config.author, "title": app.config.html_title} | last_commit()
    app.connect("html-page-context", finish)
    app.connect("build-finished", carry_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def last_commit() -> dict[str, str]:
    """The commit of this repository that the pages are built from, and its date, as pages name them."""
    ask = ["git", "-C", Path(__file__).parent, "log", "-1", "--format=%h %cs"]
    told = subprocess.run(ask, capture_output=True, text=True, check=False).stdout if shutil.which("git") else ""
    return dict(zip(("commit", "date"), told.split() or ("unknown", "undated"), strict=True))


def carry_mathjax(app: Sphinx, failure: Exception | None) -> None:
    """Put MathJax, which is installed as a package, into the pages' folder."""
    package = Path(find_spec("sphinx-mathjax-offline").origin).parent / "static/mathjax"
    for part in MATHJAX if failure is None else ():
        place = Path(app.outdir, "_static/mathjax", part)
        copy_asset(package / part, place.parent if place.suffix else place)


def finish(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    # Nobody runs cells within the page; the scripts for it name another host.
    context["script_files"][:] = [one for one in context["script_files"] if "thebe" not in f"{vars(one)}".lower()]
    if "body" in context:
        context["body"] = accessible(context["body"])


def accessible(html: str) -> str:
    """Say in the markup of a page's text what a sighted reader sees."""
    page = BeautifulSoup(html, "html.parser")
    for table in page.find_all("table"):
        name_cells(table)
    for summary in page.select("summary[aria-label]"):
        del summary["aria-label"]  # it hides the words that are shown from those who speak or hear them
    for entry in page.select("[role=list] > [role=doc-biblioentry]"):
        entry["role"] = "listitem"  # the other role is deprecated, and no list may hold it
    return str(page)


def name_cells(table: Tag) -> None:
    """Header cells say what they are the headers of, and empty ones are none; numbers can be set as such."""
    head, body = (part.find_all("tr") if part else [] for part in (table.thead, table.tbody))
    names = len(body[0].find_all("th", recursive=False)) if body else 0  # columns of a DataFrame's index
    if len(head) > 1:
        over, last = (row.find_all("th") for row in head[-2:])
        # pandas writes the index's names beneath those of the columns, which leaves two rows with holes.
        if not any(text(cell) for cell in over[:names] + last[names:]):
            for hole, name in zip(over, last[:names], strict=False):
                hole.replace_with(name)
            head.pop().decompose()
    for row in head:
        cells = row.find_all("th")
        for place, cell in enumerate(cells):
            above = row is not head[-1] and place < names  # it names the row of columns to its right
            cell["scope"] = "row" if above else "colgroup" if "colspan" in cell.attrs else "col"
    for cell in (cell for row in body for cell in row.find_all("th")):
        cell["scope"] = "rowgroup" if "rowspan" in cell.attrs else "row"
    for cell in table.find_all("th"):
        if not text(cell):
            cell.name = "td"
            del cell["scope"]
    for cell in table.find_all("td"):
        if NUMBER.fullmatch(text(cell)):
            cell["class"] = [*cell.get("class", ()), "number"]
            cell.string = re.sub("(?<=[±,]) ", "\N{NO-BREAK SPACE}", text(cell))  # in two lines at most


def text(cell: Tag) -> str:
    return cell.get_text(strip=True)
