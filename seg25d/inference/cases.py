"""Prediction of files: while one case is computed, the next one is read and the last one written."""

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import Windows
from seg25d.core.backend import num_threads
from seg25d.core.errors import ResourceError, Seg25dError
from seg25d.core.progress import track
from seg25d.core.records import Record
from seg25d.core.system_errors import refusal
from seg25d.core.temporary_arrays import large_arrays_in
from seg25d.core.types import IntArray, Spacing
from seg25d.data.cases import Case, is_picture
from seg25d.data.description import DatasetDescription
from seg25d.data.grid_problems import form_conflict
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_spacing import spacing_note
from seg25d.data.labels import Labels
from seg25d.evaluation.predicted_dice import Calibration, Sums
from seg25d.inference.dicom_output import (
    NO_SEGMENTATIONS,
    SegmentationChoice,
    Segmentations,
    plan_segmentations,
    segmentation_path,
)
from seg25d.inference.prediction_files import (
    RECORD_NAME,
    Earlier,
    GrowingRecord,
    PredictionRecord,
    begin_record,
    find_earlier,
    report_failures,
    tell_unsure,
    uncertainty_path,
)
from seg25d.inference.probability_files import write_probabilities
from seg25d.inference.targets import check_targets
from seg25d.inference.uncertainty import Uncertainty

logger = logging.getLogger(__name__)
CASES_AHEAD = 2
"""Maximum number of cases that are read ahead, and that wait to be written, to limit the memory."""
SMALL_BYTES = 1 << 27
"""Of an image as a model takes it, of 128 x 512 x 512 voxels: while a CPU computes one with more, the next is not read,
as that takes up to two volumes more and saves 10 s of 300 (500 x 512 x 512 voxels, two cores). Beside a GPU, which has
the sums of scores in its own memory, there is room for it."""
WAITING_BYTES = 1 << 28
"""Of cases that are written or wait for it: one case may have more; while it is written the next one is
computed, but waits to be written."""


class CaseOptions(Record):
    """Options of the output of each case."""

    save_probabilities: bool = False
    """Also write `CASE.npz` with `probabilities` (K, z, y, x) in float32, and `CASE.pkl` for nnU-Net's tools."""
    overwrite: bool = False
    """Predict existing cases again."""
    uncertainty: bool = False
    """Also write `uncertainty/CASE.ENDING`, a map of the entropy, and the predicted Dice of each structure."""
    dicom_seg: SegmentationChoice = "auto"
    """Kind of `CASE.dcm`, which is written for DICOM series."""
    is_part: bool = False
    """Whether other processes predict other cases into the same folder: the record is then shared with them."""


class CaseModel(Protocol):
    """A model that segments images: a configuration or an ensemble."""

    def prepare(
        self, image: NDArray[Any], spacing_mm: Spacing, case: Case | None = None, *, overwrite: bool = False
    ) -> Any:
        """Preprocess an image (C, D, H, W) in canonical orientation for the model, in its place if that is allowed."""

    def segment(
        self, prepared: Any, uncertainty: Uncertainty | None = None, folder: Path | None = None
    ) -> NDArray[np.uint8]:
        """Predict internal indices (D, H, W) of a prepared image; what is too large for memory lies in `folder`."""

    def segment_with_probabilities(
        self, prepared: Any, folder: Path, uncertainty: Uncertainty | None = None
    ) -> AbstractContextManager[tuple[NDArray[np.uint8], Windows]]:
        """Like `segment`, with probabilities (K, D, H, W) that can be read until the block ends."""

    @property
    def on_cpu(self) -> bool:
        """Whether it computes in the memory that images take which are read ahead."""


class Meaning(NamedTuple):
    """Meaning of a model's input and output."""

    description: DatasetDescription
    threshold: float | None

    @property
    def labels(self) -> Labels:
        """The labels of the data set."""
        return self.description.labels


class _Read(NamedTuple):
    prepared: Any
    geometry: Geometry
    seconds: float
    num_bytes: int
    """Of the image, as it was read or prepared, whichever is more."""


class _Result(NamedTuple):
    labels: IntArray
    probabilities: Windows | None
    uncertainty: Uncertainty | None
    geometry: Geometry
    seconds: float
    """Of reading and computing."""
    opened: ExitStack
    """What has to be closed when it is written."""

    @property
    def num_bytes(self) -> int:
        """Of its arrays, also those on disk."""
        probabilities = 0 if self.probabilities is None else 4 * math.prod(self.probabilities.shape)
        uncertain = self.uncertainty.map if self.uncertainty else None
        return self.labels.nbytes + probabilities + (0 if uncertain is None else uncertain.nbytes)


class _Writing(NamedTuple):
    case: Case
    done: "Future[Done]"
    num_bytes: int


class Done(NamedTuple):
    """What is left to say of a case whose files are written."""

    seconds: float
    """To read, compute and write it."""
    sums: Mapping[str, Sums] | None = None
    """Of its probabilities, where that was asked for."""


