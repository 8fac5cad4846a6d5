"""benchmarks/result_tables.py and machines.py: what stands under a table of a paper."""

from dataclasses import replace
from pathlib import Path

import pytest
from machines import describe_machine, distinct, letters_of, told
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
    assert conditions(settings, [MACHINE]) == f"{equal}. {WHERE}"


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
    ours = replace(ours, states_conditions=True)
    write_tables(ours, [{"name": "one"}], {"settings": settings}, tmp_path / "ours.json")
    assert "Equal updates: 80 in each training." in (tmp_path / "ours.md").read_text(encoding="utf-8")


def test_machines_are_named_by_all_that_matters() -> None:
    caps = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    amx = {**MACHINE, "instruction_sets": ["AVX2", "AMX"], "caps": caps, "precision": "bfloat16"}
    text = "Processor X (AVX2, AMX, ONEDNN_MAX_CPU_ISA=AVX2), 2 cores, 1 thread, torch 2.13.0"
    assert describe_machine(amx) == text
    assert distinct([amx, MACHINE, {**amx}]) == [amx, MACHINE]
    assert letters_of([MACHINE, amx, amx], [amx, MACHINE]) == "A, B"
    assert told([MACHINE]) == WHERE
    assert told([amx, MACHINE]) == f"Machines: A: {text}; B: {WHERE.removeprefix('Machine: ')}"
