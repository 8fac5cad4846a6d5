"""Gain of pretraining with few labels: from scratch, after inpainting, after jigsaw, with ImageNet weights.

python benchmarks/pretraining.py --dataset 4 --configuration 2d --labels 10 20 --seeds 3 --iterations 150 \
    --pretraining-iterations 600 --output benchmarks/results/pretraining_hippocampus_2d.json

The data set must be planned and preprocessed. Networks are pretrained on the images of all its cases, then trained on
the first fold's training cases drawn by each seed, and scored on the whole validation cases of that fold: the rows
"masking" and "jigsaw" of Sobirov et al. 2022, Table 1. `--imagenet FILE` adds `resnet_unet` from scratch and with
torchvision's weights, the row "PT" of their Table 3; with `--recipe sobirov2022_pta`, "PT&A".

Results are kept in `benchmarks/pretraining` in the workspace: the same command continues. `--time-budget` instead of
numbers of updates trains every model for the same time.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from contest import Row, Table, length, link_preprocessed, settings_of, spread, write_tables

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


def starts(imagenet: Path | None) -> list[Start]:
    """The rows of the table."""
    rows = [Start("scratch"), Start("inpainting", "inpainting"), Start("jigsaw", "jigsaw")]
    if imagenet is not None:
        rows.append(Start("resnet_unet, scratch", network="resnet_unet"))
        rows.append(Start("resnet_unet, ImageNet", network="resnet_unet", weights=imagenet))
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
    """Pretrain and train the missing models of one row, and collect the scores."""
    shared: dict[str, Any] = {"device": options.device, "num_processes": options.num_processes}
    shared |= {"recipe": options.recipe, "settings": dict(pair.split("=", 1) for pair in options.set)}
    pretrained = start.weights
    if start.task is not None:
        pretraining = length(options)
        if options.time_budget is None:
            # Ten epochs give ten pictures.
            pretraining = {"iterations": options.pretraining_iterations, "epochs": 10}
        wanted = api.PretrainingOptions(task=start.task, **pretraining, **shared)
        pretrained = api.pretrain(results, name, options.configuration, wanted)
    scores: dict[str, list[float | None]] = {}
    for fold, (number, seed) in enumerate(pairs):
        training = api.TrainingOptions(
            seed=seed, pretrained=pretrained, network=start.network, **length(options), **shared
        )
        summary = api.train(results, name, options.configuration, [str(fold)], training)[str(fold)]
        scores.setdefault(str(number), []).append(summary.foreground_mean.dice)
    return {"name": start.name, "dice": scores}


def dice_of(num_labels: str, row: Row) -> str:
    """Format the Dice after training with this many labels."""
    return spread(row["dice"][num_labels])


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
    parser.add_argument("--imagenet", type=Path, metavar="FILE", help="torchvision's resnet34.pth")
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
    place = workspace.preprocessed.parent / "benchmarks" / "pretraining"
    pairs = few_labels(workspace, name, place, options)
    columns = {"start": lambda row: row["name"]}
    columns |= {f"{number} labels": partial(dice_of, str(number)) for number in options.labels}
    note = f"Dice, mean ± standard deviation over {options.seeds} seeds, each of which draws its own cases."
    table = Table("pretraining", f"Pretraining with few labels: {name}, {options.configuration}", columns, (note,))
    rows = []
    for start in starts(options.imagenet):
        folder = place / start.name.replace(", ", "_")
        results = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=folder)
        rows.append(run(start, results, name, pairs, options))
        write_tables(table, rows, {"dataset": name, "settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
