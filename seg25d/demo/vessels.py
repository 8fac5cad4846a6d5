"""Sparse vessels: the random 2.5D U-Net of Angermann & Haltmeier (arXiv 1910.10398) beside slices, as in its paper."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np

from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.vessels import DATASET_NAME, LABELS, write_vessels_dataset
from seg25d.demo.kind import DemoKind, Outcome, read_shown_case
from seg25d.evaluation.metrics import Metrics
from seg25d.evaluation.pictures import draw_contours, fullest_slice
from seg25d.evaluation.tables import format_percent, text_table
from seg25d.inference.prediction_files import PredictionRecord

COLUMNS = ("mean accuracy %", "mean IU %", "Dice %", "training", "peak memory", "per case")
PAPER_ROWS: Mapping[str, Sequence[str]] = {
    "paper, random 2.5D": ("92.7 ± 1.2", "87.6 ± 1.3", "85.6 ± 1.9", "58.7 min", "6.69 GB", "0.35 s"),
    "paper, 2D": ("91.8 ± 6.8", "87.1 ± 5.9", "84.6 ± 9.6", "16.8 min", "1.83 GB", "0.47 s"),
    "paper, 3D": ("91.1 ± 2.8", "86.3 ± 3.6", "82.0 ± 6.1", "31.8 min", "6.15 GB", "0.23 s"),
}
"""Section 4 of the paper (methods.md 3.8): other data (119 angiographies, 7 folds), an RTX 2080."""
ACROSS = 2
"""The axis that the pictures look along, the shortest of the data set."""


def paper_table(outcomes: Mapping[str, Outcome]) -> str:
    """The paper's measures on the held-out cases: a line per configuration, then those of the paper itself.

    Ours are means over cases with their standard deviation. The memory is the most that the process held up to the end
    of that training: of what was trained in one process, the later has at least that of the earlier.
    """
    rows = [[name, *_own_row(outcome)] for name, outcome in outcomes.items()]
    return text_table(["held-out cases", *COLUMNS], rows + [[name, *cells] for name, cells in PAPER_ROWS.items()])


def draw_pictures(raw: Path, predicted: Mapping[str, Path]) -> tuple[Path, ...]:
    """Draw truth and predictions of one held-out case, on a maximum projection and on a slice.

    Args:
        raw: The data set.
        predicted: Folder of predictions per configuration; the pictures go beside these folders.
    """
    shown = read_shown_case(raw, predicted, channel=0)
    folder = next(iter(predicted.values())).parent
    image, truth = np.moveaxis(shown.image, ACROSS, 0), np.moveaxis(shown.truth, ACROSS, 0)
    segmentations = {name: np.moveaxis(labels, ACROSS, 0) for name, labels in shown.segmentations.items()}
    projected = {name: labels.max(0) for name, labels in segmentations.items()}
    draw_contours(folder / "maximum_projection.png", image.max(0), projected, LABELS)
    index = fullest_slice(truth)
    panels = {name: labels[index] for name, labels in segmentations.items()}
    draw_contours(folder / "slice.png", image[index], panels, LABELS)
    return folder / "maximum_projection.png", folder / "slice.png"


def _own_row(outcome: Outcome) -> list[str]:
    cases = [case.metrics[str(LABELS["vessels"])] for case in outcome.summary.per_case]
    return [*_scores(cases), *_training(outcome.fold), _seconds_per_case(outcome.predicted)]


def _scores(cases: Sequence[Metrics]) -> list[str]:
    return [
        format_percent(case.mean_accuracy for case in cases),
        format_percent(case.mean_iou for case in cases),
        format_percent(case.dice for case in cases),
    ]


def _training(fold: FoldFolder) -> list[str]:
    """Time and peak memory of a training run."""
    epochs = [json.loads(line) for line in fold.log.read_text(encoding="utf-8").splitlines()]
    memory_gb = max(epoch["peak_memory_gb"] for epoch in epochs)
    return [f"{epochs[-1]['total_seconds'] / 60:.1f} min", f"{memory_gb:.2f} GB"]


def _seconds_per_case(predicted: Path) -> str:
    seconds = read_record(predicted / "prediction.json", PredictionRecord).seconds.values()
    return f"{mean(value for value in seconds if value is not None):.2f} s"


VESSELS = DemoKind(
    dataset_name=DATASET_NAME,
    write=write_vessels_dataset,
    configurations=("mip", "2d"),
    recipe="angermann2022",
    # A window is a whole volume: each of the 5 validation cases once, so that an epoch is about a pass over the other
    # 25. With the default of 20 windows a short run is one epoch: one set of angles, paths that keep their weights.
    settings={"validation_windows": "5"},
    table=paper_table,
    draw=draw_pictures,
)
