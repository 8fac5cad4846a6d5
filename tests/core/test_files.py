"""Files are complete or absent, and folders have one master."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seg25d.core import files
from seg25d.core.errors import BusyError, InputError, RecordError
from seg25d.core.files import (
    atomic_path,
    check_writable,
    check_writable_file,
    copy_file,
    read_json,
    read_text,
    temporary_folder,
    write_json,
)
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.locks import folder_lock


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "image.nii.gz"
    with atomic_path(target) as temporary:
        assert temporary.name.endswith("image.nii.gz")
        temporary.write_text("half")
        assert not target.exists()
    assert target.read_text() == "half"


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "plan.json"
    target.write_text("old")

    def write_half(path: Path) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        write_half(target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_leftovers_of_dead_processes_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    (tmp_path / f".tmp-{int(child.stdout)}-a.json").touch()
    (tmp_path / f".tmp-{os.getpid()}-b.json").touch()
    (tmp_path / f".tmp-{int(child.stdout)}-folder" / "inner").mkdir(parents=True)
    remove_leftovers(tmp_path)
    remove_leftovers(tmp_path / "missing")
    assert [path.name for path in tmp_path.iterdir()] == [f".tmp-{os.getpid()}-b.json"]


def test_a_temporary_folder_goes_however_its_block_ends(tmp_path: Path) -> None:
    parent = tmp_path / "new" / "inner"
    with temporary_folder(parent, "try") as folder:
        (folder / "a").mkdir()
        assert folder.parent == parent
    assert list(tmp_path.iterdir()) == []

    def fail() -> None:
        with temporary_folder(parent, "try"):
            (parent / "a").touch()
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        fail()
    assert [path.name for path in parent.iterdir()] == ["a"]


def test_text_of_a_user(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("é", encoding="utf-8")
    assert read_text(tmp_path / "a") == "é"
    (tmp_path / "a").write_bytes(b"\xff")
    for name in ("a", "b"):
        with pytest.raises(InputError, match=f"{name} is missing or is not a text file"):
            read_text(tmp_path / name)


def test_json_goes_there_and_back_and_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": [1, 2.5, None]})
    assert read_json(path) == {"a": [1, 2.5, None]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, float("nan"))
    for content, message in (("{", "line 1"), ("[" * 100_000, "recursion"), ("9" * 5000, "digits"), ("\xff", "")):
        path.write_text(content, encoding="latin-1")
        with pytest.raises(RecordError, match=rf"a\.json is not valid JSON.*{message}"):
            read_json(path)
    with pytest.raises(RecordError, match=r"b\.json does not exist"):
        read_json(tmp_path / "b.json")


def test_a_second_process_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from seg25d.core.locks import folder_lock\n"
        "with folder_lock(Path(sys.argv[1]), 'training'): print('ok')\n"
    )
    with folder_lock(tmp_path, "training"):
        second = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False
        )
    assert "BusyError" in second.stderr
    assert f"process {os.getpid()}: training" in second.stderr
    third = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert third.stdout == "ok\n"
    with folder_lock(tmp_path, "training"), pytest.raises(BusyError), folder_lock(tmp_path, "predicting"):
        pass


def test_the_content_is_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []
    monkeypatch.setattr(os, "fsync", lambda _: there.append((tmp_path / "a").exists()))
    with atomic_path(tmp_path / "a") as temporary:
        temporary.write_text("x")
    assert there == [False]
    assert (tmp_path / "a").read_text() == "x"


def test_leftovers_of_other_users_processes_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kill(process_id: int, number: int) -> None:
        assert number == 0
        if process_id == 5:
            raise PermissionError
        raise ProcessLookupError

    (tmp_path / ".tmp-5-a.json").touch()
    (tmp_path / ".tmp-6-a.json").touch()
    monkeypatch.setattr(os, "kill", kill)
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-5-a.json"]


def test_a_huge_number_is_no_process(tmp_path: Path) -> None:
    (tmp_path / f".tmp-{10**30}-a").touch()
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="needs pipes with names")
def test_devices_and_pipes_are_not_replaced_by_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        with pytest.raises(InputError, match=f"{name} cannot be written: it is a device or a pipe, which a file would"):
            check_writable_file(tmp_path / name)
    check_writable_file(tmp_path / "file")


@pytest.mark.parametrize("content", [b"\x1f\x8b\x08", b"\x89PNG\r\n\x1a\n\0\0\0\r", b"\x5c\x01\0\0", b"PK\x03\x04\0"])
def test_text_takes_the_place_of_text_only(tmp_path: Path, content: bytes) -> None:
    """`evaluate --csv labelsTr/case.nii.gz` would replace what was compared."""
    path = tmp_path / "case"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"case cannot be written: it holds something else than text; name another"):
        check_writable_file(path)
    assert path.read_bytes() == content
    for encoding in ("utf-8", "latin-1", "cp1252", "utf-16"):
        path.write_bytes("case,Größe\n".encode(encoding) * 10_000)
        check_writable_file(path)


def test_check_writable_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/b cannot be written: .*file is a file, not a folder; remove it"):
        check_writable(tmp_path / "file" / "b")
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: access(path, mode) if mode == os.F_OK else False)
    with pytest.raises(InputError, match="does not allow it; give yourself the right"):
        check_writable(tmp_path / "a" / "b")


def test_copy_file_leaves_nothing_behind_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    copy_file(tmp_path / "a", tmp_path / "new" / "b")
    assert (tmp_path / "new" / "b").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        copy_file(tmp_path / "none", tmp_path / "new" / "c")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b"]


def test_keys_that_come_twice_can_be_seen(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1, "a": 2}')
    assert read_json(tmp_path / "a.json") == {"a": 2}
    assert read_json(tmp_path / "a.json", list) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    """Editors on Windows put one at the beginning of a file."""
    (tmp_path / "a.json").write_bytes('{"Größe": 1}'.encode(encoding))
    assert read_json(tmp_path / "a.json") == {"Größe": 1}


def test_a_record_is_not_read_that_the_memory_may_not_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.json"
    path.write_text("[" + "{}," * 400_000 + "{}]")
    assert len(read_json(path)) == 400_001
    monkeypatch.setattr(files, "available_memory_bytes", lambda: 30 << 20)
    with pytest.raises(RecordError, match=r"summary\.json may take 0\.1 GB of memory, .* larger machine"):
        read_json(path)
