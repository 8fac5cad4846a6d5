"""From files to the store: known grids, shared stores, going on, odd volumes."""

import os
import subprocess
import sys
import tracemalloc
import weakref
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.limits import CommonShape
from seg25d.core.records import Record
from seg25d.core.types import Spacing
from seg25d.core.workspace import PreprocessedFolder
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.sliding_window import Slab
from seg25d.planning.normalization import ChannelNormalization
from seg25d.preprocessing import preprocess
from seg25d.preprocessing.preprocess import preprocess_dataset, preprocess_image, read_model_labels
from seg25d.preprocessing.resample import resample_labels
from seg25d.preprocessing.store import Store

LABELS = Labels(names={"background": 0, "organ": 4, "ignore": 5})
NONE = (ChannelNormalization(channel="MR", scheme="none"),)
ZSCORE = (ChannelNormalization(channel="MR", scheme="zscore"),)


class _Plan(Record):
    store: str = "s"
    spacing_mm: Spacing = (1, 1, 1)
    common_shape: CommonShape | None = None
    normalization: tuple[ChannelNormalization, ...] = NONE


def _write(path: Path, array: np.ndarray, spacing_mm: Spacing) -> Path:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing_mm[::-1])
    sitk.WriteImage(image, str(path))
    return path


def _add_window(path: Path, center: str, width: str) -> None:
    image = sitk.ReadImage(str(path))
    image.SetMetaData("0028|1050", center)
    image.SetMetaData("0028|1051", width)
    sitk.WriteImage(image, str(path))


def _dataset(folder: Path, names: str, rng: np.random.Generator) -> Dataset:
    """Cases of 8 x 10 x 12 voxels with a zero border along the last axis and all labels."""
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for name in names:
        image = rng.normal(size=(8, 10, 12)).astype(np.float32)
        image[..., :2] = 0
        labels = np.zeros((8, 10, 12), np.uint8)
        labels[2:5, 3:8, 4:9] = 4
        labels[6, 6, 3] = 5
        cases.append(
            Case(
                name=name,
                images=(_write(folder / f"{name}_0000.nrrd", image, (2, 1, 1)),),
                label=_write(folder / f"{name}.nrrd", labels, (2, 1, 1)),
            )
        )
    description = DatasetDescription(channel_names=("MR",), labels=LABELS, file_ending=".nrrd", num_training=len(cases))
    return Dataset(name="Dataset001_X", root=folder, description=description, cases=tuple(cases))


def _stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_case_in_the_store(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, store = _dataset(tmp_path / "raw", "a", rng), Store(tmp_path / "out" / "s")
    preprocess_dataset(dataset, [_Plan()], PreprocessedFolder(root=tmp_path / "out"), num_workers=0)
    record = store.record("a")
    assert record.grid.bounding_box == ((0, 8), (0, 10), (2, 12))
    assert record.grid.shape == (16, 10, 10)
    assert store.open_image("a").shape == (1, 16, 10, 10)
    labels = store.open_labels("a")[:]
    assert labels.shape == (16, 10, 10)
    assert set(np.unique(labels)) == {0, 1, 255}
    assert record.voxels == {"0": int((labels == 0).sum()), "1": int((labels == 1).sum())}
    assert np.array_equal(read_model_labels(dataset.cases[0], LABELS, _Plan().spacing_mm), labels)
    whole = read_model_labels(dataset.cases[0], LABELS, (1, 2, 2), is_uncropped=True)
    reference = store.read_reference("a")
    assert np.array_equal(whole, resample_labels(reference, (16, 5, 6)))
    assert reference.shape == (8, 10, 12)
    assert (reference == 1).sum() == 75
    assert list(store.locations("a")) == [1]
    assert (labels[tuple(store.locations("a")[1].T)] == 1).all()


def test_the_files_own_grid_keeps_every_voxel(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, store = _dataset(tmp_path / "raw", "a", rng), Store(tmp_path / "out" / "s")
    folder = PreprocessedFolder(root=tmp_path / "out")
    preprocess_dataset(dataset, [_Plan(spacing_mm=(2, 1, 1))], folder, num_workers=0)
    original = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset.cases[0].images[0])))
    np.testing.assert_array_equal(store.open_image("a")[0], original[..., 2:])
    np.testing.assert_array_equal(store.open_labels("a")[:], store.read_reference("a")[..., 2:])


