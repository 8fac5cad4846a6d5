"""Fusion of folders of predictions, case by case, with worker processes; it can be resumed."""

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seg25d.core.errors import InputError, ResourceError, Seg25dError, WorkerError
from seg25d.core.locks import folder_lock, reading_lock
from seg25d.core.npz import BLOCK_BYTES
from seg25d.core.parallel import available_cores, choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import write_record
from seg25d.core.system_errors import refusal
from seg25d.core.types import IntArray
from seg25d.data.cases import split_ending
from seg25d.data.labels import NUM_INDICES, Labels
from seg25d.ensembling.fuse import majority_vote, mean_of_probabilities
from seg25d.ensembling.members import FusionCase, Members, find_members
from seg25d.ensembling.nonlocal_staple import nonlocal_staple, worker_bytes
from seg25d.ensembling.options import EnsembleOptions
from seg25d.ensembling.running_labels import RunningLabels
from seg25d.ensembling.weights import OverlapSums, fit_weights, overlap_sums
from seg25d.inference.prediction_files import (
    RECORD_NAME,
    PredictionRecord,
    begin_record,
    find_earlier,
    report_failures,
)
from seg25d.inference.probability_files import ProbabilityFile, probabilities_path, probabilities_writer

logger = logging.getLogger(__name__)
_BYTES_PER_FILE = 2 * BLOCK_BYTES
"""Of a file of probabilities that is read: planes as they are, and as the decompressor has them."""
_BYTES_PER_VOXEL = 16
"""The largest probability, the labels of the mean, as values and in canonical axes; or the truth and its mask."""


class _Task(NamedTuple):
    """Input of a worker that is the same for all cases."""

    options: EnsembleOptions
    weights: tuple[float, ...] | None
    out: Path
    record: PredictionRecord
    num_threads: int = 1
    """Of each worker, for compression."""


class _Failure(NamedTuple):
    """Reason why a case failed; not all errors can be pickled to pass them between processes."""

    message: str
    expected: bool
    """Whether the input is the cause."""


def ensemble_folders(folders: Sequence[Path], out: Path, options: EnsembleOptions | None = None) -> None:
    """Fuse the predictions of several folders and write `CASE.ENDING` for each case, and `prediction.json`.

    Existing cases are skipped. A case that fails does not stop the others.

    Args:
        folders: At least two folders of predictions, of seg25d or nnU-Net, with the same cases on the same grids.
        out: Folder for the results; created when the first one is written. Geometry and ending are those of the first
            folder's files.
        options: Options of the fusion.

    Raises:
        InputError: If options contradict each other, the folders do not fit (lists all problems), `out` holds other
            predictions, or no case can be used; nothing is written then.
        BusyError: If another process works on `out`, or writes into one of the folders.
        CaseFailures: If some cases failed; all others are written.
    """
    options = options or EnsembleOptions()
    options.check(len(folders))
    with folder_lock(out, "fusing"), ExitStack() as locks:
        for folder in folders:
            if folder.resolve() != out.resolve():
                locks.enter_context(reading_lock(folder, "fusing"))
        _fuse_folders(folders, out, options)


def _fuse_folders(folders: Sequence[Path], out: Path, options: EnsembleOptions) -> None:
    members = find_members(folders, out, options)
    weights = options.weights if options.fit_weights is None else _fit_weights(folders, members, options)
    record = _make_record(folders, members, options, weights)
    files = {case.name: _target(case, out) for case in members.cases}
    earlier = find_earlier(
        record, out / RECORD_NAME, files, overwrite=options.overwrite, probabilities=options.save_probabilities
    )
    todo = [case for case in members.cases if case.name not in earlier.done]
    if len(todo) < len(members.cases):
        logger.info("%d of %d cases are fused already", len(members.cases) - len(todo), len(members.cases))
    task = _Task(options, weights, out, record.model_copy(update={"seconds": earlier.seconds}))
    report_failures(_fuse_all(task, todo), len(members.cases), "fused")


