"""The ceiling of projections between the data set and its plans: when it is measured, and when not."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.api import plan_and_preprocess
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.preprocessing.store import Store
from seg25d.representations.projections.ceiling import NOT_MEASURED
from seg25d.representations.projections.method import Projections
from seg25d.workflows import case_ceiling, ceiling
from seg25d.workflows.options import PlanningOptions
from seg25d.workflows.preparation import NO_FOLD, ONLY_ALL
from tests.untraced import untraced

NAME = "Dataset001_Rings"


def write(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.0, 1.0))
    sitk.WriteImage(image, str(path))


@pytest.fixture(autouse=True)
def _untraced() -> Iterator[None]:
    with untraced():
        yield


@pytest.fixture
def workspace(tmp_path: Path, rng: np.random.Generator) -> Workspace:
    """Three cases of 20 x 16 x 16: a bar, which projections show, and a ring about D, which they show as a disc."""
    raw = tmp_path / "raw" / NAME
    distance = np.hypot(*(np.indices((16, 16)) - 7.5))
    for name in "abc":
        labels = np.zeros((20, 16, 16), np.uint8)
        labels[2:9, (distance < 7) & (distance > 4.5)] = 1
        labels[12:18, 6:9, 5:11] = 2
        write(raw / "imagesTr" / f"{name}_0000.nrrd", rng.normal(50, 3, labels.shape).astype(np.float32))
        write(raw / "labelsTr" / f"{name}.nrrd", labels)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "ring": 1, "bar": 2},
        "numTraining": 3,
        "file_ending": ".nrrd",
    }
    (raw / "dataset.json").write_text(json.dumps(description))
    return Workspace.resolve(tmp_path, {})


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases whose labels were read for a ceiling."""
    read, names = case_ceiling.read_model_labels, []

    def note(case: Any, *settings: Any, **options: Any) -> Any:
        names.append(case.name)
        return read(case, *settings, **options)

    monkeypatch.setattr(case_ceiling, "read_model_labels", note)
    return names


def plan(workspace: Workspace, *configurations: str, **changes: Any) -> dict[str, Any]:
    options = PlanningOptions(configurations=configurations, plan_only=True, num_processes=0, **changes)
    plan_and_preprocess(workspace, ["1"], options)
    content = json.loads(workspace.preprocessed_dataset(NAME).plans().read_text())
    planned: dict[str, Any] = content["configurations"]
    return planned


def edit(workspace: Workspace, window: list[int], **changes: Any) -> None:
    path = workspace.preprocessed_dataset(NAME).plans()
    content = json.loads(path.read_text())
    content["configurations"]["mip"]["representation"].update(changes)
    content["configurations"]["mip"]["window"] = window
    path.write_text(json.dumps(content))


def test_the_ceiling_is_measured_written_and_told(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    planned = plan(workspace, "si", "mip")["mip"]
    dice = planned["ceiling"]["dice"]
    # By hand: a ring between 4.5 and 7 is 0.59 of the disc, so that the disc would have a Dice of 0.74.
    assert dice["1"] == pytest.approx(0.74, abs=0.05)
    assert dice["2"] > 0.95
    assert "mip is not advised for ring" in planned["reasons"]["ceiling"]
    assert planned["reasons"]["ceiling"] in caplog.text


def test_nothing_is_measured_without_mip(workspace: Workspace, looked_at: list[str]) -> None:
    assert "ceiling" not in plan(workspace, "si")["si"]["reasons"]
    assert not looked_at


def test_the_mean_of_cases_does_not_depend_on_which_is_done_first(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int | None, int]] = []
    numbers = {"a": 0.1, "b": 0.2, "c": 0.3}  # (0.1 + 0.2) + 0.3 is not (0.3 + 0.2) + 0.1

    def backwards(function: Any, items: Any, *, name: Any, num_workers: int) -> Any:
        del function, name
        return ((item, {"1": numbers[item.name]} | ({"2": 0.5} if item.name == "b" else {})) for item in items[::-1])

    def choose(requested: int | None, bytes_per_worker: int, num_items: int) -> int:
        asked.append((requested, num_items))
        # Labels as read, and on the plan's grid: the image has no zeros, and is not read.
        assert bytes_per_worker == 20 * 16 * 16 * (8 + 14) + (200 << 20)
        return 0

    monkeypatch.setattr(ceiling, "map_cases", backwards)
    monkeypatch.setattr(ceiling, "choose_num_workers", choose)
    means: list[Any] = []
    monkeypatch.setattr(ceiling, "with_ceiling", lambda plan, dice, _: means.append(dice) or plan)
    plan(workspace, "mip")
    assert means == [{"1": (0.1 + 0.2 + 0.3) / 3, "2": 0.5}]
    assert asked == [(0, 3)]


def test_a_ceiling_is_measured_once(workspace: Workspace, looked_at: list[str]) -> None:
    before = plan(workspace, "mip")
    assert looked_at == ["a", "b", "c"]
    assert plan(workspace, "mip") == before
    assert plan(workspace, "mip", "si")["mip"] == before["mip"]
    assert looked_at == ["a", "b", "c"]
    plan(workspace, "mip", clean=True)
    assert looked_at == ["a", "b", "c"] * 2


