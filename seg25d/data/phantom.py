"""A seeded synthetic data set: a body with two organs, lesions in one of them and a tree of vessels, as CT and MR.

The shapes are not anatomical. The volumes have the difficulties of real ones: several labels of very different sizes,
a thin branching structure, thick slices whose number and spacing vary, two channels that need different
normalisation, noise, partial volume and a bias field.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.types import FloatArray, Shape
from seg25d.data.made_up import (
    MadeUpCase,
    MadeUpDataset,
    as_magnetic_resonance,
    centred_points,
    ellipsoid,
    near,
    random_walk,
    smooth_noise,
    write_dataset,
)

LABELS = {"background": 0, "organ_a": 1, "organ_b": 2, "lesion": 3, "vessels": 4}
CHANNELS = ("CT", "MRI")
DATASET_NAME = "Dataset900_Phantom"
SLICE_THICKNESS = 3
"""Number of slices of the fine grid, on which bodies are drawn, that are averaged into one slice of the image."""

ORGAN_A, ORGAN_B, LESION, VESSELS = 1, 2, 3, 4
CT_VALUES = np.array([30.0, 110.0, 70.0, 50.0, 220.0], np.float32)
"""Hounsfield units of body, organ A, organ B, lesion and vessel."""
MRI_VALUES = np.array([300.0, 420.0, 620.0, 760.0, 160.0], np.float32)
"""Arbitrary units, scaled by each case's gain."""
AIR_HU = -1000.0


