"""benchmarks/verdicts.py: what is said of claims whose truth is made up."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from claims import ABOVE, CLAIMS, LEVEL, NO_GAIN, Claim, Range
from over_seeds import Difference
from verdicts import BEGIN, END, decide, filled, judge, judge_all, read_documents, table_of

from seg25d.core.files import write_json

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "documentation" / "reference" / "tables_of_the_papers.md"
CASES = [f"case_{number:02d}" for number in range(20)]
CLAIM = Claim("Nobody 2000", "one is above two", ("table",), "one", "two")


def document(cases: list[str] = CASES, trainings: int = 3, score: str = "dice", **means: float) -> dict[str, Any]:
    """A table whose rows have these means: cases differ by 0.1, trainings and errors by 0.002."""
    rng = np.random.default_rng(0)
    of_cases = rng.normal(0, 0.1, len(cases))
    rows = []
    for name, mean in means.items():
        scores = mean + of_cases + rng.normal(0, 0.002, (trainings, 1)) + rng.normal(0, 0.002, (trainings, len(cases)))
        rows.append({"name": name, "cases": cases, "scores": {score: scores.tolist()}})
    return {"rows": rows}


@pytest.mark.parametrize(
    ("low", "high", "claimed", "verdict"),
    [
        (0.01, 0.03, ABOVE, "confirmed"),
        (-0.01, 0.03, ABOVE, "not decided here"),
        (-0.03, -0.01, ABOVE, "refuted"),
        (-0.03, -0.01, NO_GAIN, "confirmed"),
        (-0.001, 0.001, NO_GAIN, "confirmed"),
        (-0.01, 0.01, NO_GAIN, "not decided here"),
        (0.002, 0.01, NO_GAIN, "refuted"),
        (-0.009, 0.009, LEVEL, "confirmed"),
        (-0.02, 0.005, LEVEL, "not decided here"),
        (-0.03, 0.03, LEVEL, "not decided here"),
        (0.011, 0.02, LEVEL, "refuted"),
        (-0.02, -0.011, LEVEL, "refuted"),
        (None, None, ABOVE, "not decided here"),
    ],
)
def test_the_interval_decides(low: float | None, high: float | None, claimed: Range, verdict: str) -> None:
    assert decide(Difference(0.0, low, high, 0.5, 20), claimed) == verdict


@pytest.mark.parametrize(
    ("one", "two", "claimed", "verdict"),
    [
        (0.85, 0.80, ABOVE, "confirmed"),
        (0.80, 0.85, ABOVE, "refuted"),
        (0.80, 0.80, ABOVE, "not decided here"),
        (0.80, 0.80, LEVEL, "confirmed"),
        (0.85, 0.80, LEVEL, "refuted"),
        (0.80, 0.85, NO_GAIN, "confirmed"),
    ],
)
def test_made_up_scores_are_judged_by_cases_and_seeds(one: float, two: float, claimed: Range, verdict: str) -> None:
    found = judge(CLAIM._replace(claimed=claimed), "table", {"table": document(one=one, two=two)})
    assert found.verdict == verdict
    assert found.difference is not None
    assert found.difference.mean == pytest.approx(one - two, abs=0.005)
    assert found.cells[-1] == verdict


def test_what_is_not_there_is_not_decided() -> None:
    there = {"table": document(one=0.9, two=0.8)}
    for claim, table, documents, reason in (
        (CLAIM, "table", {}, "table is not measured yet"),
        (CLAIM._replace(first="three"), "table", there, "three is not measured yet"),
        (CLAIM._replace(score="hd95_mm"), "table", there, "one is not measured yet"),
        (CLAIM, "table", {"table": document(trainings=1, one=0.9, two=0.8)}, "one training"),
        (CLAIM, "table", {"table": document(CASES[:1], one=0.9, two=0.8)}, "fewer than two cases have the score"),
    ):
        found = judge(claim, table, documents)
        assert (found.verdict, found.reason) == ("not decided here", reason)
        assert found.cells[-1] == f"not decided here: {reason}"


def test_rows_may_be_of_two_tables_of_the_same_cases() -> None:
    documents = {"a": document(one=0.9, two=0.5), "b": document(one=0.5, two=0.8)}
    found = judge(CLAIM, "a + b", documents)
    assert (found.verdict, found.table) == ("confirmed", "a + b")
    assert judge(CLAIM, "b + a", documents).verdict == "not decided here"
    others = {**documents, "b": document([f"another_{case}" for case in CASES], two=0.8)}
    assert judge(CLAIM, "a + b", others).reason == "the rows have other cases"


def test_what_cannot_be_compared_is_not_called_refuted() -> None:
    claim = CLAIM._replace(incomparable="ten updates")
    found = judge(claim, "table", {"table": document(one=0.1, two=0.8)})
    assert found.cells[-1] == "not comparable: ten updates"
    assert found.difference is not None


def test_another_score_stands_in_the_row() -> None:
    claim = CLAIM._replace(score="hd95_mm")
    cells = judge(claim, "table", {"table": document(score="hd95_mm", one=3.0, two=2.0)}).cells
    assert cells[:4] == ["Nobody 2000", "one is above two", "table", "one minus two (hd95_mm)"]
    assert cells[5] == "confirmed"


def test_files_are_tables_and_every_claim_has_a_row_for_each(tmp_path: Path) -> None:
    write_json(tmp_path / "table.json", document(one=0.9, two=0.8))
    write_json(tmp_path / "seconds.json", {"table": 12})
    assert list(read_documents(tmp_path)) == ["table"]
    assert read_documents(tmp_path / "nothing") == {}
    verdicts = list(judge_all({}))
    assert len(verdicts) == sum(len(claim.tables) for claim in CLAIMS)
    assert {verdict.verdict for verdict in verdicts} == {"not decided here"}
    assert all(claim.claimed.low < claim.claimed.high and not math.isnan(claim.claimed.low) for claim in CLAIMS)


def test_a_page_gets_the_table_and_nothing_else_changes() -> None:
    page = f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n"
    assert filled(page, "new") == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert filled(filled(page, "new"), "new") == filled(page, "new")
    with pytest.raises(ValueError, match="expected a page with"):
        filled("before", "new")


def test_the_page_says_what_the_results_say() -> None:
    """`python benchmarks/verdicts.py --results benchmarks/results/papers --page ...` writes it."""
    table = table_of(judge_all(read_documents(ROOT / "benchmarks" / "results" / "papers")))
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, table) == page
