r"""Slices of another thickness than those trained on: scores between slices repeated or interpolated, on real labels.

    python benchmarks/thick_slices.py --data FOLDER_OF_DATASETS

Every k-th slice of a label map stands for a model of slices k times as thick, those that preprocessing takes; its
scores are the distances to the border of each label within the slice, up to 5 voxels, as confident networks give them.
The truth is the label map itself: Dice, HD95 and the share of successive slices that are the same, of the nearest
slice, of an interpolation between the middles of equal shares of the volume, and between the slices that were taken, as
predictions have it.

    python benchmarks/thick_slices.py --data FOLDER_OF_DATASETS --train 4 --iterations 300 --seeds 0 1 2 \
        --workspace WORKSPACE -o FILE.json

The same with models, and with nothing made up: the thin slices are those of the data set, the thick ones every k-th of
them (`--every`), image and labels alike. One model learns from thin slices, one from thick ones, and both segment
images of both kinds of patients that are kept back. The truth of thin images is the labels that were drawn in them,
also in the slices that a model of thick ones does not see. Nothing says which slices were left out.

A case serves if its structures show in two or more of the slices that are kept: there is nothing between fewer. Slices
that are kept have to be more than three times as thick as pixels (the default takes the fewest that are left out), as
others are interpolated in all directions alike. `same` is the share of successive slices with a structure whose
segmentations are the same, in the truth too. What is in FILE.json is not trained again, on another machine either.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import numpy as np
from finished import facts_of, find_training, keep_training, planned_digest
from held_out import (
    MEASURES,
    Source,
    Volume,
    check_seeds,
    compared,
    find_source,
    predict,
    score,
    succeeds,
    train,
)
from machines import this_machine
from numpy.typing import NDArray
from over_seeds import mean_over_seeds
from result_tables import Row
from scipy import ndimage

from seg25d.cli.argument_types import positive_number
from seg25d.core.errors import InputError
from seg25d.core.files import check_writable_file, write_json
from seg25d.core.grids import ANISOTROPY
from seg25d.core.types import FloatArray, Spacing
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_labels
from seg25d.evaluation.metrics import case_metrics
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
RULES: dict[str, Callable[[int, int], Positions]] = {
    "repeated": nearest_positions,
    "middles": linear_positions,
    "taken": taken_positions,
}
MOST_CASES = 60
LEAST_SHOWN = 2
"""Slices, of those that are kept, that have to show a structure."""
KINDS = ("thick", "thin")
CONFIGURATION = "2d"
Trial = tuple[str, str, str]
"""Kind of the model's slices, of the images' slices, and whether slices between are `interpolated` or `repeated`."""
TRIALS: Sequence[Trial] = (
    ("thick", "thick", "interpolated"),
    ("thick", "thin", "interpolated"),
    ("thick", "thin", "repeated"),
    ("thin", "thin", "interpolated"),
    ("thin", "thick", "interpolated"),
)
"""Where the model sees as many slices as the image has, or more, there is nothing to interpolate or to repeat."""


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


def from_thick(truth: NDArray[np.uint8], factor: float, rule: Callable[[int, int], Positions]) -> NDArray[np.uint8]:
    """A label map (D, H, W) made of every `factor`-th of its slices, of at least one."""
    number = max(1, round(len(truth) / factor))
    return between(truth[nearest_voxels(len(truth), number)], rule(number, len(truth)))


def compare(truth: NDArray[np.uint8], found: NDArray[np.uint8], spacing_mm: Spacing) -> tuple[float, float, float]:
    """Dice and HD95 in mm, means over the labels of the truth, and the share of successive slices that are the same.

    Args:
        truth: (D, H, W), with at least one label.
        found: (D, H, W).
        spacing_mm: Of both.
    """
    foreground = {str(value): [int(value)] for value in np.unique(truth) if value}
    metrics = [metrics.model_dump() for metrics in case_metrics(truth, found, foreground, spacing_mm).values()]
    same = pairs_same(found)
    return fmean(each["dice"] for each in metrics), fmean(each["hd95_mm"] for each in metrics), fmean(same or [0.0])


def compare_on_labels(data: Path) -> None:
    """Print a row per data set and factor."""
    names = " ".join(f"{name:>8}" for name in RULES)
    print(f"{'data set':28} factor  Dice: {names}  HD95 mm: {names}  same: {names}")
    for folder in sorted(data.glob("Dataset*")):
        paths = sorted((folder / "labelsTr").glob("*.nii.gz"))[:MOST_CASES]
        read = [(labels.astype(np.uint8), geometry) for labels, geometry in map(read_labels, paths)]
        cases = [(labels, geometry.canonical_spacing_mm) for labels, geometry in read if labels.any()]
        for factor in FACTORS:
            found = np.array(
                [
                    [compare(labels, from_thick(labels, factor, rule), spacing_mm) for rule in RULES.values()]
                    for labels, spacing_mm in cases
                ]
            )
            dice, hd95, same = (" ".join(f"{mean:8.4g}" for mean in each) for each in found.mean(0).T)
            best = int((found[:, 2, 0] >= found[:, :2, 0].max(1)).sum())
            print(
                f"{folder.name:28} {factor:6.3g}  Dice: {dice}  HD95 mm: {hd95}  same: {same}  "
                f"taken has the best Dice in {best} of {len(found)}"
            )


def pairs_same(labels: NDArray[Any]) -> list[bool]:
    """Whether successive slices of (D, H, W) are the same, for each pair with a structure in one of the two."""
    pairs = [(one, other) for one, other in zip(labels[1:], labels[:-1], strict=True) if one.any() or other.any()]
    return [bool((one == other).all()) for one, other in pairs]


def share_same(folder: Path) -> float:
    """Share of successive slices of segmentations that are the same, among those with a structure in one of them."""
    same = [each for path in sorted(folder.glob("*.nii.gz")) for each in pairs_same(read_labels(path)[0])]
    return round(fmean(same), 4) if same else 0.0


def fewest_left_out(spacing_mm: Spacing) -> int:
    """The smallest k, 2 or more, with which every k-th slice is more than three times as thick as pixels."""
    return max(2, int(ANISOTROPY * min(spacing_mm[1:]) / spacing_mm[0]) + 1)


def thin(volume: Volume, every: int) -> Volume:
    """The slices of a volume, without the last ones that are no multiple of `every`."""
    number = len(volume.labels) // every * every
    return volume._replace(image=volume.image[:, :number], labels=volume.labels[:number])


def thick(volume: Volume, every: int) -> Volume:
    """Every k-th slice of `thin`: those that preprocessing takes of it for a model of such slices."""
    thinner = thin(volume, every)
    taken = slice(every // 2, None, every)
    thickness, high_mm, wide_mm = volume.spacing_mm
    return Volume(thinner.image[:, taken], thinner.labels[taken], (thickness * every, high_mm, wide_mm))


def of_kind(volume: Volume, kind: str, every: int) -> Volume:
    """A volume in slices of one of `KINDS`."""
    return {"thick": thick, "thin": thin}[kind](volume, every)


def serving(source: Source, every: int, in_plane: int) -> Source:
    """The data set with the cases that serve: whose structures show in `LEAST_SHOWN` of the slices that are kept.

    Raises:
        SystemExit: If slices that are kept are not more than three times as thick as pixels, or too few cases serve.
    """

    def serves(case: str) -> bool:
        volume = source.read(case, in_plane)
        thickness, high_mm, wide_mm = volume.spacing_mm
        if thickness * every <= ANISOTROPY * min(high_mm, wide_mm):
            raise SystemExit(
                f"error: {case} of {source.folder.name} has voxels of {thickness:g} x {high_mm:g} x {wide_mm:g} mm; "
                f"expected --every {fewest_left_out(volume.spacing_mm)} or more, got {every}"
            )
        return int(thick(volume, every).labels.any((1, 2)).sum()) >= LEAST_SHOWN

    trained, kept = ([case for case in cases if serves(case)] for cases in (source.trained, source.kept))
    unfit = sorted({*source.trained, *source.kept} - {*trained, *kept})
    number = len(trained) + len(kept)
    told = f", but not {', '.join(unfit)}" if unfit else ""
    print(f"{source.folder.name}, every {every}: {number} of {number + len(unfit)} cases serve{told}", flush=True)
    if not trained or not kept:
        raise SystemExit(f"error: expected cases to train on and some kept back, got {len(trained)} and {len(kept)}")
    return source._replace(trained=trained, kept=kept)


def write_cases(source: Source, folder: Path, part: str, kind: str, options: argparse.Namespace) -> None:
    """Write a data set in slices of one of `KINDS`: the cases to train on (`Tr`), or those kept back (`Ts`)."""
    for case in source.trained if part == "Tr" else source.kept:
        source.write(folder, part, case, of_kind(source.read(case, options.in_plane), kind, options.every))
    write_json(folder / "dataset.json", source.description | {"numTraining": len(source.trained)})


def repeated_slices(grid: Grid, axis: int) -> Positions | None:
    """As nnU-Net exports: the nearest slice along an axis that was resampled separately, however many there are."""
    sizes = grid.shape[axis], grid.cropped_shape[axis]
    return nearest_positions(*sizes) if axis == grid.inverse_separate_axis else None


def make_trials(source: Source, options: argparse.Namespace, kind: str, seed: int) -> dict[Trial, Row]:
    """Train a model of one kind with one seed, and score it on images of both, as far as that is not kept already.

    Returns:
        The records of the trials, see `finished.py`.
    """
    identifier = f"{900 + len(KINDS) * seed + KINDS.index(kind)}"
    place = f"{source.folder.name}_{options.every}_{options.in_plane}_{options.iterations}_updates"
    workspace = options.workspace / place
    name = f"Dataset{identifier}_{source.folder.name.split('_', 1)[1]}"
    raw, plans = workspace / "raw" / name, Workspace.resolve(workspace).preprocessed_dataset(name).plans()
    tests, own = workspace / "tests", {"dataset": source.folder.name, "train": None}

    def facts(trial: Trial) -> Row:
        return facts_of(TABLE, ", ".join(trial), seed, options, planned_digest(plans, CONFIGURATION), **own)

    trials = [trial for trial in TRIALS if trial[0] == kind]
    found = {trial: known for trial in trials if (known := find_training(options.output, facts(trial))) is not None}
    if len(found) == len(trials):
        return found
    wanted = [(tests / each, "Ts", each) for each in KINDS] + [(raw, "Tr", kind)]
    for folder, part, slices in wanted:
        if not (folder / "dataset.json").exists():
            write_cases(source, folder, part, slices, options)
    plan = train(workspace, identifier, CONFIGURATION, options.iterations, seed)
    for trial in trials:
        if trial in found:
            continue
        _, images, way = trial
        cases, out = tests / images, workspace / "predicted" / f"{identifier}_{images}_{way}"
        with ExitStack() as stack:
            if way == "repeated":
                stack.enter_context(patch.object(export, "separate_positions", repeated_slices))
            predict(workspace, identifier, CONFIGURATION, cases / "imagesTs", out)
        same = {"same": share_same(out), "same_in_truth": share_same(cases / "labelsTs")}
        machine = {"dataset": source.folder.name, "machine": this_machine(None)}
        scored = score(workspace, cases / "labelsTs", out)
        found[trial] = keep_training(options.output, facts(trial) | machine | plan | scored | same)
    return found


def rows(found: Mapping[Trial, Sequence[Row]]) -> list[str]:
    """A line for each trial: scores and equal slices over seeds, and how much better than repeating it is."""
    header = f"{'Dice':15} {'HD95 mm':15} {'same':>6} {'truth':>6}"
    lines = [f"{'model':6} {'images':7} {'between':13} {header}  minus repeated"]
    for trial in TRIALS:
        if mine := found.get(trial):
            model, images, way = trial
            same, in_truth = (fmean(each[name] for each in mine) for name in ("same", "same_in_truth"))
            others = found.get((model, images, "repeated"), ()) if way == "interpolated" else ()
            gains = {name: compared(mine, others, name) for name in MEASURES if others}
            told = "; ".join(f"{name} {gain}" for name, gain in gains.items() if gain is not None)
            dice, hd95 = (
                mean_over_seeds([each["scores"][name] for each in mine], digits) for name, digits in MEASURES.items()
            )
            cells = f"{model:6} {images:7} {way:13} {dice:15} {hd95:15} {same:6.3f} {in_truth:6.3f}"
            lines.append(f"{cells}  {told}".rstrip())
    return lines


def train_all(options: argparse.Namespace) -> int:
    """Make all trials, and print a row per trial as they are done; the exit status."""
    check_seeds(options.seeds, len(KINDS))
    source = find_source(options.data, options.train)
    if options.every is None:
        options.every = fewest_left_out(source.read(source.trained[0], options.in_plane).spacing_mm)
    source = serving(source, options.every, options.in_plane)
    found: dict[Trial, list[Row]] = {}
    failed = 0

    def add(kind: str, seed: int) -> None:
        for trial, record in make_trials(source, options, kind, seed).items():
            found.setdefault(trial, []).append(record)

    for seed in options.seeds:
        for kind in KINDS:
            failed += not succeeds(f"a model of {kind} slices, seed {seed}", partial(add, kind, seed))
            print("\n".join(rows(found)), flush=True)
    return 1 if failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per data set and factor, or per trial of trained models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in nnU-Net's layout")
    parser.add_argument("--train", type=positive_number, metavar="ID", help="train models on this data set")
    parser.add_argument(
        "--every", type=positive_number, metavar="K", help="slice of K that is kept (default: see above)"
    )
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
    try:
        check_writable_file(options.output)
    except InputError as error:
        parser.error(str(error))
    return train_all(options)


if __name__ == "__main__":
    sys.exit(main())