def make_phantom(rng: np.random.Generator, shape: Shape = (24, 64, 64)) -> MadeUpCase:
    """Draw one case.

    Args:
        rng: Source of all randomness.
        shape: Voxels along (D, H, W) of the largest cases at a spacing of 3 x 1 x 1 mm; at least 8 x 32 x 32. All cases
            have the same depth; in plane they are up to an eighth smaller.
    """
    depth_mm, in_plane_mm = np.round(rng.uniform((0.95, 0.97), (1.05, 1.03)) * (SLICE_THICKNESS, 1.0), 3)
    smaller = rng.integers(2, shape[1] // 8 + 1, 2)
    depth = round(shape[0] * SLICE_THICKNESS / depth_mm)
    height, width = (round((size - less) / in_plane_mm) for size, less in zip(shape[1:], smaller, strict=True))
    fine_shape = (depth * SLICE_THICKNESS, height, width)
    body, tissue = _draw_anatomy(fine_shape, rng)
    labels = _majority_along_depth(tissue)
    images = np.stack([_as_ct(body, tissue, rng), _as_mri(body, tissue, rng)])
    spacing_mm = (float(depth_mm), float(in_plane_mm), float(in_plane_mm))
    return MadeUpCase(np.rint(images).astype(np.int16), labels, spacing_mm)


def write_phantom_dataset(
    folder: Path, *, num_training: int = 18, num_test: int = 6, shape: Shape = (24, 64, 64), seed: int = 25
) -> None:
    """Write the data set, see `made_up.write_dataset`.

    Args:
        folder: The data set's folder, such as `raw/Dataset900_Phantom`.
        num_training: Number of training cases.
        num_test: Number of held-out cases.
        shape: As for `make_phantom`.
        seed: Seed of the whole data set.
    """
    dataset = MadeUpDataset("phantom", CHANNELS, LABELS, partial(make_phantom, shape=shape), __name__)
    write_dataset(folder, dataset, num_training=num_training, num_test=num_test, seed=seed)


def _draw_anatomy(shape: Shape, rng: np.random.Generator) -> tuple[NDArray[np.bool_], NDArray[np.uint8]]:
    """The body's mask and the tissue of every voxel of the fine grid, which is isotropic."""
    points = _deformed_coordinates(shape, rng)
    scale = float(min(shape)) / 2
    body = ellipsoid(points, (0.0, 0.0, 0.0), np.array(shape) / 2 * (1.6, 0.92, 0.92))
    centre_a = np.array([0.05, 0.0, -0.36]) * scale + rng.normal(0, 0.05, 3) * scale
    centre_b = np.array([-0.1, 0.1, 0.48]) * scale + rng.normal(0, 0.05, 3) * scale
    radii_a = np.array([0.55, 0.5, 0.38]) * scale * rng.uniform(0.85, 1.1, 3)
    radii_b = np.array([0.38, 0.32, 0.24]) * scale * rng.uniform(0.85, 1.15, 3)
    tissue = np.zeros(shape, np.uint8)
    tissue[ellipsoid(points, centre_a, radii_a)] = ORGAN_A
    tissue[ellipsoid(points, centre_b, radii_b)] = ORGAN_B
    tissue[_vessel_tree(points, centre_a, scale, rng) & body] = VESSELS
    for _ in range(int(rng.integers(1, 4))):
        centre = centre_a + rng.uniform(-0.55, 0.55, 3) * radii_a
        tissue[ellipsoid(points, centre, rng.uniform(0.11, 0.2, 3) * scale) & (tissue > 0)] = LESION
    return body, tissue


def _deformed_coordinates(shape: Shape, rng: np.random.Generator) -> FloatArray:
    """Coordinates (3, D, H, W) from the middle, in voxels, displaced by a smooth field of about two voxels."""
    return np.stack([axis + 2.0 * smooth_noise(shape, 6.0, rng) for axis in centred_points(shape)])


def _vessel_tree(points: FloatArray, start: FloatArray, scale: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of tubes around branching random walks that start below organ A and go up through it."""
    centres: list[FloatArray] = []
    radii: list[float] = []
    branches = [(start - np.array([0.75, -0.1, -0.3]) * scale, np.array([1.0, -0.1, 0.05]), 0.095 * scale)]
    while branches:
        position, direction, radius = branches.pop()
        walked, direction = random_walk(position, direction, int(0.55 * scale), 0.12, rng)
        centres.extend(walked)
        radii += [radius] * len(walked)
        if radius > 0.055 * scale:
            branches += [(walked[-1], direction + rng.normal(0, 0.6, 3), radius * 0.78) for _ in range(2)]
    return near(points, np.stack(centres), np.array(radii))


def _majority_along_depth(tissue: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The most frequent tissue of each block of fine slices; on ties, the one with the higher label."""
    blocks = tissue.reshape(-1, SLICE_THICKNESS, *tissue.shape[1:])
    counts = np.stack([(blocks == value).sum(axis=1) for value in LABELS.values()])
    last = len(LABELS) - 1
    return np.asarray(last - counts[::-1].argmax(axis=0), np.uint8)


def _average_along_depth(image: FloatArray) -> FloatArray:
    return np.asarray(image.reshape(-1, SLICE_THICKNESS, *image.shape[1:]).mean(axis=1))


def _as_ct(body: NDArray[np.bool_], tissue: NDArray[np.uint8], rng: np.random.Generator) -> FloatArray:
    """CT image (D, H, W) in Hounsfield units with texture, blur of the scanner, partial volume and noise."""
    values = CT_VALUES[tissue] + 8.0 * smooth_noise(body.shape, 2.0, rng)
    sharp = np.where(body, values, AIR_HU)
    image = _average_along_depth(ndimage.gaussian_filter(sharp, 0.6))
    return image + rng.normal(0, 18, image.shape)


def _as_mri(body: NDArray[np.bool_], tissue: NDArray[np.uint8], rng: np.random.Generator) -> FloatArray:
    """MR image (D, H, W) in arbitrary units with texture, bias field, random gain, partial volume and Rician noise."""
    values = MRI_VALUES[tissue] * (1 + 0.05 * smooth_noise(body.shape, 2.0, rng))
    sharp = np.where(body, values, 5.0)
    image = _average_along_depth(ndimage.gaussian_filter(sharp, 0.6))
    return as_magnetic_resonance(image, rng)
