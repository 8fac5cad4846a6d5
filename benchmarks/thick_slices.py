r"""Slices of another thickness than those trained on: scores between slices repeated or interpolated, on real labels.

    python benchmarks/thick_slices.py --data FOLDER_OF_DATASETS

Every k-th slice of a label map stands for a model of slices k times as thick, those that preprocessing takes; its
scores are the distances to the border of each label within the slice, up to 5 voxels, as confident networks give them.
Dice is that of all slices: of the nearest slice, of an interpolation between the middles of equal shares of the volume,
and between the slices that were taken, as predictions have it.

    python benchmarks/thick_slices.py --data FOLDER_OF_DATASETS --train 27 --in-plane 2 --iterations 300 \
        --seeds 0 1 2 --workspace WORKSPACE -o FILE.json

The same with models: one of the data set's own slices, and one of slices a third as thick (images interpolated
linearly, labels by their distances to borders), each on images of both kinds of patients that are kept back.
`identical` is the share of successive slices with a structure whose segmentations are the same. What is in FILE.json is
not trained again, on another machine either.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import numpy as np
from finished import facts_of, find_training, keep_training, planned_digest
from held_out import Source, Volume, find_source, predict, score, train
from machines import this_machine
from numpy.typing import NDArray
from over_seeds import difference, mean_over_seeds
from result_tables import Row
from scipy import ndimage

from seg25d.cli.argument_types import positive_number
from seg25d.core.files import write_json
from seg25d.core.types import FloatArray
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_labels
from seg25d.inference import export
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.positions import (
    Positions,
    linear_positions,
    nearest_positions,
    nearest_voxels,
    taken_positions,
)

TABLE = "thick_slices"
"""Name of the table in the records of its trainings."""
LARGEST_DISTANCE = 5.0
FACTORS = (1.25, 2, 3, 10 / 3, 4, 5)
RULES: Sequence[Callable[[int, int], Positions]] = (nearest_positions, linear_positions, taken_positions)
MOST_CASES = 60
THINNER = 3
"""Slices of 10 mm become slices of 3.3 mm."""
KINDS = ("thick", "thin")
CONFIGURATION = "2d"


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


def between(labels: NDArray[np.uint8], positions: Positions) -> NDArray[np.uint8]:
    """Labels at positions between slices (d, H, W): those of the mean distance to borders."""
    values = np.unique(np.append(labels, 0)).astype(np.uint8)
    distances = np.stack([scores_of(labels == value) for value in values], axis=1)
    low, high, fraction = positions
    mixed = (1 - fraction)[:, None, None, None] * distances[low] + fraction[:, None, None, None] * distances[high]
    found: NDArray[np.uint8] = values[mixed.argmax(1)]
    return found


def dice(truth: NDArray[np.uint8], factor: float, positions: Callable[[int, int], Positions]) -> float:
    """Mean Dice over labels of a label map (D, H, W) that was made of every `factor`-th slice, of at least one."""
    number = max(1, round(len(truth) / factor))
    found = between(truth[nearest_voxels(len(truth), number)], positions(number, len(truth)))
    both = [(found == value, truth == value) for value in np.unique(truth) if value]
    return float(np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in both]))


def compare_on_labels(data: Path) -> None:
    """Print a row per data set and factor."""
    print(f"{'data set':28} {'factor':>6} {'nearest':>8} {'middles':>8} {'taken':>8}  taken is best in")
    for folder in sorted(data.glob("Dataset*")):
        paths = sorted((folder / "labelsTr").glob("*.nii.gz"))[:MOST_CASES]
        cases = [labels.astype(np.uint8) for labels, _ in map(read_labels, paths) if labels.any()]
        for factor in FACTORS:
            found = np.array([[dice(case, factor, rule) for rule in RULES] for case in cases])
            means = " ".join(f"{mean:8.4f}" for mean in found.mean(0))
            best = (found[:, 2] >= found[:, :2].max(1)).sum()
            print(f"{folder.name:28} {factor:6.3g} {means}  {best} of {len(found)}")


def thinner(volume: Volume) -> Volume:
    """A volume with `THINNER` slices in the place of one."""
    positions = linear_positions(len(volume.labels), THINNER * len(volume.labels))
    low, high, fraction = positions
    weights = fraction.astype(np.float32)[:, None, None]
    thickness, high_mm, wide_mm = volume.spacing_mm
    return Volume(
        (1 - weights) * volume.image[:, low] + weights * volume.image[:, high],
        between(volume.labels, positions),
        (thickness / THINNER, high_mm, wide_mm),
    )


def write_training_cases(source: Source, folder: Path, kind: str, in_plane: int) -> None:
    """Write a data set of the cases to train on, in slices of one of `KINDS`."""
    for case in source.trained:
        volume = source.read(case, in_plane)
        source.write(folder, "Tr", case, volume if kind == "thick" else thinner(volume))
    write_json(folder / "dataset.json", source.description | {"numTraining": len(source.trained)})


def write_tests(source: Source, folder: Path, in_plane: int) -> None:
    """Write the cases that are kept back in slices of both `KINDS`, each in a folder of that name."""
    for kind in KINDS:
        for case in source.kept:
            volume = source.read(case, in_plane)
            source.write(folder / kind, "Ts", case, volume if kind == "thick" else thinner(volume))
        write_json(folder / kind / "dataset.json", source.description)


def repeated_slices(grid: Grid, axis: int) -> Positions | None:
    """As nnU-Net exports: the nearest slice along an axis that was resampled separately, however many there are."""
    sizes = grid.shape[axis], grid.cropped_shape[axis]
    return nearest_positions(*sizes) if axis == grid.inverse_separate_axis else None


def share_identical(folder: Path) -> float:
    """Share of successive slices of segmentations that are the same, among those with a structure in one of them."""
    same: list[bool] = []
    for path in sorted(folder.glob("*.nii.gz")):
        labels, _ = read_labels(path)
        pairs = [(one, other) for one, other in zip(labels[1:], labels[:-1], strict=True) if one.any() or other.any()]
        same += [bool((one == other).all()) for one, other in pairs]
    return round(fmean(same), 4) if same else 0.0


Trial = tuple[str, str, str]
"""Kind of the model's slices, of the images' slices, and whether slices between are `interpolated` or `repeated`."""
TRIALS: Sequence[Trial] = (
    ("thick", "thick", "interpolated"),
    ("thick", "thin", "interpolated"),
    ("thick", "thin", "repeated"),
    ("thin", "thin", "interpolated"),
    ("thin", "thick", "interpolated"),
)


def make_trials(source: Source, options: argparse.Namespace, kind: str, seed: int) -> dict[Trial, Row]:
    """Train a model of one kind with one seed, and score it on images of both, as far as that is not kept already.

    Returns:
        The records of the trials, see `finished.py`.
    """
    identifier = f"{900 + len(KINDS) * seed + KINDS.index(kind)}"
    workspace = options.workspace / f"{source.folder.name}_{options.in_plane}_{options.iterations}_updates"
    name = f"Dataset{identifier}_{source.folder.name.split('_', 1)[1]}"
    raw, plans = workspace / "raw" / name, Workspace.resolve(workspace).preprocessed_dataset(name).plans()
    tests, own = workspace / "tests", {"dataset": source.folder.name, "train": None}

    def facts(trial: Trial) -> Row:
        return facts_of(TABLE, ", ".join(trial), seed, options, planned_digest(plans, CONFIGURATION), **own)

    trials = [trial for trial in TRIALS if trial[0] == kind]
    found = {trial: known for trial in trials if (known := find_training(options.output, facts(trial))) is not None}
    if len(found) == len(trials):
        return found
    if not (tests / KINDS[-1] / "dataset.json").exists():
        write_tests(source, tests, options.in_plane)
    if not (raw / "dataset.json").exists():
        write_training_cases(source, raw, kind, options.in_plane)
    train(workspace, identifier, CONFIGURATION, options.iterations, seed)
    for trial in trials:
        if trial in found:
            continue
        _, images, way = trial
        cases, out = tests / images, workspace / "predicted" / f"{identifier}_{images}_{way}"
        with ExitStack() as stack:
            if way == "repeated":
                stack.enter_context(patch.object(export, "separate_positions", repeated_slices))
            predict(workspace, identifier, CONFIGURATION, cases / "imagesTs", out)
        scored = score(workspace, cases / "labelsTs", out) | {"identical": share_identical(out)}
        machine = {"dataset": source.folder.name, "machine": this_machine(None)}
        found[trial] = keep_training(options.output, facts(trial) | machine | scored)
    return found


def rows(found: Mapping[Trial, Sequence[Row]]) -> list[str]:
    """A line for each trial: Dice and identical slices over seeds, and how much better than repeating it is."""
    lines = [f"{'model':6} {'images':7} {'between':13} {'Dice':16} {'identical':>9}  minus repeated"]
    scores = {trial: [each["scores"]["dice"] for each in trainings] for trial, trainings in found.items()}
    for trial in TRIALS:
        if trial in scores:
            model, images, way = trial
            same = fmean(each["identical"] for each in found[trial])
            others = scores.get((model, images, "repeated")) if way == "interpolated" else None
            gain = difference(scores[trial], others) if others else None
            told = "" if gain is None else str(gain)
            mean = mean_over_seeds(scores[trial])
            lines.append(f"{model:6} {images:7} {way:13} {mean:16} {same:9.3f}  {told}".rstrip())
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per data set and factor, or per trial of trained models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in nnU-Net's layout")
    parser.add_argument("--train", type=int, metavar="ID", help="train models on this data set")
    parser.add_argument("--in-plane", type=positive_number, default=1, metavar="N", help="pixels averaged each way")
    parser.add_argument("--iterations", type=positive_number, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, help="with --train")
    parser.add_argument("-o", "--output", type=Path, help="with --train: JSON file of the trainings")
    options = parser.parse_args(arguments)
    if options.train is None:
        compare_on_labels(options.data)
        return 0
    if options.workspace is None or options.output is None:
        parser.error("--train needs --workspace and --output")
    source = find_source(options.data, options.train)
    found: dict[Trial, list[Row]] = {}
    for seed in options.seeds:
        for kind in KINDS:
            for trial, record in make_trials(source, options, kind, seed).items():
                found.setdefault(trial, []).append(record)
            print("\n".join(rows(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
