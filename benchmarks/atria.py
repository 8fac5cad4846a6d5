"""The atria's protocol of Sobirov et al. 2022, Table 3: cases of one common size, 3D beside super images of two grids.

    python benchmarks/smaller_recipes.py --dataset 4 --recipe sobirov2022_atria_32 sobirov2022_atria64_32
    python benchmarks/atria.py --dataset 4 --iterations 40 --output benchmarks/results/atria_hippocampus.json

88 slices are tiled 11 x 8 and 64 slices 8 x 8, in the recipes' four folds, of which the first is taken (`--folds 0 1 2
3`: all). `--recipe sobirov2022_atria` has the paper's size, 160 x 160 in the plane, for which the data set must be
planned with it and with `sobirov2022_atria64`. Rows with ImageNet weights and augmentation are those of
`pretraining.py --weights-from`.
"""

from dataclasses import replace

from contest import Contender, compete, make_parser
from result_tables import OVER_SEEDS, Table, columns, of_paper
from smaller_recipes import add_smaller_recipes, made_smaller

PAPER_3D = {"dice": 0.893, "precision": 0.898, "recall": 0.894}
PAPER_88 = {"dice": 0.812, "precision": 0.902, "recall": 0.785}
PAPER_64 = {"dice": 0.851, "precision": 0.913, "recall": 0.822}
"""Table 3 (methods.md 1.10): 100 MRI of the left atrium, means of four folds."""


def contenders(recipe: str) -> list[Contender]:
    """The rows of Table 3 without pretraining.

    Args:
        recipe: The one of 88 slices; that of 64 has the same name with `atria64`.
    """
    return [
        Contender("3D", "3d", paper=PAPER_3D, recipe=recipe),
        Contender("11 x 8", "si", paper=PAPER_88, recipe=recipe),
        Contender("8 x 8", "si", paper=PAPER_64, recipe=recipe.replace("atria", "atria64")),
    ]


TABLE = Table(
    "atria",
    "3D and super images of two grids in one common size, compared with Table 3 of Sobirov et al. 2022",
    {
        "": lambda row: row["name"],
        **columns("Dice"),
        "paper": lambda row: of_paper(row, "dice"),
        **columns("HD95 mm", "updates", "training", "parameters", "s/case"),
    },
    (OVER_SEEDS,),
    references=("3D", "11 x 8"),
    deviations="another organ, few updates instead of 100 epochs, the first of the four folds; the size of the "
    "paper is lost, the recipe has 160 x 160 in the plane.",
)


def main() -> None:
    """Train what is missing and write the table."""
    parser = make_parser(__doc__ or "", "4")
    parser.set_defaults(recipe="sobirov2022_atria_32")
    options = parser.parse_args()
    add_smaller_recipes()
    rows = contenders(options.recipe)
    sizes = "".join(made_smaller(recipe) for recipe in dict.fromkeys(row.recipe or "" for row in rows))
    table = replace(TABLE, deviations=TABLE.deviations + sizes)
    compete(rows, table, options)


if __name__ == "__main__":
    main()