def test_stores_are_shared_and_filled_together(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "ab", rng), PreprocessedFolder(root=tmp_path / "out")
    preprocess_dataset(dataset, [_Plan(), _Plan(), _Plan(store="t", normalization=ZSCORE)], folder, num_workers=0)
    assert Store(folder.store("s")).cases() == Store(folder.store("t")).cases() == ["a", "b"]
    assert abs(Store(folder.store("t")).open_image("a")[:].mean()) < 0.05
    with pytest.raises(InputError, match="store s with different"):
        preprocess_dataset(dataset, [_Plan(), _Plan(normalization=ZSCORE)], folder, num_workers=0)


def test_only_what_is_missing_or_changed_is_made(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "abc", rng), PreprocessedFolder(root=tmp_path / "out")
    store = Store(folder.store("s"))
    preprocess_dataset(dataset, [_Plan()], folder, num_workers=0)
    before = _stamps(store.folder)
    preprocess_dataset(dataset, [_Plan()], folder, num_workers=0)
    assert _stamps(store.folder) == before
    (store.folder / "b.json").unlink()
    (store.folder / ".tmp-999999999-x.b2nd").touch()
    image = dataset.cases[2].images[0]
    os.utime(image, ns=(0, image.stat().st_mtime_ns + 10**9))
    preprocess_dataset(dataset, [_Plan()], folder, num_workers=0)
    after = _stamps(store.folder)
    assert after.keys() == before.keys()
    assert {name for name in before if after[name] != before[name]} == {name for name in before if name[0] in "bc"}
    preprocess_dataset(dataset, [_Plan(normalization=ZSCORE)], folder, num_workers=0)
    assert _stamps(store.folder)["a.b2nd"] != before["a.b2nd"]


