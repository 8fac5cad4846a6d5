"""Scores of thick slices brought to thinner ones: the nearest slice against linear interpolation, on real labels.

Every k-th slice of a label map stands for a model of slices k times as thick; its scores are the distances to the
border of each label within the slice, up to 5 voxels, as confident networks give them. Dice is that of all slices.

    python benchmarks/thick_slices.py --data FOLDER_OF_DATASETS
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.types import FloatArray
from seg25d.data.image_io import read_labels
from seg25d.inference.export import Positions, linear_positions, nearest_positions

LARGEST_DISTANCE = 5.0
FACTORS = (3, 4, 5)
MOST_CASES = 60


def scores_of(mask: NDArray[np.bool_]) -> FloatArray:
    """Distances to the border within each slice (d, H, W): positive inside, negative outside."""
    planes = [
        ndimage.distance_transform_edt(plane) - ndimage.distance_transform_edt(~plane)
        if plane.any() and not plane.all()
        else np.where(plane, LARGEST_DISTANCE, -LARGEST_DISTANCE)
        for plane in mask
    ]
    distances: FloatArray = np.clip(np.stack(planes), -LARGEST_DISTANCE, LARGEST_DISTANCE).astype(np.float32)
    return distances


def dice(truth: NDArray[np.integer], factor: int, positions: Callable[[int, int], Positions]) -> float:
    """Mean Dice over labels of a label map (D, H, W) that was made of every `factor`-th slice, from the middle one."""
    truth = truth[: len(truth) // factor * factor]
    values = np.array([0, *(value for value in np.unique(truth) if value)])
    thick = truth[factor // 2 :: factor]
    scores = np.stack([scores_of(thick == value) for value in values], axis=1)
    low, high, fraction = positions(len(thick), len(truth))
    mixed = (1 - fraction)[:, None, None, None] * scores[low] + fraction[:, None, None, None] * scores[high]
    found = values[mixed.argmax(1)]
    both = [(found == value, truth == value) for value in values[1:]]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in both]))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per data set and factor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in nnU-Net's layout")
    options = parser.parse_args(arguments)
    print(f"{'data set':28} {'factor':>6} {'nearest':>8} {'linear':>8} {'difference':>10}  better in")
    for folder in sorted(options.data.glob("Dataset*")):
        paths = sorted((folder / "labelsTr").glob("*.nii.gz"))[:MOST_CASES]
        cases = [labels for labels, _ in map(read_labels, paths) if labels.any()]
        for factor in FACTORS:
            fitting = [case for case in cases if case[: len(case) // factor * factor].any()]
            pairs = [[dice(case, factor, each) for each in (nearest_positions, linear_positions)] for case in fitting]
            nearest, linear = np.array(pairs).T
            more = linear - nearest
            row = f"{folder.name:28} {factor:6} {nearest.mean():8.4f} {linear.mean():8.4f} {more.mean():+10.4f}"
            print(f"{row}  {(more > 0).sum()} of {len(more)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
