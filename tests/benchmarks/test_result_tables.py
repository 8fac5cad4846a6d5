"""benchmarks/result_tables.py: what stands under a table of a paper."""

from pathlib import Path

import pytest
from result_tables import Table, conditions, write_tables

from seg25d.core.files import read_json

MACHINE = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}
WHERE = "Machine: Processor X, 2 cores, 1 thread, torch 2.13.0."


@pytest.mark.parametrize(
    ("settings", "equal"),
    [
        ({"time_budget": "90.0"}, "Equal time: 90 s for each training"),
        ({"iterations": "80"}, "Equal updates: 80 in each training"),
        ({"iterations": "80", "view_iterations": "600"}, "Equal updates: 80 in each training, 600 of each view"),
        (
            {"iterations": "80", "pretraining_iterations": "160"},
            "Equal updates: 80 in each training, 160 in each pretraining",
        ),
        ({}, "Trainings as long as the recipe has them"),
    ],
)
def test_what_was_equal_and_where(settings: dict[str, str], equal: str) -> None:
    assert conditions(settings, MACHINE) == f"{equal}. {WHERE}"


def test_a_table_of_a_paper_says_what_is_otherwise(tmp_path: Path) -> None:
    table = Table("name", "Title", {"row": lambda row: row["name"]}, ("Note.",), deviations="another organ.")
    settings = {"iterations": "80", "device": "cpu"}
    write_tables(table, [{"name": "one"}], {"settings": settings}, tmp_path / "it.json")
    text = (tmp_path / "it.md").read_text(encoding="utf-8")
    head, note, equal, deviations = text.split("\n\n")[1:]
    assert head.splitlines()[-1] == "| one |"
    assert note == "Note."
    assert equal.startswith("Equal updates: 80 in each training. Machine: ")
    assert deviations == "Otherwise than in the paper: another organ.\n"
    assert read_json(tmp_path / "it.json")["machine"]["threads"] >= 1
    ours = Table("name", "Title", table.columns)
    write_tables(ours, [{"name": "one"}], {"settings": settings}, tmp_path / "ours.json")
    assert "Equal" not in (tmp_path / "ours.md").read_text(encoding="utf-8"), "of no paper"
