"""Folds that end at the same time, on one machine or several that share a folder, are summarized together."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME

END = """
import sys, time
from pathlib import Path
from seg25d.core.workspace import RunFolder
from seg25d.workflows import folds

run, number, start = RunFolder(root=Path(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3])
write = folds.write_record
folds.write_record = lambda path, record: (time.sleep(0.5 * (2 - number)), write(path, record))  # the first is the last
print("ready", flush=True)
while not start.exists():
    time.sleep(0.01)
time.sleep(0.15 * number)
results = run.fold(number).validation
(results / "summary.part").rename(results / "summary.json")
folds.summarize_folds(run, 3)
"""


@pytest.mark.slow
def test_no_fold_is_lost_of_those_that_end_together(trained_once: Path, tmp_path: Path) -> None:
    shutil.copytree(trained_once, tmp_path / "workspace")
    run = Workspace.resolve(tmp_path / "workspace", {}).run(DATASET_NAME, "si")
    shutil.rmtree(run.crossval.parent)
    for fold in range(3):
        results = run.fold(fold).validation
        (results / "summary.json").rename(results / "summary.part")
    command = [sys.executable, "-c", END, str(run.root)]
    ends = [
        subprocess.Popen([*command, str(fold), str(tmp_path / "start")], stdout=subprocess.PIPE, text=True)
        for fold in range(3)
    ]
    for each in ends:
        assert each.stdout.readline() == "ready\n"
    time.sleep(0.1)
    (tmp_path / "start").touch()
    assert [each.wait(60) for each in ends] == [0, 0, 0]
    cases = {f"phantom_{index:03d}" for index in range(3)}
    assert {each["case"] for each in json.loads(run.crossval.read_text())["per_case"]} == cases
    assert {each["case"] for each in json.loads(run.predicted_dice.read_text())["cases"]} == cases
