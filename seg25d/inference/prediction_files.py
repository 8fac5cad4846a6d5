"""The record of a folder of predictions, `prediction.json`, and what it says of the cases that are there."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from seg25d.core.errors import CaseFailures, InputError, RecordError
from seg25d.core.files import check_writable
from seg25d.core.locks import file_lock, folder_lock, reading_lock
from seg25d.core.progress import SHARE_OF_WRITES
from seg25d.core.records import Record, read_record, write_record
from seg25d.core.versions import library_versions
from seg25d.data.labels import Labels
from seg25d.data.problems import MAX_LISTED
from seg25d.evaluation.predicted_dice import Calibration, mean_dice
from seg25d.inference.probability_files import probabilities_path

logger = logging.getLogger(__name__)
RECORD_NAME = "prediction.json"
PATIENCE_SECONDS = 120.0
"""How long to wait for other parts of a prediction that add a case to the record, which takes a moment; on a shared
disk a lost machine may hold it for 90 s (`orchestration/perform.py`)."""


class PredictionRecord(Record):
    """Record of how the segmentations in a folder were made: `prediction.json`."""

    schema_version: Literal[1] = 1
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the last call."""
    versions: dict[str, str] = Field(default_factory=library_versions)
    model: dict[str, Any]
    """Data set, configuration and model files, to distinguish predictions of different models."""
    labels: Labels | None = None
    """Meaning of the segmentations' values and the probabilities' channels; null if it is not known."""
    threshold: float | None = None
    """Lowest probability of foreground voxels, see `Labels.from_probabilities`; null: the most probable class."""
    seconds: dict[str, float | None] = Field(default_factory=dict)
    """Seconds to read, compute and write each case; null if the command was interrupted before they were recorded."""
    predicted_dice: dict[str, dict[str, float | None]] = Field(default_factory=dict)
    """What the Dice of each structure is predicted to be, by case; null where there is nothing to predict."""

    def with_case(
        self, case: str, seconds: float, predicted: Mapping[str, float | None] | None = None
    ) -> "PredictionRecord":
        """This record and one more case, or the same case once more."""
        dice = {name: each for name, each in self.predicted_dice.items() if name != case}
        if predicted is not None:
            dice[case] = dict(predicted)
        seconds_of = self.seconds | {case: round(seconds, 3)}
        return self.model_copy(update={"seconds": seconds_of, "predicted_dice": dice})

    def same_model(self, other: "PredictionRecord") -> bool:
        """Whether both records are of the same model, also if one was read from a file (where tuples are lists)."""
        return bool(self.model_dump(mode="json")["model"] == other.model_dump(mode="json")["model"])


class Earlier(NamedTuple):
    """What earlier calls predicted with the same model."""

    seconds: dict[str, float | None]
    """Of their cases, some of which may lack files."""
    done: frozenset[str]
    """Cases that are not predicted again."""
    predicted_dice: dict[str, dict[str, float | None]]


def find_earlier(
    record: PredictionRecord,
    path: Path,
    targets: Mapping[str, Path],
    *,
    overwrite: bool,
    probabilities: bool,
    beside: Mapping[str, Sequence[Path]] | None = None,
) -> Earlier:
    """Find the cases that earlier calls predicted with the same model.

    Files of others may be of another model, whose predictions were being overwritten when a call was interrupted.

    Args:
        record: The record of this call.
        path: The `prediction.json`, which need not exist.
        targets: The file of each case, which need not exist.
        overwrite: Whether predictions of another model may be overwritten; then all cases are predicted again.
        probabilities: Whether cases need the files of `probabilities_writer`, too.
        beside: Further files of some of the cases.

    Raises:
        InputError: If the folder holds predictions of another model or of another program and is not to be overwritten.
    """
    beside = beside or {}
    files = [*targets.items(), *((name, file) for name, further in beside.items() for file in further)]
    there = next((name for name, file in files if file.exists()), None)
    foreign = there is not None and not overwrite
    if not path.exists():
        if foreign:
            raise InputError(
                f"{path.parent} holds {there} and no prediction.json: it was not predicted here; "
                "choose another folder or --overwrite"
            )
        return Earlier({}, frozenset(), {})
    try:
        earlier = read_record(path, PredictionRecord)
    except RecordError as error:
        if foreign:
            raise InputError(f"{error}\n{path.parent} holds {there}; choose another folder or --overwrite") from None
        logger.warning("%s; writing it again, with all cases", error)
        return Earlier({}, frozenset(), {})
    if not earlier.same_model(record):
        if not overwrite:
            raise InputError(f"{path.parent} holds predictions of another model; choose another folder or --overwrite")
        return Earlier({}, frozenset(), {})
    whole = (name for name in earlier.seconds if name in targets and _is_written(targets[name], probabilities))
    done = (name for name in whole if all(file.exists() for file in beside.get(name, ())))
    return Earlier(earlier.seconds, frozenset(() if overwrite else done), earlier.predicted_dice)


