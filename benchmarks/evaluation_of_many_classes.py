"""Time of `evaluate` on one case with many classes: organs with shifted borders, optionally with stray voxels.

nice -n 5 python benchmarks/evaluation_of_many_classes.py --classes 60 --size 192 [--astray 20] [--keep DIR]

The files are made and then compared in this process, on one core.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.data.image_io import Geometry, write_labels
from seg25d.evaluation.evaluate import evaluate_folders

SPACING_MM = (1.5, 1.5, 1.5)


def make_organs(size: int, num_classes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw ellipsoids with bumps (size, size, size), later ones over earlier ones."""
    labels = np.zeros((size,) * 3, np.uint8)
    for value in range(1, num_classes + 1):
        radii = rng.uniform(0.05, 0.14, 3) * size
        centre = [rng.uniform(radius, size - radius) for radius in radii]
        box = tuple(
            slice(max(0, int(middle - 1.3 * radius)), min(size, int(middle + 1.3 * radius) + 1))
            for middle, radius in zip(centre, radii, strict=True)
        )
        grids = np.ogrid[box]
        distance = sum(
            ((grid - middle) / radius) ** 2 for grid, middle, radius in zip(grids, centre, radii, strict=True)
        )
        bumps = ndimage.gaussian_filter(rng.normal(size=distance.shape).astype(np.float32), 3) * 4
        labels[box][distance + bumps < 1] = value
    return labels


def predict_badly(
    labels: NDArray[np.uint8], num_classes: int, num_astray: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Shift borders of labels by a smooth field of some voxels, and add stray voxels of every class."""
    field = [ndimage.zoom(rng.normal(size=(8, 8, 8)), np.array(labels.shape) / 8, order=1) for _ in range(3)]
    shifted = [
        np.clip(np.rint(grid + 1.5 * shift), 0, labels.shape[axis] - 1).astype(np.int32)
        for axis, (grid, shift) in enumerate(zip(np.indices(labels.shape), field, strict=True))
    ]
    predicted = labels[tuple(shifted)]
    for value in range(1, num_classes + 1):
        predicted[tuple(rng.integers(0, labels.shape[axis], num_astray) for axis in range(3))] = value
    return predicted


def main() -> None:
    """Make the files, compare them and print the seconds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--astray", type=int, default=0, help="stray voxels of every class in the prediction")
    parser.add_argument("--keep", type=Path, help="folder for the two files")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    truth = make_organs(arguments.size, arguments.classes, rng)
    guess = predict_badly(truth, arguments.classes, arguments.astray, rng)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        geometry = Geometry(
            shape=truth.shape, spacing_mm=SPACING_MM, origin_mm=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)
        )
        for name, labels in (("reference", truth), ("prediction", guess)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            write_labels(folder / name / "case.nii.gz", labels, geometry)
        start, cpu = time.perf_counter(), time.process_time()
        summary = evaluate_folders(folder / "reference", folder / "prediction", num_workers=0)
        wall, cpu = time.perf_counter() - start, time.process_time() - cpu
        print(
            f"{wall:.1f} s, {cpu:.1f} s of CPU; mean Dice {summary.foreground_mean.dice:.4f}, "
            f"HD95 {summary.foreground_mean.hd95_mm:.6f} mm"
        )


if __name__ == "__main__":
    main()
