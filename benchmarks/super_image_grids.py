"""Comparison of patches of volumes and super images in six layouts (Table 2 of Sobirov et al. 2022).

python benchmarks/super_image_grids.py --dataset 4 --time-budget 10min \
    --output benchmarks/results/grids_hippocampus.json

The window of the super images is 48 slices deep, as in the paper, so that every layout is filled; everything else is
as planned and the same for all layouts. Volumes of few slices want smaller ones (`--layouts 4x3 3x4 6x2 2x6`: 12
slices). HD95 is measured in the volume, and once more on the plane of the super image, where slices that are neighbours
in the volume lie a tile apart: the paper explains a larger HD95 by that. `volume_hd95_mm` is that of `HD95 mm` with the
diagonal of the volume where a class is not found (methods.md 1.9), which is left out there.
"""

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import fmean

import numpy as np
from contest import Contender, compete, make_parser, with_parts
from numpy.typing import NDArray
from over_seeds import mean_over_seeds
from result_tables import OVER_SEEDS, Row, Table, columns, of_paper
from scipy.ndimage import binary_erosion, distance_transform_edt

from seg25d.core.grids import slicing_axis
from seg25d.evaluation.pairs import Segmentations
from seg25d.evaluation.surfaces import PERCENTILE
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.super_image import SuperImage

Grid = tuple[int, int]
"""Rows and columns."""
PAPER_3D = {"dice": 0.779, "precision": 0.787, "recall": 0.822}
PAPER: dict[Grid, dict[str, float]] = {
    (8, 6): {"dice": 0.778, "precision": 0.799, "recall": 0.810},
    (6, 8): {"dice": 0.777, "precision": 0.793, "recall": 0.816},
    (12, 4): {"dice": 0.770, "precision": 0.809, "recall": 0.801},
    (4, 12): {"dice": 0.759, "precision": 0.790, "recall": 0.797},
    (24, 2): {"dice": 0.744, "precision": 0.765, "recall": 0.809},
    (2, 24): {"dice": 0.762, "precision": 0.779, "recall": 0.809},
}
"""Table 2, rows x columns (methods.md 1.10): HECKTOR, cropped around the tumour, means of five folds."""


def with_grid(plan: ConfigurationPlan, grid: Grid) -> ConfigurationPlan:
    """Change a plan to as many slices as a layout has tiles."""
    representation = plan.representation
    assert isinstance(representation, SuperImage), "the configuration is si"
    window = list(plan.window)
    window[representation.axis] = math.prod(grid)
    changed = {"window": tuple(window), "representation": {**representation.model_dump(), "grid": grid}}
    return with_parts(plan, **changed)


def tiled(labels: NDArray[np.uint8], axis: int, columns: int) -> NDArray[np.uint8]:
    """Tile the slices of a volume (D, H, W) into the super image with so many columns: (h, w)."""
    slices = np.moveaxis(labels, axis, 0)
    rows = math.ceil(len(slices) / columns)
    slices = np.pad(slices, ((0, rows * columns - len(slices)), (0, 0), (0, 0)))
    _, height, width = slices.shape
    return slices.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def distance_mm(truth: NDArray[np.bool_], predicted: NDArray[np.bool_], spacing_mm: Sequence[float]) -> float:
    """HD95 of two masks of a volume or an image in mm; 0 where both are empty, the diagonal where one is.

    Source: methods.md 1.9; surfaces and percentiles as in `seg25d/evaluation/surfaces.py`, which has no score there.
    """
    if not (truth.any() and predicted.any()):
        sides = (size * spacing for size, spacing in zip(truth.shape, spacing_mm, strict=True))
        return math.hypot(*sides) if truth.any() or predicted.any() else 0.0
    one, other = (mask & ~binary_erosion(mask) for mask in (truth, predicted))
    distances = (distance_transform_edt(~there, spacing_mm)[here] for here, there in ((one, other), (other, one)))
    return max(float(np.percentile(each, PERCENTILE)) for each in distances)


def hd95_mm(case: Segmentations, columns: int | None = None) -> float:
    """Mean HD95 over the classes of a case in mm.

    Args:
        case: Truth and prediction.
        columns: Those of the super image on whose plane it is measured; None: it is measured in the volume.
    """
    truth, predicted, spacing_mm = case.reference, case.prediction, list(case.spacing_mm)
    if columns is not None:
        axis = slicing_axis(case.spacing_mm)
        truth, predicted = tiled(truth, axis, columns), tiled(predicted, axis, columns)
        del spacing_mm[axis]
    classes = case.foreground.values()
    return fmean(distance_mm(np.isin(truth, each), np.isin(predicted, each), spacing_mm) for each in classes)


def num_empty(case: Segmentations) -> float:
    """Number of classes that either truth or prediction has nothing of, whose distance is the diagonal."""
    found = ([np.isin(each, members).any() for each in case[:2]] for members in case.foreground.values())
    return float(sum(truth != predicted for truth, predicted in found))


def measures_on(columns: int) -> dict[str, Callable[[Segmentations], float | None]]:
    """Scores of a case in the volume and on the plane of the super image with so many columns."""
    plane = partial(hd95_mm, columns=columns)
    return {"volume_hd95_mm": hd95_mm, "plane_hd95_mm": plane, "num_empty": num_empty}


def contenders(layouts: list[Grid]) -> list[Contender]:
    """3D patches, and super images in every layout; both are measured on the plane of the first layout."""
    measures = measures_on(layouts[0][1])
    rows = [Contender("3D", "3d", paper=PAPER_3D, measures=measures)]
    for grid in layouts:
        change, paper = partial(with_grid, grid=grid), PAPER.get(grid, {})
        own = measures if grid == layouts[0] else {}
        rows.append(Contender(f"{grid[0]} x {grid[1]}", "si", change, paper=paper, measures=own))
    return rows


def layout(text: str) -> Grid:
    """Read `8x6`: rows and columns.

    Raises:
        argparse.ArgumentTypeError: If it is something else.
    """
    numbers = text.split("x")
    if len(numbers) != 2 or not all(number.isdecimal() and int(number) for number in numbers):
        raise argparse.ArgumentTypeError(f"expected ROWSxCOLUMNS such as 8x6, got {text!r}")
    return int(numbers[0]), int(numbers[1])


def format_scores(row: Row) -> str:
    """Format Dice, precision and recall."""
    return " / ".join(mean_over_seeds(row["scores"][score]) for score in ("dice", "precision", "recall"))


TABLE = Table(
    "super_image_grids",
    "Super images in several layouts (rows x columns), compared with Table 2 of Sobirov et al. 2022",
    {
        "layout": lambda row: row["name"],
        "Dice / precision / recall": format_scores,
        "paper": lambda row: of_paper(row, "dice", "precision", "recall"),
        **columns("HD95 mm"),
        "on the plane": lambda row: mean_over_seeds(row["scores"].get("plane_hd95_mm", []), 2),
        **columns("updates", "training", "parameters", "s/case"),
    },
    (OVER_SEEDS,),
    deviations="another organ, the planner's U-Nets, windows and training, minutes instead of 100 epochs.",
)


def main() -> None:
    """Train what is missing and write the table; layouts are compared with 3D and with the first layout."""
    parser = make_parser(__doc__ or "", "4")
    parser.add_argument(
        "--layouts", type=layout, nargs="+", default=list(PAPER), metavar="ROWSxCOLUMNS", help="default: the paper's"
    )
    options = parser.parse_args()
    rows = contenders(options.layouts)
    compete(rows, replace(TABLE, references=(rows[0].name, rows[1].name)), options)


if __name__ == "__main__":
    main()
