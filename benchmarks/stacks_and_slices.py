"""Comparison of single slices and of stacks that overlap by 0, 0.375 and 0.625 in training (Shivdeo et al. 2021).

python benchmarks/stacks_and_slices.py --dataset 4 --stack-size 16 --time-budget 10min \
    --output benchmarks/results/stacks_hippocampus.json

The table has Dice, measures of area plots (section 5.3), and seconds per case. Networks are those of the plans: with
`--recipe shivdeo2021` those of the paper, Xception + CBAM and V-Net; with `--recipe shivdeo2021_64` the same on smaller
slices (`smaller_recipes.py`). Labels of several classes want `--set threshold=null` with these.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from contest import Contender, compete, make_parser, with_parts
from over_seeds import mean_over_seeds
from result_tables import OVER_SEEDS, Row, Table, columns, of_paper
from smaller_recipes import add_smaller_recipes, made_smaller

from seg25d.data.labels import IGNORE_INDEX
from seg25d.evaluation.area_plot import AXES, AreaNumbers, area_curve, coarsest_axis
from seg25d.evaluation.pairs import Segmentations
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


def area_number(case: Segmentations, name: str, *, of_truth: bool = False) -> float | None:
    """A measure of the area plot of a case (`AreaNumbers`), along the slices."""
    axis = AXES.index(coarsest_axis(case.spacing_mm))
    others = tuple(other for other in range(3) if other != axis)
    counts = case.reference != IGNORE_INDEX
    truth, found = (((each > 0) & counts).mean(axis=others) for each in (case.reference, case.prediction))
    value: float | None = getattr(area_curve(truth) if of_truth else area_curve(found, truth), name)
    return value


MEASURES = {f"area_{name}": partial(area_number, name=name) for name in AreaNumbers.model_fields} | {
    f"true_{name}": partial(area_number, name=name, of_truth=True) for name in ("total_variation", "num_runs")
}
"""Of the predicted area plots, and of the true ones."""


def contenders(stack_size: int) -> list[Contender]:
    """Single slices, and stacks with every overlap."""
    rows = [Contender("slices", "2d", paper={"dice": PAPER_SLICES}, measures=MEASURES)]
    for factor in OVERLAPS:
        paper = {"dice": PAPER_STACK} if factor == max(OVERLAPS) else {}
        change = partial(with_overlap, stack_size=stack_size, factor=factor)
        rows.append(Contender(f"stacks, overlap {factor:g}", "stack", change, paper=paper, measures=MEASURES))
    return rows


def area(name: str, digits: int = 3) -> Callable[[Row], str]:
    """Make a column with a measure of area plots."""
    return lambda row: mean_over_seeds(row["scores"][f"area_{name}"], digits)


def beside_truth(name: str, digits: int) -> Callable[[Row], str]:
    """Make a column with a measure of area plots, and the truth's in brackets."""

    def cell(row: Row) -> str:
        truth = mean_over_seeds(row["scores"][f"true_{name}"][:1], digits)
        return f"{area(name, digits)(row)} ({truth})"

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
