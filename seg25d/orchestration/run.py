"""From a data set to the best model and its page, in one call that goes on where it was cut off."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from seg25d.core.errors import InputError, RecordError, TaskFailures
from seg25d.core.locks import file_lock, patience
from seg25d.core.progress import format_seconds
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.splits import read_splits, splits_files
from seg25d.evaluation.tables import text_table
from seg25d.orchestration.budget import spend
from seg25d.orchestration.comparisons import LOOKING_SHARE
from seg25d.orchestration.engines import make_engine
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.options import RunOptions
from seg25d.orchestration.perform import PATIENCE_SECONDS
from seg25d.orchestration.spending import LEAST_SECONDS, RESERVE_SECONDS, Budget
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import Task, in_order
from seg25d.orchestration.training_graph import CHOOSE, REPORT, TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun, wanted_runs
from seg25d.planning.plans_name import RUN_VARIANTS
from seg25d.planning.search import update_seconds
from seg25d.planning.splits import NUM_FOLDS
from seg25d.runs.files import check_run
from seg25d.runs.names import parse_folds
from seg25d.runs.task_records import RunRecord, run_record, tasks_folder
from seg25d.runs.trained import best_command, prediction_command
from seg25d.views.training_times import timed_trainings
from seg25d.workflows.machine_limits import plans_for_cpus
from seg25d.workflows.options import PlanningOptions
from seg25d.workflows.preparation import prepare_datasets

logger = logging.getLogger(__name__)
STARTS_WITH = ("configurations", "folds", "epochs", "iterations", "time_budget_s", "seed", "pretext", "gpu_memory_gb")
"""Options with others of which a run is another one, whose time begins anew."""


def run_dataset(workspace: Workspace, identifier: str, options: RunOptions) -> RunRecord:
    """Verify, plan, preprocess, train, choose and report.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        options: What is run, how long, and on what.

    Returns:
        What was done, as in `run.json`.

    Raises:
        InputError: If an argument, the data set, or what is to run the tasks is at fault; raised before anything is
            trained.
        BusyError: If another process runs this data set.
        TaskFailures: If tasks failed; all that do not need them are done.
    """
    name = workspace.dataset_name(identifier)
    path = run_record(workspace, name)
    with file_lock(path, "seg25d run"), ExitStack() as closed:
        journal = Journal(path, _record(path, name, options))
        with patience(PATIENCE_SECONDS):  # another command may plan it now
            graph, runs = _planned_graph(workspace, name, options)
        engine = make_engine(options.on, options.num_tasks, options.device, options.num_processes, options.slurm)
        closed.callback(engine.stop)
        folder = tasks_folder(workspace, name)
        table = closed.enter_context(closing(Table(journal, folder)))
        executor = Executor(engine, journal, table, folder, workspace.environment())
        if options.time_budget_s is None:
            tasks = [graph.preprocessing(), *_all_trainings(graph, runs)]
            _announce(executor, graph, tasks)
            outcomes = executor.run(tasks)
            complete = [each for each in runs if outcomes[graph.last_of(each)].is_done]
        else:
            budget = Budget(options.time_budget_s, graph, executor)
            _announce(executor, graph, [graph.preprocessing(), *budget.first_trainings(runs)], budget)
            graph, complete = spend(budget, runs)
        if complete:
            executor.run(graph.choice(complete))
        return _end(workspace, graph, executor, complete)


def _planned_graph(workspace: Workspace, name: str, options: RunOptions) -> tuple[TrainingGraph, list[WantedRun]]:
    """Verify and plan the data set, in this process: what there is to do follows from the plans.

    Raises:
        InputError: If an argument or the data set is at fault, or what is trained has another plan.
    """
    if "," in (options.device or ""):
        raise InputError(
            f"--device {options.device}: expected one device, or none: tasks share out the GPUs by themselves, as many "
            "at a time as --tasks says"
        )
    words = options.configurations
    folder = workspace.preprocessed_dataset(name)
    share, is_new = _share_of_training(workspace, name, options), not folder.plans().exists()
    planning = PlanningOptions(
        configurations=None if words is None else tuple(dict.fromkeys(map(_without_variants, words))),
        gpu_memory_gb=options.gpu_memory_gb or "auto",
        cpu_gflops="auto" if options.on == "local" else None,  # the machines of a cluster are others
        time_budget_s=share if is_new else None,  # plans that are there are kept
        device=options.device,
        num_processes=options.num_processes,
        plan_only=True,
    )
    plans = prepare_datasets(workspace, [name], planning)[name]
    if share is not None and plans.cpu_gflops and update_seconds(plans.time_budget_s) != update_seconds(share):
        logger.info(
            "%s: as planned before; `seg25d plan_and_preprocess -d %s --time-budget %.0fs` plans for about what each "
            "training gets now, anew",
            *(name, name, share),
        )
    splits = read_splits(folder.splits)
    runs = wanted_runs(plans, words, options.pretext)
    graph = TrainingGraph(
        workspace=workspace,
        plans=plans,
        splits=splits,
        folds=tuple(parse_folds(options.folds, len(splits))),
        options=options.training,
        device=options.device,
        num_processes=options.num_processes,
        pretext=options.pretext,
    )
    needed = {task.words[2] for run in runs for task in graph.trainings(run) if task.words[0] == "train"}
    for each in sorted(needed):  # records of tasks do not know that it changed
        check_run(graph.run_folder(WantedRun(each)), folder, plans, each, ())
    configurations = {each: plan for each, plan in plans.configurations.items() if each in needed}
    times = {}
    try:
        times = timed_trainings(
            folder,
            plans.model_copy(update={"configurations": configurations}),
            options.device,
            options.num_processes,
            only_known=options.on != "local",  # the machines of a cluster are others
        )
    except InputError as error:
        if options.on == "local":
            raise
        logger.warning("no times are told: %s", error)  # the cluster may have the device that is not here
    updates = {each: time.seconds_per_update for each, time in times.items()}
    return replace(graph, seconds_per_update=updates, configurations=tuple(sorted(needed))), runs


def _share_of_training(workspace: Workspace, name: str, options: RunOptions) -> float | None:
    """About the seconds that each fold of the best configuration gets, for plans; None: there is no time to share.

    The folds of data sets that have none of their own are not made yet: `cv` then stands for the usual number of them.
    Without plans for the CPUs of this machine the time bounds nothing, so that there is nothing to plan for.
    """
    if options.time_budget_s is None or options.on != "local":
        return None
    if not plans_for_cpus(options.gpu_memory_gb or "auto", options.device):
        return None
    num_folds = NUM_FOLDS
    if given := splits_files(workspace.raw_dataset(name), workspace.splits_folders(name)):
        with suppress(RecordError):  # verification says it, with all that is wrong
            num_folds = len(read_splits(given[0]))
    words = set(options.folds)
    num_trainings = len(words - {"cv"}) if "cv" not in words else num_folds + ("all" in words)
    left = (1 - LOOKING_SHARE) * (options.time_budget_s - RESERVE_SECONDS)
    return max(LEAST_SECONDS, left / max(1, num_trainings))


def _without_variants(word: str) -> str:
    return "__".join(part for part in word.split("__") if part not in RUN_VARIANTS)


def _record(path: Path, name: str, options: RunOptions) -> RunRecord:
    """The record to go on with: that of an earlier call with the same options, else a new one."""
    arguments: dict[str, Any] = options.model_dump(mode="json", include=set(STARTS_WITH))
    new = RunRecord(dataset_name=name, arguments=arguments, on=options.on)
    if not path.exists():
        return new
    try:
        earlier = read_record(path, RunRecord)
    except RecordError as error:
        logger.warning("%s; the run begins a new record, and keeps what is trained", error)
        return new
    if earlier.arguments != arguments:
        return new
    return earlier.model_copy(update={"on": options.on, "predict": "", "report": ""})


def _all_trainings(graph: TrainingGraph, runs: Sequence[WantedRun]) -> list[Task]:
    """The trainings of all runs with their cross-validation, each once.

    A fold that is a run's own and that others need, too, is trained as its own: it keeps what the choice needs.
    """
    tasks: dict[str, Task] = {}
    for run in sorted(runs, key=lambda each: -graph.num_models(each, graph.folds[0])):
        trainings = graph.trainings(run)
        tasks |= {task.name: task for task in trainings}
        own = graph.cross_validation(run, trainings)
        tasks[own.name] = own
    return list(tasks.values())


def _announce(
    executor: Executor[RunRecord], graph: TrainingGraph, tasks: Sequence[Task], budget: Budget | None = None
) -> None:
    """Show the graph: what will be done, how long it takes, and with how much memory; what is done already, too."""
    engine, rows, known = executor.engine, [], []
    for task in in_order(tasks):
        needs = ", ".join(task.needs[:3]) + (f" and {len(task.needs) - 3} more" if len(task.needs) > 3 else "")
        time = "-"
        if budget is None and executor.was_done(task):
            time = "done"
        elif budget is None and task.expected_seconds is not None:
            known.append(task.expected_seconds)
            time = format_seconds(task.expected_seconds)
        rows.append([task.name, needs or "-", time, f"{task.memory_bytes / 1e9:.1f} GB" if task.memory_bytes else "-"])
    rows += [] if budget is None else [["folds of the best", "all of these", "-", "-"]]
    if graph.has_validation:
        rows += [["choose", "all of these" if budget is None else "folds of the best", "-", "-"]]
    rows += [["report", "choose" if graph.has_validation else "all of these", "-", "-"]]
    logger.info("%s\n%s", graph.dataset_name, text_table(["task", "needs", "time", "memory"], rows))
    if budget is None:
        total = format_seconds(sum(known) / min(engine.places, max(1, len(known))))
        told = f"about {total} of training in all, predictions and scores of whole cases aside"
    else:
        told = (
            f"{format_seconds(budget.seconds)} for everything: comparisons on fold {budget.fold} take about "
            f"{LOOKING_SHARE:.0%} of it, the folds of the best get the rest"
        )
    places = "one task" if engine.places == 1 else f"{engine.places} tasks"
    logger.info("%s: %s; %s at a time (%s)", graph.dataset_name, told, places, engine.name)


def _end(
    workspace: Workspace, graph: TrainingGraph, executor: Executor[RunRecord], complete: Sequence[WantedRun]
) -> RunRecord:
    """Note and tell how to predict and where the page is.

    Raises:
        TaskFailures: If tasks failed.
    """
    journal, name = executor.journal, graph.dataset_name
    predict, report = "", ""
    if executor.is_done(CHOOSE):
        predict = best_command(workspace, name)
    elif complete and not graph.has_validation:
        predict = prediction_command(workspace, name, graph.run_folder(complete[0]), ["all"])
    if executor.is_done(REPORT):
        report = str(workspace.report(name))
    journal.write(predict=predict, report=report)
    failures = {line.name: line.message for line in journal.lines.values() if line.state in ("failed", "left out")}
    if failures:
        raise TaskFailures(failures)
    return journal.record
