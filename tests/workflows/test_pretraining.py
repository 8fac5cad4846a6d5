"""`pretrain` and `train --pretrained` on a tiny made-up data set."""

import json
import shlex
import shutil
from pathlib import Path

import pytest

from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.planning.model_file import load_header
from tests.commands import run
from tests.untraced import untraced

TINY = ["--epochs", "1", "--iterations", "2", "--set", "validation_windows=1"]
PLAIN = ["--set", "augmentation.enabled=false"]
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(scope="module")
def planned(three_folds, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "2d", "si", "mip")
    return root


@pytest.fixture
def workspace(planned, tmp_path) -> Workspace:
    shutil.copytree(planned, tmp_path / "work space")
    return Workspace.resolve(tmp_path / "work space", {})


def test_curves_of_pretraining_and_of_every_fold(workspace):
    pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install 'seg25d[tensorboard]'")
    run(workspace, "pretrain", "900", "si", "--task", "inpainting", *TINY, "--tensorboard")
    run(workspace, "train", "900", "si", "0", "1", *TINY, *PLAIN)
    runs = workspace.run(DATASET_NAME, "si")
    assert not runs.fold(0).tensorboard.exists()
    run(workspace, "train", "900", "si", "0", "1", *TINY, *PLAIN, "--tensorboard")
    for root in (pretrained_folder(workspace), runs.fold(0).root, runs.fold(1).root):
        assert len(list((root / "tensorboard").glob("events.out.tfevents.*"))) == 1


def pretrained_folder(workspace: Workspace, name: str = "si__inpainting") -> Path:
    return workspace.results / DATASET_NAME / "pretraining" / name


def test_images_without_labels_count_and_training_begins_with_what_was_learnt(workspace, tmp_path, capsys):
    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    run(workspace, "pretrain", "900", "si", "--task", "inpainting", "--images", str(images), *TINY)
    folder = pretrained_folder(workspace)
    command = capsys.readouterr()
    assert "images of 4 cases" in command.err
    path = folder / "model_final.safetensors"
    words = ["seg25d", "train", "900", "si", "FOLD", "--pretrained", str(path), "--workspace"]
    assert shlex.split(command.out) == [*words, str(workspace.raw.parent)]
    assert load_header(path).pretext is not None
    stores = sorted(path.name for path in workspace.preprocessed_dataset(DATASET_NAME).root.glob("*__unlabelled"))
    assert len(stores) == 1

    run(workspace, "train", "900", "si", "0", "--pretrained", str(path), *TINY, *PLAIN)
    fold = workspace.run(DATASET_NAME, "si").fold(0)
    transfer = json.loads(fold.transfer.read_text())
    assert transfer["taken"]
    assert all("head" in name for name in transfer["new"])
    assert json.loads(fold.config.read_text())["pretrained"]["file"] == path.name
    assert "weights of" in capsys.readouterr().err
    other = tmp_path / "other.safetensors"
    other.write_bytes(fold.model_final.read_bytes())
    run(workspace, "train", "900", "si", "0", "--pretrained", str(other), *TINY, *PLAIN, status=2)
    assert "was begun with other settings (pretrained)" in capsys.readouterr().err
    # The same command goes on, with nothing left to do, also without the file.
    path.unlink()
    run(workspace, "train", "900", "si", "0", *TINY, *PLAIN)


def test_validation_images_of_a_fold_can_be_left_out(workspace, capsys):
    run(workspace, "pretrain", "900", "si", "--task", "jigsaw", "--without-fold", "1", *TINY)
    command = capsys.readouterr()
    assert "images of 2 cases" in command.err
    folder = pretrained_folder(workspace, "si__jigsaw__without_fold_1")
    assert shlex.split(command.out)[2:6] == ["900", "si", "1", "--pretrained"]
    assert (folder / "model_final.safetensors").exists()
    run(workspace, "pretrain", "900", "si", "--task", "jigsaw", "--without-fold", "3", *TINY, status=2)
    assert "--without-fold: expected a fold from 0 to 2, got 3" in capsys.readouterr().err


def test_a_pretrained_model_segments_nothing(workspace, capsys):
    idle = ["--set", "loss=dice", "--set", "pretext.piece=0.3"]
    run(workspace, "pretrain", "900", "2d", "--task", "jigsaw", *idle, *TINY)
    assert "loss, pretext.piece: no effect on pretraining by jigsaw" in capsys.readouterr().err
    folder = pretrained_folder(workspace, "axial__jigsaw")
    fold = workspace.run(DATASET_NAME, "axial").fold(0).root
    fold.mkdir(parents=True)
    shutil.copy(folder / "model_final.safetensors", fold)
    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    run(workspace, "predict", "-i", str(images), "-o", str(workspace.results / "out"), "-m", str(fold), status=2)
    assert "pretrained model" in capsys.readouterr().err
    plans = workspace.preprocessed_dataset(DATASET_NAME).plans()
    changed = json.loads(plans.read_text())
    changed["configurations"]["axial"]["batch_size"] += 1
    plans.write_text(json.dumps(changed))
    run(workspace, "pretrain", "900", "2d", "--task", "jigsaw", *idle, *TINY, status=2)
    assert "the plan of axial changed" in capsys.readouterr().err