def labels_of_predictions(folder: Path) -> Labels | None:
    """Read the meaning of the segmentations in a folder from its record; None where there is none that can be read."""
    record = _record_of(folder)
    return record.labels if record else None


def predicted_dice_of(folder: Path) -> dict[str, dict[str, float | None]]:
    """Read the predicted Dice of segmentations by case and name of the structure, from the record of their folder."""
    record = _record_of(folder)
    if record is None or record.labels is None:
        return {}
    name_of = record.labels.name_of
    return {case: {name_of(key): dice for key, dice in each.items()} for case, each in record.predicted_dice.items()}


def _record_of(folder: Path) -> PredictionRecord | None:
    if (folder / RECORD_NAME).exists():
        with suppress(RecordError):
            return read_record(folder / RECORD_NAME, PredictionRecord)
    return None


def begin_record(record: PredictionRecord, path: Path) -> None:
    """Write the record unless there is one of the same model; called before the first case is written.

    Several processes may do so at the same time: the first one writes it, and what others have added since stays.
    """
    with file_lock(path, "beginning the record", patience_seconds=PATIENCE_SECONDS):
        try:
            if path.exists() and read_record(path, PredictionRecord).same_model(record):
                return
        except RecordError:
            pass  # `find_earlier` has warned of it
        write_record(path, record)


@contextmanager
def prediction_lock(out: Path, part_id: int, num_parts: int) -> Iterator[None]:
    """Hold a folder of predictions: alone, or, for one of several parts, beside the other parts.

    Raises:
        BusyError: If another process predicts into it, or the same part of it.
        InputError: If it cannot be written into, or there is no such part.
    """
    if part_id >= num_parts:
        raise InputError(f"part {part_id} of {num_parts}: expected a number from 0 to {num_parts - 1}")
    if num_parts == 1:
        with folder_lock(out, "predicting"):
            yield
        return
    with shared_folder(out), file_lock(out / f"part_{part_id}", "predicting this part"):
        yield


@contextmanager
def shared_folder(out: Path) -> Iterator[None]:
    """Hold a folder of predictions beside processes that predict parts of it; it goes again if nothing comes into it.

    Raises:
        BusyError: If a process predicts into it that is not one of several parts.
        InputError: If it cannot be written into.
    """
    is_new = not out.exists()
    check_writable(out)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with reading_lock(out, "predicting a part"):
            yield
    finally:
        if is_new:
            with suppress(OSError):  # not empty
                out.rmdir()


def add_to_record(
    record: PredictionRecord, path: Path, case: str, seconds: float, predicted: Mapping[str, float | None] | None = None
) -> PredictionRecord:
    """Write the record with a case more, beside those that other processes have added; returns what was written.

    Of cases, only this one is taken from this process: what it knows of others may be from before they did them again.
    """
    with file_lock(path, "adding a case", patience_seconds=PATIENCE_SECONDS):
        there = read_record(path, PredictionRecord)
        cases = {"seconds": there.seconds, "predicted_dice": there.predicted_dice}
        record = record.model_copy(update=cases).with_case(case, seconds, predicted)
        write_record(path, record)
    return record


