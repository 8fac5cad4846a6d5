"""The length of a training through whole commands: what is there, what is asked for, and what is told.

Constant models stand in for training; `tests/training/test_going_on.py` has every pair of what is there and asked for.
"""

import json
import shutil
from pathlib import Path

import pytest

from seg25d.cli.main import main
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.training import recipes
from tests.untraced import untraced

SHORT = ("--epochs", "1", "--iterations", "3")
DEFAULT = recipes.DEFAULT.model_copy(update={"epochs": 3, "iterations_per_epoch": 4})
FUSION = recipes.FUSION.model_copy(update={"epochs": 2, "iterations_per_epoch": 4})
pytestmark = pytest.mark.usefixtures("constant_models")


@pytest.fixture(autouse=True)
def _short_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(recipes.RECIPES, "default", DEFAULT)
    monkeypatch.setattr(recipes, "FUSION", FUSION)


@pytest.fixture(scope="module")
def planned(three_folds: Path, shrink_networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    with untraced():
        run(Workspace.resolve(root, {}), "plan_and_preprocess", "-d", "900", "-c", "mv", "si")
    shrink_networks(root)
    return root


@pytest.fixture(scope="module")
def trained_short(planned: Path, constant_models, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after three updates of `si`."""
    root = tmp_path_factory.mktemp("short") / "workspace"
    shutil.copytree(planned, root)
    run(Workspace.resolve(root, {}), "train", "900", "si", "0", *SHORT)
    return root


@pytest.fixture
def workspace(trained_short: Path, tmp_path: Path) -> Workspace:
    """A copy of that which a test may change."""
    shutil.copytree(trained_short, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def run(workspace: Workspace, *words: str, status: int = 0) -> None:
    place = ["--workspace", str(workspace.raw.parent), "--num-processes", "0", "--device", "cpu"]
    assert main([*words, *place]) == status


def fold(workspace: Workspace, name: str = "si") -> FoldFolder:
    return workspace.run(DATASET_NAME, name).fold(0)


def updates(folder: FoldFolder) -> int:
    last = json.loads(folder.log.read_text().splitlines()[-1])
    number: int = last["iteration"]
    return number


@pytest.mark.parametrize(
    ("words", "per_epoch", "told"),
    [
        ((), 4, "12 updates (3 epochs of 4)"),
        (("--epochs", "2"), 4, "8 updates (2 epochs of 4)"),
        (("--iterations", "6"), 3, "6 updates (2 epochs of 3)"),
        (("--epochs", "1", "--iterations", "5"), 5, "5 updates (1 epoch of 5)"),
        (("--time-budget", "10s"), 4, "a time budget of 10.0 s"),
    ],
)
def test_after_a_short_training_every_longer_one_is_what_it_would_be_alone(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], per_epoch: int, told: str
) -> None:
    run(workspace, "train", "900", "si", "0", *words)
    said = capsys.readouterr().err
    assert f"si fold_0: so far its length was 3 updates (1 epoch of 3); it goes on to what is asked for, {told}" in said
    assert "si fold_0: going on at iteration 3" in said
    assert said.index("it goes on to") < said.rindex(" per update on this machine")
    config = json.loads(fold(workspace).config.read_text())
    assert config["iterations_per_epoch"] == per_epoch
    run(workspace, "train", "900", "si", "1", *words)
    other = json.loads(workspace.run(DATASET_NAME, "si").fold(1).config.read_text())
    assert config == other, "the same command, the same training"


def test_the_same_command_again_trains_nothing_and_says_so(
    workspace: Workspace, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, "train", "900", "si", "0", *SHORT)
    said = capsys.readouterr().err
    assert not trained
    assert "si fold_0 is already trained: 3 updates, 1 epoch, " in said
    assert "about" not in said
    root = str(workspace.raw.parent)
    assert f"predict with: seg25d predict -i IN -o OUT -d 900 -c si --workspace {root} -f 0\n" in said


def test_a_shorter_one_is_refused_before_anything_is_touched(
    workspace: Workspace, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = {path: path.read_bytes() for path in fold(workspace).root.rglob("*") if path.is_file()}
    run(workspace, "train", "900", "si", "1", "0", "--iterations", "2", status=2)
    assert "Ask for the same (--epochs 1 --iterations 3) or for more" in capsys.readouterr().err
    assert not trained
    assert all(path.read_bytes() == content for path, content in files.items())
    run(workspace, "train", "900", "si", "0", "--iterations", "2", "--restart")
    assert updates(fold(workspace)) == 2


def test_views_keep_their_length_and_it_is_told(
    workspace: Workspace, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, "train", "900", "axial", "0", *SHORT)
    capsys.readouterr()
    run(workspace, "train", "900", "mv", "0")
    said = capsys.readouterr().err
    assert (
        "needed too, and kept at the length that was begun with, 3 updates (1 epoch of 3), not 12 updates (3 epochs of "
        "4): axial fold_0, axial pair_0_1, axial pair_0_2\n"
    ) in said
    assert [updates(fold(workspace, name)) for name in ("axial", "coronal", "mv")] == [3, 12, 8]
    assert "mv: training 8 models of views (coronal fold_0, " in said
    assert "and 1 fusion network: about 1 s in all on this machine" in said
    assert "coronal pair_0_2, epoch 3 (100.0%): " in said
    trained.clear()
    run(workspace, "train", "900", "mv", "0")
    assert "mv fold_0 is already trained" in capsys.readouterr().err
    run(workspace, "train", "900", "mv", "0", "--epochs", "3")
    assert trained == ["mv/fold_0"]
    assert updates(fold(workspace, "mv")) == 12
    run(workspace, "train", "900", "mv", "0", "--epochs", "1", status=2)


@pytest.mark.slow
def test_parts_of_a_joint_training_keep_their_length_and_it_is_told(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, "train", "900", "mv", "0", *SHORT)
    capsys.readouterr()
    run(workspace, "train", "900", "mv", "0", "--epochs", "2", "--set", "fusion.joint=true")
    said = capsys.readouterr().err
    assert "kept at the length that was begun with, 3 updates (1 epoch of 3), not 8 updates (2 epochs of 4)" in said
    assert ": mv fold_0\n" in said
    assert "mv__joint, fold 0: 200 updates, about" in said
    assert [updates(fold(workspace, name)) for name in ("mv", "mv__joint")] == [3, 200]


def test_a_coarse_model_keeps_its_length_and_it_is_told(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, "train", "900", "axial", "0", *SHORT)
    capsys.readouterr()
    run(workspace, "train", "900", "axial", "0", "--set", "fine=true")
    said = capsys.readouterr().err
    assert "begun with, 3 updates (1 epoch of 3), not 12 updates (3 epochs of 4): axial fold_0\n" in said
    assert [updates(fold(workspace, name)) for name in ("axial", "axial__fine")] == [3, 12]


def test_pretraining_follows_the_same_rule(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("pretrain", "900", "si", "--task", "inpainting")
    run(workspace, *words, *SHORT)
    assert "pretraining si__inpainting: 3 updates, about" in capsys.readouterr().err
    run(workspace, *words, *SHORT)
    assert "pretraining si__inpainting is already trained" in capsys.readouterr().err
    run(workspace, *words, "--epochs", "2")
    assert "so far its length was 3 updates (1 epoch of 3); it goes on to" in capsys.readouterr().err
    run(workspace, *words, *SHORT, status=2)
    assert "is not longer" in capsys.readouterr().err


@pytest.mark.slow
def test_a_fusion_that_goes_on_alone_is_told_first_and_names_no_views(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    run(workspace, "train", "900", "mv", "0", *SHORT)
    capsys.readouterr()
    run(workspace, "train", "900", "mv", "0", "--epochs", "2")
    said = capsys.readouterr().err
    assert "mv: training 1 fusion network: about" in said
    assert said.index("mv fold_0: so far its length was") < said.index("mv: training 1 fusion network")
    assert "for what has not begun" not in said


def test_a_model_without_a_checkpoint_is_refused_and_stays(
    workspace: Workspace, trained: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    fold(workspace).checkpoint.unlink()
    before = fold(workspace).model_final.read_bytes()
    for words in ((), SHORT):
        run(workspace, "train", "900", "si", "0", *words, status=2)
        assert "no checkpoint (checkpoint_last.pt) from which it could go on" in capsys.readouterr().err
    assert not trained
    assert fold(workspace).model_final.read_bytes() == before
    run(workspace, "train", "900", "si", "0", *SHORT, "--restart")
    assert updates(fold(workspace)) == 3


def test_a_damaged_log_does_not_matter(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    fold(workspace).log.write_text('{"iteration": 3')
    run(workspace, "train", "900", "si", "0", "--epochs", "2")
    assert "it goes on to what is asked for" in capsys.readouterr().err
    assert updates(fold(workspace)) > 3, "written again"
