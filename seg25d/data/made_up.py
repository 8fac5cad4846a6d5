"""Synthetic data sets: the shapes and textures that cases are drawn with, and the files that they are written to."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.files import write_json
from seg25d.core.locks import folder_lock
from seg25d.core.types import FloatArray, Shape, Spacing


class MadeUpCase(NamedTuple):
    """One synthetic case."""

    images: NDArray[np.int16]
    """(C, D, H, W), in the units of each channel."""
    labels: NDArray[np.uint8]
    """(D, H, W)."""
    spacing_mm: Spacing


class MadeUpDataset(NamedTuple):
    """Name and content of a synthetic data set, and the function that draws a case."""

    prefix: str
    """Beginning of the cases' names."""
    channels: Sequence[str]
    labels: Mapping[str, int]
    draw: Callable[[np.random.Generator], MadeUpCase]
    source: str
    """The module that draws it, for the description."""


def write_dataset(folder: Path, dataset: MadeUpDataset, *, num_training: int, num_test: int, seed: int) -> None:
    """Write a synthetic data set in the nnU-Net raw layout, with the truth of the test cases in `labelsTs`.

    Each case has its own seed, so that the same arguments give the same files. `dataset.json` is written last: a folder
    that has it is complete and is not changed.

    Args:
        folder: The data set's folder, such as `raw/Dataset900_Phantom`.
        dataset: The data set to draw.
        num_training: Number of training cases.
        num_test: Number of held-out cases.
        seed: Seed of the whole data set.
    """
    if (folder / "dataset.json").exists():
        return
    with folder_lock(folder, "making the data set", deep=True):
        _write_dataset(folder, dataset, num_training, num_test, seed)


def _write_dataset(folder: Path, dataset: MadeUpDataset, num_training: int, num_test: int, seed: int) -> None:
    for index in range(num_training + num_test):
        part = "Tr" if index < num_training else "Ts"
        _write_case(folder, part, f"{dataset.prefix}_{index:03d}", dataset.draw(np.random.default_rng((seed, index))))
    description = {
        "channel_names": {str(index): name for index, name in enumerate(dataset.channels)},
        "labels": dict(dataset.labels),
        "numTraining": num_training,
        "file_ending": ".nii.gz",
        "description": f"made up by {dataset.source}",
    }
    write_json(folder / "dataset.json", description)


def centred_points(shape: Shape, spacing_mm: Spacing = (1.0, 1.0, 1.0)) -> FloatArray:
    """Coordinates (3, D, H, W) of the voxel centres from the middle of the volume; in voxels without a spacing."""
    axes = [
        (np.arange(size, dtype=np.float32) - (size - 1) / 2) * np.float32(step)
        for size, step in zip(shape, spacing_mm, strict=True)
    ]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


def smooth_noise(shape: Shape, sigma_voxels: float, rng: np.random.Generator) -> FloatArray:
    """Gaussian noise blurred by `sigma_voxels`, with standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma_voxels, mode="wrap")
    return np.asarray(noise / noise.std(), np.float32)


def ellipsoid(points: FloatArray, centre: FloatArray | Spacing, radii: FloatArray | Spacing) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the points (3, D, H, W) inside an ellipsoid."""
    offsets = (points - np.reshape(centre, (3, 1, 1, 1))) / np.reshape(radii, (3, 1, 1, 1))
    return np.asarray(np.square(offsets).sum(axis=0) < 1)


def random_walk(
    position: FloatArray, direction: FloatArray, num_steps: int, wobble: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Walk in steps of length 1, with a small random change of direction at each step.

    Args:
        position: Start, (3,).
        direction: Initial direction, of any length, (3,).
        num_steps: Number of steps, at least 1.
        wobble: Standard deviation of the changes of direction.
        rng: Source of all randomness.

    Returns:
        The positions after each step (num_steps, 3), and the last direction (3,).
    """
    positions = []
    for _ in range(num_steps):
        direction = direction + rng.normal(0, wobble, 3)
        direction = direction / np.linalg.norm(direction)
        position = position + direction
        positions.append(position)
    return np.stack(positions), direction


def near(points: FloatArray, centres: FloatArray, radii: FloatArray) -> NDArray[np.bool_]:
    """Mask (D, H, W) of the points (3, D, H, W) closer to any centre (n, 3) than its radius (n,), all in one unit."""
    from scipy.spatial import cKDTree  # noqa: PLC0415 - slow to import

    inside = np.zeros(points[0].size, bool)
    flat = points.reshape(3, -1).T
    for radius in np.unique(radii):
        tree = cKDTree(centres[radii == radius])
        distances, _ = tree.query(flat, distance_upper_bound=float(radius))
        inside |= np.isfinite(distances)
    return inside.reshape(points.shape[1:])


def as_magnetic_resonance(signal: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Add a bias field, a random gain and Rician noise to a signal (D, H, W), as in MR images."""
    shape: Shape = (signal.shape[0], signal.shape[1], signal.shape[2])
    bias = np.exp(0.12 * smooth_noise(shape, max(shape) / 4, rng))
    image = signal * bias * rng.uniform(0.6, 1.7)
    noise = rng.normal(0, 0.05 * float(image.mean()), (2, *shape))
    return np.asarray(np.hypot(image + noise[0], noise[1]))


def _write_case(folder: Path, part: str, name: str, case: MadeUpCase) -> None:
    from seg25d.data.image_io import Geometry, write_labels  # noqa: PLC0415 - loads SimpleITK, drawing needs none

    geometry = Geometry(
        shape=case.labels.shape,
        spacing_mm=case.spacing_mm,
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    for channel, image in enumerate(case.images):
        write_labels(folder / f"images{part}" / f"{name}_{channel:04d}.nii.gz", image, geometry)
    write_labels(folder / f"labels{part}" / f"{name}.nii.gz", case.labels, geometry)
