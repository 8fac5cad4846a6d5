"""Pictures of training cases: the labels, in colour, over the slice that has most of them."""

import math
from functools import partial
from pathlib import Path

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.locks import folder_lock
from seg25d.core.parallel import map_cases
from seg25d.core.progress import track
from seg25d.core.records import Record
from seg25d.core.workspace import Workspace
from seg25d.data.cases import Case
from seg25d.data.dataset import read_dataset
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.data.sizes import choose_workers, workers_for
from seg25d.evaluation.pictures import draw_overlay, fullest_slice
from seg25d.planning.plan import PlansName
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.preprocessing.store import Store
from seg25d.runs.names import find_configuration

_LABEL_BYTES = 12
"""Per voxel of a file: labels in 32 bits, of which there are three copies as they are read."""
_CHANNEL_BYTES = 4
"""Per voxel of each channel of an image."""
_STORED_BYTES = 4
"""Per voxel of a stored case: labels as they are and as they are read, and masks."""


class OverlayOptions(Record):
    """Options of pictures of training cases."""

    use_raw: bool = False
    """Whether to draw the raw images instead of the preprocessed arrays."""
    configuration: str | None = None
    """Whose arrays to draw; None: `3d` if it is planned, else `2d`."""
    plans_name: PlansName = DEFAULT_PLANS_NAME
    channel: int = Field(default=0, ge=0)
    opacity: float = Field(default=0.6, ge=0, le=1)
    """Of the labels."""
    num_processes: int | None = None


def plot_overlays(workspace: Workspace, identifier: str, out: Path, options: OverlayOptions | None = None) -> None:
    """Write `CASE.png` for each training case.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        out: Folder for the pictures.
        options: What to draw.

    Raises:
        InputError: If the data set is missing, or not preprocessed where its arrays are asked for, or there is no such
            channel.
        BusyError: If another process writes into the folder.
    """
    options = options or OverlayOptions()
    name = workspace.dataset_name(identifier)
    if options.use_raw:
        dataset = read_dataset(workspace.raw_dataset(name), workspace.splits_folders(name))
        num_channels = len(dataset.description.channel_names)
        draw = partial(_draw_raw, dataset.description.labels, options, out)
        cases = {case.name: case for case in dataset.cases}
        files = [case.label for case in dataset.cases if case.label]
        per_voxel = _LABEL_BYTES + _CHANNEL_BYTES * num_channels
        choose = partial(choose_workers, files=files, bytes_per_voxel=per_voxel)
    else:
        folder = workspace.preprocessed_dataset(name)
        path = folder.plans(options.plans_name)
        if not path.exists():
            raise InputError(f"{name} has no {path.name}: plan and preprocess it first, or draw raw images: --use_raw")
        plans = read_plans(path)
        wanted = options.configuration or ("3d" if "3d" in plans.configurations else "2d")
        _, plan = find_configuration(plans, wanted)
        store, num_channels = Store(folder.store(plan.store)), len(plan.normalization)
        draw = partial(_draw_preprocessed, store, options, out)
        cases = {each: Case(name=each, images=()) for each in store.cases()}
        if not cases:
            raise InputError(f"{store.folder} has no cases: run `seg25d preprocess -d {identifier} -c {wanted}` first")
        num_voxels = max(math.prod(store.record(each).grid.shape) for each in cases)
        choose = partial(workers_for, num_voxels=num_voxels, bytes_per_voxel=_STORED_BYTES, num_items=len(cases))
    if options.channel >= num_channels:
        raise InputError(f"-channel_idx: expected a number from 0 to {num_channels - 1}, got {options.channel}")
    workers = choose(options.num_processes)
    with folder_lock(out, "drawing"):
        done = map_cases(draw, list(cases.values()), name=_name, num_workers=workers)
        for _ in track(done, len(cases), "drawing"):
            pass


def _name(case: Case) -> str:
    return case.name


def _draw_preprocessed(store: Store, options: OverlayOptions, out: Path, case: Case) -> None:
    labels = store.open_labels(case.name)[:]
    labels[labels == IGNORE_INDEX] = 0
    index = fullest_slice(labels)
    image = store.open_image(case.name)[options.channel, index]
    draw_overlay(out / f"{case.name}.png", image, labels[index], options.opacity)


def _draw_raw(meaning: Labels, options: OverlayOptions, out: Path, case: Case) -> None:
    from seg25d.data.image_io import read_image, read_labels  # noqa: PLC0415 - loads SimpleITK

    assert case.label is not None, "training cases have labels"
    image, _ = read_image(case.images)
    labels = meaning.encode(read_labels(case.label, meaning.names)[0], str(case.label))
    labels[labels == IGNORE_INDEX] = 0
    index = fullest_slice(labels)
    draw_overlay(out / f"{case.name}.png", image[options.channel, index], labels[index], options.opacity)
