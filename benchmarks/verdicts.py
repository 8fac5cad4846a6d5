"""What the tables say of the papers' claims: confirmed, refuted, or not decided here, by one rule.

    python benchmarks/verdicts.py --results benchmarks/results/papers
    python benchmarks/verdicts.py --results benchmarks/results/papers \
        --page documentation/reference/tables_of_the_papers.md

A claim (`claims.py`) says which differences of two rows confirm it, and which refute it. It is decided where the
interval of the difference, over cases and seeds (`over_seeds.py`), lies among them, in the one table named for it. As
there are many claims, the intervals are Holm's: with 20 claims the clearest difference needs p = 0.05 / 20, the next
one 0.05 / 19, up to the first that fails. What tables say beside it is of one table by itself, with p = 0.05.

Nothing is decided where a row has fewer than three trainings, or other seeds than the other row, where its mean Dice
shows that it is not trained yet, where times of several machines would be compared, or where a table is not there.
Patients count once, however many of their cases there are. The second command writes the table of verdicts into a page,
between two comments; the first one prints it.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from claims import CLAIMS, COUNTS, DICE, UNTESTED, Claim, Contrast, Count, Range, Untested
from machines import distinct
from over_seeds import Difference, Scores, difference
from result_tables import markdown_table

from seg25d.core.files import read_json, read_text, write_text

BEGIN, END = "<!-- verdicts: begin, by benchmarks/verdicts.py -->", "<!-- verdicts: end -->"
CONFIRMED, REFUTED, OPEN, INCOMPARABLE = "confirmed", "refuted", "not decided here", "not comparable"
ALPHA = 0.05
"""Of a claim by itself, and of all together by Holm's procedure."""
FEWEST_TRAININGS = 3
LOWEST_DICE = 0.3
"""A row with a lower mean is not trained; ours, fixed before anything was measured."""
EMPTY = "num_empty"
"""Score of rows with HD95: classes of a case whose distance is the volume's diagonal, see `super_image_grids.py`."""
COUNTS_TABLE = "network_costs"
HEADER = ["paper", "claim", "the paper has", "table", "difference", "seen here", "n", "verdict", "beside it"]
Document = Mapping[str, Any]
"""Content of the JSON file of a table."""
Row = Mapping[str, Any]
"""One of its rows."""


class Evidence(NamedTuple):
    """What one table says of a claim."""

    table: str
    differences: tuple[Difference, ...] = ()
    """One for each test of the claim."""
    confirms: float = 1.0
    """Two-sided p of the hypotheses that the claim is against."""
    refutes: float = 1.0
    """The same for what would refute it."""
    reason: str = ""
    """Why it decides nothing, whatever its numbers."""
    remark: str = ""

    @property
    def p(self) -> float:
        """Of whichever it says."""
        return 1.0 if self.reason else min(self.confirms, self.refutes)

    def verdict(self, level: float) -> str:
        """What it says at a level."""
        if self.reason or not level:
            return OPEN
        return CONFIRMED if self.confirms <= level else REFUTED if self.refutes <= level else OPEN


class Verdict(NamedTuple):
    """What is said of a claim."""

    claim: Claim
    evidence: Evidence
    verdict: str
    reason: str = ""
    """Why it is not decided, or what else is to be known."""
    beside: tuple[Evidence, ...] = ()
    """What the other tables say."""

    @property
    def cells(self) -> list[str]:
        """The row of the table of verdicts."""
        claim, found = self.claim, self.evidence
        first, *second = found.table.split(" + ")
        names = [contrast.name for contrast in claim.contrasts]
        if second:
            names = [f"{each}, the first of {first}, the second of {second[0]}" for each in names]
        seen = "; ".join([*map(str, found.differences), *([found.remark] if found.remark else [])]) or "-"
        return [
            *(claim.paper, claim.sentence, claim.number, found.table, "; ".join(names), seen),
            *(_numbers(found.differences), f"{self.verdict}: {self.reason}" if self.reason else self.verdict),
            "; ".join(map(_briefly, self.beside)) or "-",
        ]


def p_values(found: Difference, claimed: Range) -> tuple[float, float]:
    """The p with which a difference confirms what is claimed of it, and the p with which it refutes it."""
    confirms = refutes = 1.0
    if claimed.low < found.mean < claimed.high:
        confirms = max(found.p_against(claimed.low), found.p_against(claimed.high))
    if found.mean < claimed.below:
        refutes = found.p_against(claimed.below)
    elif found.mean > claimed.above:
        refutes = found.p_against(claimed.above)
    return confirms, refutes


