"""Installing is all or nothing, also for what is there already."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.errors import BusyError, InputError
from seg25d.core.locks import folder_lock
from seg25d.core.workspace import Workspace
from seg25d.sharing import install as module
from seg25d.sharing.install import install

NAME = "Dataset007_Tiny"
NEW, OLD = "3d/fold_0/model_final.safetensors", "3d/fold_3/model_final.safetensors"
KILLED = """
import os, signal, sys
from pathlib import Path
from seg25d.core.workspace import Workspace
from seg25d.sharing.install import install

renamed, last = [], int(sys.argv[3])
rename = Path.rename

def counted(path, target):
    if len(renamed) == last:
        os.kill(os.getpid(), signal.SIGKILL)
    renamed.append(path)
    return rename(path, target)

Path.rename = counted
install(Workspace.resolve(Path(sys.argv[1]), {}), Path(sys.argv[2]), overwrite=True)
"""


@pytest.fixture(scope="module")
def archive(trained: Workspace, choose: Callable[..., None], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs and a `best.json`."""
    root = tmp_path_factory.mktemp("archive")
    shutil.copytree(trained.results, root / "results")
    workspace = Workspace.resolve(root, {})
    choose(workspace, **{"3d": ("0",), "axial__fine": ("0",)})
    api.export_model(workspace, "7", root / "a.zip")
    return root / "a.zip"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results with an older `3d` of another fold, and an older `best.json`."""
    folder = tmp_path / "results" / NAME
    (folder / OLD).parent.mkdir(parents=True)
    (folder / OLD).write_text("old")
    (folder / "best.json").write_text("old")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """All files."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def place(folder: Path) -> Workspace:
    return Workspace.resolve(folder.parent.parent, {})


def test_what_is_there_is_kept_unless_that_is_not_wanted(archive, folder, capsys):
    before = contents(folder)
    words = ["install_model", str(archive), "--workspace", str(folder.parent.parent)]
    assert main(words) == 2
    assert "has 3d and best.json already; --overwrite replaces" in capsys.readouterr().err
    assert contents(folder) == before
    assert not (folder / ".lock").exists()
    assert main([*words, "--overwrite"]) == 0
    after = contents(folder)
    assert OLD not in after
    assert json.loads(after["best.json"])["name"] == "3d + axial__fine"
    assert {path.name for path in folder.iterdir()} == {"3d", "axial__fine", "best.json"}
    assert main(words) == 0
    assert contents(folder) == after
    (folder / "3d" / "plans.json").write_text("{}")
    assert main(words) == 2
    assert "has 3d already" in capsys.readouterr().err


@pytest.mark.parametrize("fails_at", range(5))
def test_after_an_error_all_is_as_it_was(archive, folder, monkeypatch, fails_at):
    before, rename, calls = contents(folder), Path.rename, []

    def failing(path, target):
        calls.append(path)
        if len(calls) == fails_at + 1:
            raise OSError("no more")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="no more"):
        install(place(folder), archive, overwrite=True)
    assert len(calls) > fails_at
    assert contents(folder) == before
    assert {path.name for path in folder.iterdir()} <= {"3d", "best.json"}


@pytest.mark.slow
@pytest.mark.parametrize("last", [0, 1, 2, 3, 4])
def test_a_kill_leaves_the_old_or_the_new_and_the_next_call_tidies_up(archive, folder, last):
    words = [sys.executable, "-c", KILLED, str(folder.parent.parent), str(archive), str(last)]
    done = subprocess.run(words, check=False, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = contents(folder)
    assert [OLD in there, f".replaced/{OLD}" in there, NEW in there] == [last == 0, last > 0, last > 1]
    install(place(folder), archive, overwrite=True)
    after = contents(folder)
    assert NEW in after
    assert OLD not in after
    assert json.loads(after["best.json"])["name"] == "3d + axial__fine"
    assert {path.name for path in folder.iterdir()} == {"3d", "axial__fine", "best.json"}


def test_what_a_killed_process_took_away_comes_back(archive, folder):
    before = contents(folder)
    (folder / ".replaced").mkdir()
    for name in ("3d", "best.json"):
        (folder / name).rename(folder / ".replaced" / name)
    with pytest.raises(InputError, match=r"has 3d and best\.json already"):
        install(place(folder), archive)
    assert contents(folder) == before


def test_a_run_that_is_being_trained_is_not_replaced(archive, folder):
    before = contents(folder)
    with folder_lock(folder / "3d" / "fold_3", "training"), pytest.raises(BusyError, match="training"):
        install(place(folder), archive, overwrite=True)
    assert contents(folder) == before


@pytest.mark.skipif(os.name == "nt", reason="there nothing can be moved that is open")
def test_a_run_cannot_be_trained_while_it_is_replaced(archive, folder, monkeypatch):
    moved = []

    def rename(path, target):
        if path.name == "3d" and not moved:
            moved.append(path)
            with pytest.raises(BusyError, match="installing models"), folder_lock(path / "fold_3", "training"):
                pass
        return usual(path, target)

    usual = Path.rename
    monkeypatch.setattr(Path, "rename", rename)
    install(place(folder), archive, overwrite=True)
    assert moved == [folder / "3d"]
    assert not list(folder.rglob(".*"))


def test_what_comes_while_files_are_unpacked_is_not_replaced(archive, folder, monkeypatch):
    shutil.move(folder / "3d", folder.parent / "trained meanwhile")
    (folder / "best.json").unlink()

    def unpack(*arguments):
        usual(*arguments)
        shutil.move(folder.parent / "trained meanwhile", folder / "3d")

    usual = module.unpack
    monkeypatch.setattr(module, "unpack", unpack)
    with pytest.raises(InputError, match="has 3d already"):
        install(place(folder), archive)
    assert contents(folder) == {OLD: b"old"}


def test_an_interrupted_installation_is_completed_without_further_words(archive, folder, tmp_path):
    """A part that is in place already, with the same content, is no obstacle; another one is."""
    elsewhere = Workspace.resolve(tmp_path / "elsewhere", {})
    target = elsewhere.results / NAME
    install(elsewhere, archive)
    whole, modified = contents(target), (target / NEW).stat().st_mtime_ns
    (target / "best.json").unlink()
    (target / f".tmp-{10**30}-install").mkdir()
    install(elsewhere, archive)
    assert contents(target) == whole
    assert (target / NEW).stat().st_mtime_ns == modified
    assert not list(target.glob(".*"))
    (target / f".tmp-{10**30}-install").mkdir()
    install(elsewhere, archive)
    assert not list(target.glob(".*"))
    (target / "best.json").write_text("other")
    with pytest.raises(InputError, match=r"has best\.json already"):
        install(elsewhere, archive)


def test_what_was_taken_away_is_not_removed_when_something_else_came_into_its_place(archive, folder, caplog):
    (folder / ".replaced").mkdir()
    shutil.copytree(folder / "3d", folder / ".replaced" / "3d")
    with pytest.raises(InputError, match=r"has .*already"):
        install(Workspace.resolve(folder.parents[1], {}), archive)
    assert (folder / ".replaced" / OLD).read_text() == "old"
    assert "is from a replacement that was cut off" in caplog.text
