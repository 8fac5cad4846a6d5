"""From files to normalised arrays on the model's grid: read, crop, normalise, resample, store.

Letters: C channels, D H W the file's canonical grid, d h w the model's grid.
"""

import logging
import math
import shutil
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.files import check_writable
from seg25d.core.grids import content_box, count_voxels, sampled_shape
from seg25d.core.limits import CommonShape
from seg25d.core.memory import lack_of_memory
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import Record, digest
from seg25d.core.types import Spacing
from seg25d.core.workspace import PreprocessedFolder
from seg25d.data.cases import Case, source_stamp
from seg25d.data.dataset import Dataset
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.sources import largest_shape
from seg25d.preprocessing.crop import crop
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.header_windows import Remark, with_header_windows
from seg25d.preprocessing.locations import sample_locations
from seg25d.preprocessing.normalize import normalize
from seg25d.preprocessing.resample import resample_image, resample_labels
from seg25d.preprocessing.store import SCHEMA_VERSION, CaseArrays, CaseRecord, Store, check_case_names

logger = logging.getLogger(__name__)
_SAMPLED_BYTES = 4
"""Per voxel and channel of the model's grid: the image in float32."""
_LABEL_BYTES = 6
"""Per voxel of the model's grid: labels, the highest share of a class in float32, and a mask."""
_MATRIX_BYTES = 12
"""Per entry of the interpolation along an axis, before it becomes sparse: float64, then float32."""


class PreprocessingPlan(Protocol):
    """The part of a `ConfigurationPlan` that preprocessing needs; workers cannot use the plan, as it loads torch."""

    @property
    def spacing_mm(self) -> Spacing: ...  # noqa: D102
    @property
    def common_shape(self) -> CommonShape | None: ...  # noqa: D102
    @property
    def normalization(self) -> Sequence[ChannelNormalization]: ...  # noqa: D102
    @property
    def store(self) -> str: ...  # noqa: D102


class _Target(Record):
    """A store to fill, with the part of a plan that does not load torch."""

    store: str
    spacing_mm: Spacing
    common_shape: CommonShape | None
    normalization: tuple[ChannelNormalization, ...]


class _Job(Record):
    """Settings of a worker, the same for all cases."""

    labels: Labels
    folder: PreprocessedFolder
    targets: tuple[_Target, ...]
    unlabelled: bool = False


def preprocess_image(
    image: NDArray[Any], spacing_mm: Spacing, plan: PreprocessingPlan, *, overwrite: bool = False
) -> tuple[NDArray[np.float32], Grid]:
    """Crop to content, normalise, resample.

    Args:
        image: (C, D, H, W) in canonical orientation; not changed unless `overwrite` is set.
        spacing_mm: Its canonical spacing.
        plan: Target spacing, common size and normalisation.
        overwrite: Whether an image in float32 is not needed any more: it is then normalised in its place, and may be
            what is returned.

    Returns:
        The image (C, d, h, w), and the record of its grid.

    Raises:
        InputError: If the number of channels differs from the plan's, values are not those of the scheme, or the memory
            cannot hold the result.
    """
    grid = _plan_grid(image, spacing_mm, plan.spacing_mm, plan.common_shape)
    _check_memory(grid, len(image))
    cropped = crop(image, grid.bounding_box)
    in_place = overwrite and image.dtype == np.float32
    normalized = normalize(cropped, plan.normalization, cropped if in_place else None)
    # Contiguous, as a part of the image would keep all of it in memory.
    return np.ascontiguousarray(resample_image(normalized, grid.shape, grid.separate_axis)), grid


def _check_memory(grid: Grid, num_channels: int) -> None:
    """Refuse what a wrong spacing in a header would make of an image, before memory is taken for it."""
    matrix = _MATRIX_BYTES * max(map(math.prod, zip(grid.shape, grid.cropped_shape, strict=True)))
    if lack := lack_of_memory(grid.shape, num_channels * _SAMPLED_BYTES + _LABEL_BYTES, matrix):
        before, after = (
            f"{' x '.join(map(str, shape))} voxels of {' x '.join(f'{number:.4g}' for number in spacing)} mm"
            for shape, spacing in ((grid.cropped_shape, grid.canonical_spacing_mm), (grid.shape, grid.spacing_mm))
        )
        raise InputError(
            f"{before} become {after} for the model (D, H, W): {lack}; correct the spacing in the header of the image "
            "if it is wrong, else use a machine with more memory"
        )


