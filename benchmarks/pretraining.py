"""Gain of pretraining: from scratch, after inpainting, after jigsaw, with weights of other images.

python benchmarks/pretraining.py --dataset 4 --configuration 2d --labels 10 20 --seeds 3 --iterations 150 \
    --pretraining-iterations 600 --output benchmarks/results/pretraining_hippocampus_2d.json

The data set must be planned and preprocessed. Networks are pretrained on the images of the first fold's training cases
(with each seed anew), then trained on those of them that the seed draws, and scored on the whole validation cases of
that fold, whose images they have not seen: the rows "masking" and "jigsaw" of Sobirov et al. 2022, Table 1. A second
row from scratch has as many updates (or as much time) as pretraining and training together.

`--weights FILE` adds `resnet_unet` from scratch and with the weights in FILE, such as torchvision's of ImageNet or
those of `encoder_weights.py`: the row "PT" of their Table 3, named after the file. `--augmented-recipe
sobirov2022_pta` adds "PT&A", which is trained by that recipe; the data set must be planned with it, too. `--only` takes
some of the rows.

Models are kept in `benchmarks/pretraining/CONFIGURATION` in the workspace, scores in the file of the table: the same
command continues, on another machine, too. `--time-budget` instead of numbers of updates trains every model for the
same time.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from case_scores import scores_of
from contest import length, length_name, link_preprocessed
from finished import facts_of, find_training, folder_name, keep_training, known_dataset, planned_digest, settings_of
from machines import distinct, this_machine
from over_seeds import difference, mean_over_seeds
from result_tables import Row, Table, compared, write_tables

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.files import write_json
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.evaluation.summary import Summary
from seg25d.planning.pretext import PretextTask

SCRATCH, RESNET = "scratch", "resnet_unet"
TABLE = "pretraining"
"""The table's folder in the workspace."""


class Start(NamedTuple):
    """Initial weights of a network."""

    name: str
    recipe: str
    task: PretextTask | None = None
    network: str | None = None
    weights: Path | None = None
    as_long_as_both: bool = False
    """Whether training takes as long as pretraining and training of the others."""


def starts(recipe: str, weights: Path | None = None, augmented_recipe: str | None = None) -> list[Start]:
    """The rows of the table.

    Args:
        recipe: Of all rows but the last.
        weights: Of the encoder of `resnet_unet`.
        augmented_recipe: Of the last row, which begins with them, too.
    """
    rows = [Start(SCRATCH, recipe), Start(f"{SCRATCH}, as long as both", recipe, as_long_as_both=True)]
    rows += [Start("inpainting", recipe, "inpainting"), Start("jigsaw", recipe, "jigsaw")]
    if weights is not None:
        rows.append(Start(f"{RESNET}, {SCRATCH}", recipe, network=RESNET))
        rows.append(Start(f"{RESNET}, {weights.stem}", recipe, network=RESNET, weights=weights))
        if augmented_recipe is not None:
            name = f"{RESNET}, {weights.stem}, augmented"
            rows.append(Start(name, augmented_recipe, network=RESNET, weights=weights))
    return rows


def few_labels(
    workspace: Workspace, name: str, place: Path, recipes: Sequence[str], pairs: Sequence[tuple[int, int]]
) -> None:
    """Make a preprocessed folder with the same arrays and a fold per number of labels and seed."""
    source = workspace.preprocessed_dataset(name)
    files = [source.recipe_splits(recipe) for recipe in recipes]
    target = link_preprocessed(workspace, name, place, [file.name for file in files])
    first = read_splits(files[0])[0]
    drawn = [np.random.default_rng(seed).permutation(first.train)[:number].tolist() for number, seed in pairs]
    for file in files:
        write_json(target / file.name, [{"train": sorted(cases), "val": list(first.val)} for cases in drawn])