Outcome: TypeAlias = tuple[Case, Done | Exception]
"""A case that is done, or the error with which it failed."""
Outcomes: TypeAlias = Callable[["Work", Callable[[], None]], Iterator[Outcome]]
"""Function that predicts and writes cases and yields outcomes; calls its second argument before it writes files."""


class Work(NamedTuple):
    """The cases to predict."""

    cases: Iterable[Case]
    targets: Mapping[str, Path]
    """The output file of each case."""
    options: CaseOptions
    labels: Labels
    segmentations: Segmentations = NO_SEGMENTATIONS


def predict_cases(
    outcomes: Outcomes,
    meaning: Meaning,
    cases: Sequence[Case],
    out: Path,
    options: CaseOptions,
    record: PredictionRecord,
    calibration: Calibration | None = None,
) -> None:
    """Segment cases and write `CASE.ENDING` for each, with the geometry of its image, and `prediction.json`.

    DICOM series also get `CASE.dcm`, a DICOM segmentation. Existing cases are skipped. A case that fails does not stop
    the others.

    Args:
        outcomes: Predicts the cases: `partial(outcomes_here, model)`, or `device_pool.outcomes_on_devices`.
        meaning: Meaning of the model's input and output.
        cases: The cases to predict.
        out: Folder for the results; created when the first one is written.
        options: Options of the output.
        record: Content of `prediction.json`; the meaning of the labels, the seconds and the predicted Dice are added.
        calibration: How the Dice is predicted, where `options.uncertainty` asks for it; None: it is not.

    Raises:
        InputError: If there are no cases, an image would be overwritten, the folder holds predictions of another model
            or program (unless `overwrite` is set), DICOM segmentations cannot be written as asked for, or no case can
            be used; nothing is written then.
        ResourceError: If a case failed because the disk is full or the like; the cases before it are written.
        CaseFailures: If some cases failed otherwise; all others are written.
    """
    path = out / RECORD_NAME
    work, earlier = find_work(meaning, cases, out, options, record, with_dice=calibration is not None)
    again = {case.name for case in work.cases}
    tell_done(len(cases) - len(again), len(cases))
    dice = {name: each for name, each in earlier.predicted_dice.items() if name not in again}
    meant = {"labels": meaning.labels, "threshold": meaning.threshold}
    record = record.model_copy(update={"seconds": earlier.seconds, "predicted_dice": dice} | meant)
    failures: dict[str, Exception] = {}
    growing = GrowingRecord(record, path, is_part=options.is_part)
    results = outcomes(work, partial(begin_record, record, path))
    try:
        for case, result in track(results, len(again), "predicting"):
            if isinstance(result, Exception):
                if isinstance(result, ResourceError):
                    raise result  # no other case could be written, either
                failures[case.name] = result
                # The message is repeated at the end, the traceback is not.
                expected = isinstance(result, Seg25dError)
                level = logging.INFO if expected else logging.ERROR
                logger.log(level, "%s failed: %s", case.name, result, exc_info=None if expected else result)
                # The frames of the traceback keep the images and scores of the case in memory.
                result.__traceback__ = None
            else:
                growing.add(case.name, result.seconds, _predicted_dice(calibration, result.sums))
    finally:
        growing.write()
    if calibration is not None:
        tell_unsure(calibration, growing.record, meaning.labels, [case.name for case in cases])
    report_failures(failures, len(cases))


def find_work(
    meaning: Meaning,
    cases: Sequence[Case],
    out: Path,
    options: CaseOptions,
    record: PredictionRecord,
    *,
    with_dice: bool,
) -> tuple[Work, Earlier]:
    """Find which cases are still to be predicted, and which files they get.

    Args:
        meaning: Meaning of the model's input and output.
        cases: All cases.
        out: Folder for the results.
        options: Options of the output.
        record: Says what the model is.
        with_dice: Whether cases also need a predicted Dice.

    Returns:
        The work that is left, whose `targets` are those of all cases, and what earlier calls did.

    Raises:
        InputError: As `predict_cases` raises it before anything is written.
    """
    targets = check_targets(meaning.description, cases, out)
    segmentations = plan_segmentations(options.dicom_seg, cases, out, meaning.description, record.model)
    beside = {name: [segmentation_path(targets[name])] for name in segmentations.cases}
    if options.uncertainty:
        for name, target in targets.items():
            beside.setdefault(name, []).append(uncertainty_path(target))
    probabilities = options.save_probabilities
    earlier = find_earlier(
        record, out / RECORD_NAME, targets, overwrite=options.overwrite, probabilities=probabilities, beside=beside
    )
    done = earlier.done & earlier.predicted_dice.keys() if with_dice else earlier.done
    todo = [case for case in cases if case.name not in done]
    return Work(todo, targets, options, meaning.labels, segmentations), earlier


def tell_done(num_done: int, num_cases: int) -> None:
    """Say how many cases are there, if there are any."""
    if num_done:
        logger.info("%d of %d cases are predicted already", num_done, num_cases)


def _predicted_dice(calibration: Calibration | None, sums: Mapping[str, Sums] | None) -> dict[str, float | None] | None:
    return None if calibration is None or sums is None else calibration.predict(sums)


