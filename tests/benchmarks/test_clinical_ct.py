"""benchmarks/clinical_ct.py: made-up CTs, in small."""

import json
from pathlib import Path

import numpy as np
import pytest
from clinical_ct import (
    AIR,
    HARD_BONE,
    NOISE_HU,
    RANGE_HU,
    SPONGY_BONE,
    TISSUES,
    Axis,
    Field,
    Scans,
    draw_scan,
    write_scans,
)

from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_channel

SMALL = Scans(slices=24, size=64, thickness_mm=5.0, pixel_mm=6.4)


def test_the_same_seed_gives_the_same_bits_and_another_one_another_scan() -> None:
    first, again, other = (draw_scan(np.random.default_rng(seed), SMALL) for seed in (1, 1, 2))
    assert first.images.tobytes() == again.images.tobytes()
    assert first.labels.tobytes() == again.labels.tobytes()
    assert first.spacing_mm == again.spacing_mm
    assert not np.array_equal(first.images, other.images)
    assert first.spacing_mm != other.spacing_mm


@pytest.mark.parametrize(("num_labels", "thickness_mm"), [(2, 5.0), (3, 0.8), (60, 5.0), (60, 0.8)])
def test_every_label_is_there_and_nothing_else(num_labels: int, thickness_mm: float) -> None:
    scans = Scans(24, 64, thickness_mm, 6.4, num_labels=num_labels)
    for seed in range(3):
        labels = draw_scan(np.random.default_rng(seed), scans).labels
        assert set(np.unique(labels)) == set(range(num_labels + 1))
        assert 0.02 < (labels > 0).mean() < 0.25
    assert list(scans.labels.values()) == list(range(num_labels + 1))
    assert list(scans.labels)[-1] == "spine"


def test_tissues_have_their_hounsfield_units() -> None:
    case = draw_scan(np.random.default_rng(3), Scans(24, 96, 5.0, 4.2, num_labels=7))
    image = case.images[0]
    assert image.dtype == np.int16
    assert image.min() >= RANGE_HU[0]
    assert image.max() <= RANGE_HU[1]
    for value, units in enumerate(TISSUES.values(), 1):
        assert np.median(image[case.labels == value]) == pytest.approx(units, abs=20)
    assert SPONGY_BONE < image[case.labels == 7].mean() < HARD_BONE
    corner = image[:, :6, :6].astype(float)
    assert corner.mean() == pytest.approx(AIR, abs=5)
    assert 0.5 * NOISE_HU * (0.8 / 5) ** 0.5 < corner.std() < NOISE_HU


def test_noise_is_that_of_neighbours() -> None:
    corner = draw_scan(np.random.default_rng(4), SMALL).images[0][:, :8, :8].astype(float)
    corner -= corner.mean()

    def correlation(first: np.ndarray, second: np.ndarray) -> float:
        return float((first * second).mean() / corner.var())

    assert correlation(corner[:, :, 1:], corner[:, :, :-1]) > 0.3
    assert correlation(corner[1:], corner[:-1]) > 0.2
    assert abs(correlation(corner[:, :, 4:], corner[:, :, :-4])) < 0.2


def test_a_field_is_interpolated_linearly_from_its_first_voxel_to_its_last() -> None:
    axes = (Axis(2, 7, 3), Axis(0, 9, 5), Axis(3, 4, 1))
    along, down, across = np.ix_(*(axis.positions for axis in axes))
    field = Field(axes, (3 * along - down + across).astype(np.float32))
    assert [index for index in range(10) if field.covers(index)] == [2, 3, 4, 5, 6]
    for index in range(2, 7):
        np.testing.assert_allclose(field.plane(index), 3 * index - np.arange(9)[:, None] + 3, atol=1e-5)
    assert field.plane_box == (slice(0, 9), slice(3, 4))


def test_a_data_set_has_scans_of_several_spacings_and_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "Dataset801_Clinical"
    write_scans(folder, Scans(8, 32, 5.0, 12.0, num_labels=4), num_training=3, num_test=1)
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.cases] == ["ct_000", "ct_001", "ct_002"]
    assert dataset.description.channel_names == ("CT",)
    assert json.loads((folder / "splits.json").read_text()) == [{"train": ["ct_000", "ct_001"], "val": ["ct_002"]}]
    read = [read_channel(case.images[0]) for case in dataset.cases]
    assert {array.dtype for array, _ in read} == {np.dtype(np.int16)}
    spacings = np.array([geometry.spacing_mm for _, geometry in read])
    assert len(np.unique(spacings[:, 0])) == 3
    np.testing.assert_array_less(np.abs(spacings / (5.0, 12.0, 12.0) - 1), 0.1001)
    assert (folder / "labelsTs" / "ct_003.nii.gz").exists()
