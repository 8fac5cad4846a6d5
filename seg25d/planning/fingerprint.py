"""Fingerprint of a data set: the measurements on which the planning rules are based."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.errors import DatasetError, RecordError
from seg25d.core.files import check_writable, write_text
from seg25d.core.grids import sampled_shape, sampled_spacing
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.limits import MAX_CHANNELS, CommonShape
from seg25d.core.names import CaseName
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import Record, digest, read_record, write_record
from seg25d.core.types import Shape, Spacing
from seg25d.core.workspace import PreprocessedFolder
from seg25d.data.cases import Case, source_stamp
from seg25d.data.dataset import Dataset
from seg25d.data.labelled_slices import describe_labelled_slices
from seg25d.data.labels import Labels
from seg25d.planning.case_fingerprint import (
    CaseFingerprint,
    ChannelIntensities,
    MeasuredCase,
    measure_case,
    pooled_intensities,
)
from seg25d.planning.sources import largest_shape

__all__ = ["CaseFingerprint", "ChannelIntensities", "Fingerprint", "extract_fingerprint", "summarize_cases"]

logger = logging.getLogger(__name__)
CASE_VERSION = 1
"""Version of the measurements; increase it when they change, so that cases are measured again."""


class Fingerprint(Record):
    """Properties of a data set, all in canonical orientation (D, H, W)."""

    schema_version: Literal[1] = 1
    dataset_name: CaseName
    channel_names: tuple[str, ...] = Field(max_length=MAX_CHANNELS)
    cases: tuple[CaseFingerprint, ...]
    intensities: tuple[ChannelIntensities, ...]
    """Intensities of the foreground of all cases, per channel; all cases have equal weight."""
    sparsity: float = Field(ge=0)
    """Median over the cases of the share of foreground voxels."""
    median_relative_size_after_cropping: float

    @property
    def num_cases(self) -> int:
        """Number of cases."""
        return len(self.cases)

    @property
    def flat_axis(self) -> int | None:
        """The axis along which all images have one voxel, as pictures do; None if there is none."""
        largest = np.max([case.shape for case in self.cases], axis=0).tolist()
        return largest.index(1) if 1 in largest else None

    @property
    def num_channels(self) -> int:
        """Number of channels of an image."""
        return len(self.channel_names)

    @property
    def labelled_slices_in_words(self) -> str | None:
        """How many slices are labelled; None where all of them are, or nothing is known about it."""
        counted = [(case.labelled_slices, case.shape) for case in self.cases]
        return describe_labelled_slices([(labelled, shape) for labelled, shape in counted if labelled is not None])

    @property
    def spacings_mm(self) -> NDArray[np.float64]:
        """(cases, 3) spacings."""
        return np.array([case.spacing_mm for case in self.cases], float)

    @property
    def cropped_shapes(self) -> NDArray[np.int64]:
        """(cases, 3) shapes after cropping to content."""
        return np.array([case.cropped_shape for case in self.cases], np.int64)

    @property
    def median_spacing_mm(self) -> Spacing:
        """Median spacing, axis by axis."""
        return self.spacing_percentile_mm(50)

    def spacing_percentile_mm(self, percentile: float) -> Spacing:
        """Percentile (0 to 100) of the spacings, axis by axis."""
        depth, height, width = np.percentile(self.spacings_mm, percentile, axis=0)
        return float(depth), float(height), float(width)

    def spacing_with(self, spacing_mm: Spacing, common_shape: CommonShape) -> Spacing:
        """A spacing with, along axes of a common size, the median of what the cases get there."""
        spacings = [sampled_spacing(case.shape, case.spacing_mm, spacing_mm, common_shape) for case in self.cases]
        depth, height, width = (round(float(step), 6) for step in np.median(spacings, axis=0))
        return depth, height, width

    def shapes_at(self, spacing_mm: Spacing, common_shape: CommonShape | None = None) -> NDArray[np.int64]:
        """(cases, 3) shapes that the cropped cases get at a spacing, or where there is one, their common size."""
        shapes = [sampled_shape(case.cropped_shape, case.spacing_mm, spacing_mm, common_shape) for case in self.cases]
        return np.array(shapes, np.int64)

    def median_shape_at(self, spacing_mm: Spacing, common_shape: CommonShape | None = None) -> Shape:
        """Median shape of the cropped cases at a spacing, axis by axis, rounded (as in nnU-Net's planner)."""
        return _whole(np.median(self.shapes_at(spacing_mm, common_shape), axis=0))

    def total_voxels_at(self, spacing_mm: Spacing, common_shape: CommonShape | None = None) -> int:
        """Voxels of all cropped cases together at a spacing."""
        return int(self.shapes_at(spacing_mm, common_shape).prod(axis=1).sum())


class _StoredCase(Record):
    """A measured case on disk."""

    source_key: str
    """Digest of the files, the labels and the version of the measurements."""
    measured: MeasuredCase


def extract_fingerprint(dataset: Dataset, folder: PreprocessedFolder, num_workers: int | None = None) -> Fingerprint:
    """Measure every case and write the fingerprint.

    Each measured case is stored and not measured again as long as its files stay the same, so that an interrupted run
    can be continued.

    Args:
        dataset: The training cases.
        folder: Where the fingerprint and the measured cases are written.
        num_workers: Worker processes; 0 works in this process, None chooses.

    Raises:
        DatasetError: If no case has foreground, or there are no cases.
        InputError: If a file cannot be used or `folder` cannot be written; names it.
        WorkerError: If a case fails otherwise; names it.
    """
    labels = dataset.description.labels
    check_writable(folder.fingerprint_cases)
    remove_leftovers(folder.root)
    remove_leftovers(folder.fingerprint_cases)
    measured = {case.name: _read_stored_case(folder.fingerprint_cases, case, labels) for case in dataset.cases}
    todo = [case for case in dataset.cases if measured[case.name] is None]
    if todo:
        workers = choose_num_workers(num_workers, _estimate_bytes(dataset), len(todo))
        measure = partial(_measure_and_keep, labels, folder.fingerprint_cases)
        results = map_cases(measure, todo, name=lambda case: case.name, num_workers=workers)
        for case, result in track(results, len(todo), "fingerprint"):
            measured[case.name] = result
    fingerprint = summarize_cases(dataset, [case for case in measured.values() if case])
    # Reading takes a fifth of the time of writing.
    if todo or not _holds(folder.fingerprint, fingerprint):
        write_record(folder.fingerprint, fingerprint)
    return fingerprint


def summarize_cases(dataset: Dataset, cases: Sequence[MeasuredCase]) -> Fingerprint:
    """Compute the fingerprint of a data set from its measured cases.

    Raises:
        DatasetError: If no case has foreground, or there are no cases.
    """
    channel_names = dataset.description.channel_names
    pooled = [pooled_intensities(cases, channel) for channel in range(len(channel_names))]
    intensities = tuple(channel for channel in pooled if channel)
    if len(intensities) < len(channel_names):
        raise DatasetError(
            f"{dataset.name}: none of its {len(cases)} case(s) has a foreground voxel, so there is nothing to learn; "
            "check the label files and the `labels` of dataset.json"
        )
    fingerprints = sorted((case.fingerprint for case in cases), key=lambda case: case.case)
    kept = [np.prod(case.cropped_shape) / np.prod(case.shape) for case in fingerprints]
    return Fingerprint(
        dataset_name=dataset.name,
        channel_names=channel_names,
        cases=tuple(fingerprints),
        intensities=intensities,
        sparsity=float(np.median([case.foreground_fraction for case in fingerprints])),
        median_relative_size_after_cropping=float(np.median(kept)),
    )


def _holds(path: Path, fingerprint: Fingerprint) -> bool:
    """Whether this very fingerprint is in a file already."""
    try:
        return read_record(path, Fingerprint) == fingerprint
    except RecordError:
        return False


def _measure_and_keep(labels: Labels, folder: Path, case: Case) -> MeasuredCase:
    # The key first: if a file changes while it is read, the case is measured again.
    key = _source_key(case, labels)
    measured = measure_case(case, labels)
    stored = _StoredCase(source_key=key, measured=measured)
    write_text(_case_path(folder, case), stored.model_dump_json() + "\n")
    return measured


def _read_stored_case(folder: Path, case: Case, labels: Labels) -> MeasuredCase | None:
    """Read the stored measurement of a case; None if it is missing, damaged or of other files."""
    path = _case_path(folder, case)
    if not path.exists():
        return None
    try:
        stored = read_record(path, _StoredCase)
    except RecordError as error:
        logger.warning("%s; it is made again", error)
        return None
    return stored.measured if stored.source_key == _source_key(case, labels) else None


def _case_path(folder: Path, case: Case) -> Path:
    return folder / f"{case.name}.json"


def _source_key(case: Case, labels: Labels) -> str:
    source = {"version": CASE_VERSION, "files": source_stamp(case), "labels": labels.model_dump(mode="json")}
    # Since they are counted, see `CaseFingerprint`.
    return digest(source | ({"labelled_slices": True} if labels.ignore_value is not None else {}))


def _estimate_bytes(dataset: Dataset) -> int:
    """Estimate the peak memory of a worker on the largest case.

    Per voxel: the image as read and in canonical order (8 bytes a channel), a sorted copy of foreground (at most 4),
    labels, masks and components (12).
    """
    shape, _ = largest_shape(dataset)
    return int(np.prod(shape)) * (8 * len(dataset.description.channel_names) + 16) + (200 << 20)


def _whole(values: NDArray[np.float64]) -> Shape:
    depth, height, width = (max(1, round(float(value))) for value in values)
    return depth, height, width
