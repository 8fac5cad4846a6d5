"""Shared code of the benchmarks of the papers' tables: contenders are trained in sequence, scored alike and compared.

A contender is a configuration, possibly with a changed plan, trained once for each seed. Each training has its own
folder in the workspace, `benchmarks/TABLE/LENGTH_RECIPE/CONTENDER/seed_N_DIGEST`, the digest being that of all of its
settings and of its plan, with links to the preprocessed arrays, so that the user's own runs are not changed. As it
ends, a training is written into the file of the table, with its scores case by case and its machine (`finished.py`):
the same command goes on from there, also on another machine and in an empty workspace. A table is written after every
training. Contenders are compared over cases and seeds (`over_seeds.py`); a single training is never called better.
"""

import argparse
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from case_scores import SCORES, measure, scores_of
from finished import (
    facts_of,
    find_training,
    folder_name,
    keep_training,
    known_dataset,
    over_trainings,
    plan_digest,
    settings_of,
)
from machines import describe_hardware, this_machine
from over_seeds import difference
from peers import updates_of_seg25d
from result_tables import Row, Table, write_tables

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.errors import InputError
from seg25d.core.records import parse_record, read_record, write_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_dataset, read_splits
from seg25d.evaluation.pairs import Segmentations
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.names import find_configuration, with_network
from seg25d.selection.cost import CaseToPredict, measure_cost

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Contender:
    """One row of a table."""

    name: str
    configuration: str
    change: Callable[[ConfigurationPlan], ConfigurationPlan] = lambda plan: plan
    """Function that changes the plan of the configuration."""
    network: str | None = None
    paper: Mapping[str, float] = field(default_factory=dict)
    """Results in the paper's table, in the measures of `SCORES`."""
    measures: Mapping[str, Callable[[Segmentations], float | None]] = field(default_factory=dict)
    """Further scores of a case by name."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of its training, which `--set` may change."""
    recipe: str | None = None
    """That it is planned and trained with; None: that of `--recipe`."""
    other_program: Callable[["Training"], Row] | None = None
    """Trains and scores it where it is another program's; gives what `_train` gives, and the digest of its plan."""


@dataclass(frozen=True)
class Training:
    """A contender with a seed."""

    contender: Contender
    seed: int
    table: str
    """Name of the table."""
    workspace: Workspace
    dataset: str
    """Its full name."""
    place: Path
    """The folder of all trainings of the table with this length."""
    options: argparse.Namespace

    @property
    def folder(self) -> Path:
        """Its own folder."""
        facts = self.facts
        name = folder_name(f"seed_{self.seed}", facts["settings"], facts["plan"])
        return self.place / self.contender.name.replace(" ", "_") / name

    @property
    def own(self) -> Workspace:
        """The raw data, and its own arrays (links) and results."""
        return Workspace(
            raw=self.workspace.raw, preprocessed=self.folder / "preprocessed", results=self.folder / "results"
        )

    @property
    def recipe(self) -> str:
        """That it is planned and trained with."""
        return str(self.contender.recipe or self.options.recipe)

    @property
    def facts(self) -> Row:
        """What distinguishes it from all others, see `finished.py`."""
        plan: str | None = None
        contender = self.contender
        if contender.other_program is None:
            with suppress(InputError):  # nothing is planned here, as on another machine
                plan = plan_digest(self.plans()[2])
        own = [f"{key}={value}" for key, value in contender.settings.items()]
        changed = {"recipe": self.recipe, "network": contender.network, "set": [*own, *self.options.set]}
        return facts_of(self.table, contender.name, self.seed, self.options, plan, **changed)

    def plans(self) -> tuple[Plans, str, ConfigurationPlan]:
        """The plans of the data set, and of them the own name of the configuration and its plan, changed.

        Raises:
            InputError: If it is not planned.
        """
        plans = read_record(self.workspace.preprocessed_dataset(self.dataset).plans(recipe=self.recipe), Plans)
        found, plan = find_configuration(plans, self.contender.configuration)
        return plans, found, parse_record(self.contender.change(plan).model_dump(), ConfigurationPlan, found)

    def found(self) -> Row | None:
        """Its record with all scores that are wanted; None if it is still to be trained or to be scored."""
        known = find_training(self.options.output, self.facts)
        complete = known is not None and {*SCORES, *self.contender.measures} <= set(known["scores"])
        return known if complete else None


def with_parts(plan: ConfigurationPlan, **parts: Any) -> ConfigurationPlan:
    """Replace parts of a plan and validate it."""
    return parse_record({**plan.model_dump(), **parts}, ConfigurationPlan, "a contender")


