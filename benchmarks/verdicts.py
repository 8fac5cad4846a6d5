"""What the tables say of the papers' claims: confirmed, refuted, or not decided here, by one rule.

    python benchmarks/verdicts.py --results benchmarks/results/papers
    python benchmarks/verdicts.py --results benchmarks/results/papers \
        --page documentation/reference/tables_of_the_papers.md

A claim puts the difference of two rows into a range (`claims.py`). It is confirmed where the interval of 95 % of the
difference, over cases and seeds (`over_seeds.py`), lies within that range, refuted where it lies outside, and not
decided here otherwise: where it reaches across the range's end, where a row has one training, or where a table is not
there. No correction is made for the number of claims: of twenty that are on the edge one is decided by chance. The
second command writes the table of verdicts into a page, between two comments; the first one prints it.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from claims import CLAIMS, Claim, Range
from over_seeds import Difference, difference
from result_tables import markdown_table

from seg25d.core.files import read_json, read_text, write_text

BEGIN, END = "<!-- verdicts: begin, by benchmarks/verdicts.py -->", "<!-- verdicts: end -->"
CONFIRMED, REFUTED, OPEN, INCOMPARABLE = "confirmed", "refuted", "not decided here", "not comparable"
Document = Mapping[str, Any]
"""Content of the JSON file of a table."""


class Verdict(NamedTuple):
    """What one table says of a claim."""

    claim: Claim
    table: str
    verdict: str
    difference: Difference | None = None
    reason: str = ""
    """Why it is not decided."""

    @property
    def cells(self) -> list[str]:
        """The row of the table of verdicts."""
        score = "" if self.claim.score == "dice" else f" ({self.claim.score})"
        reason = f": {self.reason}" if self.reason else ""
        found = "-" if self.difference is None else str(self.difference)
        rows = f"{self.claim.first} minus {self.claim.second}{score}"
        return [self.claim.paper, self.claim.sentence, self.table, rows, found, f"{self.verdict}{reason}"]


def decide(found: Difference, claimed: Range) -> str:
    """Compare the interval of a difference with what is claimed of it."""
    if found.low is None or found.high is None:
        return OPEN
    if claimed.low <= found.low and found.high <= claimed.high:
        return CONFIRMED
    return REFUTED if found.high < claimed.low or found.low > claimed.high else OPEN


def judge(claim: Claim, table: str, documents: Mapping[str, Document]) -> Verdict:
    """Say what a table decides.

    Args:
        claim: One of `CLAIMS`.
        table: One of its tables.
        documents: Of all tables that were made, by name.
    """
    names = table.split(" + ")
    rows = []
    for name, row in zip((names[0], names[-1]), (claim.first, claim.second), strict=True):
        if name not in documents:
            return Verdict(claim, table, OPEN, reason=f"{name} is not measured yet")
        found = [each for each in documents[name]["rows"] if each["name"] == row]
        if not found or claim.score not in found[0]["scores"]:
            return Verdict(claim, table, OPEN, reason=f"{row} is not measured yet")
        rows.append(found[0])
    if rows[0]["cases"] != rows[1]["cases"]:
        return Verdict(claim, table, OPEN, reason="the rows have other cases")
    gain = difference(*(row["scores"][claim.score] for row in rows))
    if gain is None:
        return Verdict(claim, table, OPEN, reason="fewer than two cases have the score")
    if claim.incomparable:
        return Verdict(claim, table, INCOMPARABLE, gain, claim.incomparable)
    verdict = decide(gain, claim.claimed)
    return Verdict(claim, table, verdict, gain, "one training" if gain.low is None else "")


def judge_all(documents: Mapping[str, Document], claims: Sequence[Claim] = CLAIMS) -> Iterator[Verdict]:
    """All verdicts, in the order of the claims."""
    return (judge(claim, table, documents) for claim in claims for table in claim.tables)


def read_documents(results: Path) -> dict[str, Document]:
    """The tables that were made, by name; none if there is no such folder."""
    documents = {path.stem: read_json(path) for path in sorted(results.glob("*.json"))}
    return {name: document for name, document in documents.items() if "rows" in document}


def table_of(verdicts: Iterator[Verdict]) -> str:
    """The table of verdicts in Markdown."""
    header = ["paper", "claim", "table", "difference", "seen here", "verdict"]
    return markdown_table(header, [verdict.cells for verdict in verdicts])


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


def main() -> None:
    """Print the table, or write it into a page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--results", type=Path, required=True, help="the folder that all_tables.py wrote")
    parser.add_argument("--page", type=Path, help="Markdown with the two comments; its table is replaced")
    options = parser.parse_args()
    table = table_of(judge_all(read_documents(options.results)))
    if options.page is None:
        print(table)
    else:
        write_text(options.page, filled(read_text(options.page), table))


if __name__ == "__main__":
    main()