def _fuse_all(task: _Task, cases: Sequence[FusionCase]) -> dict[str, Exception]:
    """Fuse cases and return the error of each case that failed."""
    failures: dict[str, Exception] = {}
    seconds = dict(task.record.seconds)
    workers = choose_num_workers(task.options.num_processes, _bytes_per_worker(cases, task), len(cases))
    task = task._replace(num_threads=max(1, available_cores() // max(1, workers)))
    outcomes = map_cases(partial(_fuse_case, task), cases, name=lambda case: case.name, num_workers=workers)
    for case, outcome in track(outcomes, len(cases), "fusing"):
        if isinstance(outcome, _Failure):
            failures[case.name] = (InputError if outcome.expected else WorkerError)(outcome.message)
            # The message is repeated at the end.
            logger.info("%s failed: %s", case.name, outcome.message)
        else:
            seconds[case.name] = round(outcome, 3)
            write_record(task.out / RECORD_NAME, task.record.model_copy(update={"seconds": seconds}))
    return failures


def _fuse_case(task: _Task, case: FusionCase) -> float | _Failure:
    """Fuse and write a case, its labels last to mark it as done; return the seconds, or why it failed."""
    from seg25d.data.image_io import write_labels  # noqa: PLC0415 - loads SimpleITK

    started = time.perf_counter()
    try:
        labels = _mean_labels(task, case) if task.options.method == "mean" else _fused_segmentations(task, case)
    except (OSError, ResourceError):
        raise  # a problem of the disk concerns all cases
    except Exception as error:
        logger.debug("%s failed", case.name, exc_info=True)
        told = refusal(error) or error
        return _Failure(str(told) or repr(told), isinstance(told, Seg25dError))
    begin_record(task.record, task.out / RECORD_NAME)
    write_labels(_target(case, task.out), labels, case.geometry)
    return time.perf_counter() - started


def _mean_labels(task: _Task, case: FusionCase) -> IntArray:
    """Compute the label values (D, H, W) of the mean of probabilities, which is written if it is asked for.

    Files are read, averaged and written some planes at a time, in their order.
    """
    labels = task.record.labels
    assert labels is not None, "the mean is only taken where labels are known"
    shape = (labels.num_outputs, *case.geometry.shape)
    chosen = RunningLabels(labels, case.geometry.shape, task.record.threshold)
    with ExitStack() as stack:
        paths = [probabilities_path(path) for path in case.segmentations]
        files = [stack.enter_context(ProbabilityFile(path)) for path in paths]
        if {file.shape for file in files} != {shape}:
            listed = ", ".join(f"{file.shape} in {file.path}" for file in files)
            raise InputError(f"expected probabilities of shape {shape} (K, z, y, x), got {listed}; predict them again")
        write = None
        if task.options.save_probabilities:
            writer = probabilities_writer(_target(case, task.out), shape[0], case.geometry, task.num_threads)
            write = stack.enter_context(writer)
        for channel in range(shape[0]):
            for parts in zip(*(file.planes(channel) for file in files), strict=True):
                mean = mean_of_probabilities((planes for _, planes in parts), task.weights)
                chosen.add(channel, parts[0][0], mean)
                if write is not None:
                    write(mean)
        # The file of probabilities is renamed when this block ends, which is not to happen without a record.
        begin_record(task.record, task.out / RECORD_NAME)
    return case.geometry.to_canonical(labels.decode(chosen.indices))


def _fused_segmentations(task: _Task, case: FusionCase) -> IntArray:
    """Compute the label values (D, H, W) of a case from those of its segmentations."""
    options = task.options
    segmentations = [_read_segmentation(path) for path in case.segmentations]
    if options.method == "majority":
        return majority_vote(segmentations, task.weights)
    if options.method == "staple":
        from seg25d.ensembling.staple import staple  # noqa: PLC0415 - loads SimpleITK

        return staple(segmentations)
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - loads SimpleITK

    assert case.image is not None, "found by find_members"
    image = read_image([case.image])[0][0]
    return nonlocal_staple(segmentations, image, options.nonlocal_staple)


def _read_segmentation(path: Path) -> IntArray:
    """Read the label values (D, H, W) of a file, possibly stored as real numbers, in the smallest integer type."""
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    array = read_labels(path)[0]
    lowest, highest = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    kind = next((kind for kind in (np.uint8, np.uint16, np.int32) if highest <= np.iinfo(kind).max), None)
    if lowest < 0 or kind is None or (array.dtype.kind == "f" and not np.array_equal(array, np.rint(array))):
        raise InputError(
            f"{path}: expected a segmentation of whole numbers >= 0, it has values from {lowest:g} to {highest:g}; "
            "is this a folder of images?"
        )
    return array.astype(kind)


def _fit_weights(folders: Sequence[Path], members: Members, options: EnsembleOptions) -> tuple[float, ...]:
    cases = [case for case in members.cases if case.reference is not None]
    labels = members.meaning.labels
    assert labels is not None, "weights are fitted for the mean, which needs labels"
    per_worker = len(folders) * _BYTES_PER_FILE + _BYTES_PER_VOXEL * _most_voxels(cases)
    workers = choose_num_workers(options.num_processes, per_worker, len(cases))
    sums = map_cases(partial(_sums_of_case, labels), cases, name=lambda case: case.name, num_workers=workers)
    # In the order of the cases, not of completion: sums of floating-point numbers depend on it.
    per_case = {case.name: each for case, each in track(sums, len(cases), "reading cases to fit weights on")}
    try:
        weights = fit_weights([per_case[case.name] for case in cases], len(folders))
    except ValueError as error:
        raise InputError(f"{options.fit_weights}: {error}") from None
    listed = ", ".join(f"{weight:g} {folder}" for weight, folder in zip(weights, folders, strict=True))
    logger.info("weights fitted on %d case(s): %s", len(cases), listed)
    return weights


def _sums_of_case(labels: Labels, case: FusionCase) -> dict[int, OverlapSums]:
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    assert case.reference is not None, "only cases with a reference are fitted on"
    truth = labels.encode(read_labels(case.reference, labels.names)[0], str(case.reference))
    with ExitStack() as stack:
        files = [stack.enter_context(ProbabilityFile(probabilities_path(path))) for path in case.segmentations]
        return overlap_sums(files, case.geometry.from_canonical(truth), labels)


def _make_record(
    folders: Sequence[Path], members: Members, options: EnsembleOptions, weights: tuple[float, ...] | None
) -> PredictionRecord:
    """Content of `prediction.json`; it differs for other folders, models, weights or settings."""
    said = zip(folders, members.meaning.models, strict=True)
    model: dict[str, Any] = {
        "ensemble": options.method,
        "folders": [{"folder": str(folder.resolve()), "model": model} for folder, model in said],
    }
    if weights is not None:
        model["weights"] = weights
    if options.method == "nlstaple":
        assert options.images is not None, "checked by the options"
        model |= {"images": str(options.images.resolve()), "channel": options.channel or 0}
        model["settings"] = options.nonlocal_staple.model_dump(mode="json")
    arguments = {"input": [str(folder) for folder in folders]} | options.model_dump(mode="json")
    labels, threshold, _ = members.meaning
    return PredictionRecord(arguments=arguments, model=model, labels=labels, threshold=threshold)


def _target(case: FusionCase, out: Path) -> Path:
    return out / f"{case.name}{split_ending(case.segmentations[0])[1]}"


def _bytes_per_worker(cases: Sequence[FusionCase], task: _Task) -> int:
    """Memory for the arrays of the largest case."""
    num_folders = len(task.record.model["folders"])
    if task.options.method == "mean":
        return num_folders * _BYTES_PER_FILE + _BYTES_PER_VOXEL * _most_voxels(cases)
    if task.options.method == "nlstaple":
        num_values = len(task.record.labels.values) if task.record.labels else NUM_INDICES
        return worker_bytes(_most_voxels(cases), num_folders, num_values, task.options.nonlocal_staple)
    return (4 * num_folders + 24) * _most_voxels(cases)


def _most_voxels(cases: Sequence[FusionCase]) -> int:
    return max((math.prod(case.geometry.shape) for case in cases), default=0)
