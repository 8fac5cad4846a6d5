"""The steps of planning by themselves, plans that move to another data set, and data sets of nnU-Net v1."""

import json
import math
import shutil
from pathlib import Path

import pytest

from seg25d.api import PlanningOptions, plan_and_preprocess
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.data import sizes
from seg25d.data.convert_nnunet_v1 import convert_nnunet_v1
from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_geometry
from seg25d.planning.plans_file import read_plans
from seg25d.preprocessing.store import Store
from seg25d.workflows.moved_plans import move_plans
from seg25d.workflows.overlays import OverlayOptions, plot_overlays

NAME = "Dataset900_Phantom"


@pytest.fixture(scope="module")
def workspace(trained_once: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A planned data set, and a second one with the same cases that is not planned."""
    root = tmp_path_factory.mktemp("steps") / "workspace"
    shutil.copytree(trained_once, root)
    shutil.copytree(root / "raw" / NAME, root / "raw" / "Dataset901_Other")
    return Workspace.resolve(root, {})


def planning(**given: object) -> PlanningOptions:
    return PlanningOptions(num_processes=0, **given)


def test_measuring_and_preprocessing_are_steps_of_their_own(workspace: Workspace) -> None:
    folder = workspace.preprocessed_dataset("Dataset901_Other")
    assert plan_and_preprocess(workspace, ["901"], planning(fingerprint_only=True)) == {}
    assert folder.fingerprint.exists()
    assert not folder.plans().exists()
    with pytest.raises(InputError, match=r"has no plans\.json; run `seg25d plan_experiment -d Dataset901_Other`"):
        plan_and_preprocess(workspace, ["901"], planning(preprocess_only=True))


def test_preprocessing_alone_keeps_plans_and_leaves_out_what_is_not_planned(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    path = workspace.preprocessed_dataset(NAME).plans()
    before = path.read_text()
    with caplog.at_level("INFO"):
        given = planning(preprocess_only=True, configurations=("3d", "mip"), gpu_memory_gb=3)
        plan_and_preprocess(workspace, ["900"], given)
    assert "left out, as they are not planned: mip" in caplog.text
    assert path.read_text() == before
    with pytest.raises(InputError, match="expected configurations that are planned"):
        plan_and_preprocess(workspace, ["900"], planning(preprocess_only=True, configurations=("mip",)))


def test_another_spacing_is_that_of_3d_alone(workspace: Workspace, caplog: pytest.LogCaptureFixture) -> None:
    given = planning(configurations=("2d", "3d"), plan_only=True, gpu_memory_gb=1, plans_name="iso")
    (usual,) = plan_and_preprocess(workspace, ["900"], given).values()
    (asked,) = plan_and_preprocess(
        workspace, ["900"], given.model_copy(update={"spacing_3d_mm": (2.0, 2.5, 3.0)})
    ).values()
    assert asked.configurations["3d"].spacing_mm == (2, 2.5, 3)
    (axial,) = (name for name in asked.configurations if name != "3d")
    assert asked.configurations[axial].spacing_mm == usual.configurations[axial].spacing_mm
    (kept,) = plan_and_preprocess(workspace, ["900"], given).values()
    assert kept.configurations["3d"].spacing_mm == (2, 2.5, 3)
    assert "-overwrite_target_spacing" not in caplog.text
    alone = planning(configurations=("2d",), plan_only=True, plans_name="flat", spacing_3d_mm=(2.0, 2.5, 3.0))
    plan_and_preprocess(workspace, ["900"], alone)
    assert f"-overwrite_target_spacing has no effect on {axial}: it is the spacing of 3d" in caplog.text


def test_plans_move_to_another_data_set(workspace: Workspace) -> None:
    path = move_plans(workspace, "900", "901", "plans", "moved")
    source = json.loads(workspace.preprocessed_dataset(NAME).plans().read_text())
    moved = json.loads(path.read_text())
    assert (moved["dataset_name"], moved["plans_name"]) == ("Dataset901_Other", "moved")
    assert moved["configurations"] == source["configurations"]
    assert move_plans(workspace, "900", "901", "plans", "moved") == path
    plan_and_preprocess(workspace, ["901"], planning(preprocess_only=True, plans_name="moved", configurations=("3d",)))
    with pytest.raises(InputError, match=r"has no absent\.json"):
        move_plans(workspace, "900", "901", "absent", "moved")
    path.write_text(json.dumps(moved | {"gpu_memory_gb": 3.0}))
    with pytest.raises(InputError, match="-tp NAME"):
        move_plans(workspace, "900", "901", "plans", "moved")
    description = workspace.raw / "Dataset901_Other" / "dataset.json"
    assert description.exists()


def test_pictures_of_cases(workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(sizes, "choose_num_workers", lambda *wanted: asked.append(wanted) or 0)
    for use_raw in (False, True):
        plot_overlays(workspace, "900", tmp_path / str(use_raw), OverlayOptions(use_raw=use_raw))
        assert len(list((tmp_path / str(use_raw)).glob("phantom_00?.png"))) == 3
    grid = read_plans(workspace.preprocessed_dataset(NAME).plans()).configurations["3d"]
    stored = Store(workspace.preprocessed_dataset(NAME).store(grid.store))
    largest = max(math.prod(stored.record(case).grid.shape) for case in stored.cases())
    cases = read_dataset(workspace.raw_dataset(NAME)).cases
    voxels = max(math.prod(read_geometry(case.images[0]).shape) for case in cases)
    channels = len(grid.normalization)
    expected = [largest * 4, voxels * (12 + 4 * channels)]
    assert asked == [(None, needed + (200 << 20), 3) for needed in expected]
    with pytest.raises(InputError, match="expected a number from 0 to"):
        plot_overlays(workspace, "900", tmp_path / "none", OverlayOptions(channel=7))
    with pytest.raises(InputError, match="draw raw images: --use_raw"):
        plot_overlays(workspace, "900", tmp_path / "none", OverlayOptions(plans_name="absent"))
    assert not (tmp_path / "none").exists()


def test_a_data_set_of_nnunet_v1(workspace: Workspace, tmp_path: Path) -> None:
    raw, task = workspace.raw / NAME, tmp_path / "Task005_Old"
    for folder in ("imagesTr", "labelsTr"):
        shutil.copytree(raw / folder, task / folder)
    description = json.loads((raw / "dataset.json").read_text())
    labels = {str(value): name for name, value in description["labels"].items()}
    old = {"name": "Old", "modality": description["channel_names"], "labels": labels, "tensorImageSize": "3D"}
    (task / "dataset.json").write_text("{}")
    with pytest.raises(InputError, match="no modality and labels"):
        convert_nnunet_v1(workspace, task, "Dataset905_Old")
    (task / "dataset.json").write_text(json.dumps(old | {"training": [], "test": [], "numTest": 0}))
    target = convert_nnunet_v1(workspace, task, "Dataset905_Old")
    new = json.loads((target / "dataset.json").read_text())
    assert new == {
        "name": "Old",
        "channel_names": description["channel_names"],
        "labels": description["labels"],
        "file_ending": ".nii.gz",
        "numTraining": 3,
    }
    for name in ("Dataset905_Old", "Dataset905_Else"):
        with pytest.raises(InputError, match="is taken by Dataset905_Old"):
            convert_nnunet_v1(workspace, task, name)
