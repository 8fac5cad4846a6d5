"""benchmarks/verdicts.py: what is said of claims whose truth is made up."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import super_image_grids
from claims import (
    CLAIMS,
    COUNTS,
    LEVEL,
    LEVEL_MM,
    NO_GAIN,
    NO_GAIN_NO_LOSS,
    UNTESTED,
    Claim,
    Contrast,
    Count,
    Range,
    Untested,
    gain,
)
from over_seeds import Difference
from verdicts import (
    ALPHA,
    BEGIN,
    CONFIRMED,
    EMPTY,
    END,
    HEADER,
    LOWEST_DICE,
    OPEN,
    REFUTED,
    Verdict,
    count_cells,
    filled,
    holm_levels,
    judge,
    judge_all,
    p_values,
    read_documents,
    table_of,
    untested_cells,
)

from seg25d.core.files import write_json

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "documentation" / "reference" / "tables_of_the_papers.md"
CASES = [f"case_{number:02d}" for number in range(20)]
CLAIM = Claim("Nobody 2000", "one is above two (Table 1)", "+0.04", "table", (Contrast("one", "two", gain(0.04)),))
HERE, THERE = (
    {"device": f"Processor {name}", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}} for name in "XY"
)


def claiming(claimed: Range, score: str = "dice") -> Claim:
    """The claim with another range."""
    return CLAIM._replace(contrasts=(Contrast("one", "two", claimed, score),))


def document(cases: list[str] = CASES, trainings: int = 3, score: str = "dice", **means: float) -> dict[str, Any]:
    """A table whose rows have these means: cases differ by 0.1, trainings and errors by 0.002."""
    rng = np.random.default_rng(0)
    of_cases = rng.normal(0, 0.1, len(cases))
    rows: list[dict[str, Any]] = []
    for name, mean in means.items():
        scores = mean + of_cases + rng.normal(0, 0.002, (trainings, 1)) + rng.normal(0, 0.002, (trainings, len(cases)))
        seeds = list(range(trainings))
        rows.append(
            {"name": name, "cases": cases, "seeds": seeds, "machines": [HERE], "scores": {score: scores.tolist()}}
        )
    return {"rows": rows, "settings": {"iterations": "80"}}


def found(mean: float, half: float = 0.005) -> Difference:
    """A difference with an interval of so much on both sides, of many cases and seeds."""
    return Difference(mean, mean - half, mean + half, 0.5, 20, half / 1.96, 1e6)


@pytest.mark.parametrize(
    ("mean", "claimed", "verdicts"),
    [
        (0.03, gain(0.06), {CONFIRMED}),
        (0.004, gain(0.06), {REFUTED}),
        (0.0, gain(0.06), {REFUTED}),
        (0.0, gain(0.008), set()),
        (0.004, gain(0.008), set()),
        (0.02, gain(0.06), {CONFIRMED, REFUTED}),
        (-0.03, gain(), {REFUTED}),
        (0.0, gain(), set()),
        (-0.03, NO_GAIN, {CONFIRMED}),
        (0.0, NO_GAIN, {CONFIRMED}),
        (0.005, NO_GAIN, set()),
        (0.02, NO_GAIN, {REFUTED}),
        (-0.03, NO_GAIN_NO_LOSS, set()),
        (0.0, NO_GAIN_NO_LOSS, {CONFIRMED}),
        (0.02, NO_GAIN_NO_LOSS, {REFUTED}),
        (0.0, LEVEL, {CONFIRMED}),
        (-0.008, LEVEL, set()),
        (0.02, LEVEL, {REFUTED}),
        (-0.02, LEVEL, {REFUTED}),
        (0.5, LEVEL_MM, {CONFIRMED}),
    ],
)
def test_the_interval_decides(mean: float, claimed: Range, verdicts: set[str]) -> None:
    ps = dict(zip((CONFIRMED, REFUTED), p_values(found(mean), claimed), strict=True))
    assert {verdict for verdict, p in ps.items() if p <= ALPHA} == verdicts
    without = p_values(Difference(mean, None, None, None, 20), claimed)
    assert min(without) == 1


@pytest.mark.parametrize(
    ("one", "two", "claimed", "verdict"),
    [
        (0.85, 0.80, gain(0.06), CONFIRMED),
        (0.80, 0.85, gain(0.06), REFUTED),
        (0.80, 0.80, gain(0.06), REFUTED),
        (0.80, 0.80, gain(), OPEN),
        (0.80, 0.80, LEVEL, CONFIRMED),
        (0.85, 0.80, LEVEL, REFUTED),
        (0.80, 0.85, NO_GAIN, CONFIRMED),
    ],
)
def test_made_up_scores_are_judged_by_cases_and_seeds(one: float, two: float, claimed: Range, verdict: str) -> None:
    said = judge(claiming(claimed), {"table": document(one=one, two=two)})
    assert said.verdict == verdict
    assert said.evidence.differences[0].mean == pytest.approx(one - two, abs=0.005)
    assert dict(zip(HEADER, said.cells, strict=True))["verdict"] == verdict


def test_networks_that_find_nothing_confirm_nothing() -> None:
    dead = document(one=0.0, two=0.0)
    for row in dead["rows"]:
        row["scores"]["dice"] = [[0.0] * len(CASES)] * 3
    for claimed in (gain(0.06), gain(), LEVEL, NO_GAIN):
        said = judge(claiming(claimed), {"table": dead})
        assert (said.verdict, said.reason) == (OPEN, "one is not trained: its mean Dice is 0.000, below 0.3")
    constant = document(one=0.0, two=0.0)
    for row in constant["rows"]:
        row["scores"]["dice"] = [[0.5] * len(CASES)] * 3
    assert judge(claiming(LEVEL), {"table": constant}).reason == "nothing varies"
    half_trained = document(one=0.8, two=LOWEST_DICE - 0.1)
    assert judge(CLAIM, {"table": half_trained}).reason.startswith("two is not trained: its mean Dice is 0.1")


def test_what_is_not_there_is_not_decided() -> None:
    there = {"table": document(one=0.9, two=0.8)}
    other_seeds = document(one=0.9, two=0.8)
    other_seeds["rows"][0]["seeds"] = [1, 2, 3]
    fewer = document(one=0.9, two=0.8)
    fewer["rows"][1]["scores"]["dice"].append([0.8] * len(CASES))
    for claim, documents, reason in (
        (CLAIM, {}, "table is not measured yet"),
        (CLAIM._replace(contrasts=(Contrast("three", "two", gain()),)), there, "three is not measured yet"),
        (claiming(gain(), "hd95_mm"), there, "one is not measured yet"),
        (claiming(gain(), "dice - hd95_mm"), there, "one is not measured yet"),
        (CLAIM, {"table": document(trainings=1, one=0.9, two=0.8)}, "1 of at least 3 trainings"),
        (CLAIM, {"table": document(trainings=2, one=0.9, two=0.8)}, "2 of at least 3 trainings"),
        (CLAIM, {"table": other_seeds}, "the rows have other seeds"),
        (CLAIM, {"table": fewer}, "the rows have other seeds"),
        (CLAIM, {"table": document(CASES[:1], one=0.9, two=0.8)}, "fewer than two cases have the score"),
    ):
        said = judge(claim, documents)
        assert (said.verdict, said.reason) == (OPEN, reason)
        assert said.cells[HEADER.index("verdict")] == f"{OPEN}: {reason}"


def test_equal_time_is_that_of_one_machine() -> None:
    timed = document(one=0.85, two=0.8) | {"settings": {"time_budget": "60.0"}}
    assert judge(CLAIM, {"table": timed}).verdict == CONFIRMED
    timed["rows"][1]["machines"] = [HERE, THERE]
    assert judge(CLAIM, {"table": timed}).reason == "equal time on several machines"
    assert judge(CLAIM, {"table": timed | {"settings": {"iterations": "80"}}}).verdict == CONFIRMED


def test_rows_may_be_of_two_tables_of_the_same_cases_in_any_order() -> None:
    documents = {"a": document(one=0.9, two=0.5), "b": document(one=0.5, two=0.8)}
    both = CLAIM._replace(table="a + b")
    assert judge(both, documents).verdict == CONFIRMED
    names = judge(both, documents).cells[HEADER.index("difference")]
    assert names == "one minus two, the first of a, the second of b"
    assert judge(CLAIM._replace(table="b + a"), documents).verdict == REFUTED
    others = {**documents, "b": document([f"another_{case}" for case in CASES], two=0.8)}
    assert judge(both, others).reason == "the rows have other cases"
    (row,) = (row for row in documents["b"]["rows"] if row["name"] == "two")
    turned = {**row, "cases": CASES[::-1], "scores": {"dice": [each[::-1] for each in row["scores"]["dice"]]}}
    assert judge(both, {**documents, "b": {"rows": [turned]}}).evidence == judge(both, documents).evidence


def test_what_belongs_together_by_seeds_is_compared_so() -> None:
    table = document(one=0.83, two=0.8)
    for row in table["rows"]:  # views of a seed, good or bad, which both fuse
        shared = np.array([0.05, 0.0, -0.05])[:, None]
        row["scores"]["dice"] = (np.array(row["scores"]["dice"]) + shared).tolist()
    assert judge(CLAIM, {"table": table}).verdict == OPEN
    assert judge(CLAIM._replace(paired=True), {"table": table}).verdict == CONFIRMED


def test_patients_are_counted_not_cases() -> None:
    cases = [f"patient{number:03d}_frame{frame:02d}" for number in range(10) for frame in (1, 12)]
    said = judge(CLAIM, {"table": document(cases, one=0.85, two=0.8)})
    assert said.cells[HEADER.index("n")] == "10"
    assert judge(CLAIM, {"table": document(one=0.85, two=0.8)}).cells[HEADER.index("n")] == "20"


def test_all_differences_of_a_claim_have_to_hold() -> None:
    claim = CLAIM._replace(contrasts=(*CLAIM.contrasts, Contrast("one", "three", gain())))
    assert judge(claim, {"table": document(one=0.85, two=0.8, three=0.8)}).verdict == CONFIRMED
    assert judge(claim, {"table": document(one=0.85, two=0.8, three=0.85)}).verdict == OPEN
    refuted = judge(claim, {"table": document(one=0.85, two=0.8, three=0.9)})
    assert refuted.verdict == REFUTED
    cells = dict(zip(HEADER, refuted.cells, strict=True))
    assert cells["difference"] == "one minus two; one minus three"
    assert cells["seen here"].count("p = ") == 2


def test_a_gain_that_is_much_smaller_than_the_papers_is_called_so() -> None:
    claim = claiming(gain(0.2))
    said = judge(claim, {"table": document(one=0.85, two=0.8)})
    assert (said.verdict, said.reason) == (CONFIRMED, "but by less than half of the paper's")


def test_many_claims_share_their_level() -> None:
    assert holm_levels([0.01, 0.04, 0.03]) == [ALPHA / 3, 0, 0]
    assert holm_levels([0.01, 0.05, 0.025]) == pytest.approx([ALPHA / 3, ALPHA, ALPHA / 2])
    assert holm_levels([0.02, 0.0, 0.9]) == pytest.approx([ALPHA / 2, ALPHA / 3, 0])
    assert holm_levels([]) == []
    # One clear claim and one with p = 0.02 by itself, among others that say nothing.
    noisy = document(one=0.8, two=0.8)
    random = np.random.default_rng(1)
    mine, their = (np.array(row["scores"]["dice"]) for row in noisy["rows"])
    mine += random.normal(0, 0.02, len(CASES))
    mine += their.mean() + 0.008 - mine.mean()
    noisy["rows"][0]["scores"]["dice"] = mine.tolist()
    documents = {"table": document(one=0.9, two=0.8), "noisy": noisy, "nothing": document(one=0.8, two=0.8)}
    few = [CLAIM, claiming(gain())._replace(table="noisy")]
    assert [verdict.verdict for verdict in judge_all(documents, few)] == [CONFIRMED, CONFIRMED]
    many = [*few, *[claiming(gain())._replace(table="nothing")] * 8]
    said = judge_all(documents, many)
    assert [verdict.verdict for verdict in said] == [CONFIRMED, OPEN] + [OPEN] * 8
    assert said[1].reason == "confirmed by itself, not among 10 claims"
    # What is not measured takes nothing from the others.
    absent = [*few, *[CLAIM._replace(table="absent")] * 8, *[CLAIM._replace(incomparable="short")] * 8]
    assert [verdict.verdict for verdict in judge_all(documents, absent)][:2] == [CONFIRMED, CONFIRMED]


def test_tables_beside_it_do_not_decide() -> None:
    claim = CLAIM._replace(beside=("beside", "absent"))
    said = judge(claim, {"table": document(one=0.8, two=0.8), "beside": document(one=0.9, two=0.8)})
    assert said.verdict == REFUTED
    beside = said.cells[HEADER.index("beside it")]
    assert beside.startswith("beside: +0.1")
    assert "n = 20: confirmed; absent is not measured yet" in beside


def test_what_cannot_be_compared_is_not_called_refuted() -> None:
    claim = CLAIM._replace(incomparable="ten updates")
    said = judge(claim, {"table": document(one=0.4, two=0.8)})
    assert said.cells[HEADER.index("verdict")] == "not comparable: ten updates"
    assert said.evidence.differences


def test_scores_are_subtracted_case_by_case_and_diagonals_counted() -> None:
    table = document(score="plane_hd95_mm", one=6.0, two=3.0)
    for row, volume, empty in zip(table["rows"], (2.0, 2.0), (1, 0), strict=True):
        row["scores"]["volume_hd95_mm"] = [[volume] * (len(CASES) - 1) + [None]] * 3
        row["scores"][EMPTY] = [[empty] + [0] * (len(CASES) - 1)] * 3
    said = judge(claiming(gain(), "plane_hd95_mm - volume_hd95_mm"), {"table": table})
    cells = dict(zip(HEADER, said.cells, strict=True))
    assert said.evidence.differences[0].mean == pytest.approx(3, abs=0.01)
    assert cells["n"] == "19"
    assert cells["difference"] == "one minus two (plane_hd95_mm - volume_hd95_mm)"
    assert cells["seen here"].endswith("; diagonals in 3 of 60 of one")
    assert said.verdict == CONFIRMED
    assert EMPTY in super_image_grids.measures_on(1)


@pytest.mark.parametrize(
    ("count", "seen", "verdict"),
    [
        (Count("Nobody 2000", "8.51 M", "one", 8.51e6, 5e3), "8,508,001", CONFIRMED),
        (Count("Nobody 2000", "206 M", "one", 206e6, 5e5), "8,508,001", REFUTED),
        (Count("Nobody 2000", "a third", "two", 3, 0.05, "one"), "3.00", CONFIRMED),
        (Count("Nobody 2000", "another", "three", 3, 0.05), "-", f"{OPEN}: network_costs is not measured yet"),
    ],
)
def test_numbers_of_parameters_are_right_to_their_last_digit(count: Count, seen: str, verdict: str) -> None:
    rows = [{"name": "one", "parameters": 8_508_001}, {"name": "two", "parameters": 25_524_003}]
    cells = dict(zip(HEADER, count_cells(count, {"network_costs": {"rows": rows}}), strict=True))
    assert (cells["seen here"], cells["verdict"]) == (seen, verdict)


def test_files_are_tables_and_every_claim_has_one_row(tmp_path: Path) -> None:
    write_json(tmp_path / "table.json", document(one=0.9, two=0.8))
    write_json(tmp_path / "seconds.json", {"table": 12})
    assert list(read_documents(tmp_path)) == ["table"]
    assert read_documents(tmp_path / "nothing") == {}
    verdicts: list[Verdict] = judge_all({})
    assert [verdict.claim for verdict in verdicts] == list(CLAIMS)
    assert {verdict.verdict for verdict in verdicts if not verdict.claim.incomparable} == {OPEN}
    assert len(table_of({}).splitlines()) == 2 + len(CLAIMS) + len(COUNTS) + len(UNTESTED)
    assert untested_cells(Untested("Nobody 2000", "it is", "too long"))[HEADER.index("verdict")].endswith("too long")


def test_claims_can_be_confirmed_and_refuted() -> None:
    for claim in CLAIMS:
        for contrast in claim.contrasts:
            claimed = contrast.claimed
            assert claimed.low < claimed.high
            assert not math.isinf(claimed.below) or not math.isinf(claimed.above)
            assert claimed.below < claimed.high
            assert claimed.above >= claimed.high


def test_a_page_gets_the_table_and_nothing_else_changes() -> None:
    page = f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n"
    assert filled(page, "new") == f"before\n\n{BEGIN}\n\nnew\n\n{END}\n\nafter\n"
    assert filled(filled(page, "new"), "new") == filled(page, "new")
    with pytest.raises(ValueError, match="expected a page with"):
        filled("before", "new")


def test_the_page_says_what_the_results_say() -> None:
    """`python benchmarks/verdicts.py --results benchmarks/results/papers --page ...` writes it."""
    table = table_of(read_documents(ROOT / "benchmarks" / "results" / "papers"))
    page = PAGE.read_text(encoding="utf-8")
    assert filled(page, table) == page