def holm_levels(ps: Sequence[float], level: float = ALPHA) -> list[float]:
    """The level at which each is decided by Holm's step-down procedure; 0 for those that are not.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    levels = [0.0] * len(ps)
    for rank, index in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        own = level / (len(ps) - rank)
        if ps[index] > own:
            break
        levels[index] = own
    return levels


def weigh(claim: Claim, table: str, documents: Mapping[str, Document]) -> Evidence:
    """Say what a table says of a claim.

    Args:
        claim: One of `CLAIMS`.
        table: Its table, or one beside it.
        documents: Of all tables that were made, by name.
    """
    names = table.split(" + ")
    places = names[0], names[-1]
    if missing := [name for name in places if name not in documents]:
        return Evidence(table, reason=f"{missing[0]} is not measured yet")
    timed = any("time_budget" in documents[name].get("settings", {}) for name in places)
    differences, ps, remarks = [], [], []
    for contrast in claim.contrasts:
        rows = [_row(documents[name], row) for name, row in zip(places, (contrast.first, contrast.second), strict=True)]
        if reason := _absent(contrast, rows) or _flaw(rows, timed=timed):
            return Evidence(table, reason=reason)
        cases = rows[0]["cases"]
        gain = difference(*(_scores(row, contrast.score, cases) for row in rows), paired=claim.paired, cases=cases)
        if gain is None:
            return Evidence(table, reason="fewer than two cases have the score")
        differences.append(gain)
        ps.append(p_values(gain, contrast.claimed))
        remarks += [_diagonals(row) for row in rows if EMPTY in row["scores"] and contrast.score != DICE]
    confirms, refutes = zip(*ps, strict=True)
    reason = "nothing varies" if any(each.low is None for each in differences) else ""
    remark = "; ".join(dict.fromkeys(filter(None, remarks)))
    return Evidence(table, tuple(differences), max(confirms), min(1.0, len(ps) * min(refutes)), reason, remark)


def judge_all(documents: Mapping[str, Document], claims: Sequence[Claim] = CLAIMS) -> list[Verdict]:
    """All verdicts, in the order of the claims; those that their tables can decide share a level (`holm_levels`)."""
    found = [weigh(claim, claim.table, documents) for claim in claims]
    able = [index for index, each in enumerate(found) if not (claims[index].incomparable or each.reason)]
    levels = dict(zip(able, holm_levels([found[index].p for index in able]), strict=True))
    verdicts = []
    for index, (claim, evidence) in enumerate(zip(claims, found, strict=True)):
        verdict, reason = evidence.verdict(levels.get(index, 0.0)), evidence.reason
        if verdict == CONFIRMED and evidence.refutes <= ALPHA:
            reason = "but by less than half of the paper's"
        elif verdict == OPEN and (alone := evidence.verdict(ALPHA)) != OPEN:
            reason = f"{alone} by itself, not among {len(able)} claims"
        if claim.incomparable:
            verdict, reason = INCOMPARABLE, claim.incomparable
        beside = tuple(weigh(claim, table, documents) for table in claim.beside)
        verdicts.append(Verdict(claim, evidence, verdict, reason, beside))
    return verdicts


def judge(claim: Claim, documents: Mapping[str, Document]) -> Verdict:
    """What is said of one claim alone."""
    return judge_all(documents, [claim])[0]


def count_cells(count: Count, documents: Mapping[str, Document]) -> list[str]:
    """The row of a number of parameters."""
    rows = {row["name"]: row["parameters"] for row in documents.get(COUNTS_TABLE, {"rows": ()})["rows"]}
    names = [count.row, *([] if count.divided_by is None else [count.divided_by])]
    seen, verdict = "-", f"{OPEN}: {COUNTS_TABLE} is not measured yet"
    if set(names) <= set(rows):
        number = rows[names[0]] / (1 if count.divided_by is None else rows[names[1]])
        seen = f"{number:,.0f}" if count.divided_by is None else f"{number:.2f}"
        verdict = CONFIRMED if abs(number - count.number) <= count.half_unit else REFUTED
    paper = f"{count.number / 1e6:g} M" if count.divided_by is None else f"{count.number:g}"
    return [count.paper, count.sentence, paper, COUNTS_TABLE, " / ".join(names), seen, "-", verdict, "-"]


def untested_cells(claim: Untested) -> list[str]:
    """The row of a claim that is not tested."""
    return [claim.paper, claim.sentence, "-", "-", "-", "-", "-", f"not tested here: {claim.reason}", "-"]


def read_documents(results: Path) -> dict[str, Document]:
    """The tables that were made, by name; none if there is no such folder."""
    documents = {path.stem: read_json(path) for path in sorted(results.glob("*.json"))}
    return {name: document for name, document in documents.items() if "rows" in document}


def table_of(documents: Mapping[str, Document]) -> str:
    """The table of verdicts in Markdown: claims, numbers of parameters, and what is not tested."""
    rows = [verdict.cells for verdict in judge_all(documents)]
    rows += [count_cells(count, documents) for count in COUNTS]
    return markdown_table(HEADER, rows + [untested_cells(claim) for claim in UNTESTED])


def filled(page: str, table: str) -> str:
    """A page with another table between the two comments.

    Raises:
        ValueError: If it does not have them.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"expected a page with {BEGIN} and {END}")
    return f"{head}{BEGIN}\n\n{table}\n\n{END}{tail}"


