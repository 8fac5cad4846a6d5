"""`mv` from raw images to scores on a tiny made-up data set: what is trained, in which order, and only once.

Constant models stand in for training; `tests/test_precisions.py` trains.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.ensembling.fused_predictor import coarse_view_model, view_model
from seg25d.planning.model_file import load_header, load_model
from seg25d.preprocessing.store import Store
from seg25d.training.checkpoint import clear_fold, load_checkpoint, save_checkpoint
from tests.commands import run
from tests.untraced import untraced

CASES = [f"phantom_{index:03d}" for index in range(3)]
TINY = ["--epochs", "1", "--iterations", "2"]
VIEWS = ("axial", "coronal", "sagittal")
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(scope="module")
def planned(three_folds, shrink_networks, tmp_path_factory) -> Path:
    """A workspace with a planned and preprocessed data set of three cases, three folds and one held-out case."""
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "mv")
    shrink_networks(root)
    return root


@pytest.fixture
def workspace(planned, tmp_path) -> Workspace:
    """A copy that a test may change."""
    shutil.copytree(planned, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


@pytest.fixture(scope="module")
def fused_once(planned, constant_models, tmp_path_factory) -> tuple[Path, list[str]]:
    """The same after `mv`, fold 0, was trained, and the models that were trained for it."""
    root = tmp_path_factory.mktemp("fused") / "workspace"
    shutil.copytree(planned, root)
    constant_models.trained.clear()
    run(Workspace.resolve(root, {}), "train", "900", "mv", "0", *TINY)
    return root, list(constant_models.trained)


@pytest.fixture
def fused(fused_once, tmp_path) -> Workspace:
    """A copy of that which a test may change."""
    shutil.copytree(fused_once[0], tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def test_the_views_their_pairs_and_the_fusion_are_trained_once_and_used(fused, fused_once, trained, capsys):
    workspace, sets = fused, ("fold_0", "pair_0_1", "pair_0_2")
    assert fused_once[1] == [*(f"{view}/{name}" for name in sets for view in VIEWS), "mv/fold_0"]
    folder = workspace.run(DATASET_NAME, "mv").fold(0)
    record = json.loads(folder.fusion_cases.read_text())
    assert record["held_out"] == [CASES[0]]
    assert record["predicted_by"] == {CASES[1]: "pair_0_1", CASES[2]: "pair_0_2"}
    for case, name in record["predicted_by"].items():
        assert not {case, CASES[0]} & set(record["trained_on"][name])
        for view in VIEWS:
            split = json.loads((workspace.results / DATASET_NAME / view / name / "split.json").read_text())
            assert split["train"] == record["trained_on"][name]
    assert set(Store(folder.fusion_data).cases()) == set(CASES)
    per_case = json.loads((folder.validation / "summary.json").read_text())["per_case"]
    assert [case["case"] for case in per_case] == [CASES[0]]
    assert {path.stem for path in folder.views.iterdir()} == set(VIEWS)

    # Again: nothing. The next fold shares the pair of both.
    run(workspace, "train", "900", "mv", "0", *TINY)
    assert trained == []
    run(workspace, "train", "900", "mv", "1", *TINY)
    assert trained == [*(f"{view}/{name}" for name in ("fold_1", "pair_1_2") for view in VIEWS), "mv/fold_1"]

    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    out = workspace.results / "out"
    run(workspace, "predict", "-i", str(images), "-o", str(out), "-c", "mv", "--save-probabilities")
    predicted = _read(out / "phantom_003.nii.gz")
    with np.load(out / "phantom_003.npz") as archive:
        assert archive["probabilities"].shape == (5, *predicted.shape)
        np.testing.assert_allclose(archive["probabilities"].sum(0), 1, atol=1e-5)
    for method in ("mean", "majority", "staple", "nlstaple"):
        fused = workspace.results / method
        run(workspace, "predict", "-i", str(images), "-o", str(fused), "-c", "mv", "-f", "0", "--fusion", method)
        assert json.loads((fused / "prediction.json").read_text())["model"]["fusion"] == method
        assert _read(fused / "phantom_003.nii.gz").shape == predicted.shape
    other = ["predict", "-i", str(images), "-o", str(out), "-c", "axial", "--fusion", "mean", "--overwrite"]
    run(workspace, *other, status=2)
    assert "is for models that fuse views (mv)" in capsys.readouterr().err
    # The folder of the model stands alone.
    moved = workspace.raw.parent / "elsewhere"
    shutil.copytree(folder.root.parent, moved)
    shutil.rmtree(workspace.results / DATASET_NAME)
    run(workspace, "predict", "-i", str(images), "-o", str(workspace.results / "again"), "-m", str(moved))
    assert "error" not in capsys.readouterr().err
    assert np.array_equal(predicted, _read(workspace.results / "again" / "phantom_003.nii.gz"))


def _read(path: Path) -> np.ndarray:
    from seg25d.data.image_io import read_labels  # noqa: PLC0415

    return read_labels(path)[0]


def test_a_graph_that_was_cut_off_goes_on(workspace, trained, cut_off):
    cut_off("coronal/pair_0_2")
    run(workspace, "train", "900", "mv", "0", *TINY, status=130)
    assert trained[-1] == "axial/pair_0_2"
    trained.clear()
    cut_off("")
    run(workspace, "train", "900", "mv", "0", *TINY)
    assert trained == ["coronal/pair_0_2", "sagittal/pair_0_2", "mv/fold_0"]


def test_variants_have_folders_of_their_own_and_share_the_views(fused, trained):
    run(fused, "train", "900", "mv", "0", *TINY, "--set", "fusion.image=false")
    assert trained == ["mv__no_image/fold_0"]
    folder = fused.run(DATASET_NAME, "mv__no_image").fold(0)
    header = load_header(folder.model_final)
    assert header.plan.representation.image is False
    assert view_model(folder.root, "axial").exists()
    trained.clear()
    run(fused, "train", "900", "mv", "0", *TINY, "--fusion-data", "holdout")
    assert trained == [*(f"{view}/holdout_0" for view in VIEWS), "mv__holdout/fold_0"]


@pytest.mark.slow
def test_views_can_have_another_network_than_the_planned_one(planned, trained, shrink_networks, tmp_path, capsys):
    shutil.copytree(planned, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    run(workspace, "train", "900", "mv", "0", *TINY, "--network", "rstn", status=2)
    assert "plan_and_preprocess with -c mv__rstn adds it" in capsys.readouterr().err
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "mv__rstn")
    shrink_networks(tmp_path / "workspace")
    run(workspace, "train", "900", "mv", "0", *TINY, "--network", "rstn", "--fusion-data", "holdout")
    assert trained == [*(f"{view}__rstn/holdout_0" for view in VIEWS), "mv__rstn__holdout/fold_0"]
    folder = workspace.run(DATASET_NAME, "mv__rstn__holdout").fold(0)
    assert load_header(folder.model_final).plan.network.name == "fusion_net"
    assert {load_header(path).plan.network.name for path in folder.views.iterdir()} == {"rstn"}
    images, out = workspace.raw_dataset(DATASET_NAME) / "imagesTs", workspace.results / "out"
    run(workspace, "predict", "-i", str(images), "-o", str(out), "-c", "mv__rstn__holdout")
    assert (out / "phantom_003.nii.gz").exists()


@pytest.mark.slow
def test_views_and_fusion_are_trained_on_together(fused, trained):
    run(fused, "train", "900", "mv", "0", *TINY, "--set", "fusion.joint=true")
    assert trained == ["mv__joint/fold_0"]
    apart, joint = (fused.run(DATASET_NAME, name).fold(0) for name in ("mv", "mv__joint"))
    for file in (view_model(Path(), "coronal"), Path("model_final.safetensors")):
        (_, before), (_, after) = load_model(apart.root / file), load_model(joint.root / file)
        assert before.keys() == after.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)
    assert (joint.validation / "summary.json").exists()
    modified = joint.model_final.stat().st_mtime_ns
    run(fused, "train", "900", "mv", "0", *TINY, "--set", "fusion.joint=true")
    assert joint.model_final.stat().st_mtime_ns == modified


@pytest.mark.slow
def test_views_can_be_coarse_to_fine(fused, trained, capsys):
    workspace = fused
    run(workspace, "train", "900", "mv", "0", *TINY, "--set", "fusion.fine=true")
    sets = ("fold_0", "pair_0_1", "pair_0_2")
    assert trained == [*(f"{view}__fine/{name}" for name in sets for view in VIEWS), "mv__fine/fold_0"]
    folder = workspace.run(DATASET_NAME, "mv__fine").fold(0)
    assert (folder.validation / "summary.json").exists()
    for view in VIEWS:
        assert load_header(view_model(folder.root, view)).fine is not None
        coarse = workspace.run(DATASET_NAME, view).fold(0).model_final
        assert coarse_view_model(folder.root, view).read_bytes() == coarse.read_bytes()
    trained.clear()
    run(workspace, "train", "900", "mv", "0", *TINY, "--set", "fusion.fine=true")
    assert trained == []
    # The folder of the model stands alone.
    images, out = workspace.raw_dataset(DATASET_NAME) / "imagesTs", workspace.results / "out"
    moved = workspace.raw.parent / "elsewhere"
    shutil.copytree(folder.root.parent, moved)
    shutil.rmtree(workspace.results / DATASET_NAME)
    run(workspace, "predict", "-i", str(images), "-o", str(out), "-m", str(moved))
    assert _read(out / "phantom_003.nii.gz").ndim == 3
    both = ["--set", "fusion.fine=true", "--set", "fusion.joint=true"]
    run(workspace, "train", "900", "mv", "0", *TINY, *both, status=2)
    assert "one of the two" in capsys.readouterr().err


@pytest.mark.slow
def test_another_network_can_fuse_and_stands_in_the_plans(fused, trained):
    run(fused, "train", "900", "mv", "0", *TINY, "--network", "super_image_unet")
    assert trained == ["mv__super_image_unet/fold_0"]
    plans = json.loads(fused.preprocessed_dataset(DATASET_NAME).plans().read_text())
    assert plans["configurations"]["mv__super_image_unet"]["network"]["name"] == "unet"


def test_a_longer_run_that_was_cut_off_is_not_done(fused, cut_off):
    longer = ["train", "900", "mv", "0", "--epochs", "2", "--iterations", "4"]
    cut_off("mv/fold_0")
    model = fused.run(DATASET_NAME, "mv").fold(0).model_final
    before = model.read_bytes()
    run(fused, *longer, status=130)
    assert model.read_bytes() == before, "a finished model stays until its successor is complete"
    cut_off("")
    run(fused, *longer)
    log = fused.run(DATASET_NAME, "mv").fold(0).log.read_text().splitlines()
    assert json.loads(log[-1])["iteration"] == 4


@pytest.mark.slow
def test_a_view_whose_longer_run_was_cut_off_goes_on_first(workspace, trained):
    run(workspace, "train", "900", "axial", "0", *TINY)
    checkpoint = workspace.run(DATASET_NAME, "axial").fold(0).checkpoint
    save_checkpoint(checkpoint, load_checkpoint(checkpoint) | {"finished": False})
    trained.clear()
    run(workspace, "train", "900", "mv", "0", *TINY)
    assert trained[0] == "axial/fold_0"
    assert load_checkpoint(checkpoint)["finished"]


def test_what_the_fusion_learnt_from_may_be_deleted(fused, trained):
    shutil.rmtree(fused.run(DATASET_NAME, "mv").fold(0).fusion_data)
    run(fused, "train", "900", "mv", "0", "--epochs", "2", "--iterations", "4")
    assert trained == ["mv/fold_0"]


def test_folds_that_changed_are_noticed_by_every_variant(fused, capsys):
    splits = fused.preprocessed_dataset(DATASET_NAME).splits
    folds = json.loads(splits.read_text())
    for path in (splits, fused.raw_dataset(DATASET_NAME) / "splits.json"):
        path.write_text(json.dumps(folds[1:] + folds[:1]))
    for setting in ("fusion.joint=true", "fusion.image=false", "fusion.joint=false"):
        capsys.readouterr()
        run(fused, "train", "900", "mv", "0", *TINY, "--set", setting, status=2)
        assert "the folds" in capsys.readouterr().err


def test_a_view_of_another_spacing_is_refused_before_anything_is_trained(workspace, trained, capsys):
    path = workspace.preprocessed_dataset(DATASET_NAME).plans()
    plans = json.loads(path.read_text())
    view = plans["configurations"]["axial"]
    view["normalization"][0]["scheme"], view["store"] = "none", "spacing_3-1-1_other"
    path.write_text(json.dumps(plans))
    run(workspace, "train", "900", "mv", "0", *TINY, status=2)
    error = capsys.readouterr().err
    assert "store" in error or "another spacing, common size or normalisation" in error
    assert not trained


@pytest.mark.slow
def test_restart_forgets_all_folds_first_and_no_view(fused, trained):
    run(fused, "train", "900", "mv", "1", *TINY)
    trained.clear()
    run(fused, "train", "900", "mv", "0", "1", *TINY, "--restart", "--set", "learning_rate=0.02")
    assert trained == ["mv/fold_0", "mv/fold_1"]


@pytest.mark.slow
def test_all_cases_are_fused_by_what_the_folds_say(workspace, trained):
    run(workspace, "train", "900", "mv", "all", *TINY)
    sets = ("fold_all", "fold_0", "fold_1", "fold_2")
    assert trained == [*(f"{view}/{name}" for name in sets for view in VIEWS), "mv/fold_all"]
    record = json.loads(workspace.run(DATASET_NAME, "mv").fold("all").fusion_cases.read_text())
    assert record["predicted_by"] == {case: f"fold_{number}" for number, case in enumerate(CASES)}
    assert record["held_out"] == []


def test_settings_of_the_fusion_are_no_settings_of_others(workspace, capsys):
    run(workspace, "train", "900", "axial", "0", *TINY, "--set", "fusion.image=false", status=2)
    assert "there is no setting 'fusion.image'" in capsys.readouterr().err


def test_a_view_that_was_trained_again_is_not_mixed_in(fused, capsys):
    run(fused, "train", "900", "axial", "0", *TINY, "--restart", "--seed", "5")
    run(fused, "train", "900", "mv", "0", "--epochs", "1", "--iterations", "3", status=2)
    assert "start this fold over with --restart" in capsys.readouterr().err


@pytest.mark.parametrize("joint", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_scores_that_a_kill_left_out_are_made_by_the_same_command(fused, trained, joint):
    words = ["train", "900", "mv", "0", *TINY, *(["--set", "fusion.joint=true"] if joint else [])]
    if joint:
        run(fused, *words)
    view, fusion = (fused.run(DATASET_NAME, name).fold(0) for name in ("axial", "mv"))
    for folder in (view, fusion) if joint else (view,):
        (folder.validation / "summary.json").unlink()
        (folder.validation / f"{CASES[0]}.nii.gz").unlink()
    if not joint:
        clear_fold(fusion)  # it begins when all views are complete
    trained.clear()
    run(fused, *words)
    assert trained == ([] if joint else ["mv/fold_0"])
    for folder in (fusion,) if joint else (view, fusion):
        written = {path.name for path in folder.validation.iterdir()}
        assert written == {"summary.json", "uncertainty", f"{CASES[0]}.nii.gz"}


def test_a_segmentation_that_is_missing_is_made_again(fused, trained):
    folder = fused.run(DATASET_NAME, "mv").fold(0)
    segmentation = folder.validation / f"{CASES[0]}.nii.gz"
    before = segmentation.read_bytes()
    segmentation.unlink()
    run(fused, "train", "900", "mv", "0", *TINY)
    assert trained == []
    assert segmentation.read_bytes() == before