def test_an_interrupted_run_ends_with_the_same_files(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _dataset(tmp_path / "raw", "ab", rng)
    whole, cut = PreprocessedFolder(root=tmp_path / "whole"), PreprocessedFolder(root=tmp_path / "cut")
    preprocess_dataset(dataset, [_Plan()], whole, num_workers=0)
    calls = []

    def stop(*arguments: object, **settings: object) -> None:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        savez(*arguments, **settings)  # type: ignore[arg-type]

    savez = np.savez
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", stop)
        with pytest.raises(KeyboardInterrupt):
            preprocess_dataset(dataset, [_Plan()], cut, num_workers=0)
    assert Store(cut.store("s")).cases() == ["a"]
    preprocess_dataset(dataset, [_Plan()], cut, num_workers=0)
    first, second = ({p.name: p.read_bytes() for p in folder.store("s").iterdir()} for folder in (whole, cut))
    assert first == second


@pytest.mark.parametrize("num_workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_windows_of_the_headers(
    tmp_path: Path, rng: np.random.Generator, caplog: pytest.LogCaptureFixture, num_workers: int
) -> None:
    caplog.set_level("INFO", "seg25d")
    dataset, folder = _dataset(tmp_path / "raw", "abc", rng), PreprocessedFolder(root=tmp_path / "out")
    _add_window(dataset.cases[0].images[0], "0.5", "2")
    _add_window(dataset.cases[1].images[0], "0.5", "wide")
    header = (ChannelNormalization(channel="CT", scheme="ct_window_dicom", lower=-1, upper=1),)
    plans = [_Plan(spacing_mm=(2, 1, 1), normalization=header), _Plan(store="t", normalization=header)]
    preprocess_dataset(dataset, plans, folder, num_workers=num_workers)
    for case, lower in zip(dataset.cases, (-0.5, -1, -1), strict=True):
        original = sitk.GetArrayFromImage(sitk.ReadImage(str(case.images[0])))[..., 2:]
        expected = np.clip((original - lower) / 2, 0, 1)
        np.testing.assert_allclose(Store(folder.store("s")).open_image(case.name)[0], expected, atol=1e-6)
    said = sorted(
        (record.getMessage()[:2], record.levelname) for record in caplog.records if "header" in record.message
    )
    assert said == [("b:", "WARNING"), ("c:", "INFO")]


def test_a_window_that_changes_makes_the_case_anew(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "a", rng), PreprocessedFolder(root=tmp_path / "out")
    header = (ChannelNormalization(channel="CT", scheme="ct_window_dicom", lower=-1, upper=1),)
    preprocess_dataset(dataset, [_Plan(normalization=header)], folder, num_workers=0)
    before = Store(folder.store("s")).open_image("a")[:]
    _add_window(dataset.cases[0].images[0], "0", "4")
    preprocess_dataset(dataset, [_Plan(normalization=header)], folder, num_workers=0)
    assert not np.array_equal(Store(folder.store("s")).open_image("a")[:], before)


def test_clean_and_cases_that_are_gone(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "ab", rng), PreprocessedFolder(root=tmp_path / "out")
    preprocess_dataset(dataset, [_Plan()], folder, num_workers=0)
    before = _stamps(folder.store("s"))
    fewer = dataset.model_copy(update={"cases": dataset.cases[:1]})
    preprocess_dataset(fewer, [_Plan()], folder, num_workers=0)
    assert _stamps(folder.store("s")) == {name: stamp for name, stamp in before.items() if name[0] == "a"}
    preprocess_dataset(fewer, [_Plan()], folder, num_workers=0, clean=True)
    assert _stamps(folder.store("s"))["a.b2nd"] != before["a.b2nd"]


def test_an_undeclared_value_names_the_file(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "a", rng)
    _write(dataset.cases[0].label or Path(), np.full((8, 10, 12), 3, np.uint8), (2, 1, 1))
    with pytest.raises(DatasetError, match=r"a\.nrrd"):
        preprocess_dataset(dataset, [_Plan()], PreprocessedFolder(root=tmp_path / "out"), num_workers=0)
    assert Store(tmp_path / "out" / "s").cases() == []


@pytest.mark.parametrize("shape", [(1, 7, 9), (1, 1, 1), (3, 5, 2)])
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (10.0, 0.7, 3.1), (0.2, 0.2, 0.2)])
def test_odd_volumes(shape: tuple[int, int, int], spacing_mm: Spacing, rng: np.random.Generator) -> None:
    image = rng.normal(size=(1, *shape)).astype(np.float32)
    result, grid = preprocess_image(image, (1, 1, 1), _Plan(spacing_mm=spacing_mm, normalization=ZSCORE))
    assert result.shape == (1, *grid.shape)
    assert np.isfinite(result).all()
    zero, grid = preprocess_image(np.zeros_like(image), (1, 1, 1), _Plan(spacing_mm=spacing_mm, normalization=ZSCORE))
    assert grid.cropped_shape == shape
    assert not zero.any()


def _peak_and_result(image: np.ndarray, plan: _Plan, *, overwrite: bool) -> tuple[float, np.ndarray]:
    """New memory for an image of unit spacing, as a share of it, and what came out."""
    tracemalloc.start()
    result, _ = preprocess_image(image, (1, 1, 1), plan, overwrite=overwrite)
    peak = tracemalloc.get_traced_memory()[1] / image.nbytes
    tracemalloc.stop()
    return peak, result