def outcomes_here(model: CaseModel, work: Work, begin: Callable[[], None]) -> Iterator[Outcome]:
    """Predict in this process, reading the next case and writing the last one meanwhile; see `Outcomes`."""
    begun = False
    writing: deque[_Writing] = deque()
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        try:
            for case, reading in _read_ahead(reader, model, work.cases):
                try:
                    result = _compute(model, reading, work, work.targets[case.name].parent)
                except Exception as error:
                    yield case, refusal(error) or error
                    continue
                finally:
                    del reading  # and with it the image, before the next one is read
                if not begun:
                    begin()
                    begun = True
                write = writer.submit(_write, work.targets[case.name], result, case, work.segmentations)
                writing.append(_Writing(case, write, result.num_bytes))
                del result
                # What is written is noted soon: if this process is lost, it is not done again.
                while writing and (_is_long(writing) or writing[0].done.done()):
                    yield _wait_for_outcome(writing.popleft())
            while writing:
                yield _wait_for_outcome(writing.popleft())
        finally:
            reader.shutdown(wait=False, cancel_futures=True)


def _is_long(writing: Sequence[_Writing]) -> bool:
    """Whether the next case has to wait until the first of these is written."""
    too_much = len(writing) > 1 and sum(each.num_bytes for each in writing) > WAITING_BYTES
    return len(writing) > CASES_AHEAD or too_much


def _read_ahead(
    reader: ThreadPoolExecutor, model: CaseModel, cases: Iterable[Case]
) -> Iterator[tuple[Case, Future[_Read]]]:
    """The cases as they are read; while one is computed, the next one is read if there is room for it."""
    reading: deque[tuple[Case, Future[_Read]]] = deque()
    for case in cases:
        if reading and not _leaves_room(model, reading[0][1]):
            yield reading.popleft()
        reading.append((case, reader.submit(_read, model, case)))
        if len(reading) >= CASES_AHEAD:
            yield reading.popleft()
    yield from reading


def _leaves_room(model: CaseModel, reading: Future[_Read]) -> bool:
    """Whether the next image may be read while a model computes this one; on a CPU it waits for this one's size."""
    return not model.on_cpu or reading.exception() is not None or reading.result().num_bytes <= SMALL_BYTES


def _read(model: CaseModel, case: Case) -> _Read:
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - loads SimpleITK

    started = time.perf_counter()
    image, geometry = read_image(case.images)
    if conflict := form_conflict(geometry):
        logger.warning("%s: %s", case.images[0], conflict)
    if note := spacing_note(case.images[0], geometry.shape[0]):
        logger.warning("%s: %s", case.name, note)
    prepared = model.prepare(image, geometry.canonical_spacing_mm, case, overwrite=True)
    num_bytes = max(image.nbytes, prepared.nbytes)
    return _Read(prepared, geometry, time.perf_counter() - started, num_bytes)


def _compute(model: CaseModel, reading: Future[_Read], work: Work, folder: Path) -> _Result:
    read, started = reading.result(), time.perf_counter()
    uncertainty = Uncertainty(work.labels, with_map=True) if work.options.uncertainty else None
    with large_arrays_in(folder), ExitStack() as stack:
        probabilities = None
        if work.options.save_probabilities:
            entered = model.segment_with_probabilities(read.prepared, folder, uncertainty)
            indices, probabilities = stack.enter_context(entered)
        else:
            indices = model.segment(read.prepared, uncertainty, folder)
        labels = work.labels.decode(indices)
        seconds = read.seconds + time.perf_counter() - started
        return _Result(labels, probabilities, uncertainty, read.geometry, seconds, stack.pop_all())


def _write(target: Path, result: _Result, case: Case, segmentations: Segmentations) -> Done:
    """Write the results of a case, its labels last to mark it as done."""
    from seg25d.data.image_io import write_channel, write_labels  # noqa: PLC0415 - loads SimpleITK

    started = time.perf_counter()
    with result.opened:
        if result.probabilities is not None:
            write_probabilities(target, result.probabilities, result.geometry, num_threads())
    sums = None
    if result.uncertainty is not None:
        path, sums = uncertainty_path(target), result.uncertainty.sums
        write_channel(path, result.uncertainty.finished_map(grey=is_picture(path)), result.geometry)
    elif uncertainty_path(target).exists():
        logger.warning("%s is of an earlier prediction, and says something else now", uncertainty_path(target))
    if case.name in segmentations.cases:
        from seg25d.data.dicom_segmentation import write_segmentation  # noqa: PLC0415 - only DICOM needs it

        path = segmentation_path(target)
        write_segmentation(path, result.labels, result.geometry, case.images[0], segmentations.contents)
    elif case.images[0].is_dir() and segmentation_path(target).exists():
        logger.warning("%s is of an earlier prediction, and says something else now", segmentation_path(target))
    write_labels(target, result.labels, result.geometry)
    return Done(result.seconds + time.perf_counter() - started, sums)


def _wait_for_outcome(write: _Writing) -> Outcome:
    try:
        return write.case, write.done.result()
    except Exception as error:
        return write.case, refusal(error) or error
