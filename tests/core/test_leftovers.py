"""Temporary names say whose they are; what killed processes left goes, all else stays."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from seg25d.core import leftovers
from seg25d.core.files import atomic_path, write_text
from seg25d.core.leftovers import LONGEST_WRITING_HOURS, remove_leftovers, shortened, temporary_name

OTHER_PLACE = "abcdef"


def of_another(process_id: int, start: str, name: str = "a.json", place: str | None = None) -> str:
    return f".tmp-{process_id}.{place or leftovers._place()}.{start}-{name}"


def test_what_is_written_now_stays_and_ends_as_the_file_does(tmp_path: Path) -> None:
    path = tmp_path / temporary_name("image.nii.gz")
    path.touch()
    remove_leftovers(tmp_path)
    assert path.exists()
    assert path.name.endswith("-image.nii.gz")


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the start of processes is not told")
def test_a_number_that_another_process_has_by_now_keeps_nothing(tmp_path: Path) -> None:
    (tmp_path / of_another(os.getpid(), "1")).touch()
    (tmp_path / of_another(1, "1")).mkdir()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the state of processes is not told")
def test_an_ended_process_that_nobody_has_waited_for_keeps_nothing(tmp_path: Path) -> None:
    code = "from seg25d.core.leftovers import temporary_name; print(temporary_name('a'), flush=True)"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (tmp_path / process.stdout.read().strip()).touch()
        while (state := leftovers._process_state(process.pid)) is None or state[0] != "Z":
            time.sleep(0.01)
        remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_another_machine_writes_stays_until_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / of_another(10**30, "1", place=OTHER_PLACE)
    path.touch()
    os.utime(path, (0, 0))  # as of a file from an archive: when the name was made counts
    remove_leftovers(tmp_path)
    assert path.exists()
    later = time.time() + LONGEST_WRITING_HOURS * 3600 + 60
    monkeypatch.setattr(time, "time", lambda: later)
    remove_leftovers(tmp_path)
    assert not path.exists()


@pytest.mark.parametrize("name", [".tmp-", ".tmp-notes", ".tmp-12", ".tmp-12.txt", "tmp-12-a", f".tmp-x{10**30}-a"])
def test_names_of_others_are_none_of_our_business(name: str, tmp_path: Path) -> None:
    (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert (tmp_path / name).exists()


def test_folders_below_are_cleared_where_they_are_all_ours(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / f".tmp-{10**30}-c"
    (inner / f".tmp-{10**30}-d").mkdir(parents=True)
    remove_leftovers(tmp_path)
    assert inner.exists()
    remove_leftovers(tmp_path, deep=True)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_the_longest_names_can_be_written(tmp_path: Path) -> None:
    names = ["a" * 248 + ".nii.gz", "b" + "a" * 247 + ".nii.gz", "é" * 120 + ".json"]
    for name in names:
        write_text(tmp_path / name, name)
    assert {path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == set(names)
    assert len({shortened(name) for name in names}) == 3
    with atomic_path(tmp_path / names[0]) as temporary:
        temporary.touch()
        assert temporary.name.endswith(".nii.gz")