def test_an_image_that_is_not_needed_any_more_is_normalised_in_its_place(rng: np.random.Generator) -> None:
    image = rng.uniform(-2000, 2000, (1, 40, 64, 64)).astype(np.float32)
    scheme = ChannelNormalization(channel="CT", scheme="ct", lower=-900.0, upper=900.0, mean=11.0, std=333.0)
    plan, before = _Plan(normalization=(scheme,)), image.copy()
    peak, expected = _peak_and_result(image, plan, overwrite=False)
    np.testing.assert_array_equal(image, before)
    assert peak >= 1
    peak, result = _peak_and_result(image, plan, overwrite=True)
    assert peak < 0.6, "masks of the content"
    assert np.shares_memory(result, image)
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (2.0, 1.5, 1.0)])
def test_a_crop_of_it_does_not_keep_the_rest(spacing_mm: Spacing, rng: np.random.Generator) -> None:
    image = np.zeros((2, 12, 14, 16), np.float32)
    image[:, 2:10, 3:12, 1:15] = rng.uniform(1, 9, (2, 8, 9, 14))
    plan = _Plan(spacing_mm=spacing_mm, normalization=ZSCORE * 2)
    _, expected = _peak_and_result(image, plan, overwrite=False)
    _, result = _peak_and_result(image, plan, overwrite=True)
    assert not np.shares_memory(result, image)
    assert result.flags.c_contiguous
    np.testing.assert_array_equal(result, expected)


