"""Arrays on disk: nothing else than numbers is opened."""

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import blosc2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.core import arrays
from seg25d.core.arrays import PlaneWriter, StoredArray, array_parts, write_array, write_channels
from seg25d.core.errors import RecordError
from seg25d.core.grids import box_slices
from seg25d.core.types import BoundingBox


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32])
@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 40, 70, 65)])
def test_what_is_written_comes_back(tmp_path: Path, shape: tuple[int, ...], dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    write_array(tmp_path / "a.b2nd", array)
    assert np.array_equal(StoredArray(tmp_path / "a.b2nd", "make it again")[...], array)


def test_an_expression_is_refused_before_blosc2_sees_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    operand = blosc2.asarray(np.arange(9.0), urlpath=str(tmp_path / "operand.b2nd"), mode="w")
    (operand + 1).save(str(tmp_path / "a.b2nd"), mode="w")
    monkeypatch.setattr(blosc2, "open", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(RecordError, match=r"a\.b2nd is damaged \(it is no array of numbers.*make it again"):
        StoredArray(tmp_path / "a.b2nd", "make it again")


def test_a_file_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.b2nd"
    write_array(path, np.ones((4, 5, 6), np.float32))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RecordError, match=r"damaged \(it has \d+ bytes and says \d+\)"):
        StoredArray(path, "make it again")


def write_planes(
    writer: PlaneWriter, array: np.ndarray, axis: int, box: BoundingBox, fill: tuple[float, ...]
) -> np.ndarray:
    """Write the box of an array plane by plane; gives what is then expected."""
    expected = np.empty(array.shape, writer.dtype)
    expected[:] = np.reshape(fill, (-1, 1, 1, 1))
    inside = (slice(None), *box_slices(box))
    expected[inside] = array[inside]
    writer.begin(array.shape, axis, box, fill)
    for index, plane in enumerate(np.moveaxis(array[inside], axis + 1, 0)):
        writer.add(index, torch.from_numpy(np.ascontiguousarray(plane)))
    writer.finish()
    return expected


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.integers(1, 3), *[st.integers(1, 12)] * 3),
    st.integers(0, 2),
    st.sampled_from([np.float16, np.float32]),
    st.sampled_from([1, 500, 1 << 20]),
    st.data(),
)
def test_planes_across_any_axis_make_the_array(
    shape: tuple[int, ...], axis: int, dtype: type, buffer_bytes: int, data: st.DataObject
) -> None:
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    starts = [data.draw(st.integers(0, size - 1)) for size in shape[1:]]
    box = tuple((start, data.draw(st.integers(start + 1, size))) for start, size in zip(starts, shape[1:], strict=True))
    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setattr(arrays, "BUFFER_BYTES", buffer_bytes)
        for in_memory_bytes in (0, 1 << 20):
            writer = PlaneWriter(Path(folder) / f"{in_memory_bytes}.b2nd", dtype, in_memory_bytes=in_memory_bytes)
            expected = write_planes(writer, array, axis, box, (1.0, 0.0, 0.25)[: shape[0]])
            np.testing.assert_array_equal(writer.array[...], expected)
        stored = StoredArray(Path(folder) / "0.b2nd", "make it again")
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored[...], expected)
        assert [path.name for path in Path(folder).iterdir()] == ["0.b2nd"], "small arrays stay in memory"


@pytest.mark.parametrize("free", [0, 1 << 30])
def test_a_disk_that_may_get_full_is_warned_of_before_anything_is_written(
    free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    PlaneWriter(tmp_path / "kept.b2nd", np.float16, in_memory_bytes=1 << 20).begin(
        (61, 8, 64, 64), 0, ((0, 8), (0, 64), (0, 64)), [0.0] * 61
    )
    assert ("has 0.0 GB left" in caplog.text) == (free == 0)
    PlaneWriter(tmp_path / "in_memory.b2nd", np.float16, in_memory_bytes=1 << 30).begin(
        (61, 8, 64, 64), 0, ((0, 8), (0, 64), (0, 64)), [0.0] * 61
    )
    assert len(caplog.records) == (free == 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_export_that_begins_again_leaves_nothing_of_the_first(tmp_path: Path, axis: int) -> None:
    writer = PlaneWriter(tmp_path / "a.b2nd", np.float32)
    whole = ((0, 4), (0, 5), (0, 6))
    writer.begin((2, 4, 5, 6), 2 - axis, whole, (0, 0))
    writer.add(0, torch.ones([2, *(size for number, size in enumerate((4, 5, 6)) if number != 2 - axis)]))
    expected = write_planes(writer, np.full((2, 4, 5, 6), 0.5, np.float32), axis, ((1, 3), (1, 3), (1, 3)), (1, 0))
    np.testing.assert_array_equal(StoredArray(tmp_path / "a.b2nd", "")[...], expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("num_channels", [2, 61, 200])
def test_blocks_hold_as_many_planes_as_the_memory_and_divide_the_parts(axis: int, num_channels: int) -> None:
    shape = (num_channels, 500, 512, 512)
    block = arrays._plane_block(shape, axis, 4)
    of_a_plane = 4 * num_channels * math.prod(shape[1:]) // shape[1 + axis]
    assert block[axis] == 1 or block[axis] * of_a_plane <= arrays.BUFFER_BYTES
    assert block[axis] == arrays.CHUNK[axis] or 2 * block[axis] * of_a_plane > arrays.BUFFER_BYTES
    assert not any(np.remainder(arrays.CHUNK, block))


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (3, 70, 70, 130), (61, 40, 65, 300)])
def test_parts_cover_an_array_once(shape: tuple[int, ...]) -> None:
    seen = np.zeros(shape[1:], np.uint8)
    for part in array_parts(shape):
        assert seen[part].size * shape[0] * 4 <= arrays.PART_BYTES
        seen[part] += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("num_channels", "along_width"), [(3, 1), (61, 4)])
def test_parts_have_all_columns_if_there_is_room(num_channels: int, along_width: int) -> None:
    assert len([*array_parts((num_channels, 32, 64, 512))]) == along_width


def test_channels_one_after_the_other_make_the_array(tmp_path: Path, rng: np.random.Generator) -> None:
    array = rng.random((3, 40, 70, 65)).astype(np.float16)
    write_channels(tmp_path / "a.b2nd", array.shape, np.float16, (volume[:, ::-1] for volume in array))
    np.testing.assert_array_equal(StoredArray(tmp_path / "a.b2nd", "")[...], array[:, :, ::-1])
