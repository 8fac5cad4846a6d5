"""Shared code of the benchmarks of the papers' tables: contenders are trained in sequence, scored alike and compared.

A contender is a configuration, possibly with a changed plan. Each has its own folder in the workspace,
`benchmarks/TABLE/CONTENDER`, with links to the preprocessed arrays, so that the user's own runs are not changed.
Existing results are kept: the same command continues, and a table is written after every contender.
"""

import argparse
import json
import logging
import math
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.device import choose_execution, device_name
from seg25d.core.files import write_json, write_text
from seg25d.core.parallel import available_cores
from seg25d.core.records import parse_record, read_record, write_record
from seg25d.core.versions import library_versions
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_dataset, read_splits
from seg25d.evaluation.area_plot import AreaNumbers, area_plots
from seg25d.evaluation.summary import Summary
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.names import find_configuration, with_network
from seg25d.selection.cost import CaseToPredict, measure_cost

logger = logging.getLogger(__name__)
Row = dict[str, Any]
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


@dataclass(frozen=True)
class Table:
    """A reproduced table of a paper."""

    name: str
    """Name of its folder in the workspace."""
    title: str
    columns: Mapping[str, Callable[[Row], str]]
    """Headers, and functions that format the cells of a row."""
    notes: Sequence[str] = ()


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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--recipe", default="default", help="the data set must be planned with it (default: default)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every training")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="contenders to run; results of the others are kept")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    return parser


def compete(contenders: Sequence[Contender], table: Table, options: argparse.Namespace) -> list[Row]:
    """Train and score missing contenders, each in a separate process to measure its memory alone."""
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    known = {contender.name for contender in contenders}
    if unknown := set(options.only or ()) - known:
        raise SystemExit(f"error: no rows {', '.join(sorted(unknown))}; there are {', '.join(sorted(known))}")
    if len(options.only or known) > 1:
        for contender in contenders:
            if contender.name in (options.only or known):
                # A later --only overrides an earlier one.
                subprocess.run([sys.executable, *sys.argv, "--only", contender.name], check=True)
    rows: list[Row] = []
    for contender in contenders:
        place = workspace.preprocessed.parent / "benchmarks" / table.name / contender.name.replace(" ", "_")
        if options.only == [contender.name]:
            logger.info("%s: %s", table.name, contender.name)
            _run_contender(contender, workspace, name, place, options)
        path = place / "results" / name / "row.json"
        if path.exists():
            rows.append(json.loads(path.read_text(encoding="utf-8")))
            write_tables(table, rows, {"dataset": name, "settings": settings_of(options)}, options.output)
    return rows


def write_tables(table: Table, rows: Sequence[Row], facts: Mapping[str, Any], output: Path) -> None:
    """Write JSON and Markdown."""
    device = choose_execution(facts["settings"].get("device")).device
    machine = {
        "device": processor() if device.type == "cpu" else device_name(device),
        "cores": available_cores(),
        "versions": library_versions(),
    }
    write_json(output, {"title": table.title, **facts, "machine": machine, "rows": list(rows)})
    text = markdown_table(list(table.columns), [[cell(row) for cell in table.columns.values()] for row in rows])
    notes = "".join(f"\n{note}\n" for note in table.notes)
    write_text(output.with_suffix(".md"), f"{table.title}\n\n{text}\n{notes}")
    print(text, flush=True)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


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


def settings_of(options: argparse.Namespace) -> dict[str, str]:
    """The options as text, without paths."""
    apart = ("workspace", "output", "only", "nnunet")
    return {key: str(value) for key, value in vars(options).items() if key not in apart and value is not None}


