"""Prediction of a cohort: parts of its cases are tasks, each a plain `predict` that skips what is there.

A part that is lost is done again, without the cases that it had written.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError, WorkerError
from seg25d.core.files import check_writable_file
from seg25d.core.locks import file_lock
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.cases import Case
from seg25d.data.inputs import find_inputs
from seg25d.evaluation.predicted_dice import Calibration
from seg25d.inference.cases import Meaning, find_work, tell_done
from seg25d.inference.prediction_files import (
    RECORD_NAME,
    PredictionRecord,
    report_failures,
    shared_folder,
    tell_unsure,
)
from seg25d.orchestration.engines import make_engine
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.options import CohortOptions
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import Outcome, Task
from seg25d.orchestration.training_graph import PROCESS_BYTES
from seg25d.planning.model_file import load_header
from seg25d.runs.task_records import TasksRecord
from seg25d.selection.chosen_model import ChosenModel
from seg25d.sharing.choice import is_portable, model_to_predict
from seg25d.workflows.measuring import measured_afterwards
from seg25d.workflows.options import PredictionOptions

logger = logging.getLogger(__name__)
TASKS = "tasks"
"""Folder in that of the predictions, for records and logs of parts: what reads segmentations looks at files only."""
PARTS_PER_PLACE = 4
"""Parts for each that runs at a time, so that one that is slow makes all wait for a quarter of its share at most. More
are not needed for lost ones: done again, they skip the cases that are there."""
CASES_PER_PART = 5
"""Fewest cases of a part where that leaves no place idle: loading program and model is paid once a part
(documentation/how_to/many_machines.md says what it takes)."""
FLAGS: Mapping[str, str] = {
    "save_probabilities": "--save-probabilities",
    "overwrite": "--overwrite",
    "uncertainty": "--uncertainty",
}
"""Options of `predict` that have no value, by their fields."""
VALUES: Mapping[str, str] = {
    "dataset": "-d",
    "configuration": "-c",
    "plans_name": "-p",
    "recipe": "--recipe",
    "checkpoint": "-chk",
    "step_size": "--step-size",
    "fusion": "--fusion",
    "device": "--device",
    "num_parts": "--num-parts",
    "part_id": "--part-id",
}
"""Those that have one."""


class _Cohort(NamedTuple):
    """What is predicted, and by which model."""

    cases: Sequence[Case]
    todo: frozenset[str]
    """Cases that are not there yet."""
    meaning: Meaning
    calibration: Calibration | None
    record: PredictionRecord
    memory_bytes: int
    """Of the process of a part, estimated."""


class Part(NamedTuple):
    """Every `num_parts`-th case."""

    task: Task
    cases: tuple[str, ...]
    """Those that are not there yet."""


def predict_cohort(workspace: Workspace, source: Path, out: Path, options: CohortOptions) -> None:
    """Segment images by several processes, as `api.predict` does by one.

    Args:
        workspace: The workspace.
        source: The images.
        out: Folder for the segmentations; `tasks/` in it gets records and logs of the parts.
        options: Model and other options, and what predicts the parts.

    Raises:
        InputError: If the options do not go together, or as `api.predict` raises it; nothing is predicted then, unless
            every part failed for its input.
        BusyError: If another process predicts into `out`.
        CaseFailures: If some cases failed; all others are written.
    """
    prediction = options.prediction
    _check_options(options)
    if prediction.statistics is not None:
        check_writable_file(prediction.statistics)
    with ExitStack() as closed:
        closed.enter_context(shared_folder(out))
        cohort = _find_cohort(workspace, source, out, prediction)
        closed.enter_context(measured_afterwards(prediction.statistics, cohort.cases, out, cohort.meaning))
        if cohort.todo:
            folder = out.absolute() / TASKS
            closed.enter_context(file_lock(folder / "all.json", "predicting a cohort"))
            outcomes = _run_parts(workspace, source, out, options, cohort)
            failures = _failures(outcomes, folder, _done(cohort, out, prediction))
        else:
            failures = {}
        if cohort.calibration is not None and (out / RECORD_NAME).exists():
            record = read_record(out / RECORD_NAME, PredictionRecord)
            tell_unsure(cohort.calibration, record, cohort.meaning.labels, [case.name for case in cohort.cases])
        report_failures(failures, len(cohort.cases))


def part_words(source: Path, out: Path, options: PredictionOptions) -> tuple[str, ...]:
    """The command that predicts with these options: what `cli/predict.py` makes the same options of.

    Args:
        source: The images.
        out: Folder for the segmentations.
        options: Model and other options. `statistics` is left out: a table is of all cases.

    Returns:
        The words, without `seg25d`; paths are absolute.
    """
    words = ["predict", "-i", str(source.absolute()), "-o", str(out.absolute())]
    if options.model is not None:
        words += ["-m", str(options.model.absolute())]
    if options.folds is not None:
        words += ["-f", *options.folds]
    if not options.mirroring:
        words.append("--disable-tta")
    if options.dicom_seg != "auto":
        words += ["--dicom-seg", options.dicom_seg]
    words += [flag for field, flag in FLAGS.items() if getattr(options, field)]
    for field, name in VALUES.items():
        if (value := getattr(options, field)) is not None:
            words += [name, str(value)]
    return tuple(words)


def number_of_parts(num_cases: int, places: int) -> int:
    """How many parts cases are divided into.

    Args:
        num_cases: Cases that are left to predict.
        places: Parts at a time.

    Returns:
        `PARTS_PER_PLACE` for each place, fewer where they would have less than `CASES_PER_PART` cases, but one for each
        place; never more than cases, and 2 at least, as one alone would not share its folder.
    """
    parts = max(places, min(PARTS_PER_PLACE * places, num_cases // CASES_PER_PART))
    return max(2, min(parts, num_cases))


def make_parts(
    names: Sequence[str], todo: frozenset[str], words: Mapping[int, tuple[str, ...]], memory_bytes: int = 0
) -> list[Part]:
    """The parts that have something to do.

    Args:
        names: All cases, in the order of `find_inputs`.
        todo: Those that are not there yet.
        words: The command of every part.
        memory_bytes: Of each part's process.
    """
    parts = []
    for number, command in words.items():
        own = tuple(name for name in names[number :: len(words)] if name in todo)
        if own:
            name = f"part_{number}_of_{len(words)}"
            # What is there is known from the predictions, not from records of earlier calls.
            parts.append(Part(Task(name=name, words=command, always=True, memory_bytes=memory_bytes), own))
    return parts


def failed_cases(log: Path, names: Sequence[str]) -> dict[str, str]:
    """What the last call whose messages are in a log said of cases that failed (see `report_failures`).

    Args:
        log: The file; it may be missing.
        names: The cases.

    Returns:
        The first line of each message.
    """
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    lines = text.rpartition("\n$ seg25d ")[2].splitlines()
    errors = next((lines[number:] for number, line in enumerate(lines) if line.startswith("error: ")), [])
    said = dict(line.strip().split(": ", 1) for line in errors if line.startswith("  ") and ": " in line)
    return {name: said[name] for name in names if name in said}


def _check_options(options: CohortOptions) -> None:
    """Make sure that the options of one process leave its parts and its device to the engine.

    Raises:
        InputError: If they do not.
    """
    prediction = options.prediction
    if (prediction.num_parts, prediction.part_id) != (1, 0):
        raise InputError(
            f"part {prediction.part_id} of {prediction.num_parts} cannot be predicted on {options.on}, which makes all "
            "parts: leave num_parts and part_id of the prediction out, CohortOptions.num_parts says how many"
        )
    if is_portable(prediction.model):
        raise InputError(
            f"{prediction.model} with --on {options.on}: graphs predict in calls of their own; share the cases with "
            "--num-parts N --part-id I, or take an archive that export_model wrote without --format"
        )
    if "," in (prediction.device or ""):
        raise InputError(
            f"--device {prediction.device} with --on {options.on}: expected one device, or none: parts share out the "
            "GPUs by themselves, as many at a time as --tasks says; for a process per device leave --on out"
        )


def _find_cohort(workspace: Workspace, source: Path, out: Path, options: PredictionOptions) -> _Cohort:
    """Find model and cases, with all that can be said before anything is predicted."""
    with model_to_predict(workspace, options, out) as model:
        meaning = model.meaning()
        cases = find_inputs(source, len(meaning.description.channel_names), meaning.description.file_ending)
        record = PredictionRecord(model=model.describe(options.predictor))
        calibration = model.calibration_for(options.predictor) if options.uncertainty else None
        work, _ = find_work(meaning, cases, out, options.cases, record, with_dice=calibration is not None)
        todo = frozenset(case.name for case in work.cases)
        tell_done(len(cases) - len(todo), len(cases))
        return _Cohort(cases, todo, meaning, calibration, record, _memory_bytes(model))


def _memory_bytes(model: ChosenModel) -> int:
    """Memory of a process that predicts: that of a training with the largest plan, which has the same windows."""
    plans = [load_header(member.models[0]).plan for member in model.members]
    return PROCESS_BYTES + round(max(plan.estimated_memory_gb for plan in plans) * 1e9)


def _run_parts(
    workspace: Workspace, source: Path, out: Path, options: CohortOptions, cohort: _Cohort
) -> list[tuple[Part, Outcome]]:
    """Predict all parts, and say how each ended."""
    folder = out.absolute() / TASKS
    with ExitStack() as closed:
        engine = make_engine(options.on, options.num_tasks, options.prediction.device, slurm=options.slurm)
        closed.callback(engine.stop)
        number = options.num_parts or number_of_parts(len(cohort.todo), engine.places)
        each = (options.prediction.model_copy(update={"num_parts": number, "part_id": part}) for part in range(number))
        words = {given.part_id: part_words(source, out, given) for given in each}
        parts = make_parts([case.name for case in cohort.cases], cohort.todo, words, cohort.memory_bytes)
        arguments = {"input": str(source)} | options.model_dump(mode="json")
        journal = Journal(folder / "all.json", TasksRecord(arguments=arguments, on=options.on))
        table = closed.enter_context(closing(Table(journal, folder)))
        share = math.ceil(len(cohort.todo) / len(parts))
        at_a_time = min(engine.places, len(parts))
        logger.info(
            *("%d cases in %d parts of up to %d, %d at a time (%s)", len(cohort.todo), len(parts), share, at_a_time),
            engine.name,
        )
        executor = Executor(engine, journal, table, folder, workspace.environment())
        outcomes = executor.run([part.task for part in parts])
    return [(part, outcomes[part.task.name]) for part in parts]


def _done(cohort: _Cohort, out: Path, options: PredictionOptions) -> frozenset[str]:
    """Cases that are known to be there, whatever became of their part; none that were to be overwritten."""
    if options.overwrite:
        return frozenset()
    with_dice = cohort.calibration is not None
    work, _ = find_work(cohort.meaning, cohort.cases, out, options.cases, cohort.record, with_dice=with_dice)
    return frozenset(case.name for case in cohort.cases) - {case.name for case in work.cases}


def _failures(outcomes: Sequence[tuple[Part, Outcome]], folder: Path, done: frozenset[str]) -> dict[str, Exception]:
    """The error of each case that failed: what its part said of it, or how the part ended.

    Raises:
        InputError: If every part failed for its input before it could predict.
    """
    failures: dict[str, Exception] = {}
    ended = {}
    for part, outcome in outcomes:
        if outcome.is_done:
            continue
        log = folder / f"{part.task.name}.log"
        kind = InputError if outcome.status == InputError.exit_status else WorkerError
        said = failed_cases(log, part.cases)
        if not said:
            ended[part.task.name] = f"{part.task.name} failed: {outcome.message} ({log})"
            said = {name: ended[part.task.name] for name in part.cases if name not in done}
        failures |= {name: kind(message) for name, message in said.items()}
    if failures and len(ended) == len(outcomes) and all(isinstance(error, InputError) for error in failures.values()):
        raise InputError("no part can be predicted:\n" + "\n".join(f"  {message}" for message in ended.values()))
    return failures
