"""What is put right on a finished page, on tables as pandas and Markdown write them."""

import base64
import csv

import pandas as pd
from bs4 import BeautifulSoup, Tag

from lib.markup import accessible


def table_of(frame: pd.DataFrame) -> Tag:
    return BeautifulSoup(accessible(frame.to_html()), "html.parser").table


def rows(table: Tag) -> list[list[str]]:
    """Each cell as its text and, of header cells, their scope: 'name/col'."""
    cells = [row.find_all(["th", "td"]) for row in table.find_all("tr")]
    return [["/".join(filter(None, (cell.get_text(), cell.get("scope")))) for cell in row] for row in cells]


def test_the_names_of_an_index_stand_over_its_columns() -> None:
    index = pd.MultiIndex.from_tuples([("hd", 1), ("hd", 2)], names=["set", "seed"])
    table = table_of(pd.DataFrame({"nll": [0.5, 0.25], "mark": ["low", "x"]}, index))
    assert rows(table) == [
        ["set/col", "seed/col", "nll/col", "mark/col"],
        ["hd/rowgroup", "1/row", "0.50", "low"],
        ["2/row", "0.25", "x"],
    ]
    assert [cell.get("class") for cell in table.tbody.find_all("td")] == [["number"], None, ["number"], None]


def test_a_corner_without_a_name_is_no_header() -> None:
    assert rows(table_of(pd.DataFrame({"nll": [0.5]}, ["Adam"]))) == [["", "nll/col"], ["Adam/row", "0.5"]]


def test_the_names_of_columns_are_kept_beside_those_of_the_index() -> None:
    frame = pd.DataFrame([[1, 2]], pd.Index(["hd"], name="set"), pd.Index(["Adam", "IVON"], name="method"))
    assert rows(table_of(frame)) == [["method/row", "Adam/col", "IVON/col"], ["set/col", "", ""], ["hd/row", "1", "2"]]


def test_columns_of_two_levels_are_groups() -> None:
    columns = pd.MultiIndex.from_product([["NLL", "ECE"], ["words", "digits"]])
    assert rows(table_of(pd.DataFrame([range(4)], ["Adam"], columns))) == [
        ["", "NLL/colgroup", "ECE/colgroup"],
        ["", "words/col", "digits/col", "words/col", "digits/col"],
        ["Adam/row", "0", "1", "2", "3"],
    ]


def test_a_number_breaks_only_before_its_spread_or_interval() -> None:
    texts = ["0.32 ± 0.04", "-0.02 (-0.53, 0.50)", "1e-05", "–", "2 of 3", "2026-11-23 or so"]
    cells = table_of(pd.DataFrame({"x": texts})).select("td")[1:]
    numbers = ["0.32 ±\N{NO-BREAK SPACE}0.04", "-0.02 (-0.53,\N{NO-BREAK SPACE}0.50)", "1e-05", "–"]
    assert [cell.get_text() for cell in cells] == numbers + texts[4:]
    assert ["class" in cell.attrs for cell in cells] == [True] * 4 + [False] * 2


def test_a_fold_is_called_what_stands_on_it_and_code_stays_as_it_is() -> None:
    text = '<details><summary aria-label="Toggle"><p>Show</p></summary><pre>a  &lt; b\n\n  c &amp; d</pre></details>'
    assert accessible(text) == text.replace(' aria-label="Toggle"', "")


def test_a_list_of_references_is_a_list() -> None:
    text = '<div role="list"><div class="citation" role="doc-biblioentry">[A, 2026]</div></div>'
    assert accessible(text) == text.replace("doc-biblioentry", "listitem")


def test_what_an_abbreviation_stands_for_is_under_the_pointer() -> None:
    text = '<p>NLLs, the NLL of <b>IVON</b></p><pre>NLL</pre><span class="math">NLL</span><a href="x">NLL</a>'
    told = accessible(text, {"NLL": "less is better", "IVON": "an optimiser"})
    nll, ivon = '<abbr title="less is better">NLL</abbr>', '<abbr title="an optimiser">IVON</abbr>'
    assert told == text.replace("the NLL", f"the {nll}").replace("<b>IVON", f"<b>{ivon}")


def captioned(frame: pd.DataFrame, classes: str = "") -> Tag:
    """A table as it stands on a page, under its caption, in a fold."""
    caption = "<figcaption><p>Ours.</p></figcaption>"
    figure = f'<figure class="{classes}" id="tab-x">{caption}<div>{frame.to_html()}</div></figure>'
    return BeautifulSoup(accessible(f"<details><summary>Show</summary>{figure}</details>"), "html.parser")


def test_a_caption_leads_to_the_study_and_to_the_table_as_a_file() -> None:
    index = pd.MultiIndex.from_tuples([("words", "Adam"), ("words", "IVON"), ("a, b", "Adam")])
    columns = pd.MultiIndex.from_product([["NLL"], [1, 2]])
    page = captioned(pd.DataFrame([[1, 2], [3, 4], [5, 6]], index, columns), "study-factors last-row")
    study, file = page.figcaption.find_all("a")
    assert (study.get_text(), study["href"]) == ("factors", "provenance.html#the-studies")
    assert file["download"] == "tab-x.csv"
    kind, _, data = file["href"].partition(";base64,")
    assert kind == "data:text/csv"
    said = list(csv.reader(base64.b64decode(data).decode().splitlines()))
    assert said == [
        ["", "", "NLL", "NLL"],
        ["", "", "1", "2"],
        ["words", "Adam", "1", "2"],
        ["words", "IVON", "3", "4"],
        ["a, b", "Adam", "5", "6"],
    ]
    assert page.summary.get_text() == "The numbers"


def test_a_wide_table_scrolls_by_keys_under_its_caption_s_name() -> None:
    frame = captioned(pd.DataFrame({"x": [1]})).table.parent
    assert (frame["role"], frame["tabindex"], frame["aria-label"]) == ("region", "0", "Ours.")
