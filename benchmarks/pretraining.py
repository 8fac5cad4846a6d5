"""Gain of pretraining with few labels: from scratch, after inpainting, after jigsaw, with ImageNet weights.

python benchmarks/pretraining.py --dataset 4 --configuration 2d --labels 10 20 --seeds 3 --iterations 150 \
    --pretraining-iterations 600 --output benchmarks/results/pretraining_hippocampus_2d.json

The data set must be planned and preprocessed. Networks are pretrained on the images of the first fold's training cases
(with each seed anew), then trained on those of them that the seed draws, and scored on the whole validation cases of
that fold, whose images they have not seen: the rows "masking" and "jigsaw" of Sobirov et al. 2022, Table 1. A second
row from scratch has as many updates (or as much time) as pretraining and training together. `--weights FILE` adds
`resnet_unet` from scratch and with the weights in FILE, such as torchvision's of ImageNet: the row "PT" of their Table
3; with `--recipe sobirov2022_pta`, "PT&A".

Results are kept in `benchmarks/pretraining/CONFIGURATION` in the workspace: the same command continues. `--time-budget`
instead of numbers of updates trains every model for the same time.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contest import Row, Table, compared, length, length_name, link_preprocessed, per_case, settings_of, write_tables
from over_seeds import difference, mean_over_seeds

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.files import write_json
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.planning.pretext import PretextTask


class Start(NamedTuple):
    """Initial weights of a network."""

    name: str
    task: PretextTask | None = None
    network: str | None = None
    weights: Path | None = None
    as_long_as_both: bool = False
    """Whether training takes as long as pretraining and training of the others."""


def starts(weights: Path | None) -> list[Start]:
    """The rows of the table."""
    rows = [Start("scratch"), Start("scratch, as long as both", as_long_as_both=True)]
    rows += [Start("inpainting", "inpainting"), Start("jigsaw", "jigsaw")]
    if weights is not None:
        rows.append(Start("resnet_unet, scratch", network="resnet_unet"))
        rows.append(Start(f"resnet_unet, {weights.stem}", network="resnet_unet", weights=weights))
    return rows


def few_labels(workspace: Workspace, name: str, place: Path, options: argparse.Namespace) -> list[tuple[int, int]]:
    """Make a preprocessed folder with the same arrays and a fold per number of labels and seed; return the pairs."""
    splits = workspace.preprocessed_dataset(name).recipe_splits(options.recipe)
    target = link_preprocessed(workspace, name, place, [splits.name])
    first = read_splits(splits)[0]
    pairs = [(number, seed) for number in options.labels for seed in range(options.seeds)]
    drawn = [np.random.default_rng(seed).permutation(first.train)[:number].tolist() for number, seed in pairs]
    write_json(target / splits.name, [{"train": sorted(cases), "val": list(first.val)} for cases in drawn])
    return pairs


def run(start: Start, results: Workspace, name: str, pairs: Sequence[tuple[int, int]], options: Any) -> Row:
    """Pretrain and train the missing models of one row, and collect the scores by number of labels and seed."""
    settings = dict(pair.split("=", 1) for pair in options.set)
    common: dict[str, Any] = {"device": options.device, "num_processes": options.num_processes}
    common |= {"recipe": options.recipe, "settings": settings}
    scores: dict[str, list[list[float | None]]] = {}
    for fold, (number, seed) in enumerate(pairs):
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
            **(length_of_both(options) if start.as_long_as_both else length(options)),
            **common,
        )
        summary = api.train(results, name, options.configuration, [str(fold)], training)[str(fold)]
        scores.setdefault(str(number), []).append(per_case([summary], "dice"))
    return {"name": start.name, "dice": scores}


def length_of_both(options: argparse.Namespace) -> dict[str, Any]:
    """Length of pretraining and training together."""
    if options.time_budget is not None:
        return {"time_budget_s": 2 * options.time_budget}
    return {"iterations": options.iterations + options.pretraining_iterations}


def add_differences(rows: Sequence[Row]) -> None:
    """Compare every row with training from scratch of the same network, in both lengths."""
    scratch = {row["name"]: row["dice"] for row in rows if "scratch" in row["name"]}
    for row in rows:
        own = row["name"].startswith("resnet_unet")
        others = [other for other in scratch if other != row["name"] and other.startswith("resnet_unet") == own]
        row["differences"] = {
            f"{number} labels, minus {other}": gain._asdict()
            for number in row["dice"]
            for other in others
            if (gain := difference(row["dice"][number], scratch[other][number])) is not None
        }


def columns_of(labels: Sequence[int], names: Sequence[str]) -> dict[str, Callable[[Row], str]]:
    """Dice for each number of labels, and the differences from the rows from scratch."""
    columns: dict[str, Callable[[Row], str]] = {"start": lambda row: row["name"]}
    for number in labels:
        columns[f"{number} labels"] = partial(dice_of, number=str(number))
    for other in (name for name in names if "scratch" in name):
        for number in labels:
            key = f"{number} labels, minus {other}"
            columns[key] = partial(compared, name=key)
    return columns


def dice_of(row: Row, number: str) -> str:
    """Format the Dice after training with this many labels."""
    return mean_over_seeds(row["dice"][number])


def main() -> None:
    """Pretrain and train all rows and write the table."""
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
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help="of resnet_unet, such as torchvision's resnet34.pth"
    )
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    options = parser.parse_args()
    if options.time_budget is not None:
        options.iterations = options.pretraining_iterations = None
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    place = workspace.preprocessed.parent / "benchmarks" / "pretraining" / options.configuration / length_name(options)
    pairs = few_labels(workspace, name, place, options)
    note = (
        f"Dice: mean ± standard deviation over {options.seeds} seeds, each of which draws its own cases and pretrains "
        "anew; differences with their interval of 95 % and p, of a test that knows cases and seeds."
    )
    wanted = starts(options.weights)
    columns = columns_of(options.labels, [start.name for start in wanted])
    table = Table("pretraining", f"Pretraining with few labels: {name}, {options.configuration}", columns, (note,))
    rows: list[Row] = []
    for start in wanted:
        folder = place / start.name.replace(", ", "_")
        results = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=folder)
        rows.append(run(start, results, name, pairs, options))
        add_differences(rows)
        write_tables(table, rows, {"dataset": name, "settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
