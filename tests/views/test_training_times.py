"""How long the trainings of a data set take: the sum of all models, and what commands tell of it."""

import json
import shutil
from pathlib import Path

import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.plans_file import read_plans
from seg25d.training import timing
from seg25d.training.timing import Training
from seg25d.views.training_times import describe_times, timed_trainings
from tests.untraced import untraced

UPDATES_S = {"slices": 0.5, "fused_views": 2.0, "super_image": 0.25}


@pytest.fixture(scope="module")
def planned(three_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(root, "plan_and_preprocess", "-d", "900", "-c", "mv", "si", "--plan-only")
    return root


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of what was timed; an update of each method takes a time of its own."""
    names: list[str] = []

    def measure(training: Training) -> float:
        names.append(training.name)
        return UPDATES_S[training.plan.representation.name]

    monkeypatch.setattr(timing, "measure", measure)
    monkeypatch.setattr(timing, "_TIMED", {})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return names


def run(root: Path, *words: str) -> None:
    assert main([*words, "--workspace", str(root), "--num-processes", "0"]) == 0


def seconds(plan: ConfigurationPlan, epochs: int, update: float) -> float:
    """Epochs of 100 updates, and after each the windows of one case, four at the most, at a third of an update."""
    batches = -(-min(4, 20 * plan.batch_size) // plan.batch_size)
    return epochs * (100 + batches / 3) * update


def test_a_fusion_of_views_is_the_sum_of_its_models(planned: Path, timed: list[str]) -> None:
    workspace = Workspace.resolve(planned, {})
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    plans = read_plans(folder.plans())
    times = timed_trainings(folder, plans, "cpu", 0)
    assert set(timed) == set(times) == {"axial", "coronal", "sagittal", "mv", "si"}
    views = sum(seconds(plans.configurations[view], 500, 0.5) for view in ("axial", "coronal", "sagittal"))
    own = seconds(plans.configurations["mv"], 300, 2.0)
    # Of three folds: the own one and two pairs; for all of them three folds and three pairs.
    assert times["mv"].num_models == 10
    assert times["mv"].updates_per_fold == 9 * 50_000 + 30_000
    assert times["mv"].seconds_per_fold == pytest.approx(3 * views + own)
    assert times["mv"].seconds_all_folds == pytest.approx(6 * views + 3 * own)
    si = seconds(plans.configurations["si"], 500, 0.25)
    assert times["si"].seconds_per_fold == pytest.approx(si)
    assert times["si"].seconds_all_folds == pytest.approx(3 * si)
    table = describe_times(times, "cpu").splitlines()
    assert max(map(len, table)) <= 110
    (row,) = (line for line in table if line.startswith("mv"))
    assert row.split()[1:5] == ["2", "s", "10", "480,000"]
    assert row.endswith("2 h 30 min for its models")


def test_explain_times_once_and_info_tells_it(
    planned: Path, timed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(planned, "info")
    assert not timed
    assert "`seg25d info ID` tells how long" in capsys.readouterr().out
    run(planned, "plan_and_preprocess", "-d", "900", "-c", "mv", "si", "--plan-only")
    assert not timed, "without --explain nothing is timed"
    words = ("plan_and_preprocess", "-d", "900", "-c", "mv", "si", "--plan-only", "--explain", "--device", "cpu")
    run(planned, *words)
    assert len(timed) == 5
    explained = capsys.readouterr().out
    assert "How long trainings take on this machine" in explained
    for each in ([], ["900"]):
        run(planned, "info", *each, "--device", "cpu")
        assert explained.rpartition("How long")[2] in capsys.readouterr().out
    run(planned, "info", "900", "--json", "--device", "cpu")
    told = json.loads(capsys.readouterr().out)["datasets"][0]["trainings"]["plans.json"]
    assert told["mv"]["num_models"] == 10
    assert len(timed) == 5


def test_a_device_that_is_not_there_is_an_error_before_anything_is_planned(
    three_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(three_folds, tmp_path / "workspace")
    place = ["--workspace", str(tmp_path / "workspace")]
    assert main(["plan_and_preprocess", "-d", "900", "--explain", "--device", "cuda:99", *place]) == 2
    assert "cuda:99" in capsys.readouterr().err
    assert not (tmp_path / "workspace" / "preprocessed").exists()


def test_too_few_folds_for_a_fusion_leave_it_out(planned: Path, timed: list[str], tmp_path: Path) -> None:
    shutil.copytree(planned, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    splits = workspace.preprocessed_dataset(DATASET_NAME).splits
    cases = [f"phantom_{index:03d}" for index in range(3)]
    splits.write_text(json.dumps([{"train": cases, "val": cases}]))
    times = api.training_times(workspace, "900", "cpu", 0)["plans.json"]
    assert set(times) == {"axial", "coronal", "sagittal", "si"}
    assert set(timed) == set(times), "what cannot be trained is not timed"


def test_with_two_folds_the_fusion_of_all_cases_is_told(planned: Path, timed: list[str], tmp_path: Path) -> None:
    shutil.copytree(planned, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    splits = workspace.preprocessed_dataset(DATASET_NAME).splits
    cases = [f"phantom_{index:03d}" for index in range(3)]
    splits.write_text(json.dumps([{"train": cases[1:], "val": cases[:1]}, {"train": cases[:1], "val": cases[1:]}]))
    times = api.training_times(workspace, "900", "cpu", 0)["plans.json"]
    assert (times["mv"].fold, times["si"].fold) == ("all", "0")
    assert times["mv"].num_models == 10, "of fold `all` and of both others"
    assert times["mv"].seconds_per_fold == times["mv"].seconds_all_folds
    text = describe_times(times, "cpu")
    assert "mv, only fold all" in text
    assert "if the machine was busy then, delete" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 110
    assert timed
