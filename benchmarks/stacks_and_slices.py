"""Comparison of single slices and of stacks that overlap by 0, 0.375 and 0.625 in training (Shivdeo et al. 2021).

python benchmarks/stacks_and_slices.py --dataset 4 --stack-size 16 --time-budget 10min \
    --output benchmarks/results/stacks_hippocampus.json

The table has Dice, measures of area plots (section 5.3), and seconds per case. Networks are those of the plans: with
`--recipe shivdeo2021` those of the paper, Xception + CBAM and V-Net; with `--recipe shivdeo2021_32` the same on smaller
slices (`smaller_recipes.py`). Labels of several classes want `--set threshold=null` with these.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from contest import Contender, compete, make_parser, with_parts
from over_seeds import mean_over_seeds
from result_tables import OVER_SEEDS, Row, Table, columns, of_paper
from smaller_recipes import add_smaller_recipes, made_smaller

from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.stack import Stack

OVERLAPS = (0.0, 0.375, 0.625)
"""Overlap factors of the paper in training."""
PAPER_STACK = 0.79
PAPER_SLICES = 0.73
"""Dice on 32 scans (methods.md 2.6); the paper reports none per overlap."""
STACK_SIZE = 32
"""Stack size of the paper."""


def with_overlap(plan: ConfigurationPlan, stack_size: int, factor: float) -> ConfigurationPlan:
    """Change a plan to stacks of another size that overlap in training."""
    representation = plan.representation
    assert isinstance(representation, Stack), "the configuration is stack"
    window = list(plan.window)
    window[representation.axis] = stack_size
    stacks = {"stack_size": stack_size, "overlap": round(factor * stack_size), "predicted_overlap": 0}
    return with_parts(plan, window=tuple(window), representation={**representation.model_dump(), **stacks})


def contenders(stack_size: int) -> list[Contender]:
    """Single slices, and stacks with every overlap."""
    rows = [Contender("slices", "2d", paper={"dice": PAPER_SLICES})]
    for factor in OVERLAPS:
        paper = {"dice": PAPER_STACK} if factor == max(OVERLAPS) else {}
        rows.append(
            Contender(
                f"stacks, overlap {factor:g}",
                "stack",
                partial(with_overlap, stack_size=stack_size, factor=factor),
                paper=paper,
            )
        )
    return rows


def area(number: str, digits: int = 3) -> Callable[[Row], str]:
    """Make a column with a measure of area plots."""
    return lambda row: mean_over_seeds(row["scores"][f"area_{number}"], digits)


def beside_truth(number: str, digits: int) -> Callable[[Row], str]:
    """Make a column with a measure of area plots, and the truth's in brackets."""

    def cell(row: Row) -> str:
        truth = row["true_areas"][number]
        return area(number, digits)(row) + ("" if truth is None else f" ({truth:.{digits}f})")

    return cell


TABLE = Table(
    "stacks_and_slices",
    "Single slices and stacks of slices, compared with Shivdeo et al. 2021",
    {
        "": lambda row: row["name"],
        **columns("Dice"),
        "paper": lambda row: of_paper(row, "dice"),
        "area difference": area("mean_absolute_difference"),
        "area correlation": area("correlation"),
        "total variation (truth)": beside_truth("total_variation", 3),
        "runs (truth)": beside_truth("num_runs", 2),
        **columns("updates", "training", "s/case", "GFLOPs"),
    },
    (
        OVER_SEEDS,
        "In the paper, on a T4, a CT of 709 slices took 70 s by slices and 17 s by stacks, on a CPU 1145 s and 229 s.",
    ),
    references=("slices",),
)
DEVIATIONS = {
    "default": "another organ, stacks of fewer slices, the planner's networks (a small V-Net, and a U-Net that sees "
    "the neighbours of each slice) with its training, minutes instead of epochs.",
    "shivdeo2021": "another organ, few updates instead of epochs of all stacks; of several classes the likeliest is "
    "taken instead of one from a probability of 0.2 on.",
}
"""By the recipe of the paper that the trainings follow."""


def main() -> None:
    """Train what is missing and write the table."""
    parser = make_parser(__doc__ or "", "4")
    parser.add_argument("--stack-size", type=int, default=STACK_SIZE, help="slices of a stack (default: 32)")
    options = parser.parse_args()
    add_smaller_recipes()
    paper = "shivdeo2021" if options.recipe.startswith("shivdeo2021") else "default"
    table = replace(TABLE, deviations=DEVIATIONS[paper] + made_smaller(options.recipe))
    compete(contenders(options.stack_size), table, options)


if __name__ == "__main__":
    main()
