r"""Coarse first: a quick prediction says where something is, and only windows near it are predicted as usual.

Every validation case of trained runs is predicted by its own fold, in two ways: as usual; and coarse first, by windows
that do not overlap and are not mirrored, after which only those of the usual windows are predicted that touch the
foreground which was found, with a margin around it; what no window covers is background. Within the margin the scores
are those of the usual way.

    python benchmarks/coarse_first.py --workspace WORKSPACE --runs RUN_OF_SEED_0 RUN_OF_SEED_1 RUN_OF_SEED_2 \
        -o FILE.json

A RUN is the folder of a trained run (`results/DATASET/CONFIGURATION`), trained with another seed each; those of
`contest.py` are `benchmarks/TABLE/LENGTH/CONTENDER/seed_N_DIGEST/results/DATASET/CONFIGURATION`. The workspace has the
preprocessed arrays. Folds that not all runs have are left out. `--every N` lets the quick prediction of slice-wise runs
look at one in N groups of slices only, each as deep as a slice with its neighbours; the margin should reach across the
others. FILE.md is written beside FILE.json; cases that are in FILE.json already are not predicted again.

Dice: the mean over the classes that the truth of a case has. The difference is that of the two ways of the same model,
with an interval over cases and trainings (`over_seeds.py`). A class is lost that the usual way has found a part of, and
coarse first nothing. Passes are windows times mirrorings, those of the quick prediction included. Seconds are by the
clock: nothing else should run.
"""

import argparse
import dataclasses
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from over_seeds import difference, mean_over_seeds
from result_tables import markdown_table
from torch import Tensor

from seg25d.core.device import choose_execution
from seg25d.core.files import read_json, write_json, write_text
from seg25d.core.types import Shape
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_splits
from seg25d.data.labels import Labels
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.metrics import confusion, overlap_metrics
from seg25d.inference import sliding_window
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.framing import background_scores
from seg25d.inference.indices import indices_from_scores
from seg25d.inference.predictor import Predictor
from seg25d.inference.sliding_window import Slab, WindowOptions, predict_slabs
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import Store

MARGIN_MM = 20.0
HEADER = ("case", "Dice", "coarse first", "difference", "windows", "passes", "s", "s coarse first", "classes lost")


@dataclasses.dataclass
class Passes:
    """Windows of a prediction, by their start along (D, H, W)."""

    offered: set[Shape] = dataclasses.field(default_factory=set)
    taken: set[Shape] = dataclasses.field(default_factory=set)
    number: int = 0
    """Of passes of windows that were taken: with each mirroring."""


@contextmanager
def windows_taken(wanted: Callable[[Shape], bool], take: Callable[[Shape], None] = lambda _: None) -> Iterator[Passes]:
    """Let predictions in this block pass over windows that are not wanted, as if their scores were 0, and count them.

    Args:
        wanted: Of the start of a window.
        take: Is told each start that is taken.
    """
    passes, usual = Passes(), sliding_window._add_scores

    def add(models: Any, windows: Any, batch: Sequence[Any], *rest: Any) -> None:
        chosen = [item for item in batch if wanted(item.start)]
        passes.offered.update(item.start for item in batch)
        passes.taken.update(item.start for item in chosen)
        passes.number += len(chosen)
        for item in chosen:
            take(item.start)
        if chosen:
            usual(models, windows, chosen, *rest)

    with mock.patch.object(sliding_window, "_add_scores", add):
        yield passes


def slabs_of(
    predictor: Predictor, image: Tensor, options: WindowOptions, wanted: Callable[[Shape], bool], total: Passes
) -> Iterator[Slab]:
    """Predict an image (C, d, h, w) by the windows that are wanted; what none of them covers is background.

    Adds the passes to `total`.
    """
    covered = np.zeros(image.shape[1:], np.bool_)
    background = torch.from_numpy(background_scores(predictor.labels))

    def cover(start: Shape) -> None:
        depth, height, width = (slice(first, first + size) for first, size in zip(start, options.window, strict=True))
        covered[depth, height, width] = True

    with windows_taken(wanted, cover) as passes:
        for slab in predict_slabs(predictor.models, image, predictor.labels.num_outputs, options):
            inside = np.moveaxis(covered, slab.axis, 0)[slab.start : slab.start + len(slab.planes)]
            outside = torch.from_numpy(~inside).to(slab.planes.device)
            with torch.inference_mode():
                slab.planes.movedim(1, -1)[outside] = background.to(slab.planes)
            yield slab
    total.offered, total.taken = passes.offered, passes.taken
    total.number += passes.number


