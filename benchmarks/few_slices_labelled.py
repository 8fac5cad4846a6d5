r"""One labelled slice in five against all, and against as many labelled slices in a fifth of the cases.

Every arm trains with the same number of updates; slices without labels have the `ignore` label. A fifth of the patients
is kept back, with all of their labels, and gives the scores. Seeds are those of the trainings, of the choice of slices
and of the choice of cases; the cases that are kept back stay the same.

    python benchmarks/few_slices_labelled.py --data FOLDER_OF_DATASETS --datasets 4 27 --configurations 2d si stack \
        --slices-labelled 5 --iterations 300 --seeds 0 1 2 --workspace WORKSPACE -o FILE.json

Trainings are kept in FILE.json with the scores of every case: the same command goes on, on another machine too. A
training that was cut off goes on from its last checkpoint in WORKSPACE; one that fails is told, and the others follow.
`batch` is what the planner takes by the number of voxels of a data set: a fifth of the cases may get other windows and
smaller batches than all of them, so that equal updates see less there. Slices without labels do not change it.
`--slices-labelled` says that one slice in so many is labelled; `--in-plane 2` averages over so many pixels each way,
where trainings would take too long.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from finished import facts_of, find_training, keep_training, planned_digest
from held_out import (
    MEASURES,
    Source,
    check_seeds,
    compared,
    find_source,
    predict,
    score,
    succeeds,
    train,
)
from machines import this_machine
from over_seeds import mean_over_seeds
from result_tables import Row

from seg25d.cli.argument_types import positive_number
from seg25d.core.errors import InputError
from seg25d.core.files import check_writable_file, write_json
from seg25d.core.workspace import Workspace
from seg25d.planning.recipe_rules import DEFAULT_RULES
from seg25d.runs.names import check_names

TABLE = "few_slices_labelled"
"""Name of the table in the records of its trainings."""
ALL = "all labels"
Arm = tuple[str, str, str]
"""Data set, configuration and what is labelled."""


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


def make_training(source: Source, options: argparse.Namespace, configuration: str, arm: str, seed: int) -> Row:
    """Train one arm with one seed and score the cases that are kept back, if that is not kept already.

    Returns:
        Its record, see `finished.py`.
    """
    every, in_plane = options.slices_labelled, options.in_plane
    identifier = f"{900 + len(arms(every)) * seed + arms(every).index(arm)}"
    workspace = options.workspace / f"{source.folder.name}_{every}_{in_plane}_{options.iterations}_updates"
    name = f"Dataset{identifier}_{source.folder.name.split('_', 1)[1]}"
    raw, plans = workspace / "raw" / name, Workspace.resolve(workspace).preprocessed_dataset(name).plans()
    own = {"dataset": source.folder.name, "configuration": configuration, "datasets": None, "configurations": None}

    def facts() -> Row:
        plan = planned_digest(plans, configuration)
        return facts_of(TABLE, f"{configuration}, {arm}", seed, options, plan, **own)

    if (known := find_training(options.output, facts())) is not None:
        return known
    if not (raw / "dataset.json").exists():
        write_dataset(source, raw, arm, every, seed, in_plane)
    out = workspace / "predicted" / f"{identifier}_{configuration}"
    plan = train(workspace, identifier, configuration, options.iterations, seed)
    predict(workspace, identifier, configuration, raw / "imagesTs", out)
    found = {"dataset": source.folder.name, "machine": this_machine(None), **plan}
    return keep_training(options.output, facts() | found | score(workspace, raw / "labelsTs", out))


def rows(found: Mapping[Arm, Sequence[Row]]) -> list[str]:
    """A line for each data set, configuration and arm: scores over seeds, and how far they are from all labels."""
    header = f"{'batch':14} {'Dice':15} {'HD95 mm':15}"
    lines = [f"{'data set':26} {'configuration':16} {'labelled':20} {header}  minus all labels"]
    for (dataset, configuration, arm), mine in found.items():
        others = () if arm == ALL else found.get((dataset, configuration, ALL), ())
        gains = {name: compared(mine, others, name) for name in MEASURES if others}
        told = "; ".join(f"{name} {gain}" for name, gain in gains.items() if gain is not None)
        batches = dict.fromkeys(f"{'x'.join(map(str, each['window']))} x {each['batch_size']}" for each in mine)
        cells = [mean_over_seeds([each["scores"][name] for each in mine], digits) for name, digits in MEASURES.items()]
        scored = f"{', '.join(batches):14} {cells[0]:15} {cells[1]:15}"
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
    # What is wrong with the command is told before the first hour, not after it.
    try:
        check_names(options.configurations, DEFAULT_RULES.name)
        check_writable_file(options.output)
    except InputError as error:
        parser.error(str(error))
    check_seeds(options.seeds, len(arms(options.slices_labelled)))
    sources = [find_source(options.data, number) for number in options.datasets]
    # All arms with one seed before the next one: what is there when time is up can be compared.
    wanted = [
        (source, configuration, arm, seed)
        for seed in options.seeds
        for source in sources
        for configuration in options.configurations
        for arm in arms(options.slices_labelled)
    ]
    found: dict[Arm, list[Row]] = {}
    failed = 0

    def add(source: Source, configuration: str, arm: str, seed: int) -> None:
        training = make_training(source, options, configuration, arm, seed)
        found.setdefault((source.folder.name, configuration, arm), []).append(training)

    for source, configuration, arm, seed in wanted:
        what = f"{source.folder.name}, {configuration}, {arm}, seed {seed}"
        failed += not succeeds(what, partial(add, source, configuration, arm, seed))
        print("\n".join(rows(found)), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