def read_model_labels(
    case: Case,
    labels: Labels,
    spacing_mm: Spacing,
    common_shape: CommonShape | None = None,
    *,
    is_uncropped: bool = False,
) -> NDArray[np.uint8]:
    """Read a case's labels on the model's grid, cropped to the content of its image, as in its store.

    Args:
        case: With a label file.
        labels: Meaning of the values in the label file.
        spacing_mm: Of the plan.
        common_shape: Of the plan.
        is_uncropped: Whether the content of the image is known to reach all borders: of the image, the header is read.

    Returns:
        Internal indices (d, h, w).

    Raises:
        ImageError: If a file cannot be read.
        DatasetError: If the labels hold a value that is not declared.
    """
    if not is_uncropped:
        image, geometry, reference = _read(case, labels)
        grid = _plan_grid(image, geometry.canonical_spacing_mm, spacing_mm, common_shape)
        return _resample_reference(reference, grid)
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

    reference, spacing = _read_reference(case, labels), read_geometry(case.images[0]).canonical_spacing_mm
    depth, height, width = ((0, size) for size in reference.shape)
    grid = Grid.plan(reference.shape, spacing, (depth, height, width), spacing_mm, common_shape)
    return _resample_reference(reference, grid)


def preprocess_dataset(
    dataset: Dataset,
    plans: Iterable[PreprocessingPlan],
    folder: PreprocessedFolder,
    num_workers: int | None = None,
    clean: bool = False,
    *,
    unlabelled: bool = False,
) -> None:
    """Fill the stores of all configurations; configurations with the same store share it.

    A case that is complete and whose files and settings have not changed is skipped, so that an interrupted run goes
    on. Cases that the data set no longer has are removed, except unlabelled ones, which other runs may be reading.

    Args:
        dataset: The training cases.
        plans: The configurations.
        folder: Where the stores are.
        num_workers: Worker processes; 0 works in this process, None chooses.
        clean: Remove the stores first.
        unlabelled: Images only, for pretraining: label files are not read, and all voxels count as background.

    Raises:
        InputError: If an input cannot be used or `folder` cannot be written; names it.
        WorkerError: If a case fails otherwise; names it.
    """
    targets = _targets(plans)
    check_writable(folder.root)
    check_case_names([case.name for case in dataset.cases])
    for target in targets:
        _clean_store(folder, target, None if unlabelled else dataset, clean)
    job = _Job(labels=dataset.description.labels, folder=folder, targets=targets, unlabelled=unlabelled)
    todo = [case for case in dataset.cases if _find_targets_to_fill(case, job)]
    if len(todo) < len(dataset.cases):
        logger.info("%d of %d cases are preprocessed already", len(dataset.cases) - len(todo), len(dataset.cases))
    if not todo:
        return
    workers = choose_num_workers(num_workers, _estimate_bytes(dataset, targets), len(todo))
    done = map_cases(partial(_preprocess_case, job), todo, name=lambda case: case.name, num_workers=workers)
    for _, remarks in track(done, len(todo), "preprocessing"):
        for remark in remarks:
            logger.log(remark.level, remark.text)


def stores_to_change(
    dataset: Dataset, plans: Iterable[PreprocessingPlan], folder: PreprocessedFolder, *, unlabelled: bool = False
) -> list[Path]:
    """The folders of stores that `preprocess_dataset` would make or change: others may be reading those that exist."""
    found = []
    for target in _targets(plans):
        store = _store(folder, target)
        job = _Job(labels=dataset.description.labels, folder=folder, targets=(target,), unlabelled=unlabelled)
        is_stale = not unlabelled and bool(_stale(store, dataset))
        if is_stale or any(_find_targets_to_fill(case, job) for case in dataset.cases):
            found.append(store.folder)
    return found


def _preprocess_case(job: _Job, case: Case) -> tuple[Remark, ...]:
    """Fill the stores that lack a case; returns remarks for the user."""
    targets = _find_targets_to_fill(case, job)
    # The keys first: if a file changes while it is read, the case is preprocessed again next time.
    keys = _source_keys(case, job.labels, targets)
    image, geometry, reference = _read(case, job.labels, unlabelled=job.unlabelled)
    # One for each store, so that the last one takes the image: its memory is free when labels are resampled.
    images = [image] * len(targets)
    del image
    remarks: dict[Remark, None] = {}
    for target in targets:
        normalization, said = with_header_windows(target.normalization, case)
        remarks |= dict.fromkeys(said)
        plan = target.model_copy(update={"normalization": normalization})
        try:
            spacing = geometry.canonical_spacing_mm
            sampled, grid = preprocess_image(images.pop(), spacing, plan, overwrite=not images)
        except InputError as error:
            raise InputError(f"{case.name}: {error}") from None
        model_labels = _resample_reference(reference, grid)
        counts = count_voxels(model_labels)
        record = CaseRecord(
            case=case.name,
            geometry=geometry,
            grid=grid,
            voxels={str(index): int(counts[index]) for index in np.flatnonzero(counts) if index != IGNORE_INDEX},
            source_key=keys[target.store],
        )
        locations = sample_locations(model_labels, counts, case.name, IGNORE_INDEX)
        kept = None if job.unlabelled else reference
        _store(job.folder, target).write(record, CaseArrays(sampled, model_labels, kept, locations))
        del sampled  # before the next one is made
    return tuple(remarks)


