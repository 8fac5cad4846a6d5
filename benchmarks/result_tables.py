"""Tables of the benchmarks: their columns, and the files that they are written to, JSON for programs and Markdown.

A table of a paper says under itself whether updates or time were equal, on which machine, and what is otherwise than in
the paper. Rows may come from several machines (`finished.py`); then a column says from which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from finished import KEY, changing
from machines import Machine, distinct, letters_of, this_machine, told
from over_seeds import Difference, mean_over_seeds

from seg25d.core.files import write_text

Row = dict[str, Any]

OVER_SEEDS = (
    "Mean ± standard deviation over seeds of the mean over validation cases; differences of means with their interval "
    "of 95 % and p, of a test that knows cases and seeds (`benchmarks/over_seeds.py`). Nothing is mirrored; seconds "
    "are those of a case of median size."
)
"""Note below every table over seeds."""

COLUMNS: dict[str, Callable[[Row], str]] = {
    "Dice": lambda row: mean_over_seeds(row["scores"]["dice"]),
    "HD95 mm": lambda row: mean_over_seeds(row["scores"]["hd95_mm"], 2),
    "updates": lambda row: f"{row['iterations']:.0f}",
    "s/update": lambda row: f"{row['seconds_per_update']:.2f}",
    "training": lambda row: f"{row['training_s'] / 60:.1f} min",
    "memory": lambda row: f"{row['training_memory_gb']:.2f} GB",
    "parameters": lambda row: f"{row['cost']['num_parameters'] / 1e6:.2f} M",
    "s/case": lambda row: f"{row['cost']['seconds_per_case']:.2f}",
    "GFLOPs": lambda row: f"{row['cost']['flops_per_case'] / 1e9:.0f}",
}
"""Columns that several tables have: scores with their spread over seeds, `memory` in training, operations per case."""
COMPARED = {"dice": "", "hd95_mm": ", HD95 mm"}
"""Measures that are compared, and what headers say of them."""


@dataclass(frozen=True)
class Table:
    """A table, of a paper or of ours."""

    name: str
    """Name of its folder in the workspace."""
    title: str
    columns: Mapping[str, Callable[[Row], str]]
    """Headers, and functions that format the cells of a row."""
    notes: Sequence[str] = ()
    references: Sequence[str] = ()
    """Contenders that the others are compared with, in all of `COMPARED`."""
    deviations: str = ""
    """What is otherwise than in the paper's table; empty: it is not a paper's."""
    states_conditions: bool = False
    """Whether a table of ours, too, says what was equal, and on which machine."""

    @property
    def differences(self) -> dict[str, tuple[str, str]]:
        """Reference and measure of each difference, by its name in rows, which stands after `minus` in the header."""
        return {f"{name}{words}": (name, score) for name in self.references for score, words in COMPARED.items()}


def columns(*names: str) -> dict[str, Callable[[Row], str]]:
    """Some of `COLUMNS`, in this order."""
    return {name: COLUMNS[name] for name in names}


def write_tables(table: Table, rows: Sequence[Row], facts: Mapping[str, Any], output: Path) -> None:
    """Write JSON and Markdown; finished trainings in the JSON file stay there.

    Args:
        table: What the cells are.
        rows: As they are in the JSON file; those of trainings have the `machines` that these ran on.
        facts: What else is in it: at least `settings`, see `finished.settings_of`.
        output: The JSON file; the Markdown file lies beside it.
    """
    machine = this_machine(facts["settings"].get("device"))
    with changing(output) as document:
        trainings = {KEY: document[KEY]} if KEY in document else {}
        document.clear()
        document.update({"title": table.title, **facts, "machine": machine, "rows": list(rows), **trainings})
    machines = distinct(each for row in rows for each in row.get("machines", ())) or [machine]
    cells: dict[str, Callable[[Row], str]] = dict(table.columns)
    cells |= {f"minus {name}": partial(compared, name=name) for name in table.differences}
    if len(machines) > 1:
        cells["machine"] = lambda row: letters_of(row.get("machines", ()), machines) or "-"
    text = markdown_table(list(cells), [[cell(row) for cell in cells.values()] for row in rows])
    notes = list(table.notes)
    if table.deviations or table.states_conditions:
        notes.append(conditions(facts["settings"], machines))
    elif len(machines) > 1:
        notes.append(told(machines))
    if table.deviations:
        notes.append(f"Otherwise than in the paper: {table.deviations}")
    write_text(output.with_suffix(".md"), f"{table.title}\n\n{text}\n" + "".join(f"\n{note}\n" for note in notes))
    print(text, flush=True)


def conditions(settings: Mapping[str, str], machines: Sequence[Machine]) -> str:
    """Say what was equal for all rows, and where they were trained."""
    if "time_budget" in settings:
        equal = f"Equal time: {float(settings['time_budget']):g} s for each training"
    elif "iterations" in settings:
        equal = f"Equal updates: {settings['iterations']} in each training"
        if "view_iterations" in settings:
            equal += f", {settings['view_iterations']} of each view"
        if "pretraining_iterations" in settings:
            equal += f", {settings['pretraining_iterations']} in each pretraining"
    else:
        equal = "Trainings as long as the recipe has them"
    return f"{equal}. {told(machines)}"


def compared(row: Row, name: str) -> str:
    """Format the difference from a reference."""
    found = row["differences"].get(name)
    return "-" if found is None else str(Difference(**found))


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def of_paper(row: Row, *names: str) -> str:
    """Format the results of the paper."""
    return " / ".join(f"{row['paper'][name]:g}" for name in names) if set(names) <= set(row["paper"]) else "-"
