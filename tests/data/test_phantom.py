import json

import numpy as np
import pytest

from seg25d.data.phantom import LABELS, make_phantom, write_phantom_dataset

SMALL = (8, 32, 32)


def test_same_seed_same_case():
    first, second = (make_phantom(np.random.default_rng(3), SMALL) for _ in range(2))
    np.testing.assert_array_equal(first.images, second.images)
    np.testing.assert_array_equal(first.labels, second.labels)
    assert first.spacing_mm == second.spacing_mm


def test_cases_differ_and_have_thick_slices():
    first, second = (make_phantom(np.random.default_rng(seed), SMALL) for seed in (1, 2))
    assert first.spacing_mm != second.spacing_mm
    assert first.images.shape[0] == 2
    assert first.images.shape[1:] == first.labels.shape
    assert 2.5 < first.spacing_mm[0] / first.spacing_mm[1] < 3.5


@pytest.mark.parametrize("seed", range(3))
def test_every_label_is_there(seed):
    labels = make_phantom(np.random.default_rng((25, seed))).labels
    assert set(np.unique(labels)) == set(LABELS.values())


def test_intensities_tell_tissues_apart():
    phantom = make_phantom(np.random.default_rng(0))
    ct = phantom.images[0].astype(float)
    assert ct[phantom.labels == LABELS["vessels"]].mean() > ct[phantom.labels == LABELS["organ_a"]].mean() + 30
    assert ct.min() < -900


def test_data_set_is_in_the_raw_layout_and_reproducible(tmp_path):
    for name in ("a", "b"):
        write_phantom_dataset(tmp_path / name, num_training=2, num_test=1, shape=SMALL)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert [str(path) for path in files] == [
        "dataset.json",
        "imagesTr/phantom_000_0000.nii.gz",
        "imagesTr/phantom_000_0001.nii.gz",
        "imagesTr/phantom_001_0000.nii.gz",
        "imagesTr/phantom_001_0001.nii.gz",
        "imagesTs/phantom_002_0000.nii.gz",
        "imagesTs/phantom_002_0001.nii.gz",
        "labelsTr/phantom_000.nii.gz",
        "labelsTr/phantom_001.nii.gz",
        "labelsTs/phantom_002.nii.gz",
    ]
    assert all((tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes() for path in files)
    assert json.loads((tmp_path / "a" / "dataset.json").read_text())["numTraining"] == 2


def test_complete_data_set_is_left_alone(tmp_path):
    (tmp_path / "dataset.json").write_text("{}")
    write_phantom_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.json"]
