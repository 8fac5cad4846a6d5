"""Comparison of patches of volumes and super images in six layouts (Table 2 of Sobirov et al. 2022).

python benchmarks/super_image_grids.py --dataset 4 --time-budget 10min \
    --output benchmarks/results/grids_hippocampus.json

The window of the super images is 48 slices deep, as in the paper, so that every layout is filled; everything else is
as planned and the same for all layouts.
"""

from functools import partial

from contest import Contender, Row, Table, compete, make_parser, of_paper, spread, with_parts

from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.super_image import SuperImage

NUM_SLICES = 48
PAPER_3D = {"dice": 0.779, "precision": 0.787, "recall": 0.822}
PAPER = {
    (8, 6): {"dice": 0.778, "precision": 0.799, "recall": 0.810},
    (6, 8): {"dice": 0.777, "precision": 0.793, "recall": 0.816},
    (12, 4): {"dice": 0.770, "precision": 0.809, "recall": 0.801},
    (4, 12): {"dice": 0.759, "precision": 0.790, "recall": 0.797},
    (24, 2): {"dice": 0.744, "precision": 0.765, "recall": 0.809},
    (2, 24): {"dice": 0.762, "precision": 0.779, "recall": 0.809},
}
"""Table 2, rows x columns (methods.md 1.10): HECKTOR, cropped around the tumour, means of five folds."""


def with_grid(plan: ConfigurationPlan, grid: tuple[int, int]) -> ConfigurationPlan:
    """Change a plan to 48 slices in a layout."""
    representation = plan.representation
    assert isinstance(representation, SuperImage), "the configuration is si"
    window = list(plan.window)
    window[representation.axis] = NUM_SLICES
    changed = {"window": tuple(window), "representation": {**representation.model_dump(), "grid": grid}}
    return with_parts(plan, **changed)


def contenders() -> list[Contender]:
    """3D patches, and super images in every layout of the paper."""
    rows = [Contender("3D", "3d", paper=PAPER_3D)]
    for grid, paper in PAPER.items():
        name = f"{grid[0]} x {grid[1]}"
        rows.append(Contender(name, "si", partial(with_grid, grid=grid), paper=paper))
    return rows


def format_scores(row: Row) -> str:
    """Format Dice, precision and recall."""
    return " / ".join(spread(row["scores"][score]) for score in ("dice", "precision", "recall"))


TABLE = Table(
    "super_image_grids",
    "Super images in six layouts (rows x columns), compared with Table 2 of Sobirov et al. 2022",
    {
        "layout": lambda row: row["name"],
        "Dice / precision / recall": format_scores,
        "paper": lambda row: of_paper(row, "dice", "precision", "recall"),
        "HD95 mm": lambda row: spread(row["scores"]["hd95_mm"], 2),
        "updates": lambda row: f"{sum(row['iterations'])}",
        "training": lambda row: f"{sum(row['training_s']) / 60:.1f} min",
        "parameters": lambda row: f"{row['cost']['num_parameters'] / 1e6:.2f} M",
        "s/case": lambda row: f"{row['cost']['seconds_per_case']:.2f}",
    },
    ("Mean ± standard deviation over validation cases; seconds without mirroring, of a case of median size.",),
)

if __name__ == "__main__":
    compete(contenders(), TABLE, make_parser(__doc__ or "", "4").parse_args())
