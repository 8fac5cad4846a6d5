"""Sparse vessels: the random 2.5D U-Net of Angermann & Haltmeier (arXiv 1910.10398) compared with 2D slices."""

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
"""Viewing axis of the pictures, the shortest of the data set."""


def paper_table(outcomes: Mapping[str, Outcome]) -> str:
    """Format the paper's measures on the held-out cases: one row per configuration, then the rows of the paper.

    Scores are means over cases with standard deviations. The memory is the peak of the process up to the end of that
    training, so that of a later training in the same process is never smaller.
    """
    rows = [[name, *_format_row(outcome)] for name, outcome in outcomes.items()]
    return text_table(["held-out cases", *COLUMNS], rows + [[name, *cells] for name, cells in PAPER_ROWS.items()])


def draw_pictures(raw: Path, predicted: Mapping[str, Path]) -> tuple[Path, ...]:
    """Draw truth and predictions of one held-out case, on a maximum projection and on a slice.

    Args:
        raw: Folder of the data set.
        predicted: Folder of predictions of each configuration; the pictures are written beside these folders.
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


def _format_row(outcome: Outcome) -> list[str]:
    cases = [case.metrics[str(LABELS["vessels"])] for case in outcome.summary.per_case]
    return [*_format_scores(cases), *_format_training(outcome.fold), _format_seconds(outcome.predicted)]


def _format_scores(cases: Sequence[Metrics]) -> list[str]:
    return [
        format_percent(case.mean_accuracy for case in cases),
        format_percent(case.mean_iou for case in cases),
        format_percent(case.dice for case in cases),
    ]


def _format_training(fold: FoldFolder) -> list[str]:
    """Format time and peak memory of a training run."""
    epochs = [json.loads(line) for line in fold.log.read_text(encoding="utf-8").splitlines()]
    memory_gb = max(epoch["peak_memory_gb"] for epoch in epochs)
    return [f"{epochs[-1]['total_seconds'] / 60:.1f} min", f"{memory_gb:.2f} GB"]


def _format_seconds(predicted: Path) -> str:
    seconds = read_record(predicted / "prediction.json", PredictionRecord).seconds.values()
    return f"{mean(value for value in seconds if value is not None):.2f} s"


VESSELS = DemoKind(
    dataset_name=DATASET_NAME,
    write=write_vessels_dataset,
    configurations=("mip", "2d"),
    recipe="angermann2022",
    # A window of `mip` is a whole volume: each of the 5 validation cases is used once, and an epoch is about one pass
    # over the other 25. With the default of 20 windows, a short run would be a single epoch with one set of angles.
    settings={"mip": {"validation_windows": "5"}},
    table=paper_table,
    draw=draw_pictures,
)