def make_parser(description: str, default_dataset: str) -> argparse.ArgumentParser:
    """Make the parser with the arguments of all tables."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument(
        "--dataset", default=default_dataset, help="planned and preprocessed: 1, 001 or Dataset001_Name"
    )
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="length of each training, such as 15min")
    parser.add_argument("--iterations", type=int, help="updates of each training, instead of a time")
    parser.add_argument("--folds", nargs="+", default=["0"], help="several give means and deviations (default: 0)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="a training of each contender for each (default: 0 1 2)"
    )
    parser.add_argument("--recipe", default="default", help="the data set must be planned with it (default: default)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every training")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="contenders to run; results of the others are kept")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    parser.add_argument("--training", nargs=2, help=argparse.SUPPRESS)  # contender and seed of a process of its own
    return parser


def compete(contenders: Sequence[Contender], table: Table, options: argparse.Namespace) -> list[Row]:
    """Train and score missing contenders, each training in a separate process to measure its memory alone."""
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    name = known_dataset(options.output, options.dataset) or workspace.dataset_name(options.dataset)
    known = {contender.name: contender for contender in contenders}
    if unknown := set(options.only or ()) - set(known):
        raise SystemExit(f"error: no rows {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    place = workspace.preprocessed.parent / "benchmarks" / table.name / f"{length_name(options)}_{options.recipe}"

    def training(contender: Contender, seed: int) -> Training:
        return Training(contender, seed, table.name, workspace, name, place, options)

    if options.training is not None:
        _run(training(known[options.training[0]], int(options.training[1])))
        return []
    everything = [training(contender, seed) for seed in options.seeds for contender in contenders]
    facts = {"dataset": name, "settings": settings_of(options)}
    # All contenders with one seed before the next one: what is there when time is up can be compared.
    wanted = [each for each in everything if each.contender.name in (options.only or known)]

    def write() -> list[Row]:
        rows = _gather(table, everything, options)
        write_tables(table, rows, facts, options.output)
        return rows

    failed = [each for each in wanted if not _is_done(each, write)]
    rows = write()
    if failed:
        names = "; ".join(f"{each.contender.name}, seed {each.seed}" for each in failed)
        raise SystemExit(f"error: these trainings failed, and the others are done: {names}")
    return rows


def _is_done(training: Training, write: Callable[[], object]) -> bool:
    """Train in a process of its own, unless it is done, and write the table anew; whether it did not fail."""
    if training.found() is not None:
        return True
    words = [sys.executable, *sys.argv, "--training", training.contender.name, str(training.seed)]
    if subprocess.run(words, check=False).returncode:
        return False
    write()
    return True


def are_comparable(row: Row, other: Row, options: argparse.Namespace) -> bool:
    """Whether a difference is one of the contenders: in equal time, all of their trainings ran on one machine.

    Another version of torch is no other machine: another program has its own.
    """
    return options.time_budget is None or len({*map(describe_hardware, [*row["machines"], *other["machines"]])}) == 1


def _gather(table: Table, everything: Sequence[Training], options: argparse.Namespace) -> list[Row]:
    """One row per contender from the results of its seeds, compared with the references of the table."""
    by_contender: dict[str, list[Row]] = {training.contender.name: [] for training in everything}
    paper = {training.contender.name: dict(training.contender.paper) for training in everything}
    for training in everything:
        if (found := find_training(training.options.output, training.facts)) is not None:
            by_contender[training.contender.name].append(found)
    rows = [
        {"name": name, "paper": paper[name], **over_trainings(found)} for name, found in by_contender.items() if found
    ]
    add_differences(rows, table, options)
    return rows


def add_differences(rows: Sequence[Row], table: Table, options: argparse.Namespace) -> None:
    """Compare each row with the references of the table, if there are such rows and they are comparable."""
    by_name = {row["name"]: row for row in rows}
    for row in rows:
        row["differences"] = {}
        for key, (name, score) in table.differences.items():
            other = by_name.get(name, row)
            if other is row or other["cases"] != row["cases"] or not are_comparable(row, other, options):
                continue
            if (gain := difference(row["scores"][score], other["scores"][score], cases=row["cases"])) is not None:
                row["differences"][key] = gain._asdict()


def link_preprocessed(workspace: Workspace, name: str, place: Path, apart: Sequence[str]) -> Path:
    """Make a preprocessed folder with links to the same files, except those in `apart`; return the folder."""
    source, target = workspace.preprocessed_dataset(name).root, place / "preprocessed" / name
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name not in apart and not (target / path.name).exists():
            (target / path.name).symlink_to(path.resolve())
    return target


def length(options: argparse.Namespace) -> dict[str, Any]:
    """Training length from the options."""
    return {"time_budget_s": options.time_budget, "iterations": options.iterations}


def length_name(options: argparse.Namespace) -> str:
    """Name of the folder of all trainings of this length."""
    if options.time_budget is not None:
        return f"{options.time_budget:g}s"
    return "length_of_recipe" if options.iterations is None else f"{options.iterations}_updates"


def _run(training: Training) -> None:
    """Train, predict, score and measure, and keep the results, unless they are kept already."""
    logger.info("%s: %s, seed %d", training.table, training.contender.name, training.seed)
    if training.found() is not None:
        return
    train = training.contender.other_program or _train
    found = train(training)
    facts = {**training.facts, "dataset": training.dataset, "machine": this_machine(training.options.device)}
    keep_training(training.options.output, facts | found)


def _train(training: Training) -> Row:
    """Train and score with seg25d.

    Returns:
        `configuration`, its own name; `spacing_mm`, `num_channels` and `window` of its plan; `cases` and `scores`, see
        `scores_of`; `iterations` and `training_s` of each fold; `seconds_per_update`; `training_memory_gb`; `cost`, see
        `measure_cost`.
    """
    contender, options, own, name = training.contender, training.options, training.own, training.dataset
    settings = {**contender.settings, **dict(pair.split("=", 1) for pair in options.set)}
    source, recipe = training.workspace.preprocessed_dataset(name), training.recipe
    plans_file = source.plans(recipe=recipe)
    plans, found, changed = training.plans()
    path = link_preprocessed(training.workspace, name, training.folder, [plans_file.name]) / plans_file.name
    wanted = plans.model_copy(update={"configurations": {**plans.configurations, found: changed}})
    if not path.exists() or read_record(path, Plans).configurations[found] != changed:
        write_record(path, wanted)
    wished = api.TrainingOptions(
        seed=training.seed,
        recipe=recipe,
        network=contender.network,
        settings=settings,
        device=options.device,
        num_processes=options.num_processes,
        validation=api.ValidationOptions(quick_scores=True),
        **length(options),
    )
    summaries = list(api.train(own, name, contender.configuration, options.folds, wished).values())
    run = own.run(name, wanted.run_name(with_network(wanted, found, contender.network)))
    logs, splits = [_read_log(run.fold(fold).log) for fold in options.folds], read_splits(run.splits)
    raw, links = training.workspace.raw_dataset(name), training.folder / "references" / name
    places = [
        (link_references(raw, splits[int(fold)].val, links / fold), run.fold(fold).validation_quick)
        for fold in options.folds
    ]
    row = scores_of(summaries)
    row["scores"] |= measure(contender.measures, places)
    store, (first, *_) = Store(source.store(changed.store)), options.folds
    case = median_case(store, splits[int(first)].val)
    model = run.fold(first).model_final
    cost = measure_cost(CaseToPredict((model,), store.folder, case, options.device, mirroring=False))
    return {
        "configuration": found,
        "spacing_mm": changed.spacing_mm,
        "num_channels": len(changed.normalization),
        "window": changed.window,
        **row,
        "iterations": [log[-1]["iteration"] for log in logs],
        "training_s": [log[-1]["total_seconds"] for log in logs],
        "seconds_per_update": fmean(updates_of_seg25d(log)["seconds_per_update"] for log in logs),
        "training_memory_gb": max(line["peak_memory_gb"] for log in logs for line in log),
        "cost": cost.model_dump(),
    }


def median_case(store: Store, cases: Sequence[str]) -> str:
    """The case of median size on the files' grids."""
    ordered = sorted(cases, key=lambda case: (math.prod(store.record(case).grid.shape), case))
    return ordered[len(ordered) // 2]


def link_references(raw: Path, cases: Sequence[str], links: Path) -> Path:
    """Make a folder of links to the true segmentations of cases; returns the folder.

    Args:
        raw: The raw data set.
        cases: Names of training cases.
        links: The folder.
    """
    links.mkdir(parents=True, exist_ok=True)
    references = {case.name: case.label for case in read_dataset(raw).cases}
    for case in cases:
        path = references[case]
        assert path is not None, "training cases have labels"
        if not (links / path.name).exists():
            (links / path.name).symlink_to(path.resolve())
    return links


def _read_log(path: Path) -> list[Row]:
    """The lines of `log.jsonl`."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
