"""Coarse-to-fine from raw images to scores on a tiny made-up data set: what is trained, where, and what is refused.

Constant models stand in for training; `tests/test_precisions.py` trains.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.planning.model_file import load_header
from seg25d.planning.plan import Plans
from tests.commands import run
from tests.untraced import untraced

CASES = [f"phantom_{index:03d}" for index in range(3)]
TINY = ["--epochs", "1", "--iterations", "2"]
FINE = ["--set", "fine=true"]
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(scope="module")
def planned(three_folds, shrink_networks, tmp_path_factory) -> Path:
    """A workspace with a planned and preprocessed data set of three cases and three folds."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "2d", "coronal", "si")
    shrink_networks(root)
    return root


@pytest.fixture
def workspace(planned, tmp_path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(planned, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def read(path: Path) -> np.ndarray:
    from seg25d.data.image_io import read_labels  # noqa: PLC0415

    return read_labels(path)[0]


def test_the_coarse_model_and_the_fine_one_are_trained_once_and_used_together(workspace, trained, capsys):
    run(workspace, "train", "900", "2d", "0", *TINY, *FINE)
    assert trained == ["axial/fold_0", "axial__fine/fold_0"]
    folder = workspace.run(DATASET_NAME, "axial__fine").fold(0)
    assert folder.coarse.read_bytes() == workspace.run(DATASET_NAME, "axial").fold(0).model_final.read_bytes()
    assert load_header(folder.coarse).fine is None
    header = load_header(folder.model_final)
    assert header.fine is not None
    assert (header.fine.margin, header.fine.large_components) == (20, False)
    assert "Coarse-to-fine" in header.plan.reasons["window"]
    per_case = json.loads((folder.validation / "summary.json").read_text())["per_case"]
    assert [case["case"] for case in per_case] == [CASES[0]]

    # Again: nothing. The next folds: what they lack.
    trained.clear()
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE)
    assert trained == []
    run(workspace, "train", "900", "axial", "1", *TINY)
    run(workspace, "train", "900", "axial", "1", *TINY, *FINE)
    assert trained == ["axial/fold_1", "axial__fine/fold_1"]

    images, out = workspace.raw_dataset(DATASET_NAME) / "imagesTs", workspace.results / "out"
    run(workspace, "predict", "-i", str(images), "-o", str(out), "-c", "2d__fine", "--save-probabilities")
    assert json.loads((out / "prediction.json").read_text())["model"]["folds"] == ["0", "1"]
    predicted = read(out / "phantom_003.nii.gz")
    with np.load(out / "phantom_003.npz") as archive:
        np.testing.assert_allclose(archive["probabilities"].sum(0), 1, atol=1e-5)
    # The folder of the model stands alone.
    moved = workspace.raw.parent / "elsewhere"
    shutil.copytree(folder.root.parent, moved)
    shutil.rmtree(workspace.results / DATASET_NAME)
    run(workspace, "predict", "-i", str(images), "-o", str(workspace.results / "again"), "-m", str(moved))
    assert "error:" not in capsys.readouterr().err
    assert np.array_equal(predicted, read(workspace.results / "again" / "phantom_003.nii.gz"))


def test_a_run_that_was_cut_off_goes_on(workspace, trained, cut_off):
    cut_off("axial__fine/fold_0")
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE, status=130)
    assert trained == ["axial/fold_0"]
    trained.clear()
    cut_off("")
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE)
    assert trained == ["axial__fine/fold_0"]


def test_a_coarse_model_that_was_trained_again_is_not_mixed_in(workspace, capsys):
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE)
    run(workspace, "train", "900", "axial", "0", *TINY, "--restart", "--seed", "5")
    coarse = workspace.run(DATASET_NAME, "axial").fold(0)
    fine = workspace.run(DATASET_NAME, "axial__fine").fold(0)
    before = fine.coarse.read_bytes()
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE, status=2)
    assert "start this fold over with --restart" in capsys.readouterr().err
    assert fine.coarse.read_bytes() == before
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE, "--restart")
    assert fine.coarse.read_bytes() == coarse.model_final.read_bytes() != before
    # Without the coarse run a fold that is done stays so.
    shutil.rmtree(coarse.root.parent)
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE)
    assert not coarse.root.exists()


def test_parts_of_the_setting_will_do_and_others_are_refused(workspace, capsys):
    part = ["--set", "fine.margin=2", "--set", "fine.large_components=true"]
    run(workspace, "train", "900", "coronal", "0", *TINY, *part)
    header = load_header(workspace.run(DATASET_NAME, "coronal__fine").fold(0).model_final)
    assert header.fine is not None
    assert (header.fine.margin, header.fine.large_components) == (2, True)
    coarse = read_record(workspace.run(DATASET_NAME, "coronal").plans, Plans).configurations["coronal"]
    assert all(small <= large for small, large in zip(header.plan.window, coarse.window, strict=True))
    for words, message in (
        (["axial", "--set", "fine=maybe"], "valid boolean"),
        (["axial", "--set", "fine.margins=2"], "fine.margin"),
        (["axial", "--set", "fine=false", "--set", "fine.margin=2"], "there is no setting"),
        (["axial", "--set", "fine.margin=-1"], "fine.margin"),
        (["si", *FINE], "a setting of 2d, axial, coronal, sagittal"),
    ):
        run(workspace, "train", "900", words[0], "0", *TINY, *words[1:], status=2)
        assert message in capsys.readouterr().err
    assert not (workspace.results / DATASET_NAME / "axial").exists()
    assert not (workspace.results / DATASET_NAME / "si").exists()


def test_scores_of_the_coarse_model_that_a_kill_left_out_are_made(workspace, trained, cut_off):
    cut_off("axial__fine/fold_0")
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE, status=130)
    coarse = workspace.run(DATASET_NAME, "axial").fold(0)
    (coarse.validation / "summary.json").unlink()
    workspace.run(DATASET_NAME, "axial__fine").fold(0).coarse.unlink(missing_ok=True)
    trained.clear()
    cut_off("")
    run(workspace, "train", "900", "axial", "0", *TINY, *FINE)
    assert trained == ["axial__fine/fold_0"]
    assert (coarse.validation / "summary.json").exists()