def test_tasks_and_files_that_do_not_fit_are_refused_before_anything_is_written(workspace, tmp_path, capsys):
    run(workspace, "pretrain", "900", "mip", "--task", "jigsaw", *TINY, status=2)
    assert "mip cannot be pretrained by jigsaw" in capsys.readouterr().err
    run(workspace, "pretrain", "900", "2d", "--network", "rstn", "--task", "jigsaw", *TINY, status=2)
    assert "axial__rstn cannot be pretrained: what its first network restores" in capsys.readouterr().err
    slices = ["--set", "pretext.whole_slices=true"]
    run(workspace, "pretrain", "900", "2d", "--task", "inpainting", *slices, *TINY, status=2)
    assert "several slices at once" in capsys.readouterr().err
    for settings, message in (
        ("fine=true", "leave `fine` out"),
        ("fine.margin=3", "leave `fine` out"),
        ("pretext.task=jigsaw", "--task says inpainting"),
    ):
        run(workspace, "pretrain", "900", "2d", "--task", "inpainting", "--set", settings, *TINY, status=2)
        assert message in capsys.readouterr().err
    run(workspace, "train", "900", "si", "0", "--pretrained", "nowhere.safetensors", *TINY, status=2)
    assert "nowhere.safetensors" in capsys.readouterr().err
    assert not workspace.results.exists()
    # Nor is anything forgotten for a file that will not do.
    run(workspace, "train", "900", "si", "0", *TINY, *PLAIN)
    fold = workspace.run(DATASET_NAME, "si").fold(0)
    before = fold.model_final.read_bytes()
    other = tmp_path / "weights.pth"
    other.write_text("none")
    run(workspace, "train", "900", "si", "0", "--pretrained", str(other), "--restart", *TINY, *PLAIN, status=2)
    assert "weights.pth is not a file of torch.save" in capsys.readouterr().err
    assert fold.model_final.read_bytes() == before


def test_images_of_other_runs_stay_and_names_are_cases(workspace, tmp_path, capsys, monkeypatch):
    raw = workspace.raw_dataset(DATASET_NAME)
    run(workspace, "pretrain", "900", "2d", "--task", "inpainting", "--images", str(raw / "imagesTs"), *TINY)
    further = tmp_path / "further"
    further.mkdir()
    for image in (raw / "imagesTs").iterdir():
        shutil.copy(image, further / image.name.replace("phantom", "other"))
    # The same files by another name of their folder are no other cases.
    monkeypatch.chdir(raw)
    run(workspace, "pretrain", "900", "2d", "--task", "jigsaw", "--images", str(further), "imagesTr", *TINY)
    assert capsys.readouterr().err.count("images of 4 cases") == 2
    (store,) = workspace.preprocessed_dataset(DATASET_NAME).root.glob("*__unlabelled")
    assert {path.stem for path in store.glob("*.json")} == {"phantom_003", "other_003"}, "another run may read it"
    for image in further.iterdir():
        image.rename(further / image.name.replace("other_003", "phantom_000"))
    run(workspace, "pretrain", "900", "2d", "--task", "jigsaw", "--images", str(further), *TINY, status=2)
    assert "two cases are called phantom_000" in capsys.readouterr().err
    shutil.rmtree(raw)
    run(workspace, "pretrain", "900", "2d", "--task", "jigsaw", "--images", str(further), *TINY)
    assert "phantom_000_0000.nii.gz is left out" in capsys.readouterr().err


def test_training_images_without_labels_are_for_pretraining(three_folds, tmp_path, capsys):
    shutil.copytree(three_folds, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    raw = workspace.raw_dataset(DATASET_NAME)
    for channel in ("0000", "0001"):
        shutil.copy(raw / "imagesTs" / f"phantom_003_{channel}.nii.gz", raw / "imagesTr")
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si")
    assert "1 cases of imagesTr have no labels" in capsys.readouterr().err
    run(workspace, "pretrain", "900", "si", "--task", "inpainting", *TINY)
    assert "images of 4 cases" in capsys.readouterr().err
    (raw / "labelsTr" / "phantom_001.nii.gz").unlink()
    run(workspace, "plan_and_preprocess", "-d", "900", "-c", "si", status=2)
    assert "missing label" in capsys.readouterr().err
