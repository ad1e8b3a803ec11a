"""The ledger of claims: its numbers against tables made by hand, its words, and the places that it fills."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.stats

from lib import ledger, statistics
from lib.study import tables

ROOT = Path(__file__).resolve().parents[1]
WORDS = ledger.words()
SENTENCES = [(chapter, one) for chapter, said in WORDS["answers"].items() for one in said]
ALTERNATIVES = [one for _, said in SENTENCES if not isinstance(said, str) for one in said]


@pytest.fixture
def stored(monkeypatch):
    """Put a table in the place of every stored one; the pairs of differences are 1, 2 and 6 over three seeds."""

    def put(rows: pd.DataFrame) -> None:
        monkeypatch.setattr(tables, "load", lambda study, table="evaluation": rows)

    put(
        pd.DataFrame(
            [(method, seed, level, value) for level in (0, 1) for seed in (1, 2, 3) for method, value in
             (("ivon", 10 * level + seed + (1, 2, 6)[seed - 1] * level), ("map", 10 * level + seed))],
            columns=["method", "seed", "level", "nll"],
        )
    )  # fmt: skip
    return put


def of(**how) -> ledger.Number:
    return ledger.Number("x", what="x", study="toy", measure="nll", **how)


def student(values) -> list[float]:
    found = scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95)
    return [np.mean(values), found.low, found.high]


def test_a_difference_is_that_of_the_rows_that_are_meant(stored) -> None:
    pair = ("ivon", "map")
    np.testing.assert_allclose(of(where="level == 1", pair=pair).values, student([1, 2, 6]))
    np.testing.assert_allclose(of(pair=pair, over="level").values, student([0.5, 1, 3]))
    np.testing.assert_allclose(of(where="level == 1", less="level == 0", pair=pair).values, student([1, 2, 6]))
    np.testing.assert_allclose(of(where="level == 0", method="map").values, student([1, 2, 3]))
    ratio = of(where="level == 1", pair=pair, ratio=True)
    np.testing.assert_allclose(ratio.values, np.exp(student(np.log([12 / 11, 14 / 12, 19 / 13]))))
    assert (ratio.none, ratio.sign) == (1, "none")


def test_a_difference_can_be_that_of_two_studies(monkeypatch) -> None:
    seeds = {"method": "map", "seed": [1, 2, 3]}
    studies = {"toy": pd.DataFrame(seeds | {"nll": [3.0, 5, 10]}), "other": pd.DataFrame(seeds | {"nll": [2.0, 3, 4]})}
    monkeypatch.setattr(tables, "load", lambda study, table="evaluation": studies[study])
    np.testing.assert_allclose(of(less_study="other", method="map").values, student([1, 2, 6]))


def test_what_a_setting_changes_for_one_method_is_crossed_where_utterances_are_stored(monkeypatch) -> None:
    generator = np.random.default_rng(0)
    changed = generator.normal(size=(3, 8))
    rows = [
        (method, seed, level, f"u{one}", f"s{one // 2}", 5.0 + level * changed[seed, one])
        for method in ("map", "ivon") for level in (0, 1) for seed in range(3) for one in range(8)
    ]  # fmt: skip
    rows = pd.DataFrame(rows, columns=["method", "seed", "level", "utterance", "speaker", "nll"])
    monkeypatch.setattr(tables, "utterances", lambda study: rows)
    found = of(table="utterances", where="level == 1", less="level == 0", method="map")
    speakers = [f"s{one // 2}" for one in range(8)]
    np.testing.assert_allclose(found.values, statistics.crossed_interval(changed, np.array(speakers)))


def test_an_effect_without_interval_is_refused(stored) -> None:
    with pytest.raises(ValueError, match=r"claims\.yml: the tables of 'toy' hold no 'x' with an interval"):
        _ = of(where="level == 1 and seed == 1", pair=("ivon", "map")).values


@pytest.mark.parametrize(
    ("values", "text", "sign"),
    [
        ((0.00489, -0.0312, 0.0410), "0.005 (−0.031 to 0.041)", "none"),
        ((-0.0093, -0.0124, -0.0061), "−0.0093 (−0.0124 to −0.0061)", "below"),
        ((0.7123, -0.39, 1.81), "0.7 (−0.4 to 1.8)", "none"),
        ((83.0, 71.0, 95.0), "83 (71 to 95)", "above"),
    ],
)
def test_a_number_is_written_with_the_digits_of_its_error(values, text, sign) -> None:
    number = of(pair=("ivon", "map"))
    number.__dict__["values"] = values
    assert (str(number), number.sign) == (text, sign)


def test_what_the_paper_reports_is_excluded_or_not() -> None:
    number = of(pair=("ivon", "map"), paper="sc")
    assert number.of_paper == pytest.approx(0.7191 - 0.8063)
    for low, verb in ((-0.05, "excludes"), (-0.1, "does not exclude")):
        number.__dict__["values"] = (0.0, low, 0.05)
        assert (number.published, number.verb) == ("−0.087", verb)


def test_the_sentence_is_the_one_for_the_sign_and_without_one_a_human_is_wanted(monkeypatch) -> None:
    number = of(pair=("ivon", "map"))
    monkeypatch.setattr(ledger, "number", {"x": number}.__getitem__)
    said = [{"when": {"x": "below"}, "say": "less: {x}"}, {"when": {"x": "none"}, "say": "the same, {x.effect}"}]
    for values, text in (
        ((-2.0, -3.0, -1.0), "less: −2.0 (−3.0 to −1.0)"),
        ((0.0, -1.0, 1.0), "the same, 0.0"),
        ((2.0, 1.0, 3.0), "**This wants a human**: x is now 2.0 (1.0 to 3.0), above."),
    ):
        number.__dict__["values"] = values
        assert ledger.say(said) == text


def test_a_name_that_the_ledger_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "claims.yml").write_text("numbers: {a: {what: a, studdy: b}}\nclaims: {}\n")
    with pytest.raises(ValueError, match=r"claims\.yml: a says 'studdy', which the ledger does not know"):
        ledger.words(tmp_path / "claims.yml")
    with pytest.raises(ValueError, match=r"claims\.yml has no number 'nlll'; it has protocol_nll, .*nll, brier"):
        ledger.number("nlll")


# The words


def test_no_number_is_typed_by_hand() -> None:
    """Digits stand in the words only where they say what was measured, never what was found."""
    texts = [one if isinstance(one, str) else alternative["say"] for _, one in SENTENCES for alternative in [one][:1]
             if isinstance(one, str)] + [one["say"] for one in ALTERNATIVES]  # fmt: skip
    texts += [
        text for claim in ledger.claims().values() for text in (claim.claim, claim.paper, *claim.verdicts.values())
    ]
    assert len(texts) > 30
    for text in texts:
        assert not re.findall(r"\d+\.\d+|\d", re.sub(r"{[^}]*}|95 %", "", text)), text


def test_a_sentence_says_for_which_signs_of_its_numbers_it_was_written() -> None:
    for one in ALTERNATIVES:
        assert one["when"].keys() == set(ledger.named(one["say"])) | one["when"].keys(), one["say"]
        signs = set(np.concatenate([np.atleast_1d(signs) for signs in one["when"].values()]))
        assert signs <= {"below", "none", "above"}


def test_nothing_wants_a_human() -> None:
    assert ledger.wanting() == []


# The places that it fills


def test_the_ledger_and_the_readme_are_what_the_results_say() -> None:
    stored = pd.read_csv(tables.RESULTS / "claims.csv", keep_default_na=False, na_values={"paper": [""]})
    now = ledger.table()
    pd.testing.assert_frame_equal(stored, now, check_exact=False, rtol=1e-4, check_dtype=False)
    assert ledger.BETWEEN.search((ROOT / "README.md").read_text(encoding="utf-8")).group() == ledger.findings()


def test_the_readme_and_the_first_page_say_no_number_of_their_own() -> None:
    readme = ledger.BETWEEN.sub("", (ROOT / "README.md").read_text(encoding="utf-8"))
    intro = nbformat.read(ROOT / "book/intro.ipynb", 4)
    for text in (readme, *(cell.source for cell in intro.cells if cell.cell_type == "markdown")):
        assert not re.findall(r"[-−]?\b0\.\d+(?!\})", re.sub(r"`[^`]*`|(?m:^    .*$)", "", text))


@pytest.mark.parametrize("chapter", WORDS["answers"])
def test_a_chapter_s_answer_is_the_ledger_s(chapter: str) -> None:
    cells = nbformat.read(ROOT / f"book/{chapter}.ipynb", 4).cells
    assert not [cell for cell in cells if cell.cell_type == "markdown" and "The answer here" in cell.source]
    said = {f'ledger.{one.__name__}("{chapter}")': one(chapter).data for one in (ledger.answer, ledger.points)}
    (shown,) = [cell for cell in cells if cell.cell_type == "code" and any(call in cell.source for call in said)]
    (output,) = shown.outputs
    assert output.data["text/markdown"] == said[shown.source.splitlines()[-1]]


def test_the_first_page_shows_the_ledger_s_cards() -> None:
    cells = nbformat.read(ROOT / "book/intro.ipynb", 4).cells
    (shown,) = [cell for cell in cells if cell.cell_type == "code" and "ledger.cards" in cell.source]
    assert shown.outputs[0].data["text/markdown"] == ledger.cards().data
    assert shown.outputs[0].data["text/markdown"].count(":link:") == len(ledger.claims()) == 5