def test_a_repeat_with_nothing_to_do_asks_once_and_writes_no_arrays(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    options = PlanningOptions(configurations=("2d", "3d"), num_processes=0)
    has, asked = Store.has, []

    def note(store: Store, case: str, source_key: str, *, reference: bool = False) -> bool:
        asked.append(case)
        return has(store, case, source_key, reference=reference)

    monkeypatch.setattr(Store, "has", note)
    plan_and_preprocess(workspace, ["1"], options)
    folder = workspace.preprocessed_dataset(NAME)
    (store,) = folder.root.glob("spacing_*")
    files = [folder.fingerprint, folder.root / "verified.json", *store.iterdir()]
    before = {path: path.stat().st_mtime_ns for path in files}
    asked.clear()
    caplog.clear()
    plan_and_preprocess(workspace, ["1"], options)
    assert asked == ["a", "b", "c"]
    assert {path: path.stat().st_mtime_ns for path in files} == before
    assert "3 of 3 cases are preprocessed already" in caplog.text
    image = workspace.raw_dataset(NAME) / "imagesTr" / "b_0000.nrrd"
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 1))
    plan_and_preprocess(workspace, ["1"], options)
    changed = {
        path.name.partition("_")[0].partition(".")[0] for path in before if path.stat().st_mtime_ns != before[path]
    }
    assert changed == {"b", "fingerprint", "verified"}


def test_another_axis_has_another_ceiling(workspace: Workspace, looked_at: list[str]) -> None:
    before = plan(workspace, "mip")["mip"]
    assert before["representation"]["axis"] == 0
    edit(workspace, [20, 16, 20], axis=1, detector_axis=2)
    after = plan(workspace, "mip")["mip"]
    assert after["representation"]["axis"] == 1
    # From the side a ring about D has no hole but the one between its two halves.
    assert after["ceiling"]["dice"]["1"] != pytest.approx(before["ceiling"]["dice"]["1"], abs=0.01)
    assert len(looked_at) == 6
    assert plan(workspace, "mip")["mip"] == after
    assert len(looked_at) == 6


def test_a_ceiling_that_is_out_of_date_goes_where_mip_is_not_asked_for(
    workspace: Workspace, looked_at: list[str]
) -> None:
    plan(workspace, "mip")
    edit(workspace, [20, 16, 20], axis=1, detector_axis=2)
    stale = plan(workspace, "si")["mip"]
    assert stale["ceiling"] is None
    assert stale["reasons"]["ceiling"] == NOT_MEASURED
    assert len(looked_at) == 3


def test_plans_of_before_get_their_ceiling(workspace: Workspace) -> None:
    planned = plan(workspace, "mip")["mip"]
    path = workspace.preprocessed_dataset(NAME).plans()
    content = json.loads(path.read_text())
    del content["configurations"]["mip"]["ceiling"], content["configurations"]["mip"]["reasons"]["ceiling"]
    content["configurations"]["mip"]["batch_size"] = 1
    path.write_text(json.dumps(content))
    assert plan(workspace, "mip")["mip"] == planned | {"batch_size": 1}


def test_an_interrupted_measurement_leaves_no_plans(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Projections, "ceiling_meter", interrupt)
        with pytest.raises(KeyboardInterrupt):
            plan(workspace, "mip")
    assert not workspace.preprocessed_dataset(NAME).plans().exists()
    assert plan(workspace, "mip")["mip"]["ceiling"]["dice"]["2"] > 0.95


def test_a_fusion_without_enough_folds_is_warned_of_until_there_are_enough(workspace: Workspace) -> None:
    splits = workspace.raw_dataset(NAME) / "splits.json"
    warnings = []
    for folds in ([("ab", "c"), ("c", "ab")], [("bc", "a"), ("ac", "b"), ("ab", "c")]):
        splits.write_text(json.dumps([{"train": list(train), "val": list(val)} for train, val in folds]))
        warnings.append(plan(workspace, "mv")["mv"]["reasons"].get("warning", ""))
    assert [ONLY_ALL in text for text in warnings] == [True, False]


def test_a_fusion_of_a_single_case_is_warned_of(workspace: Workspace) -> None:
    for name in "bc":
        (workspace.raw_dataset(NAME) / "imagesTr" / f"{name}_0000.nrrd").unlink()
        (workspace.raw_dataset(NAME) / "labelsTr" / f"{name}.nrrd").unlink()
    description = workspace.raw_dataset(NAME) / "dataset.json"
    description.write_text(json.dumps(json.loads(description.read_text()) | {"numTraining": 1}))
    assert NO_FOLD in plan(workspace, "mv")["mv"]["reasons"]["warning"]


def test_a_file_that_cannot_be_read_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise PermissionError(13, "denied", "a_0000.nrrd")

    monkeypatch.setattr(case_ceiling, "read_model_labels", fail)
    with pytest.raises(InputError, match=r"a: a_0000\.nrrd: you have no right to read"):
        plan(workspace, "mip")


def test_a_detector_that_is_too_short_is_told_once(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    plan(workspace, "mip")
    assert "detector" not in caplog.text
    edit(workspace, [20, 16, 16], axis=1, detector_axis=2)
    plan(workspace, "mip")
    assert "window 20x16x16 has 16 voxels along axis 2" in caplog.text
    assert "want 20" in caplog.text
    caplog.clear()
    plan(workspace, "mip")
    assert "detector" not in caplog.text


@pytest.mark.slow
def test_the_hippocampus_loses_a_little(shared_data: Path, tmp_path: Path) -> None:
    """Two bent bodies: 0.93 when it was measured (documentation/concepts/choices.md)."""
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "Dataset001_Rings").symlink_to(shared_data / "Dataset004_Hippocampus")
    planned = plan(Workspace.resolve(tmp_path, {}), "mip")["mip"]
    assert planned["ceiling"]["dice"] == pytest.approx({"1": 0.93, "2": 0.93}, abs=0.02)
    assert "posterior" in planned["reasons"]["ceiling"]