def processor() -> str:
    """The name of the processor."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Format mean and standard deviation over cases."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    return f"{fmean(known):.{digits}f}" + (f" ± {stdev(known):.{digits}f}" if len(known) > 1 else "")


def of_paper(row: Row, *names: str) -> str:
    """Format the results of the paper."""
    return " / ".join(f"{row['paper'][name]:g}" for name in names) if set(names) <= set(row["paper"]) else "-"


def _run_contender(
    contender: Contender, workspace: Workspace, name: str, place: Path, options: argparse.Namespace
) -> None:
    """Train, predict, score and measure one contender, and write `row.json`."""
    own = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=place / "results")
    settings = dict(pair.split("=", 1) for pair in options.set)
    source = workspace.preprocessed_dataset(name)
    path = link_preprocessed(workspace, name, place, [source.plans(recipe=options.recipe).name])
    plans = read_record(source.plans(recipe=options.recipe), Plans)
    found, plan = find_configuration(plans, contender.configuration)
    changed = parse_record(contender.change(plan).model_dump(), ConfigurationPlan, contender.name)
    wanted = plans.model_copy(update={"configurations": {**plans.configurations, found: changed}})
    path /= source.plans(recipe=options.recipe).name
    if not path.exists() or read_record(path, Plans).configurations[found] != changed:
        write_record(path, wanted)
    training = api.TrainingOptions(
        seed=options.seed,
        recipe=options.recipe,
        network=contender.network,
        settings=settings,
        device=options.device,
        num_processes=options.num_processes,
        **length(options),
    )
    summaries = api.train(own, name, contender.configuration, options.folds, training)
    run = own.run(name, wanted.run_name(with_network(wanted, found, contender.network)))
    logs = [_read_last_line(run.fold(fold).log) for fold in options.folds]
    row: Row = {
        "name": contender.name,
        "settings": settings_of(options),
        "paper": dict(contender.paper),
        "scores": {score: _per_case(list(summaries.values()), score) for score in SCORES},
        "areas": _measure_areas(run, workspace.raw_dataset(name), place / "references" / name, options.folds),
        "iterations": [log["iteration"] for log in logs],
        "training_s": [log["total_seconds"] for log in logs],
        "training_memory_gb": max(log["peak_memory_gb"] for log in logs),
    }
    store = Store(source.store(changed.store))
    cases = sorted(
        read_splits(source.recipe_splits(options.recipe))[int(options.folds[0])].val,
        key=lambda case: (math.prod(store.record(case).grid.shape), case),
    )
    model = run.fold(options.folds[0]).model_final
    cost = measure_cost(CaseToPredict((model,), store.folder, cases[len(cases) // 2], options.device, mirroring=False))
    write_json(own.results / name / "row.json", row | {"cost": cost.model_dump()})


def _per_case(summaries: Sequence[Summary], score: str) -> list[float | None]:
    """The mean score of each validation case over its labels."""
    values = []
    for case in (case for summary in summaries for case in summary.per_case):
        known = [value for each in case.metrics.values() if (value := getattr(each, score)) is not None]
        values.append(fmean(known) if known else None)
    return values


def _measure_areas(run: RunFolder, raw: Path, links: Path, folds: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Mean measures of area plots over the validation cases, of the prediction and of the truth."""
    found: dict[str, list[AreaNumbers]] = {}
    references = {case.name: case.label for case in read_dataset(raw).cases}
    for fold, split in zip(folds, (read_splits(run.splits)[int(fold)] for fold in folds), strict=True):
        chosen = links / fold
        chosen.mkdir(parents=True, exist_ok=True)
        for case in split.val:
            path = references[case]
            assert path is not None, "training cases have labels"
            if not (chosen / path.name).exists():
                (chosen / path.name).symlink_to(path.resolve())
        plots = area_plots(chosen, {"prediction": run.fold(fold).validation})
        for name, numbers in plots.mean.items():
            found.setdefault(name, []).append(numbers)
    return {
        name: {
            number: fmean(known)
            if (known := [value for each in numbers if (value := getattr(each, number)) is not None])
            else None
            for number in AreaNumbers.model_fields
        }
        for name, numbers in found.items()
    }


def _read_last_line(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {**lines[-1], "peak_memory_gb": max(line["peak_memory_gb"] for line in lines)}