def trainings_of(
    start: Start, plan: str | None, pairs: Sequence[tuple[int, int]], options: argparse.Namespace
) -> list[Row]:
    """What distinguishes the trainings of a row from all others, see `finished.py`.

    Args:
        start: The row.
        plan: Digest of its plan.
        pairs: Number of labels and seed of each training.
        options: Those of the command.
    """
    table = f"{TABLE}_{options.configuration}"
    own: dict[str, Any] = {"recipe": start.recipe}
    if start.task is None and not start.as_long_as_both:
        own["pretraining_iterations"] = None
    return [facts_of(table, start.name, seed, options, plan, labels=number, **own) for number, seed in pairs]


def run(start: Start, results: Workspace, name: str, trainings: Sequence[Row], options: argparse.Namespace) -> Row:
    """Pretrain and train the missing models of one row, and collect the scores by number of labels and seed.

    Args:
        start: The row.
        results: Where its models go.
        name: Full name of the data set.
        trainings: See `trainings_of`, one for each fold.
        options: Those of the command; finished trainings are in its output.
    """
    found = []
    for fold, wanted in enumerate(trainings):
        if (known := find_training(options.output, wanted)) is None:
            summary = train(start, results, name, fold, wanted["seed"], options)
            facts = {**wanted, "dataset": name, "machine": this_machine(options.device)}
            known = keep_training(options.output, facts | scores_of([summary]))
        found.append(known)
    scores: dict[str, list[list[float | None]]] = {}
    for each in found:
        scores.setdefault(each["settings"]["labels"], []).append(each["scores"]["dice"])
    machines = distinct(each["machine"] for each in found)
    return {"name": start.name, "cases": found[-1]["cases"], "scores": scores, "machines": machines}


def train(start: Start, results: Workspace, name: str, fold: int, seed: int, options: argparse.Namespace) -> Summary:
    """Pretrain, if that is to be, and train one model; what is trained already is kept.

    Args:
        start: Its initial weights.
        results: Where it goes.
        name: Full name of the data set.
        fold: The fold, which has its number of labels.
        seed: Of the training, and of the pretraining.
        options: Those of the command.

    Returns:
        The scores of the validation cases.
    """
    settings = dict(each.split("=", 1) for each in options.set)
    common: dict[str, Any] = {"device": options.device, "num_processes": options.num_processes}
    common |= {"recipe": start.recipe, "settings": settings}
    pretrained = start.weights
    if start.task is not None:
        pretraining = length(options)
        if options.time_budget is None:
            # Ten epochs give ten pictures.
            pretraining = {"iterations": options.pretraining_iterations, "epochs": 10}
        # All folds have the same validation cases, and those with the first number of labels one for each seed.
        wanted = api.PretrainingOptions(task=start.task, seed=seed, without_fold=seed, **pretraining, **common)
        pretrained = api.pretrain(results, name, options.configuration, wanted)
    training = api.TrainingOptions(
        seed=seed,
        pretrained=pretrained,
        network=start.network,
        validation=api.ValidationOptions(quick_scores=True),
        **(length_of_both(options) if start.as_long_as_both else length(options)),
        **common,
    )
    return api.train(results, name, options.configuration, [str(fold)], training)[str(fold)]


def length_of_both(options: argparse.Namespace) -> dict[str, Any]:
    """Length of pretraining and training together."""
    if options.time_budget is not None:
        return {"time_budget_s": 2 * options.time_budget}
    return {"iterations": options.iterations + options.pretraining_iterations}


def add_differences(rows: Sequence[Row]) -> None:
    """Compare every row with training from scratch of the same network, in both lengths."""
    scratch = {row["name"]: row["scores"] for row in rows if SCRATCH in row["name"]}
    for row in rows:
        own = row["name"].startswith(RESNET)
        others = [other for other in scratch if other != row["name"] and other.startswith(RESNET) == own]
        row["differences"] = {
            f"{number} labels, minus {other}": gain._asdict()
            for number in row["scores"]
            for other in others
            if (gain := difference(row["scores"][number], scratch[other][number], paired=True)) is not None
        }