def _row(document: Document, name: str) -> Row:
    """A row of a table; an empty one if it is not there."""
    return next((row for row in document["rows"] if row["name"] == name), {})


def _absent(contrast: Contrast, rows: Sequence[Row]) -> str:
    """Which of the two rows is not there with its score; empty if both are."""
    for name, row in zip((contrast.first, contrast.second), rows, strict=True):
        if not set(_parts(contrast.score)) <= set(row.get("scores", {})):
            return f"{name} is not measured yet"
    return ""


def _flaw(rows: Sequence[Row], *, timed: bool) -> str:
    """Why two rows cannot be compared; empty if they can."""
    first, second = rows
    numbers = [len(next(iter(row["scores"].values()))) for row in rows]
    if min(numbers) < FEWEST_TRAININGS:
        return f"{min(numbers)} of at least {FEWEST_TRAININGS} trainings"
    if numbers[0] != numbers[1] or first.get("seeds") != second.get("seeds"):
        return "the rows have other seeds"
    if sorted(first["cases"]) != sorted(second["cases"]):
        return "the rows have other cases"
    if timed and len(distinct([*first["machines"], *second["machines"]])) > 1:
        return "equal time on several machines"
    for row in rows:
        names = [DICE] if DICE in row["scores"] else [name for name in row["scores"] if name.isdecimal()]
        known = [dice for name in names for each in row["scores"][name] for dice in each if dice is not None]
        if known and fmean(known) < LOWEST_DICE:
            return f"{row['name']} is not trained: its mean Dice is {fmean(known):.3f}, below {LOWEST_DICE}"
    return ""


def _parts(score: str) -> list[str]:
    """The scores in `A - B`."""
    return score.split(" - ")


def _scores(row: Row, score: str, cases: Sequence[str]) -> Scores:
    """A score of these cases, (trainings, cases), or the difference of two."""
    places = [row["cases"].index(case) for case in cases]
    names = _parts(score)
    first, *second = ([[training[place] for place in places] for training in row["scores"][name]] for name in names)
    if not second:
        return first
    trainings = (zip(*each, strict=True) for each in zip(first, second[0], strict=True))
    return [[None if None in (one, other) else one - other for one, other in each] for each in trainings]


def _diagonals(row: Row) -> str:
    """In how many segmentations of a row a class has the volume's diagonal as its distance; empty if in none."""
    found = [number for training in row["scores"][EMPTY] for number in training]
    missed = sum(number is not None and number > 0 for number in found)
    return f"diagonals in {missed} of {len(found)} of {row['name']}" if missed else ""


def _numbers(differences: Sequence[Difference]) -> str:
    """How many cases, or patients, there are."""
    return ", ".join(dict.fromkeys(str(each.num_cases) for each in differences)) or "-"


def _briefly(evidence: Evidence) -> str:
    """What a table beside the one that decides says."""
    table, reason = evidence.table, evidence.reason
    if reason:
        return reason if reason.startswith(table) else f"{table}: {reason}"
    seen, number = "; ".join(map(str, evidence.differences)), _numbers(evidence.differences)
    return f"{table}: {seen}, n = {number}: {evidence.verdict(ALPHA)}"


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--results", type=Path, required=True, help="the folder that all_tables.py wrote")
    parser.add_argument("--page", type=Path, help="Markdown with the two comments; its table is replaced")
    options = parser.parse_args()
    table = table_of(read_documents(options.results))
    if options.page is None:
        print(table)
    else:
        write_text(options.page, filled(read_text(options.page), table))


if __name__ == "__main__":
    main()
