"""Results of passes that were cut off: what is done again, and what is never taken for a result."""

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from seg25d.core import progress, unfinished
from seg25d.core.errors import InputError
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.records import Record, digest
from seg25d.core.unfinished import Unfinished, forget_unfinished, map_and_keep, unfinished_folder

PASS = "counting voxels"


class Share(Record):
    """A record in a result."""

    share: float | None


class Counted(NamedTuple):
    """A result of all that results are of."""

    share: Share
    counts: NDArray[np.int32]
    by_index: dict[int, tuple[float, ...]]
    flags: NDArray[np.bool_]


def counted(item: str) -> Counted:
    number = len(item)
    counts = np.arange(6, dtype=np.int32).reshape(2, 3).T * number
    return Counted(Share(share=0.1 + number / 3), counts, {7: (1 / 3, 2.0)}, np.zeros(0, bool))


@pytest.fixture(autouse=True)
def written_after_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
    monkeypatch.setattr(progress, "SHARE_OF_WRITES", float("inf"))


@pytest.fixture
def done(tmp_path: Path) -> Callable[..., tuple[list[str], dict[str, Counted]]]:
    """Makes a pass over a, bb and ccc, with other stamps, options or results that do not hold: what was done again."""

    def through(stamp: Callable[[str], object] = str, **others: object) -> tuple[list[str], dict[str, Counted]]:
        again: list[str] = []

        def count(item: str) -> Counted:
            again.append(item)
            return counted(item)

        kept = Unfinished(tmp_path / "table.json", Counted, stamp, **others)  # type: ignore[arg-type]
        found = dict(map_and_keep(count, ["a", "bb", "ccc"], PASS, kept, name=str, num_workers=0))
        return again, found

    return through


@pytest.fixture
def cut_off(tmp_path: Path) -> Path:
    """The folder of a pass that ended before its last item."""
    kept = Unfinished(tmp_path / "table.json", Counted, str)
    results: Iterator[tuple[str, Counted]] = map_and_keep(
        counted, ["a", "bb", "ccc"], PASS, kept, name=str, num_workers=0
    )
    for _ in range(3):  # the third is asked for, and that is where it ends
        next(results)
    results.close()  # type: ignore[attr-defined]
    return unfinished_folder(tmp_path / "table.json", PASS)


def assert_equal(found: dict[str, Counted]) -> None:
    assert found.keys() == {"a", "bb", "ccc"}
    for item, each in found.items():
        expected = counted(item)
        assert isinstance(each, Counted)
        assert (each.share, each.by_index) == (expected.share, expected.by_index)
        for array, other in ((each.counts, expected.counts), (each.flags, expected.flags)):
            assert (array.dtype, array.shape) == (other.dtype, other.shape)
            np.testing.assert_array_equal(array, other)
            assert array.flags.writeable


def test_only_the_rest_is_done_and_all_results_are_the_same(
    cut_off: Path, done: Callable[..., tuple[list[str], dict[str, Counted]]], caplog: pytest.LogCaptureFixture
) -> None:
    assert len(list(cut_off.iterdir())) == 2
    with caplog.at_level(logging.INFO):
        again, found = done()
    assert again == ["ccc"]
    assert_equal(found)
    assert "2 of 3 were done before" in caplog.text
    again, found = done()
    assert again == []
    assert_equal(found)
    for other in ("other.json", "table"):
        forget_unfinished(cut_off.parent / other)
        assert cut_off.exists()
    forget_unfinished(cut_off.parent / "table.json")
    assert not list(cut_off.parent.iterdir())
    assert done()[0] == ["a", "bb", "ccc"]


def test_what_depends_on_something_else_is_done_again(
    cut_off: Path, done: Callable[..., tuple[list[str], dict[str, Counted]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cut_off.exists()
    assert done(stamp=lambda item: "changed" if item == "bb" else item)[0] == ["bb", "ccc"]
    assert done(options={"tolerance": 2})[0] == ["a", "bb", "ccc"]
    assert done(options={"tolerance": 2}, holds=lambda item, _: item != "a")[0] == ["a"]
    monkeypatch.setattr(unfinished, "library_versions", lambda: {"seg25d": "another"})
    assert done()[0] == ["a", "bb", "ccc"]


def edited(path: Path, change: Callable[[dict[str, object]], None], *, sign: bool = True) -> None:
    """Change the only result of a file, with a digest that fits or not."""
    piece = json.loads(path.read_text())
    change(next(iter(piece["results"].values())))
    path.write_text(json.dumps(piece | ({"digest": digest(piece["results"])} if sign else {})))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "not text": lambda path: path.write_bytes(bytes(range(256))),
    "a list": lambda path: path.write_text("[]"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "changed": lambda path: edited(path, lambda result: result.__setitem__(2, {"7": [1.0]}), sign=False),
    "too short": lambda path: edited(path, lambda result: result.pop()),
    "another type": lambda path: edited(path, lambda result: result.__setitem__(0, 3)),
    "objects": lambda path: edited(path, lambda result: result[1].update({"array of": "|O"})),
    "no type": lambda path: edited(path, lambda result: result[1].update({"array of": "?!"})),
    "another shape": lambda path: edited(path, lambda result: result[1].update({"shape": [7, 7]})),
    "no shape": lambda path: edited(path, lambda result: result[1].update({"shape": {}})),
    "no base64": lambda path: edited(path, lambda result: result[1].update({"base64": "???"})),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_told_and_their_cases_done_again(
    damage: str,
    cut_off: Path,
    done: Callable[..., tuple[list[str], dict[str, Counted]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    first, second = sorted(cut_off.iterdir())
    DAMAGES[damage](first)
    again, found = done()
    assert again == ["a", "ccc"], caplog.text
    assert_equal(found)
    assert [record.levelname for record in caplog.records if first.name in record.getMessage()] == ["WARNING"]
    assert second.name not in caplog.text


def test_short_passes_write_nothing(
    tmp_path: Path, done: Callable[..., tuple[list[str], dict[str, Counted]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_WRITES", 60.0)
    assert_equal(done()[1])
    assert not list(tmp_path.iterdir())


def test_a_pass_that_cannot_be_kept_goes_on(
    tmp_path: Path,
    done: Callable[..., tuple[list[str], dict[str, Counted]]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(*_: object) -> None:
        raise InputError("the disk is full")

    monkeypatch.setattr(unfinished, "write_text", refuse)
    again, found = done()
    assert again == ["a", "bb", "ccc"]
    assert_equal(found)
    assert "would be done again after a kill: the disk is full" in caplog.text


def test_what_nobody_goes_on_with_is_removed(cut_off: Path) -> None:
    folder = next(iter(cut_off.parent.glob(".*.part")))
    remove_leftovers(cut_off.parent)
    assert folder.exists()
    long_ago = time.time() - 31 * 86400
    os.utime(folder, (long_ago, long_ago))
    remove_leftovers(cut_off.parent)
    assert not folder.exists()