def columns_of(labels: Sequence[int], names: Sequence[str]) -> dict[str, Callable[[Row], str]]:
    """Dice for each number of labels, and the differences from the rows from scratch."""
    columns: dict[str, Callable[[Row], str]] = {"start": lambda row: row["name"]}
    for number in labels:
        columns[f"{number} labels"] = partial(dice_of, number=str(number))
    for other in (name for name in names if SCRATCH in name):
        for number in labels:
            key = f"{number} labels, minus {other}"
            columns[key] = partial(compared, name=key)
    return columns


def dice_of(row: Row, number: str) -> str:
    """Format the Dice after training with this many labels."""
    return mean_over_seeds(row["scores"][number])


def table_of(name: str, rows: Sequence[Start], options: argparse.Namespace) -> Table:
    """The table of these rows."""
    note = (
        f"Dice: mean ± standard deviation over {options.seeds} seeds, each of which draws its own cases and pretrains "
        "anew; differences with their interval of 95 % and p, of a test that knows cases and seeds."
    )
    deviations = "another organ, few labels and updates instead of 300 and 100 epochs."
    if options.weights is not None:
        deviations = f"another organ, few updates instead of 100 epochs; weights are those of {options.weights.name}."
    title = f"Gain of pretraining: {name}, {options.configuration}"
    columns = columns_of(options.labels, [start.name for start in rows])
    return Table(TABLE, title, columns, (note,), deviations=deviations)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--configuration", default="2d")
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--pretraining-iterations", type=int, default=600)
    parser.add_argument("--time-budget", type=duration, help="of each pretraining and training, instead of updates")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every training")
    parser.add_argument("--weights", type=Path, metavar="FILE", help=f"of {RESNET}, such as torchvision's resnet34.pth")
    parser.add_argument("--augmented-recipe", metavar="R", help="adds a row with --weights that is trained by it")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="rows to train (default: all)")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    return parser


def read_options() -> tuple[argparse.Namespace, list[Start]]:
    """The arguments, and the rows that they ask for."""
    parser = make_parser()
    options = parser.parse_args()
    if options.time_budget is not None:
        options.iterations = options.pretraining_iterations = None
    if options.weights is not None and not options.weights.is_file():
        parser.error(f"--weights: {options.weights} is not a file; encoder_weights.py makes one")
    if options.augmented_recipe is not None and options.weights is None:
        parser.error("--augmented-recipe: expected --weights, too")
    rows = starts(options.recipe, options.weights, options.augmented_recipe)
    if unknown := sorted(set(options.only or ()) - {row.name for row in rows}):
        parser.error(f"--only: no rows {', '.join(unknown)}; there are {'; '.join(row.name for row in rows)}")
    return options, [row for row in rows if row.name in (options.only or [row.name])]


def main() -> None:
    """Pretrain and train all rows and write the table."""
    options, wanted = read_options()
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    name = known_dataset(options.output, options.dataset) or workspace.dataset_name(options.dataset)
    labels = "_".join(map(str, options.labels))
    place = workspace.preprocessed.parent / "benchmarks" / TABLE / options.configuration
    place /= f"{length_name(options)}_{labels}_labels_{options.seeds}_seeds"
    pairs = [(number, seed) for number in options.labels for seed in range(options.seeds)]
    recipes = list(dict.fromkeys(start.recipe for start in wanted))
    folder = workspace.preprocessed_dataset(name)
    plans = {recipe: planned_digest(folder.plans(recipe=recipe), options.configuration) for recipe in recipes}
    trainings = {start: trainings_of(start, plans[start.recipe], pairs, options) for start in wanted}
    if not all(find_training(options.output, each) for row in trainings.values() for each in row):
        few_labels(workspace, name, place, recipes, pairs)
    settings = settings_of(options)
    if not any(start.task or start.as_long_as_both for start in wanted):
        settings.pop("pretraining_iterations", None)
    rows: list[Row] = []
    for start in wanted:
        models = place / folder_name(start.name.replace(", ", "_"), settings_of(options), plans[start.recipe])
        results = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=models)
        rows.append(run(start, results, name, trainings[start], options))
        add_differences(rows)
        facts = {"dataset": name, "settings": settings}
        write_tables(table_of(name, wanted, options), rows, facts, options.output)


if __name__ == "__main__":
    main()
