"""The store: what is written comes back, what is half-written does not exist, what is damaged is named."""

from pathlib import Path

import numpy as np
import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.data.image_geometry import Geometry
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store, check_case_names

SHAPE = (5, 7, 9)


def _record(case: str = "a", key: str = "k") -> CaseRecord:
    geometry = Geometry(shape=SHAPE, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    grid = Grid.plan(SHAPE, (1.0, 1.0, 1.0), ((0, 5), (0, 7), (0, 9)), (1.0, 1.0, 1.0))
    return CaseRecord(case=case, geometry=geometry, grid=grid, voxels={"0": 315}, source_key=key)


def _arrays(rng: np.random.Generator) -> CaseArrays:
    return CaseArrays(
        image=rng.normal(size=(2, *SHAPE)).astype(np.float32),
        labels=rng.choice(np.array([0, 1, 255], np.uint8), SHAPE),
        reference=rng.integers(0, 2, (6, 7, 9)).astype(np.uint8),
        locations={1: np.array([[0, 1, 2]], np.int32), 3: np.zeros((0, 3), np.int32)},
    )


def test_what_is_written_comes_back(tmp_path: Path, rng: np.random.Generator) -> None:
    store, arrays = Store(tmp_path / "s"), _arrays(rng)
    assert store.cases() == []
    store.write(_record(), arrays)
    assert store.cases() == ["a"]
    assert store.record("a") == _record()
    image = store.open_image("a")
    assert image.shape == (2, *SHAPE)
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image[:, 1:4, 2:7, 3:], arrays.image[:, 1:4, 2:7, 3:])
    np.testing.assert_array_equal(store.open_labels("a")[:], arrays.labels)
    np.testing.assert_array_equal(store.read_reference("a"), arrays.reference)
    assert {index: voxels.tolist() for index, voxels in store.locations("a").items()} == {1: [[0, 1, 2]], 3: []}
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "a.b2nd",
        "a.json",
        "a_labels.b2nd",
        "a_locations.npz",
        "a_reference.b2nd",
    ]


def test_volumes_larger_than_a_chunk(tmp_path: Path, rng: np.random.Generator) -> None:
    store = Store(tmp_path)
    image = rng.normal(size=(2, 33, 65, 3)).astype(np.float32)
    store.write(_record(), _arrays(rng)._replace(image=image))
    np.testing.assert_array_equal(store.open_image("a")[...], image)


def test_the_source_key_tells_old_from_new(tmp_path: Path, rng: np.random.Generator) -> None:
    store = Store(tmp_path)
    assert not store.has("a", "k")
    store.write(_record(key="k"), _arrays(rng))
    assert store.has("a", "k")
    assert not store.has("a", "other")


def test_a_case_that_was_cut_off_does_not_exist(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)
    store.write(_record(), _arrays(rng))

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fail)
        with pytest.raises(KeyboardInterrupt):
            store.write(_record(key="new"), _arrays(rng))
    (tmp_path / ".tmp-1-a.json").write_text("{}", encoding="utf-8")
    assert store.cases() == []
    with pytest.raises(RecordError, match="has no case a; run plan_and_preprocess again"):
        store.record("a")


@pytest.mark.parametrize("content", [b"", b"no array at all", None])
def test_damaged_arrays_are_named_with_the_cure(
    tmp_path: Path, rng: np.random.Generator, content: bytes | None
) -> None:
    store = Store(tmp_path)
    store.write(_record(), _arrays(rng))
    for name in ("a.b2nd", "a_locations.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if content is None else content)
    with pytest.raises(RecordError, match=r"a\.b2nd is damaged .* delete .*a\.json and run"):
        store.open_image("a")[...]
    with pytest.raises(RecordError, match=r"a_locations\.npz is damaged"):
        store.locations("a")
    with pytest.raises(RecordError, match=r"a_locations\.npz is damaged .* delete"):
        list(store.open_locations("a"))


def test_missing_array(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="is missing"):
        Store(tmp_path).open_image("a")


def test_remove(tmp_path: Path, rng: np.random.Generator) -> None:
    store = Store(tmp_path)
    store.write(_record("a"), _arrays(rng))
    store.write(_record("b"), _arrays(rng))
    store.remove(["a"])
    assert store.cases() == ["b"]
    assert len(list(tmp_path.iterdir())) == 5


def test_names_that_would_share_files() -> None:
    check_case_names(["a", "b_labels"])
    with pytest.raises(InputError, match="a_labels: another case"):
        check_case_names(["a", "a_labels"])


@pytest.mark.parametrize("suffix", ["", "_labels", "_reference"])
def test_a_case_that_lacks_a_file_is_not_there(suffix: str, tmp_path: Path, rng: np.random.Generator) -> None:
    store = Store(tmp_path)
    store.write(_record(), _arrays(rng))
    assert store.has("a", "k", reference=True)
    (tmp_path / f"a{suffix}.b2nd").unlink()
    assert not store.has("a", "k", reference=True)
    assert store.has("a", "k") == (suffix == "_reference")
