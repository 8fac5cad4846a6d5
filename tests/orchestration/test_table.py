"""What the table of tasks shows on a terminal, and what is said elsewhere."""

import json
import logging
import re

from seg25d.orchestration.journal import Journal
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import Outcome
from seg25d.runs.task_records import RunRecord
from tests.orchestration.conftest import made_up

RECORD = RunRecord(dataset_name="Dataset001_A", arguments={}, on="local")


def table_of(tmp_path, number: int) -> tuple[Journal, Table, list]:
    journal = Journal(tmp_path / "run.json", RECORD)
    tasks = [made_up(f"task_{index:02d}", "nothing", progress=tmp_path / "fold") for index in range(number)]
    journal.add(tasks)
    return journal, Table(journal, tmp_path), tasks


def last_screen(text: str) -> str:
    return text[text.rindex("task  ") :]


def test_a_terminal_that_is_too_low_shows_what_runs_or_failed_and_counts_the_rest(tmp_path, open_terminal, monkeypatch):
    monkeypatch.setenv("LINES", "12")
    terminal = open_terminal()
    journal, table, tasks = table_of(tmp_path, 40)
    fold = tmp_path / "fold"
    fold.mkdir()
    (fold / "config.json").write_text(json.dumps({"epochs": 4, "iterations_per_epoch": 10}))
    (fold / "log.jsonl").write_text(json.dumps({"iteration": 10, "total_seconds": 3.0}) + "\n")
    for index in range(20):
        journal.end(tasks[index].name, Outcome(status=0, seconds=7))
    journal.set_state(tasks[30].name, "running")
    journal.end(tasks[31].name, Outcome(status=2, message="no \x1b[31m room"))
    table.show([tasks[30]])
    screen = last_screen(terminal.text)
    assert re.search(r"task_30 +running +25%", screen)
    assert re.search(r"task_31 +failed .*no \\u001b", screen)
    assert re.search(r"task_00 +done +7.0 s", screen)
    assert "task_39" not in screen
    assert re.search(r"and 14 done, 18 waiting", screen)
    table.close()
    assert all(task.name in last_screen(terminal.text) for task in tasks)


def test_elsewhere_there_are_lines(tmp_path, caplog):
    caplog.set_level(logging.INFO, "seg25d")
    _, table, tasks = table_of(tmp_path, 3)
    table.show(tasks[:1])
    table.ended(tasks[0].name, Outcome(status=0, seconds=7))
    table.ended(tasks[1].name, Outcome(status=2, message="no room"))
    table.close()
    assert "task_00: done in 7.0 s" in caplog.text
    assert f"task_01 ended with status 2: no room ({tmp_path / 'task_01.log'})" in caplog.text
