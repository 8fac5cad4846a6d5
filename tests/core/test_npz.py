"""Arrays in `.npz` files that are written and read in pieces, beside what numpy does."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from seg25d.core import npz
from seg25d.core.npz import NpyReader, npz_writer

SHAPE = (3, 5, 6, 7)


@pytest.fixture
def array(rng: np.random.Generator) -> np.ndarray:
    return rng.random(SHAPE).astype(np.float32)


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("piece_bytes", [1 << 20, 100])
def test_numpy_reads_what_is_written(
    tmp_path: Path, array: np.ndarray, num_threads: int, piece_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "PIECE_BYTES", piece_bytes)
    array[1] = 0
    with npz_writer(tmp_path / "a.npz", "numbers", SHAPE, num_threads) as write:
        for volume in array:
            write(volume[:2])
            write(volume[2:])
    with np.load(tmp_path / "a.npz", allow_pickle=False) as archive:
        assert archive.files == ["numbers"]
        np.testing.assert_array_equal(archive["numbers"], array)
        assert archive["numbers"].dtype == np.float32
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert archive.testzip() is None
        (info,) = archive.infolist()
        assert info.compress_type == zipfile.ZIP_DEFLATED


@pytest.mark.parametrize("value", [0, 1])
def test_background_takes_hardly_any_room(tmp_path: Path, value: float) -> None:
    with npz_writer(tmp_path / "a.npz", "numbers", (1, 64, 64, 64)) as write:
        write(np.full((64, 64, 64), value, np.float32))
    assert (tmp_path / "a.npz").stat().st_size < 4 * 64**3 // 100


def test_too_few_numbers_are_an_error_of_ours(tmp_path: Path, array: np.ndarray) -> None:
    with (
        pytest.raises(ValueError, match=r"expected 630 numbers for an array \(3, 5, 6, 7\); got 420"),
        npz_writer(tmp_path / "a.npz", "numbers", SHAPE) as write,
    ):
        write(array[:2])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("channels", [(0, 1, 2), (2,), (0, 2)])
def test_channels_that_numpy_wrote_are_read(
    tmp_path: Path, array: np.ndarray, save, order: str, channels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npz, "BLOCK_BYTES", 2 * 4 * 6 * 7)
    save(tmp_path / "a.npz", numbers=np.array(array, order=order))
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        reader = NpyReader(archive, "numbers")
        assert reader.shape == SHAPE
        for channel in channels:
            found = list(reader.planes(channel))
            assert [start for start, _ in found] == [0, 2, 4], "two planes at a time"
            np.testing.assert_array_equal(np.concatenate([planes for _, planes in found]), array[channel])
        reader.close()


def test_a_wrong_checksum_is_told_at_the_end(tmp_path: Path, rng: np.random.Generator) -> None:
    large = rng.random((3, 32, 32, 32)).astype(np.float32)
    with npz_writer(tmp_path / "a.npz", "numbers", large.shape) as write:
        write(large)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        archive.getinfo("numbers.npy").CRC ^= 1
        reader = NpyReader(archive, "numbers")
        assert len(list(reader.planes(1))) == 1
        with pytest.raises(zipfile.BadZipFile, match="CRC"):
            list(reader.planes(2))