class GrowingRecord:
    """The record of a call that predicts cases, written after each of them, or more rarely where that takes its time.

    With 10,000 cases it is a file of megabytes. A kill costs twenty times what writing takes, at most.

    Args:
        record: What is known before.
        path: The file.
        is_part: Whether other processes add other cases to it.
    """

    def __init__(self, record: PredictionRecord, path: Path, *, is_part: bool) -> None:
        self.record = self._written = record
        self.path, self.is_part = path, is_part
        self._next = 0.0

    def add(self, case: str, seconds: float, predicted: Mapping[str, float | None] | None) -> None:
        """Add a case whose files are written."""
        if self.is_part:
            self.record = self._written = add_to_record(self.record, self.path, case, seconds, predicted)
            return
        self.record = self.record.with_case(case, seconds, predicted)
        if time.monotonic() >= self._next:
            self.write()

    def write(self) -> None:
        """Write what is not written yet."""
        if self.record is self._written:
            return
        begun = time.monotonic()
        write_record(self.path, self.record)
        self._written, ended = self.record, time.monotonic()
        self._next = ended + (ended - begun) / SHARE_OF_WRITES


def _is_written(target: Path, probabilities: bool) -> bool:
    """Whether all files of a case are there: `CASE.ENDING`, and those of `probabilities_writer` if wanted."""
    path = probabilities_path(target)
    return all(file.exists() for file in ((target, path, path.with_suffix(".pkl")) if probabilities else (target,)))


def uncertainty_path(target: Path) -> Path:
    """The file of the map of uncertainty that belongs to a segmentation."""
    return target.parent / "uncertainty" / target.name


def tell_unsure(calibration: Calibration, record: PredictionRecord, labels: Labels, cases: Sequence[str]) -> None:
    """Say which cases are to be looked at, the worst first, and what their Dice is predicted to be."""
    known = {case: record.predicted_dice[case] for case in cases if case in record.predicted_dice}
    unsure = {case: mean_dice(dice) or 0.0 for case, dice in known.items() if calibration.marks(dice)}
    if not known:
        return
    if calibration.is_flat:
        logger.info("no case is marked: too few cases with truth for more than a mean of the predicted Dice")
        return
    logger.info(
        "%d of %d cases have a predicted Dice below %.2f, as a fifth of the cases in cross-validation%s",
        *(len(unsure), len(known), calibration.marked_below, "; look at these:" if unsure else ""),
    )
    for case in sorted(unsure, key=lambda case: (unsure[case], case))[:MAX_LISTED]:
        parts = [f"{labels.name_of(name)} {_two_digits(dice)}" for name, dice in known[case].items()]
        each = f" ({', '.join(parts)})" if 1 < len(parts) <= MAX_LISTED else ""
        logger.info("  %s: %.2f%s", case, unsure[case], each)
    if len(unsure) > MAX_LISTED:
        logger.info("  and %d more: see %s", len(unsure) - MAX_LISTED, RECORD_NAME)


def _two_digits(dice: float | None) -> str:
    return "-" if dice is None else f"{dice:.2f}"


def report_failures(failures: Mapping[str, Exception], num_cases: int, done: str = "predicted") -> None:
    """Raise one error for all failed cases; do nothing if there are none.

    Args:
        failures: The error per case.
        num_cases: Number of all cases, including existing ones.
        done: What was to be done with them, as a participle.

    Raises:
        InputError: If all cases failed, all because of their input.
        CaseFailures: If some failed, or for another reason.
    """
    if not failures:
        return
    messages = {case: str(error) or repr(error) for case, error in failures.items()}
    if len(failures) == num_cases and all(isinstance(error, InputError) for error in failures.values()):
        listed = "\n".join(f"  {case}: {message}" for case, message in messages.items())
        raise InputError(f"no case can be {done}:\n{listed}")
    raise CaseFailures(messages)