def coarse_options(options: WindowOptions, predictor: Predictor, every: int) -> tuple[WindowOptions, int | None]:
    """The options of the quick prediction, and the axis along which windows are left out, if any are."""
    representation = predictor.header.plan.representation
    window, batch_size, axis = list(options.window), options.batch_size, representation.free_axis
    if every > 1 and axis is not None:
        depth = min(window[axis], 2 * getattr(representation, "context", 0) + 1)
        batch_size = max(1, batch_size * window[axis] // depth)
        window[axis] = depth
    shape = (window[0], window[1], window[2])
    coarse = dataclasses.replace(
        options,
        window=shape,
        step_size=representation.step_sizes(shape, 1.0),
        mirror_axes=(),
        batch_size=batch_size,
    )
    return coarse, axis if every > 1 else None


def find_foreground(
    predictor: Predictor, image: Tensor, options: WindowOptions, every: int, total: Passes
) -> NDArray[np.bool_]:
    """Predict an image quickly: the mask (d, h, w) of all foreground."""
    coarse, axis = coarse_options(options, predictor, every)

    def wanted(start: Shape) -> bool:
        return axis is None or round(start[axis] / coarse.window[axis]) % every == 0

    mask = np.zeros(image.shape[1:], np.bool_)
    for slab in slabs_of(predictor, image, coarse, wanted, total):
        planes = np.moveaxis(mask, slab.axis, 0)
        for index, scores in enumerate(slab.planes, slab.start):
            found = indices_from_scores(scores.to(slab.device).float(), predictor.labels, predictor.header.threshold)
            planes[index] = found.cpu().numpy() > 0
    return mask


def near(mask: NDArray[np.bool_], window: Shape, margin: Sequence[int]) -> Callable[[Shape], bool]:
    """Whether windows with a start have foreground within them or a margin around them."""

    def is_near(start: Shape) -> bool:
        depth, height, width = (
            slice(max(0, first - more), first + size + more)
            for first, size, more in zip(start, window, margin, strict=True)
        )
        return bool(mask[depth, height, width].any())

    return is_near


def window_options(predictor: Predictor, image: Tensor) -> WindowOptions:
    """How windows cover an image (C, d, h, w) in the usual way."""
    depth, height, width = image.shape[1:]
    return predictor.window_options((depth, height, width))


def predict_usually(predictor: Predictor, image: Tensor, grid: Grid) -> tuple[NDArray[np.uint8], Passes]:
    """Predict the labels (D, H, W) of a preprocessed image in the usual way."""
    with windows_taken(lambda _: True) as passes:
        labels = labels_from_slabs(predictor.slabs(image), grid, predictor.labels, predictor.header.threshold)
    return labels, passes


def predict_coarse_first(
    predictor: Predictor, image: Tensor, grid: Grid, margin_mm: float, every: int
) -> tuple[NDArray[np.uint8], Passes]:
    """Predict the labels (D, H, W) of a preprocessed image coarse first; windows are those of the second step."""
    options, total = window_options(predictor, image), Passes()
    mask = find_foreground(predictor, image, options, every, total)
    margin = [math.ceil(margin_mm / step) for step in predictor.header.plan.spacing_mm]
    slabs = slabs_of(predictor, image, options, near(mask, options.window, margin), total)
    return labels_from_slabs(slabs, grid, predictor.labels, predictor.header.threshold), total


def judge(truth: NDArray[np.uint8], found: NDArray[np.uint8], labels: Labels) -> dict[str, dict[str, Any]]:
    """The Dice of each class that the truth has, and how many of its voxels were found."""
    return {
        labels.name_of(name): {"dice": overlap_metrics(counts).dice, "found": counts.tp}
        for name, counts in confusion(truth, found, labels.foreground).items()
        if counts.tp + counts.fn > 0
    }


def read_image(store: Store, case: str) -> Tensor:
    """The preprocessed image (C, d, h, w) of a case."""
    return torch.from_numpy(np.ascontiguousarray(store.open_image(case)[...], np.float32))


def measure(predictor: Predictor, store: Store, case: str, margin_mm: float, every: int) -> dict[str, Any]:
    """Predict a case in both ways and judge both."""
    image = read_image(store, case)
    grid, truth = store.record(case).grid, store.read_reference(case)
    begun = time.perf_counter()
    usual, usual_passes = predict_usually(predictor, image, grid)
    between = time.perf_counter()
    quick, quick_passes = predict_coarse_first(predictor, image, grid, margin_mm, every)
    ended = time.perf_counter()
    return {
        "usual": {"classes": judge(truth, usual, predictor.labels), "seconds": between - begun},
        "coarse_first": {"classes": judge(truth, quick, predictor.labels), "seconds": ended - between},
        "windows": len(quick_passes.taken) / len(usual_passes.offered),
        "passes": quick_passes.number / usual_passes.number,
    }


def mean_dice(way: Mapping[str, Any]) -> float | None:
    """The mean over the classes that the truth has; None if it has none."""
    return fmean(each["dice"] for each in way["classes"].values()) if way["classes"] else None


def lost_classes(case: Mapping[str, Any]) -> list[str]:
    """Classes that the usual way has found a part of, and coarse first nothing."""
    usual, quick = (case[way]["classes"] for way in ("usual", "coarse_first"))
    return [name for name in usual if usual[name]["found"] and not quick[name]["found"]]


def table(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> str:
    """A row for each case, of means over runs, and one for all.

    Args:
        runs: What `measure` gives by case, the same cases for every run.
    """
    cases = sorted(runs[0])
    dice = {way: [[mean_dice(run[case][way]) for case in cases] for run in runs] for way in ("usual", "coarse_first")}
    gains = [
        [None if own is None or other is None else own - other for own, other in zip(*pair, strict=True)]
        for pair in zip(dice["coarse_first"], dice["usual"], strict=True)
    ]
    rows = []
    for number, case in enumerate(cases):
        own = [run[case] for run in runs]
        means = [mean_over_seeds([[each[number]] for each in values]) for values in (*dice.values(), gains)]
        lost = sorted({name for each in own for name in lost_classes(each)})
        rows.append([case, *means, *_costs(own), ", ".join(lost) or "-"])
    every = [run[case] for run in runs for case in cases]
    # Both ways are those of the same models, so that trainings are paired, too: gains against nothing.
    paired = difference(gains, [[0.0] * len(cases) for _ in runs])
    numbers = [mean_over_seeds(values) for values in dice.values()]
    lost_at_all = sum(len(lost_classes(each)) for each in every)
    classes = sum(len(each["usual"]["classes"]) for each in every)
    rows.append(["all", *numbers, str(paired or "-"), *_costs(every), f"{lost_at_all} of {classes}"])
    return markdown_table(HEADER, rows)


def _costs(cases: Sequence[Mapping[str, Any]]) -> list[str]:
    """Shares of windows and passes, and seconds of both ways: means."""
    shares = [f"{fmean(case[share] for case in cases):.0%}" for share in ("windows", "passes")]
    return shares + [f"{fmean(case[way]['seconds'] for case in cases):.1f}" for way in ("usual", "coarse_first")]


def load(run: RunFolder, fold: str, device: str | None) -> Predictor:
    """The model of a fold, whose windows can be left out one by one."""
    path = run.fold(fold).model_final
    predictor = load_predictor([path], choose_execution(device))
    if type(predictor) is not Predictor:
        raise SystemExit(f"error: {path} has several models, which find the object by themselves; expected one network")
    if predictor.header.threshold not in (None, 0.5):
        raise SystemExit(f"error: {path} has a threshold, and scores at the border of what is predicted are weighted")
    return predictor


def validation_cases(runs: Sequence[RunFolder]) -> dict[str, tuple[str, ...]]:
    """The validation cases of each fold that all runs have."""
    folds = set.intersection(*(set(run.trained_folds()) for run in runs)) - {"all"}
    if not folds:
        raise SystemExit("error: the runs have no trained fold in common")
    splits = [[read_splits(run.splits)[int(fold)].val for fold in sorted(folds)] for run in runs]
    if any(other != splits[0] for other in splits):
        raise SystemExit("error: the runs have different folds: expected trainings that differ by their seed")
    return dict(zip(sorted(folds), splits[0], strict=True))


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict what is missing, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, metavar="RUN")
    parser.add_argument("--margin-mm", type=float, default=MARGIN_MM, help=f"around what is found ({MARGIN_MM:g})")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="see above; for slice-wise runs")
    parser.add_argument("--device")
    parser.add_argument("-o", type=Path, required=True, help="FILE.json")
    options = parser.parse_args(arguments)
    workspace = Workspace.resolve(options.workspace, {})
    runs = [RunFolder(root=path) for path in options.runs]
    folds = validation_cases(runs)
    settings = {"margin_mm": options.margin_mm, "every": options.every}
    found: dict[str, Any] = read_json(options.o) if options.o.exists() else {"settings": settings, "runs": {}}
    if found["settings"] != settings:
        raise SystemExit(f"error: {options.o} is of other settings, {found['settings']}; name another file")
    for run in runs:
        known = found["runs"].setdefault(str(run.root), {})
        for fold, cases in folds.items():
            todo = [case for case in cases if case not in known]
            if not todo:
                continue
            predictor = load(run, fold, options.device)
            dataset = workspace.preprocessed_dataset(predictor.header.dataset_name)
            store = Store(dataset.store(predictor.header.plan.store))
            # What is chosen and allocated once should not count for the first case.
            image = read_image(store, todo[0])
            find_foreground(predictor, image, window_options(predictor, image), options.every, Passes())
            for case in todo:
                known[case] = measure(predictor, store, case, options.margin_mm, options.every)
                write_json(options.o, found)
                print(run.root, case, *(round(known[case][share], 3) for share in ("windows", "passes")), flush=True)
    wanted = [case for cases in folds.values() for case in cases]
    text = table([{case: found["runs"][str(run.root)][case] for case in wanted} for run in runs])
    write_text(options.o.with_suffix(".md"), f"Coarse first, {options.margin_mm:g} mm around it\n\n{text}\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