def test_the_image_is_gone_when_the_labels_of_the_last_store_are_resampled(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, resample = preprocess._read, preprocess._resample_reference
    images: list[weakref.ref[np.ndarray]] = []
    is_there: list[bool] = []

    def noted(*arguments: object, **settings: object) -> tuple[np.ndarray, object, object]:
        image, geometry, reference = read(*arguments, **settings)  # type: ignore[arg-type]
        images.append(weakref.ref(image))
        return image, geometry, reference

    def looked(*arguments: object) -> np.ndarray:
        is_there.append(images[-1]() is not None)
        return resample(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(preprocess, "_read", noted)
    monkeypatch.setattr(preprocess, "_resample_reference", looked)
    plans = [_Plan(), _Plan(store="t", normalization=ZSCORE)]
    preprocess_dataset(_dataset(tmp_path / "raw", "a", rng), plans, PreprocessedFolder(root=tmp_path / "out"), 0)
    assert is_there == [True, False]


def test_the_image_serves_all_stores_before_it_is_overwritten(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "a", rng)
    plans = [_Plan(), _Plan(store="t", normalization=ZSCORE), _Plan(store="u", spacing_mm=(2, 1, 1))]
    together = PreprocessedFolder(root=tmp_path / "together")
    preprocess_dataset(dataset, plans, together, num_workers=0)
    for plan in plans:
        alone = PreprocessedFolder(root=tmp_path / f"alone_{plan.store}")
        preprocess_dataset(dataset, [plan], alone, num_workers=0)
        first, second = (Store(each.store(plan.store)).open_image("a")[:] for each in (together, alone))
        np.testing.assert_array_equal(first, second)


def test_no_more_is_imported_than_a_gpu_node_has() -> None:
    code = (
        "import sys, numpy as np; from types import SimpleNamespace as N;"
        "from seg25d.preprocessing.preprocess import preprocess_image;"
        "import seg25d.preprocessing.store;"
        "n = N(channel='x', scheme='zscore', lower=None, upper=None, mean=None, std=None);"
        "plan = N(spacing_mm=(2, 2, 2), common_shape=None, normalization=[n]);"
        "preprocess_image(np.ones((1, 3, 3, 3)), (1, 1, 1), plan);"
        "print([name for name in ('SimpleITK', 'torch', 'skimage') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
def test_workers_give_what_this_process_gives(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "abc", rng)
    one, two = PreprocessedFolder(root=tmp_path / "one"), PreprocessedFolder(root=tmp_path / "two")
    preprocess_dataset(dataset, [_Plan()], one, num_workers=0)
    preprocess_dataset(dataset, [_Plan()], two, num_workers=2)
    first, second = ({p.name: p.read_bytes() for p in folder.store("s").iterdir()} for folder in (one, two))
    assert first == second


def test_a_folder_that_cannot_be_made_is_told_before_anything_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "a", rng)
    dataset.cases[0].images[0].write_bytes(b"")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file, not a folder"):
        preprocess_dataset(dataset, [_Plan()], PreprocessedFolder(root=tmp_path / "file" / "out"), num_workers=0)


def test_a_wrong_spacing_takes_no_memory(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "a", rng)
    _write(dataset.cases[0].images[0], rng.normal(size=(8, 10, 12)).astype(np.float32), (9000, 9000, 9000))
    _write(tmp_path / "raw" / "a.nrrd", np.ones((8, 10, 12), np.uint8) * 4, (9000, 9000, 9000))
    with pytest.raises(
        InputError, match=r"a: 8 x 10 x 12 voxels of 9000 x 9000 x 9000 mm become .* GB .*correct the sp"
    ):
        preprocess_dataset(dataset, [_Plan()], PreprocessedFolder(root=tmp_path / "out"), num_workers=0)
    assert not list((tmp_path / "out").rglob("*.b2nd"))


def test_values_that_a_scheme_does_not_take_name_the_case(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset = _dataset(tmp_path / "raw", "ab", rng)
    colours = _Plan(normalization=(ChannelNormalization(channel="rgb_to_0_1", scheme="rgb_0_1"),))
    with pytest.raises(InputError, match=r"^a: channel rgb_to_0_1: expected colours from 0 to 255"):
        preprocess_dataset(dataset, [colours], PreprocessedFolder(root=tmp_path / "out"), 0)


def test_every_case_gets_the_common_size_and_goes_back_to_its_own(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "ab", rng), PreprocessedFolder(root=tmp_path / "out")
    wide = rng.normal(size=(6, 5, 9)).astype(np.float32)
    labels = np.zeros((6, 5, 9), np.uint8)
    labels[2:5, 1:3, 2:7] = 4
    _write(dataset.cases[1].images[0], wide, (2, 3, 0.5))
    _write(tmp_path / "raw" / "b.nrrd", labels, (2, 3, 0.5))
    resized = _Plan(spacing_mm=(2, 1, 1), common_shape=(None, 20, 36))
    preprocess_dataset(dataset, [resized], folder, num_workers=0)
    store = Store(folder.store("s"))
    assert [store.open_image(case).shape for case in "ab"] == [(1, 8, 20, 36), (1, 6, 20, 36)]
    assert [store.record(case).grid.spacing_mm for case in "ab"] == [(2, 0.5, 12 / 36), (2, 0.75, 0.125)]
    # The zero border stays: slices are resized as a whole.
    assert store.record("a").grid.bounding_box == ((0, 8), (0, 10), (0, 12))
    for case in dataset.cases:
        on_model = store.open_labels(case.name)[:]
        read = read_model_labels(case, LABELS, resized.spacing_mm, resized.common_shape)
        np.testing.assert_array_equal(read, on_model)
        scores = torch.from_numpy(np.stack([on_model == 0, on_model == 1]).astype(np.float32))
        back = labels_from_slabs([Slab(0, 0, scores.movedim(1, 0))], store.record(case.name).grid, LABELS)
        reference = store.read_reference(case.name)
        np.testing.assert_array_equal(back[reference != 255], reference[reference != 255])


def test_another_common_size_is_another_array(tmp_path: Path, rng: np.random.Generator) -> None:
    dataset, folder = _dataset(tmp_path / "raw", "a", rng), PreprocessedFolder(root=tmp_path / "out")
    store = Store(folder.store("s"))
    for common_shape, shape in ((None, (16, 10, 10)), ((None, 6, 6), (16, 6, 6)), ((3, 6, 6), (3, 6, 6))):
        preprocess_dataset(dataset, [_Plan(common_shape=common_shape)], folder, num_workers=0)
        assert store.open_labels("a").shape == shape
    with pytest.raises(InputError, match="store s with different spacing, common size"):
        preprocess_dataset(dataset, [_Plan(), _Plan(common_shape=(None, 6, 6))], folder, num_workers=0)
