"""A Sphinx extension, which _config.yml names: pages that ask no other host, and that screen readers can read.

A finished page is put right as a whole, so that notebooks may show plain DataFrames, and those that are stored need not
be executed again.
"""

import csv
import io
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bs4 import BeautifulSoup, NavigableString, Tag
from docutils import nodes
from pybtex.database import Entry
from pybtex.plugin import register_plugin
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.fileutil import copy_asset
from sphinx.writers.html5 import HTML5Translator
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle
from sphinxcontrib.bibtex.style.template import join, year

from lib.settings import read_yaml

# What a page may ask MathJax for: formulas, their fonts, rarer commands, and what its menu offers to blind readers.
MATHJAX = "tex-mml-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions", "a11y", "sre/mathmaps"

# Where abbreviations are left as they are: in code, formulas, links and headings.
PLAIN = ["a", "abbr", "code", "pre", "script", "style", "svg", "h1", "h2", "h3", "summary", "button"]

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


class table_figure(nodes.figure):  # docutils' own way of writing the names of nodes
    """A figure that holds a notebook's table: it is numbered among the tables."""


class TablesOfNotebooks(SphinxTransform):
    """What a cell's metadata call a figure and what is a table becomes a table with number and caption."""

    default_priority = 800  # before Sphinx looks for what is numbered

    def apply(self, **given: Any) -> None:
        for figure in list(self.document.findall(nodes.figure)):
            if any("<table" in one.astext() for one in figure.findall(nodes.raw)):
                table = table_figure("", *figure.children, **figure.attributes)
                figure.replace_self(table)
                self.document.ids |= dict.fromkeys(table["ids"], table)


def setup(app: Sphinx) -> dict[str, Any]:
    register_plugin("pybtex.style.formatting", "author_year", AuthorYear)
    app.config.mathjax_path = "mathjax/tex-mml-chtml.js"
    app.config.myst_substitutions |= {"authors": app.config.author, "title": app.config.html_title} | last_commit()
    app.add_enumerable_node(table_figure, "table", html=(HTML5Translator.visit_figure, HTML5Translator.depart_figure))
    app.add_transform(TablesOfNotebooks)
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
        known = Path(app.srcdir, "book/abbreviations.yml")
        context["body"] = accessible(context["body"], read_yaml(known) if known.exists() else {})


def accessible(html: str, abbreviations: Mapping[str, str] = MappingProxyType({})) -> str:
    """Say in the markup of a page's text what a sighted reader sees, and what abbreviations stand for."""
    page = BeautifulSoup(html, "html.parser")
    for table in page.find_all("table"):
        name_cells(table)
    for figure in page.find_all("figure"):
        complete(page, figure)
    for said in page.find_all(string=True) if abbreviations else ():
        if not said.find_parent(PLAIN) and not said.find_parent(class_="math"):
            explain(page, said, abbreviations)
    for summary in page.select("summary[aria-label]"):
        del summary["aria-label"]  # it hides the words that are shown from those who speak or hear them
    for parameters in page.select("dt.sig > dl"):
        for one in parameters.find_all("dd"):  # a list of descriptions that has nothing to describe
            one.name = "span"
        parameters.name, parameters["class"] = "span", "sig-parameters"
    for entry in page.select("[role=list] > [role=doc-biblioentry]"):
        entry["role"] = "listitem"  # the other role is deprecated, and no list may hold it
    return str(page)


def explain(page: BeautifulSoup, said: NavigableString, abbreviations: Mapping[str, str]) -> None:
    """Put what each abbreviation of a text stands for under the pointer."""
    parts = re.split(rf"\b({'|'.join(map(re.escape, abbreviations))})\b", said)
    if len(parts) > 1:
        parts[1::2] = [page.new_tag("abbr", title=abbreviations[one], string=one) for one in parts[1::2]]
        said.replace_with(*parts)


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


def complete(page: BeautifulSoup, figure: Tag) -> None:
    """A caption leads to the study that its numbers are of, and a table's to the table as a file of its own.

    A figure says with the class ``study-NAME`` which study. A wide table scrolls, by keys as well.
    """
    links = []
    for name in (one.removeprefix("study-") for one in figure.get("class", ()) if one.startswith("study-")):
        links.append(page.new_tag("a", href="provenance.html#the-studies", string=name))
    for table in figure.find_all("table"):
        lines = b64encode(as_csv(table).encode()).decode()
        name = f"{figure.get('id', 'table')}.csv"
        links.append(page.new_tag("a", href=f"data:text/csv;base64,{lines}", download=name, string="CSV"))
        told = figure.figcaption.get_text(" ", strip=True) if figure.figcaption else "table"
        table.wrap(
            page.new_tag("div", attrs={"class": "scrolls", "tabindex": "0", "role": "region", "aria-label": told})
        )
    if links and figure.figcaption:
        told = page.new_tag("span", attrs={"class": "made-of"})
        for link in links:
            told.extend(["Study " if link.get("download") is None else "As ", link, ". "])
        figure.figcaption.append(told)
    fold = figure.find_parent("details")
    if fold and figure.table and fold.summary:
        fold.summary.string = "The numbers"


def as_csv(table: Tag) -> str:
    """What a table shows, a cell that spans several in each of them."""
    rows, spans = io.StringIO(), {}
    for row in table.find_all("tr"):
        line: list[str] = []
        for cell in row.find_all(["th", "td"]):
            while spans.get(len(line), (0, ""))[0]:
                left, above = spans[len(line)]
                spans[len(line)] = left - 1, above
                line.append(above)
            for _ in range(int(cell.get("colspan", 1))):
                spans[len(line)] = int(cell.get("rowspan", 1)) - 1, text(cell)
                line.append(text(cell))
        csv.writer(rows).writerow(line)
    return rows.getvalue()


def text(cell: Tag) -> str:
    return cell.get_text(strip=True)
