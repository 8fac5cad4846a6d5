"""What the page repeats of preprocessing, windows and export gives Python's numbers, on random volumes."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax

from seg25d.core.grids import content_box
from seg25d.data.labels import Labels, logit
from seg25d.inference.components import small_components
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.postprocessing import PostProcessing, remove_components
from seg25d.inference.predictor import covering_window
from seg25d.inference.sliding_window import Slab, window_starts
from seg25d.planning.normalization import ChannelNormalization
from seg25d.portable.page_model import PagePostProcessing
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.normalize import normalize
from seg25d.preprocessing.resample import resample_image
from seg25d.representations.super_image import SuperImage
from tests.preprocessing.resampled_scores import resampled_scores

SCHEMES = {
    "ct": {"lower": -80.5, "upper": 120.25, "mean": 13.7, "std": 41.3},
    "zscore": {},
    "zscore_offset": {},
    "rescale_0_1": {},
    "rgb_0_1": {},
    "none": {},
    "ct_window": {"lower": -50.0, "upper": 70.0},
    "ct_window_dicom": {"lower": -10.0, "upper": 7.5},
}
CLASSES = Labels(names={"background": 0, "organ": 3, "lesion": 7})
ONE_CLASS = Labels(names={"background": 0, "organ": 1})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))


def meaning(labels: Labels, thresholds: Sequence[float] = ()) -> dict[str, Any]:
    order = labels.regions_class_order if labels.has_regions else None
    return {
        "values": labels.values,
        "paint": None if order is None else [labels.values.index(value) for value in order],
        "score_thresholds": [logit(threshold) for threshold in thresholds] or None,
        "outputs": labels.num_outputs,
    }


def random_shape(rng: np.random.Generator) -> tuple[int, int, int]:
    depth, height, width = rng.integers(1, 20, 3).tolist()
    return depth, height, width


@pytest.mark.parametrize("scheme", SCHEMES)
def test_normalisation(scheme, checks, rng):
    settings = ChannelNormalization(channel="x", scheme=scheme, **SCHEMES[scheme])
    images = [
        rng.normal(20, 60, (1, 7, 8, 9)).astype(np.float32),
        rng.integers(-1000, 3000, (1, 5, 6, 7)).astype(np.float32),
        np.full((1, 3, 4, 5), 1234.567, np.float32),
        (rng.random((1, 4, 4, 4)) * 1e6).astype(np.float32),
        np.zeros((1, 2, 2, 2), np.float32),
    ]
    if scheme == "rgb_0_1":
        images = [rng.integers(0, 256, image.shape).astype(np.float32) for image in images]
    for image in images:
        checks.add("normalize", [image], settings=settings.model_dump())
    for image, found in zip(images, checks.run(), strict=True):
        np.testing.assert_allclose(found, normalize(image, [settings]).ravel(), rtol=1e-6, atol=1e-6)


def test_colours_out_of_range_are_refused_as_in_python(checks):
    settings = ChannelNormalization(channel="red", scheme="rgb_0_1")
    checks.add("normalize", [np.array([0, 256], np.float32)], settings=settings.model_dump())
    assert "Channel red: expected colours from 0 to 255, got values from 0 to 256" in checks.run()[0]["error"]


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_resampling_of_images(axis, checks, rng):
    pairs = [(random_shape(rng), random_shape(rng)) for _ in range(25)]
    pairs += [((1, 1, 1), (3, 1, 2)), ((40, 3, 2), (17, 3, 5)), ((2, 60, 1), (2, 61, 1))]
    images = [rng.normal(0, 100, (1, *shape)).astype(np.float32) for shape, _ in pairs]
    orders = [0 if each == axis else 3 for each in range(3)]
    for image, (shape, new_shape) in zip(images, pairs, strict=True):
        checks.add("resample", [image], shape=shape, new_shape=new_shape, orders=orders)
    for image, (_, new_shape), found in zip(images, pairs, checks.run(), strict=True):
        wanted = resample_image(image, new_shape, axis)
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=2e-3, err_msg=str(image.shape))


def test_linear_resampling(checks, rng):
    pairs = [(random_shape(rng), random_shape(rng)) for _ in range(20)]
    images = [rng.normal(size=(1, *shape)).astype(np.float32) for shape, _ in pairs]
    for image, (shape, new_shape) in zip(images, pairs, strict=True):
        checks.add("resample", [image], shape=shape, new_shape=new_shape, orders=[1, 1, 1])
    for image, (_, new_shape), found in zip(images, pairs, checks.run(), strict=True):
        wanted = resampled_scores(image, new_shape)
        np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=0, atol=1e-5)


def test_boxes_of_content(checks, rng):
    images = []
    for _ in range(30):
        shape = random_shape(rng)
        images.append(rng.normal(size=(2, *shape)) * (rng.random((2, *shape)) < 2 / np.prod(shape)))
    images.append(np.zeros((1, 3, 4, 5)))
    for image in images:
        checks.add("content_box", list(image.astype(np.float32)), shape=image.shape[1:])
    for image, found in zip(images, checks.run(), strict=True):
        assert tuple(map(tuple, found)) == content_box(image.astype(np.float32))


def random_grids(rng: np.random.Generator, number: int) -> list[dict[str, Any]]:
    grids = []
    for _ in range(number):
        shape = random_shape(rng)
        box = [sorted(rng.choice(size + 1, 2, replace=False).tolist()) for size in shape]
        spacing, target = (rng.choice([0.5, 0.8, 1.0, 1.25, 3.0, 5.0], 3).tolist() for _ in range(2))
        common = [None if rng.random() < 0.6 else int(rng.integers(1, 20)) for _ in range(3)]
        arguments = {"canonical_shape": shape, "canonical_spacing_mm": spacing, "box": box, "spacing_mm": target}
        grids.append(arguments | {"common_shape": None if rng.random() < 0.7 else common})
    return grids


def as_job(arguments: dict[str, Any]) -> dict[str, Any]:
    names = {"canonical_spacing_mm": "canonical_spacing", "spacing_mm": "target"}
    return {names.get(name, name): value for name, value in arguments.items()}


def python_grid(arguments: dict[str, Any]) -> Grid:
    box = tuple(map(tuple, arguments["box"]))
    common = arguments["common_shape"]
    return Grid.plan(
        tuple(arguments["canonical_shape"]),
        tuple(arguments["canonical_spacing_mm"]),
        box,
        tuple(arguments["spacing_mm"]),
        None if common is None else tuple(common),
    )


def test_grids_of_the_model(checks, rng):
    grids = random_grids(rng, 200)
    for arguments in grids:
        checks.add("grid", **as_job(arguments))
    for arguments, found in zip(grids, checks.run(), strict=True):
        grid = python_grid(arguments)
        assert tuple(found["shape"]) == grid.shape, arguments
        assert tuple(map(tuple, found["box"])) == grid.bounding_box
        assert found["spacing"] == pytest.approx(grid.spacing_mm, rel=1e-12)
        assert (found["separate"], found["inverse"]) == (grid.separate_axis, grid.inverse_separate_axis), arguments


def window_rules(window: tuple[int, int, int], **others: Any) -> dict[str, Any]:
    rules = {
        "window": window,
        "outputs": 3,
        "divisors": [1, 4, 4],
        "resizable_axes": [0, 1, 2],
        "convolved_axes": [1, 2],
        "mirror_axes": [],
        "step_size": [0.5, 0.5, 0.5],
        "free_axis": None,
        "context": 0,
        "regular": None,
        "padded_with_lowest": False,
        "repeated_axis": None,
        "batch_size": 2,
        "grid": None,
    }
    return rules | others


@pytest.mark.parametrize("divisor", [1, 4])
def test_windows_and_their_places(checks, rng, divisor):
    shapes = [tuple(rng.integers(1, 70, 3).tolist()) for _ in range(60)]
    windows = [tuple((4 * rng.integers(1, 10, 3)).tolist()) for _ in shapes]
    for shape, window in zip(shapes, windows, strict=True):
        checks.add("cover", shape=shape, rules=window_rules(window, divisors=[1, divisor, divisor]))
    for shape, window, found in zip(shapes, windows, checks.run(), strict=True):
        representation = SimpleNamespace(network_axes=(1, 2), regular_steps=None, resizable_axes=(0, 1, 2))
        network = SimpleNamespace(divisor=(divisor, divisor))
        plan: Any = SimpleNamespace(
            window=window,
            representation=representation,
            network=network,
            step_sizes=lambda window, step: (step, step, step),
        )
        covering = covering_window(plan, shape, 3)
        assert tuple(found["window"]) == covering
        starts = [window_starts(*each, 0.5) for each in zip(shape, covering, strict=True)]
        assert found["starts"] == starts


CHOICES = [(CLASSES, None), (ONE_CLASS, None), (ONE_CLASS, 0.3), (REGIONS, None), (REGIONS, 0.7)]


@pytest.mark.parametrize(("labels", "threshold"), CHOICES)
def test_labels_from_scores(labels, threshold, checks, rng):
    scores = np.round(rng.normal(0, 2, (labels.num_outputs, 500)), 1).astype(np.float32)  # with equal ones
    thresholds = [] if threshold is None else [threshold] * len(labels.foreground)
    checks.add("indices", [scores], meaning=meaning(labels, thresholds))
    np.testing.assert_array_equal(checks.run()[0], labels.from_scores(scores, threshold))


@pytest.mark.parametrize(("labels", "thresholds"), [(ONE_CLASS, (0.3,)), (REGIONS, (0.7, 0.2))])
def test_thresholds_of_post_processing(labels, thresholds, checks, rng):
    scores = rng.normal(0, 2, (labels.num_outputs, 500)).astype(np.float32)
    checks.add("indices", [scores], meaning=meaning(labels, thresholds))
    probabilities = 1 / (1 + np.exp(-scores)) if labels.has_regions else softmax(scores, axis=0)
    np.testing.assert_array_equal(checks.run()[0], labels.from_probabilities(probabilities, thresholds))


STEPS = [
    (CLASSES, PostProcessing(largest_foreground=True)),
    (CLASSES, PostProcessing(largest=("3", "7"))),
    (CLASSES, PostProcessing(smallest_mm3={"3": 4.0, "7": 7.2})),
    (CLASSES, PostProcessing(largest_foreground=True, largest=("7",), smallest_mm3={"3": 6.0, "7": 9.0})),
    (REGIONS, PostProcessing(largest=("core",))),
    (REGIONS, PostProcessing(largest=("whole", "core"), smallest_mm3={"core": 8.0})),
    (REGIONS, PostProcessing(smallest_mm3={"whole": 5.0, "core": 5.0})),
]


@pytest.mark.parametrize(("labels", "steps"), STEPS)
def test_components(labels, steps, checks, rng):
    """Also those that touch by a corner, and those of equal size, of which the first is kept."""
    spacing = (2.5, 0.8, 0.9)
    rules = PagePostProcessing.of(steps, labels).model_dump()
    volumes = []
    for share in (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 0.0) * 4:
        shape = random_shape(rng)
        is_foreground = rng.random(shape) < share
        volumes.append((rng.integers(1, len(labels.values), shape) * is_foreground).astype(np.uint8))
    for volume in volumes:
        checks.add("components", [volume], shape=volume.shape, voxel_mm3=float(np.prod(spacing)), rules=rules)
    for volume, found in zip(volumes, checks.run(), strict=True):
        np.testing.assert_array_equal(found.reshape(volume.shape), remove_components(volume, labels, spacing, steps))


def test_small_components(checks, rng):
    """Also those that touch by a corner, those of half the size of the largest, and nothing at all."""
    volumes = [np.zeros((2, 3, 4), np.uint8), np.array([[[1, 0, 1, 1, 0, 2, 0, 2, 2, 2]]], np.uint8)]
    for share in (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0) * 4:
        shape = random_shape(rng)
        is_foreground = rng.random(shape) < share
        volumes.append((rng.integers(1, 4, shape) * is_foreground).astype(np.uint8))
    for volume in volumes:
        checks.add("small_components", [volume], shape=volume.shape)
    for volume, found in zip(volumes, checks.run(), strict=True):
        np.testing.assert_array_equal(found.reshape(volume.shape), small_components(volume))


def test_small_components_of_many_classes_are_found_in_one_pass(checks, rng):
    volume = rng.integers(0, 120, (6, 30, 40), np.uint8)
    checks.add("small_components", [volume], shape=volume.shape)
    checks.add("looks_for_small_components", [volume], shape=volume.shape)
    found, looks = checks.run()
    np.testing.assert_array_equal(found.reshape(volume.shape), small_components(volume))
    assert looks <= 2 * volume.size


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_export_to_the_grid_of_the_file(axis, checks, rng):
    """A hundredth of the voxels may differ: where scores are equal up to rounding."""
    cases = []
    for arguments in random_grids(rng, 20):
        grid = python_grid(arguments)
        scores = rng.normal(size=(3, *grid.shape)).astype(np.float32)
        cases.append((grid, scores))
        record = {
            "canonicalShape": grid.canonical_shape,
            "canonicalSpacing": grid.canonical_spacing_mm,
            "box": grid.bounding_box,
            "spacing": grid.spacing_mm,
            "shape": grid.shape,
            "commonShape": grid.common_shape,
        }
        checks.add("export", [scores], shape=grid.shape, outputs=3, axis=axis, grid=record, meaning=meaning(CLASSES))
    for (grid, scores), found in zip(cases, checks.run(), strict=True):
        planes = torch.from_numpy(np.moveaxis(scores, 1 + axis, 0).copy())
        wanted = labels_from_slabs([Slab(axis, 0, planes)], grid, CLASSES)
        agreement = (found.reshape(wanted.shape) == wanted).mean()
        assert agreement >= 0.99, grid


def test_grids_of_super_images(checks, rng):
    representations = [SuperImage(grid=(2, 3), axis=axis) for axis in range(3)]
    shapes = [tuple(rng.integers(1, 40, 3).tolist()) for _ in range(60)]
    for shape, representation in itertools.product(shapes, representations):
        planned = {"input": "grid", "rows": 2, "columns": 3, "axis": representation.axis}
        checks.add("super_image", shape=shape, planned=planned)
    pairs = itertools.product(shapes, representations)
    for (shape, representation), found in zip(pairs, checks.run(), strict=True):
        assert tuple(found) == representation.grid_for(shape), shape


def test_files_are_given_to_channels_only_where_that_is_clear(checks):
    channels = ["CT", "PET"]
    cases = {
        ("a_0001.nii.gz", "a_0000.nii.gz"): [1, 0],
        ("patient_pet.nii", "patient_ct.nii"): [1, 0],
        ("b.nii", "a.nii"): [None, None],
        ("ct_1.nii", "ct_2.nii"): [None, None],
        ("a_0000.nii.gz", "b.nii.gz"): [0, None],
        ("ct_pet.nii", "x.nii"): [None, None],
    }
    for names in cases:
        checks.add("assign", names=names, channels=channels)
    checks.add("assign", names=["anything.nii"], channels=["MRI"])
    assert checks.run() == [*cases.values(), [0]]


def test_every_shape_of_windows_has_weights_that_sum_to_one(checks):
    """Also where the volume is smaller than the window, and is padded on both sides."""
    cases = list(itertools.product([(3, 5, 4), (9, 20, 31)], [(4, 8, 8), (9, 12, 12)]))
    for shape, window in cases:
        checks.add("cover", shape=shape, rules=window_rules(window))
    for found, (shape, _) in zip(checks.run(), cases, strict=True):
        assert all(padded >= size for padded, size in zip(found["padded"], shape, strict=True))
        assert all(offset >= 0 for offset in found["offset"])
        for padded, weights in zip(found["padded"], found["weights"], strict=True):
            total = np.zeros(padded)
            for start, values in weights.items():
                total[int(start) : int(start) + len(values)] += values
            np.testing.assert_allclose(total, 1)
