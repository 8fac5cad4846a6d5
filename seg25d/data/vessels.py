"""A seeded synthetic data set of sparse vessels, as MRA: a labelled tree among equally bright veins and blobs.

The shapes are not anatomical. The volumes have the difficulties of angiographies of the head (Angermann & Haltmeier,
arXiv 1910.10398): 0.24 % of the voxels there are vessel, and brightness alone does not distinguish labelled from
unlabelled structures. Course and position do, in slices as in maximum projections about the longest axis: the tree
runs along that axis in the middle of the body; veins are rings around it just under the surface, and thus lines
across every projection; blobs are round.
"""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.types import FloatArray, Shape, Spacing
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

LABELS = {"background": 0, "vessels": 1}
CHANNELS = ("MRA",)
DATASET_NAME = "Dataset901_Vessels"
SHAPE: Shape = (144, 120, 72)
SPACING_MM: Spacing = (2 / 3, 2 / 3, 2.3 / 3)
"""The shortest axis is the coarsest, so that slices lie in the longest and middle axes, as in the paper. Vessels are
4 to 6 voxels wide, as in angiographies of the head; the paper's volumes are twice as long along each axis."""

AIR, TISSUE, BLOOD = 5.0, 100.0, 260.0
"""Arbitrary units, scaled by each case's gain."""
TREE_RADII_MM = (2.1, 1.7, 1.35)
"""Radii of the trunk, of its two branches and of their four branches."""
VEIN_RADIUS_MM = 1.3
RADII_OF_BLOBS_MM = (3.0, 5.0)
NUM_VEINS = 4


def make_vessels(rng: np.random.Generator, shape: Shape = SHAPE, spacing_mm: Spacing = SPACING_MM) -> MadeUpCase:
    """Draw one case.

    Args:
        rng: Source of all randomness.
        shape: Voxels along (D, H, W) of the largest cases at `spacing_mm`; at least 32 x 32 x 24. Along each axis
            two of three cases have this size, the others are up to 8 % smaller; spacings along D and H vary by 3 %.
        spacing_mm: Of the voxels; vessels are as thick in millimetres whatever it is.
    """
    spacing = np.round(np.multiply(spacing_mm, rng.uniform((0.97, 0.97, 1.0), (1.03, 1.03, 1.0))), 3)
    extent = np.multiply(shape, spacing_mm) * (1 - np.maximum(0, rng.uniform(-0.16, 0.08, 3)))
    depth, height, width = (round(size) for size in extent / spacing)
    exactly_mm = (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    points = centred_points((depth, height, width), exactly_mm)
    half = extent / 2
    body = ellipsoid(points, (0.0, 0.0, 0.0), half * (1.2, 0.94, 0.94))
    tree = _tree(points, half, rng) & body
    others = _veins(points, half, rng) | _blobs(points, half, rng)
    image = _as_angiography(body, body & (tree | others), rng)
    return MadeUpCase(np.rint(image[None]).astype(np.int16), tree.astype(np.uint8), exactly_mm)


def write_vessels_dataset(
    folder: Path,
    *,
    num_training: int = 30,
    num_test: int = 10,
    shape: Shape = SHAPE,
    spacing_mm: Spacing = SPACING_MM,
    seed: int = 25,
) -> None:
    """Write the data set, see `made_up.write_dataset`.

    Args:
        folder: The data set's folder, such as `raw/Dataset901_Vessels`.
        num_training: Number of training cases.
        num_test: Number of held-out cases.
        shape: As for `make_vessels`.
        spacing_mm: As for `make_vessels`.
        seed: Seed of the whole data set.
    """
    make = partial(make_vessels, shape=shape, spacing_mm=spacing_mm)
    dataset = MadeUpDataset("vessels", CHANNELS, LABELS, make, __name__)
    write_dataset(folder, dataset, num_training=num_training, num_test=num_test, seed=seed)


def _tree(points: FloatArray, half: FloatArray, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of the labelled tree: a trunk that enters below the middle and goes up, splitting twice.

    Args:
        points: Coordinates (3, D, H, W) in mm from the middle.
        half: Half of the volume's lengths in mm.
        rng: Source of all randomness.
    """
    centres: list[FloatArray] = []
    radii: list[float] = []
    branches = [(half * (-0.97, *rng.uniform(-0.15, 0.15, 2)), np.array([1.0, 0.0, 0.0]))]
    azimuth = rng.uniform(-0.6, 0.6)
    for radius, turn in zip(TREE_RADII_MM, (0.42, 0.32, 0.0), strict=True):
        following = []
        for position, direction in branches:
            walked, turned = random_walk(position, direction, int(0.52 * half[0]), 0.03, rng)
            centres.extend(walked)
            radii += [radius] * len(walked)
            aside = turn * np.array([0.0, np.cos(azimuth), np.sin(azimuth)])
            following += [(walked[-1], turned + aside), (walked[-1], turned - aside)]
        branches = following
        azimuth += np.pi / 2 + rng.uniform(-0.3, 0.3)
    return near(points, np.stack(centres), np.array(radii))


def _veins(points: FloatArray, half: FloatArray, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of wavy open rings around the longest axis, under the surface; arguments as for `_tree`."""
    inside = np.zeros(points.shape[1:], bool)
    levels = np.linspace(-0.6, 0.75, NUM_VEINS) + rng.uniform(-0.12, 0.12, NUM_VEINS)
    for level in levels:
        angles = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(1.4, 2) * np.pi, 400)
        heights = level + 0.06 * np.sin(2 * angles + rng.uniform(0, 2 * np.pi))
        share = 0.82 * np.sqrt(1 - np.square(heights / 1.2))
        ring = np.stack([heights, share * np.cos(angles), share * np.sin(angles)], axis=1) * half
        inside |= near(points, ring, np.full(len(ring), VEIN_RADIUS_MM))
    return inside


def _blobs(points: FloatArray, half: FloatArray, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Mask of one to three blobs; arguments as for `_tree`."""
    inside = np.zeros(points.shape[1:], bool)
    for _ in range(int(rng.integers(1, 4))):
        inside |= ellipsoid(points, half * rng.uniform(-0.6, 0.6, 3), rng.uniform(*RADII_OF_BLOBS_MM, 3))
    return inside


def _as_angiography(body: NDArray[np.bool_], blood: NDArray[np.bool_], rng: np.random.Generator) -> FloatArray:
    """Image (D, H, W) in arbitrary units with texture, partial volume, bias field, random gain and noise."""
    tissue = TISSUE * (1 + 0.1 * smooth_noise(body.shape, 2.0, rng))
    sharp = np.where(blood, BLOOD, np.where(body, tissue, AIR))
    return as_magnetic_resonance(np.asarray(ndimage.gaussian_filter(sharp, 0.5)), rng)
