r"""One labelled slice in five against all, and against as many labelled slices in a fifth of the cases.

Every arm trains with the same number of updates; slices without labels have the `ignore` label. A fifth of the patients
is kept back, with all of their labels, and gives the scores. Seeds are those of the trainings, of the choice of slices
and of the choice of cases; the cases that are kept back stay the same.

    python benchmarks/few_slices_labelled.py --data FOLDER_OF_DATASETS --datasets 4 27 --configurations 2d si stack \
        --slices-labelled 5 --iterations 300 --seeds 0 1 2 --workspace WORKSPACE -o FILE.json

Trainings are kept in FILE.json with Dice and HD95 of every case: the same command goes on, on another machine too. A
training that was cut off goes on from its last checkpoint in WORKSPACE; one that fails is told, and the others follow.
`batch` is what the planner takes by the number of voxels of a data set: a fifth of the cases gets smaller batches than
all of them, so that equal updates are fewer windows there. Slices without labels do not change it.
`--slices-labelled` says that one slice in so many is labelled; `--in-plane 2` averages over so many pixels each way,
where trainings would take too long.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from held_out import (
    DIGITS,
    KeptTrainings,
    Source,
    check_seeds,
    find_source,
    predict,
    score,
    scores,
    succeeds,
    train,
)
from over_seeds import difference, mean_over_seeds

from seg25d.cli.argument_types import positive_number
from seg25d.core.errors import InputError
from seg25d.core.files import write_json
from seg25d.planning.recipe_rules import DEFAULT_RULES
from seg25d.runs.names import check_names

ALL = "all labels"


def arms(every: int) -> tuple[str, str, str]:
    """What is labelled, in words: everything, some slices of all cases, or all slices of some cases."""
    return ALL, f"one slice in {every}", f"one case in {every}"


def write_dataset(source: Source, folder: Path, arm: str, every: int, seed: int, in_plane: int) -> None:
    """Write a data set of nnU-Net's layout with the labels of an arm, and the cases that are kept back as its tests."""
    rng = np.random.default_rng(seed)
    _, some_slices, some_cases = arms(every)
    trained, description = source.trained, source.description | {"labels": dict(source.description["labels"])}
    if arm == some_cases:
        trained = sorted(rng.choice(trained, max(2, len(trained) // every), replace=False).tolist())
    ignored = max(value for value in description["labels"].values() if isinstance(value, int)) + 1
    if arm == some_slices:
        description["labels"]["ignore"] = ignored
        # The slices that are drawn of a small object may all lie beside it.
        description["allow_empty_labels"] = True
    for part, cases in (("Tr", trained), ("Ts", source.kept)):
        for case in cases:
            volume = source.read(case, in_plane)
            if part == "Tr" and arm == some_slices:
                hidden = np.arange(len(volume.labels)) % every != rng.integers(every)
                labels = np.where(hidden[:, None, None], ignored, volume.labels).astype(np.uint8)
                volume = volume._replace(labels=labels)
            source.write(folder, part, case, volume)
    write_json(folder / "dataset.json", description | {"numTraining": len(trained)})


def key_of(source: Source, configuration: str, arm: str, seed: int) -> dict[str, Any]:
    """What distinguishes a training from the others of a file."""
    return {"dataset": source.folder.name, "configuration": configuration, "arm": arm, "seed": seed}


def make_training(
    kept: KeptTrainings, source: Source, options: argparse.Namespace, configuration: str, arm: str, seed: int
) -> None:
    """Train one arm with one seed, score the cases that are kept back, and keep the result."""
    every, in_plane = options.slices_labelled, options.in_plane
    identifier = f"{900 + len(arms(every)) * seed + arms(every).index(arm)}"
    workspace = options.workspace / f"{source.folder.name}_{every}_{in_plane}"
    raw = workspace / "raw" / f"Dataset{identifier}_{source.folder.name.split('_', 1)[1]}"
    if not (raw / "dataset.json").exists():
        write_dataset(source, raw, arm, every, seed, in_plane)
    out = workspace / "predicted" / f"{identifier}_{configuration}"
    plan = train(workspace, identifier, configuration, options.iterations, seed)
    predict(workspace, identifier, configuration, raw / "imagesTs", out)
    kept.keep({**plan, **score(workspace, raw / "labelsTs", out)}, **key_of(source, configuration, arm, seed))


def rows(kept: KeptTrainings, every: int) -> list[str]:
    """A line for each data set, configuration and arm: scores over seeds, and how much better or worse than all labels.

    Args:
        kept: The trainings that there are.
        every: One slice in so many is labelled.
    """
    scored = f"{'batch':14} {'Dice':15} {'HD95 mm':15}"
    lines = [f"{'data set':26} {'configuration':16} {'labelled':20} {scored}  minus all labels"]
    for dataset, configuration in dict.fromkeys((each["dataset"], each["configuration"]) for each in kept.trainings):
        of_arms = {
            arm: [
                each
                for each in kept.trainings
                if (each["dataset"], each["configuration"], each["arm"]) == (dataset, configuration, arm)
            ]
            for arm in arms(every)
        }
        for arm, found in of_arms.items():
            if found:
                others = of_arms[ALL] if arm != ALL else []
                gains = [(name, difference(scores(found, name), scores(others, name))) for name in DIGITS if others]
                told = "; ".join(f"{name} {gain}" for name, gain in gains if gain is not None)
                batches = dict.fromkeys(f"{'x'.join(map(str, each['window']))}x{each['batch_size']}" for each in found)
                dice, hd95 = mean_over_seeds(scores(found)), mean_over_seeds(scores(found, "hd95_mm"), 2)
                scored = f"{', '.join(batches):14} {dice:15} {hd95:15}"
                lines.append(f"{dataset:26} {configuration:16} {arm:20} {scored}  {told}".rstrip())
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is not kept yet, and print a row per data set, configuration and arm."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in nnU-Net's layout")
    parser.add_argument("--datasets", type=int, nargs="+", required=True)
    parser.add_argument("--configurations", nargs="+", default=["2d"])
    parser.add_argument("--slices-labelled", type=positive_number, default=5, metavar="N", help="one in N (default: 5)")
    parser.add_argument("--in-plane", type=positive_number, default=1, metavar="N", help="pixels averaged each way")
    parser.add_argument("--iterations", type=positive_number, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file of the trainings")
    options = parser.parse_args(arguments)
    every = options.slices_labelled
    # What is wrong with the command is told before the first hour, not after it.
    try:
        check_names(options.configurations, DEFAULT_RULES.name)
    except InputError as error:
        parser.error(str(error))
    check_seeds(options.seeds, len(arms(every)))
    sources = [find_source(options.data, number) for number in options.datasets]
    settings = {name: getattr(options, name) for name in ("slices_labelled", "in_plane", "iterations")}
    kept = KeptTrainings(options.output, settings)
    # All arms with one seed before the next one: what is there when time is up can be compared.
    wanted = [
        (source, configuration, arm, seed)
        for seed in options.seeds
        for source in sources
        for configuration in options.configurations
        for arm in arms(every)
    ]
    failed = 0
    for source, configuration, arm, seed in wanted:
        if kept.find(**key_of(source, configuration, arm, seed)) is not None:
            continue
        what = f"{source.folder.name}, {configuration}, {arm}, seed {seed}"
        failed += not succeeds(what, partial(make_training, kept, source, options, configuration, arm, seed))
        print("\n".join(rows(kept, every)), flush=True)
    print("\n".join(rows(kept, every)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
