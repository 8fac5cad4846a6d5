"""Arrays on disk: nothing else than numbers is opened."""

from pathlib import Path

import blosc2
import numpy as np
import pytest

from seg25d.core.arrays import StoredArray, write_array
from seg25d.core.errors import RecordError


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
