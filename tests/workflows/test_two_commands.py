"""Commands that would change what another one reads or writes are refused, and have changed nothing then."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.errors import BusyError
from seg25d.core.locks import file_lock, folder_lock, reading_lock
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME

pytestmark = pytest.mark.usefixtures("constant_models")
TINY = ["--epochs", "1", "--iterations", "2"]


@pytest.fixture
def workspace(trained_once: Path, tmp_path: Path) -> Workspace:
    """Trained models, in a copy that a test may change."""
    shutil.copytree(trained_once, tmp_path / "workspace")
    return Workspace.resolve(tmp_path / "workspace", {})


def tree(folder: Path) -> dict[Path, tuple[bytes, int] | None]:
    """All files with their content and time, and all folders."""
    return {
        path: None if path.is_dir() else (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.name != ".lock" and not path.name.endswith(".lock")
    }


def run(workspace: Workspace, *words: str) -> int:
    return main([*words, "--workspace", str(workspace.raw.parent), "--num-processes", "0", "--device", "cpu"])


def store_of(workspace: Workspace) -> Path:
    return next(path for path in workspace.preprocessed_dataset(DATASET_NAME).root.glob("spacing_*") if path.is_dir())


def test_arrays_that_are_read_are_not_made_again(workspace: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    plan = ["plan_and_preprocess", "-d", "900", "-c", "2d", "si"]
    with reading_lock(store_of(workspace), "training"):
        assert run(workspace, *plan) == 0  # nothing of them changes
        before = tree(workspace.raw.parent)
        assert run(workspace, *plan, "--clean", "--plan-only") == 2
        assert "is in use" in capsys.readouterr().err
        assert tree(workspace.raw.parent) == before
    with folder_lock(store_of(workspace), "preprocessing"):
        assert run(workspace, "train", "900", "si", "0", *TINY) == 2
    assert run(workspace, *plan, "--clean") == 0
    assert not any(workspace.raw.parent.rglob("*.lock"))


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (lambda w: w.preprocessed_dataset(DATASET_NAME).root, ["plan_and_preprocess", "-d", "900"]),
        (lambda w: w.run(DATASET_NAME, "si").fold(0).root, ["train", "900", "si", "0", *TINY]),
        (lambda w: w.run(DATASET_NAME, "si").fold(0).root, ["find_best_configuration", "900", "-c", "si", "2d"]),
        (lambda w: w.candidate_scores(DATASET_NAME), ["find_best_configuration", "900", "-c", "si", "2d"]),
        (lambda w: w.raw.parent / "out", ["predict", "-i", "IN", "-o", "OUT", "-d", "900", "-c", "si"]),
    ],
)
def test_the_second_is_told_and_changes_nothing(
    workspace: Workspace, capsys: pytest.CaptureFixture[str], place: Callable[[Workspace], Path], words: list[str]
) -> None:
    images = workspace.raw_dataset(DATASET_NAME) / "imagesTs"
    words = [{"IN": str(images), "OUT": str(workspace.raw.parent / "out")}.get(word, word) for word in words]
    with folder_lock(place(workspace), "something else"):
        before = tree(workspace.raw.parent)
        assert run(workspace, *words) == 2
        said = capsys.readouterr().err
        assert "is in use (process" in said
        assert "something else); wait for it or stop it, then run the command again" in said
        assert tree(workspace.raw.parent) == before
    assert not any(workspace.raw.parent.rglob("*.lock"))


def test_a_file_that_is_being_written_is_not_written_twice(workspace: Workspace, tmp_path: Path) -> None:
    with file_lock(tmp_path / "model.zip", "exporting models"), pytest.raises(BusyError, match=r"model\.zip is in use"):
        api.export_model(workspace, "900", tmp_path / "model.zip", api.ExportOptions(configurations=("si",)))
    with (
        file_lock(workspace.report(DATASET_NAME), "writing"),
        pytest.raises(BusyError, match=r"report\.html is in use"),
    ):
        api.report(workspace, "900")


def test_networks_are_added_to_plans_one_after_the_other(workspace: Workspace) -> None:
    """Two trainings that start at once each keep the network of the other."""
    root, held = workspace.preprocessed_dataset(DATASET_NAME).root, threading.Event()

    def hold() -> None:
        with folder_lock(root, "adding"):
            held.set()
            threading.Event().wait(1)

    other = threading.Thread(target=hold)
    other.start()
    held.wait()
    assert run(workspace, "train", "900", "si", "0", "--network", "super_image_unet", *TINY) == 0
    other.join()
    assert "si__super_image_unet" in (root / "plans.json").read_text()


@pytest.mark.parametrize("content", ["another network", "nothing of it", "damaged"])
def test_a_checkpoint_that_is_refused_has_changed_nothing(workspace: Workspace, content: str) -> None:
    folder = workspace.run(DATASET_NAME, "si").fold(0)
    state = torch.load(folder.checkpoint, weights_only=True)
    if content == "another network":
        torch.save(state | {"model": {"a": torch.zeros(1)}}, folder.checkpoint)
    elif content == "nothing of it":
        torch.save({"finished": True}, folder.checkpoint)
    else:
        folder.checkpoint.write_bytes(b"nonsense")
    for path in (folder.root.parent / "plans.json", folder.root.parent / "splits.json"):
        path.write_text(path.read_text() + "\n\n")  # says the same, and would not be written so
    before = tree(workspace.results)
    assert run(workspace, "train", "900", "si", "0", *TINY) in (1, 2)
    assert tree(workspace.results) == before