def _read(
    case: Case, labels: Labels, *, unlabelled: bool = False
) -> tuple[NDArray[np.float32], Geometry, NDArray[np.uint8]]:
    """Image (C, D, H, W), its geometry, and internal labels (D, H, W): background where there are none."""
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - loads SimpleITK

    if unlabelled:
        image, geometry = read_image(case.images)
        return image, geometry, np.zeros(image.shape[1:], np.uint8)
    reference = _read_reference(case, labels)
    image, geometry = read_image(case.images, check_finite=False)  # checked by the verification
    return image, geometry, reference


def _read_reference(case: Case, labels: Labels) -> NDArray[np.uint8]:
    """Internal labels (D, H, W) on the canonical grid of the file."""
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    if case.label is None:
        raise InputError(f"{case.name} has no label file; only labelled cases are preprocessed for training")
    original, _ = read_labels(case.label, labels.names)
    return labels.encode(original, str(case.label))


def _plan_grid(
    image: NDArray[Any], spacing_mm: Spacing, target_spacing_mm: Spacing, common_shape: CommonShape | None
) -> Grid:
    depth, height, width = image.shape[1:]
    return Grid.plan((depth, height, width), spacing_mm, content_box(image), target_spacing_mm, common_shape)


def _resample_reference(reference: NDArray[np.uint8], grid: Grid) -> NDArray[np.uint8]:
    cropped = np.ascontiguousarray(crop(reference, grid.bounding_box))
    return resample_labels(cropped, grid.shape, grid.separate_axis)


def _targets(plans: Iterable[PreprocessingPlan]) -> tuple[_Target, ...]:
    """Collect one target per store.

    Raises:
        InputError: If two configurations name the same store but need different arrays.
    """
    targets: dict[str, _Target] = {}
    for plan in plans:
        target = _Target(
            store=plan.store,
            spacing_mm=plan.spacing_mm,
            common_shape=plan.common_shape,
            normalization=tuple(plan.normalization),
        )
        if targets.setdefault(plan.store, target) != target:
            raise InputError(
                f"two configurations use the store {plan.store} with different spacing, common size or "
                "normalisation; give them different values of `store` in the plans"
            )
    return tuple(targets.values())


def _clean_store(folder: PreprocessedFolder, target: _Target, dataset: Dataset | None, clean: bool) -> None:
    store = _store(folder, target)
    if clean and store.folder.is_dir():
        shutil.rmtree(store.folder)
    store.remove_leftovers()
    if dataset is not None and (stale := _stale(store, dataset)):
        logger.info("%s: removing %s, which the data set no longer has", store.folder, ", ".join(stale))
        store.remove(stale)


def _stale(store: Store, dataset: Dataset) -> list[str]:
    """Cases that the data set no longer has."""
    return sorted(set(store.cases()) - {case.name for case in dataset.cases})


def _store(folder: PreprocessedFolder, target: _Target) -> Store:
    return Store(folder.store(target.store))


def _find_targets_to_fill(case: Case, job: _Job) -> tuple[_Target, ...]:
    """Find the stores that lack this case or have an outdated version of it."""
    keys = _source_keys(case, job.labels, job.targets)
    return tuple(
        target
        for target in job.targets
        if not _store(job.folder, target).has(case.name, keys[target.store], reference=not job.unlabelled)
    )


def _source_keys(case: Case, labels: Labels, targets: Sequence[_Target]) -> dict[str, str]:
    """By store, a digest that changes when the files of a case or the settings of its arrays change."""
    files = source_stamp(case)
    return {
        target.store: digest(
            {
                "version": SCHEMA_VERSION,
                "files": files,
                "labels": labels.model_dump(mode="json"),
                "spacing_mm": target.spacing_mm,
                "normalization": [channel.model_dump(mode="json") for channel in target.normalization],
            }
            | ({"common_shape": target.common_shape} if target.common_shape else {})
        )
        for target in targets
    }


def _estimate_bytes(dataset: Dataset, targets: Sequence[_Target]) -> int:
    """Estimate the peak memory of a worker on the largest case.

    Per voxel of the file: the image in canonical order, and as read or normalised (8 bytes a channel), labels (2). Per
    voxel of the model's grid: `_SAMPLED_BYTES` and `_LABEL_BYTES`. A case of 500 x 512 x 512 with one channel took
    1.6 GiB where this says 2.6 (measurements.md, clinical size): only images that several stores need are there twice.
    """
    shape, spacing_mm = largest_shape(dataset)
    channels = len(dataset.description.channel_names)
    largest = max(
        math.prod(sampled_shape(shape, spacing_mm, target.spacing_mm, target.common_shape)) for target in targets
    )
    return int(np.prod(shape)) * (8 * channels + 2) + largest * (_SAMPLED_BYTES * channels + _LABEL_BYTES) + (200 << 20)
