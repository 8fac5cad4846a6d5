"""Shared code of the benchmarks of the papers' tables: contenders are trained in sequence, scored alike and compared.

A contender is a configuration, possibly with a changed plan, trained once for each seed. Each training has its own
folder in the workspace, `benchmarks/TABLE/LENGTH_RECIPE/CONTENDER/seed_N`, with links to the preprocessed arrays, so
that the user's own runs are not changed, and tables of equal time and of equal updates do not share anything. Existing
results are kept: the same command continues, and a table is written after every training. Contenders are compared over
cases and seeds (`over_seeds.py`); a single training is never called better.
"""

import argparse
import json
import logging
import math
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from over_seeds import difference
from result_tables import Row, Table, settings_of, write_tables

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.files import write_json
from seg25d.core.records import digest, parse_record, read_record, write_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_dataset, read_splits
from seg25d.evaluation.pairs import Segmentations, find_labels, find_pairs, read_pair
from seg25d.evaluation.summary import Summary
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.names import find_configuration, with_network
from seg25d.selection.cost import CaseToPredict, measure_cost

logger = logging.getLogger(__name__)
SCORES = ("dice", "precision", "recall", "hd95_mm", "mean_accuracy", "mean_iou")


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
    name = workspace.dataset_name(options.dataset)
    known = {contender.name: contender for contender in contenders}
    if unknown := set(options.only or ()) - set(known):
        raise SystemExit(f"error: no rows {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    place = workspace.preprocessed.parent / "benchmarks" / table.name / f"{length_name(options)}_{options.recipe}"
    if options.training is not None:
        contender, seed = known[options.training[0]], int(options.training[1])
        logger.info("%s: %s, seed %d", table.name, contender.name, seed)
        _run_contender(contender, seed, workspace, name, _folder(place, contender, seed), options)
        return []
    rows: list[Row] = []
    # All contenders with one seed before the next one: what is there when time is up can be compared.
    for seed in options.seeds:
        for each in options.only or known:
            subprocess.run([sys.executable, *sys.argv, "--training", each, str(seed)], check=True)
            rows = _gather(contenders, table, place, name, options)
            write_tables(table, rows, {"dataset": name, "settings": settings_of(options)}, options.output)
    return rows


def _folder(place: Path, contender: Contender, seed: int) -> Path:
    return place / contender.name.replace(" ", "_") / f"seed_{seed}"


def _gather(
    contenders: Sequence[Contender], table: Table, place: Path, name: str, options: argparse.Namespace
) -> list[Row]:
    """One row per contender from the results of its seeds, compared with the references of the table."""
    rows: list[Row] = []
    for contender in contenders:
        paths = [_folder(place, contender, seed) / "results" / name / "row.json" for seed in options.seeds]
        found = [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]
        found = [each for each in found if each["settings"] == _settings(options, each["seed"])]
        if found:
            rows.append({"name": contender.name, "paper": dict(contender.paper), **over_trainings(found)})
    for row in rows:
        others = [other for other in rows if other["name"] in table.references and other is not row]
        others = [other for other in others if other["cases"] == row["cases"]]
        gains = {other["name"]: difference(*(each["scores"][table.score] for each in (row, other))) for other in others}
        row["differences"] = {other: gain._asdict() for other, gain in gains.items() if gain is not None}
    return rows


def _settings(options: argparse.Namespace, seed: int) -> dict[str, str]:
    """The settings of one training."""
    return settings_of(options) | {"seeds": str(seed)}


def over_trainings(trainings: Sequence[Row]) -> Row:
    """The results of one contender: scores by training and case, means of the others over trainings."""
    merged: Row = {
        "seeds": [each["seed"] for each in trainings],
        "scores": {score: [each["scores"][score] for each in trainings] for score in trainings[0]["scores"]},
    }
    for key in ("iterations", "training_s"):
        merged[key] = fmean(sum(each[key]) for each in trainings)
    merged["training_memory_gb"] = max(each["training_memory_gb"] for each in trainings)
    merged["cases"] = trainings[0]["cases"]
    merged["cost"] = trainings[0]["cost"] | {
        "seconds_per_case": fmean(each["cost"]["seconds_per_case"] for each in trainings)
    }
    return merged


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


def per_case(summaries: Sequence[Summary], score: str) -> list[float | None]:
    """The mean score of each validation case over its labels."""
    cases = (case for summary in summaries for case in summary.per_case)
    return [_mean([getattr(each, score) for each in case.metrics.values()]) for case in cases]


def _run_contender(
    contender: Contender, seed: int, workspace: Workspace, name: str, place: Path, options: argparse.Namespace
) -> None:
    """Train, predict, score and measure one contender with one seed, and write `row.json` unless it is there."""
    own = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=place / "results")
    settings = {**contender.settings, **dict(pair.split("=", 1) for pair in options.set)}
    source, recipe = workspace.preprocessed_dataset(name), contender.recipe or options.recipe
    plans_file = source.plans(recipe=recipe)
    path = link_preprocessed(workspace, name, place, [plans_file.name]) / plans_file.name
    plans = read_record(plans_file, Plans)
    found, plan = find_configuration(plans, contender.configuration)
    changed = parse_record(contender.change(plan).model_dump(), ConfigurationPlan, contender.name)
    wanted = plans.model_copy(update={"configurations": {**plans.configurations, found: changed}})
    decisions = changed.decisions.model_dump(mode="json")
    facts = {"seed": seed, "settings": _settings(options, seed), "plan": digest(decisions)}
    done = own.results / name / "row.json"
    if done.exists() and json.loads(done.read_text(encoding="utf-8")).items() >= facts.items():
        return
    if not path.exists() or read_record(path, Plans).configurations[found] != changed:
        write_record(path, wanted)
    training = api.TrainingOptions(
        seed=seed,
        recipe=recipe,
        network=contender.network,
        settings=settings,
        device=options.device,
        num_processes=options.num_processes,
        validation=api.ValidationOptions(quick_scores=True),
        **length(options),
    )
    summaries = list(api.train(own, name, contender.configuration, options.folds, training).values())
    run = own.run(name, wanted.run_name(with_network(wanted, found, contender.network)))
    logs = [_read_last_line(run.fold(fold).log) for fold in options.folds]
    places = [
        (
            _link_references(run, workspace.raw_dataset(name), place / "references" / name, fold),
            run.fold(fold).validation_quick,
        )
        for fold in options.folds
    ]
    row: Row = {
        **facts,
        "cases": [case.case for summary in summaries for case in summary.per_case],
        "scores": {score: per_case(summaries, score) for score in SCORES} | _measure(contender.measures, places),
        "iterations": [log["iteration"] for log in logs],
        "training_s": [log["total_seconds"] for log in logs],
        "training_memory_gb": max(log["peak_memory_gb"] for log in logs),
    }
    store = Store(source.store(changed.store))
    cases = sorted(
        read_splits(source.recipe_splits(recipe))[int(options.folds[0])].val,
        key=lambda case: (math.prod(store.record(case).grid.shape), case),
    )
    model = run.fold(options.folds[0]).model_final
    cost = measure_cost(CaseToPredict((model,), store.folder, cases[len(cases) // 2], options.device, mirroring=False))
    write_json(done, row | {"cost": cost.model_dump()})


def _link_references(run: RunFolder, raw: Path, links: Path, fold: str) -> Path:
    """Make a folder of links to the true segmentations of the validation cases of a fold."""
    chosen = links / fold
    chosen.mkdir(parents=True, exist_ok=True)
    references = {case.name: case.label for case in read_dataset(raw).cases}
    for case in read_splits(run.splits)[int(fold)].val:
        path = references[case]
        assert path is not None, "training cases have labels"
        if not (chosen / path.name).exists():
            (chosen / path.name).symlink_to(path.resolve())
    return chosen


def _measure(
    measures: Mapping[str, Callable[[Segmentations], float | None]], places: Sequence[tuple[Path, Path]]
) -> dict[str, list[float | None]]:
    """Measure every validation case, in the order of the summaries; files are read once, and only if need be.

    Args:
        measures: Of a case, by name.
        places: Folders of true and predicted segmentations, for each fold.
    """
    found: dict[str, list[float | None]] = {name: [] for name in measures}
    for truth, predicted in places if measures else ():
        labels = find_labels(truth, predicted)
        for pair in find_pairs(truth, predicted):
            case = read_pair(labels, pair)
            for name, measure in measures.items():
                found[name].append(measure(case))
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _read_last_line(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {**lines[-1], "peak_memory_gb": max(line["peak_memory_gb"] for line in lines)}
