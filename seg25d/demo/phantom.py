"""The phantom: organs in CT and MR, segmented by super images, slices and in 3D, with a table of Dice per label."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from seg25d.core.types import FloatArray, IntArray
from seg25d.data.phantom import DATASET_NAME, LABELS, write_phantom_dataset
from seg25d.demo.kind import DemoKind, Outcome, read_shown_case
from seg25d.evaluation.pictures import draw_contours, fullest_slice
from seg25d.evaluation.tables import format_score, text_table
from seg25d.representations.lifted.super_image import to_super_image
from seg25d.representations.super_image import choose_grid


def dice_table(outcomes: Mapping[str, Outcome]) -> str:
    """Format the mean Dice of the held-out cases: one row per label, one column per configuration."""
    summaries = [outcome.summary for outcome in outcomes.values()]
    rows = [
        [name, *(format_score(summary.mean[str(value)].dice) for summary in summaries)]
        for name, value in LABELS.items()
        if value != 0
    ]
    rows.append(["all labels", *(format_score(summary.foreground_mean.dice) for summary in summaries)])
    return text_table(["Dice on held-out cases", *outcomes], rows)


def draw_pictures(raw: Path, predicted: Mapping[str, Path]) -> tuple[Path, ...]:
    """Draw a slice with truth and predictions, and a super image, of one held-out case.

    Args:
        raw: Folder of the data set.
        predicted: Folder of predictions of each configuration; the pictures are written beside these folders.
    """
    shown = read_shown_case(raw, predicted, channel=1)
    folder = next(iter(predicted.values())).parent
    index = fullest_slice(shown.truth)
    panels = {name: labels[index] for name, labels in shown.segmentations.items()}
    draw_contours(folder / "slice.png", shown.image[index], panels, LABELS)
    tiles = {name: _tile(shown.segmentations[name]).astype(np.uint8) for name in ("truth", "si")}
    draw_contours(folder / "super_image.png", _tile(shown.image), tiles, LABELS)
    return folder / "slice.png", folder / "super_image.png"


def _tile(volume: FloatArray | IntArray) -> FloatArray:
    """Tile all slices of a volume (D, H, W) to one picture."""
    slices = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
    image = to_super_image(slices, choose_grid(*volume.shape))[0, 0].numpy()
    return np.asarray(image, np.float32)


PHANTOM = DemoKind(
    dataset_name=DATASET_NAME,
    write=write_phantom_dataset,
    configurations=("2d", "si", "3d"),
    recipe="default",
    table=dice_table,
    draw=draw_pictures,
)
