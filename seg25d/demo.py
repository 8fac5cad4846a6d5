"""Every step on a small made-up data set: from raw images to a table of Dice on held-out cases and two pictures."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from seg25d import pipeline
from seg25d.core.types import FloatArray
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_image, read_labels
from seg25d.data.phantom import DATASET_NAME, LABELS, write_phantom_dataset
from seg25d.evaluation.pictures import draw_contours, fullest_slice
from seg25d.evaluation.summary import Summary
from seg25d.evaluation.tables import format_score, text_table
from seg25d.representations.super_image import choose_grid, to_super_image

logger = logging.getLogger(__name__)
CONFIGURATIONS = ("2d", "si", "3d")


class DemoResult(NamedTuple):
    """What the demo found."""

    table: str
    """Dice per label and configuration on the held-out cases."""
    pictures: tuple[Path, ...]
    summaries: dict[str, Summary]
    """Scores on the held-out cases per configuration."""


def run_demo(
    workspace: Workspace, *, time_budget_s: float = 80.0, device: str | None = None, num_processes: int | None = None
) -> DemoResult:
    """Make a data set, then plan, preprocess, train, predict and evaluate; what is done already is kept.

    Args:
        workspace: Where to put everything, the data set included.
        time_budget_s: Training time per configuration.
        device: Where to compute; None: the best there is.
        num_processes: Worker processes; None: by cores and memory.
    """
    raw = workspace.raw_dataset(DATASET_NAME)
    logger.info("making the data set %s", raw)
    write_phantom_dataset(raw)
    planning = pipeline.PlanningOptions(configurations=CONFIGURATIONS, num_processes=num_processes)
    pipeline.plan_and_preprocess(workspace, [DATASET_NAME], planning)
    training = pipeline.TrainingOptions(time_budget_s=time_budget_s, device=device, num_processes=num_processes)
    predicted = {name: workspace.results / DATASET_NAME / "demo" / name for name in CONFIGURATIONS}
    summaries = {}
    for name, out in predicted.items():
        pipeline.train(workspace, DATASET_NAME, name, ["0"], training)
        # Without mirroring, which takes eight times as long; all cases anew, as the model may have changed.
        prediction = pipeline.PredictionOptions(
            dataset=DATASET_NAME, configuration=name, mirroring=False, overwrite=True, device=device
        )
        pipeline.predict(workspace, raw / "imagesTs", out, prediction)
        summaries[name] = pipeline.evaluate(raw / "labelsTs", out, num_processes=num_processes)
    return DemoResult(dice_table(summaries), draw_pictures(raw, predicted), summaries)


def dice_table(summaries: Mapping[str, Summary]) -> str:
    """Mean Dice on the held-out cases: a line per label, a column per configuration."""
    rows = [
        [name, *(format_score(summary.mean[str(value)].dice) for summary in summaries.values())]
        for name, value in LABELS.items()
        if value != 0
    ]
    rows.append(["all labels", *(format_score(summary.foreground_mean.dice) for summary in summaries.values())])
    return text_table(["Dice on held-out cases", *summaries], rows)


def draw_pictures(raw: Path, predicted: Mapping[str, Path]) -> tuple[Path, Path]:
    """Draw a slice with truth and predictions, and a super image, of one held-out case.

    Args:
        raw: The data set.
        predicted: Folder of predictions per configuration; the pictures go beside these folders.
    """
    case = _shown_case(raw)
    image, _ = read_image([raw / "imagesTs" / f"{case}_0001.nii.gz"])
    truth = read_labels(raw / "labelsTs" / f"{case}.nii.gz")[0]
    segmentations = {"truth": truth} | {
        name: read_labels(folder / f"{case}.nii.gz")[0] for name, folder in predicted.items()
    }
    folder = next(iter(predicted.values())).parent
    index = fullest_slice(truth)
    panels = {name: labels[index] for name, labels in segmentations.items()}
    draw_contours(folder / "slice.png", image[0, index], panels, LABELS)
    tiles = {name: _tiled(labels).astype(np.uint8) for name, labels in segmentations.items() if name in ("truth", "si")}
    draw_contours(folder / "super_image.png", _tiled(image[0]), tiles, LABELS)
    return folder / "slice.png", folder / "super_image.png"


def _shown_case(raw: Path) -> str:
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").glob("*.nii.gz"))
    return names[0]


def _tiled(volume: FloatArray) -> FloatArray:
    """All slices of a volume (D, H, W) in one picture."""
    slices = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
    image = to_super_image(slices, choose_grid(*volume.shape))[0, 0].numpy()
    return np.asarray(image, np.float32)
