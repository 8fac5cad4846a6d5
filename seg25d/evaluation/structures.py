"""Sizes and intensities of segmented structures: the numbers that go into a paper, a row per case and structure."""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.files import write_text
from seg25d.core.grids import joint_box
from seg25d.core.locks import file_lock
from seg25d.core.types import FloatArray, Spacing
from seg25d.core.unfinished import Unfinished, forget_unfinished, map_and_keep
from seg25d.data.cases import Case, source_stamp
from seg25d.data.grid_problems import grid_problem
from seg25d.data.labels import NUM_INDICES, Labels, is_any_of
from seg25d.data.problems import first_names
from seg25d.data.sizes import choose_workers
from seg25d.evaluation.pairs import find_segmentations

logger = logging.getLogger(__name__)
_BYTES_PER_VOXEL = 24
"""Peak memory of a case beside its image: labels as they are read, of which there are three copies, or a structure as
large as the volume, with its components and with its intensities in 64 bits."""
_CHANNEL_BYTES = 4
"""Per voxel of each channel of an image."""
PERCENTILES = (5, 50, 95)
AXES = ("z", "y", "x")
"""Of arrays in canonical orientation: towards the head, the back and the left."""


class Intensities(NamedTuple):
    """Values of one channel inside a structure, in the units of the image; percentiles interpolate between values."""

    mean: float
    std: float | None
    """With n - 1; None where there is one voxel."""
    min: float
    p5: float
    p50: float
    p95: float
    max: float


class Structure(NamedTuple):
    """A class or region in a segmentation."""

    voxels: int
    volume_ml: float
    surface_mm2: float | None
    """By counts of crossings in 13 directions (Crofton), as in ITK; where the border cuts it, the cut counts too. None
    in images of one slice, and where there is no such structure."""
    components: int
    """Voxels that share a corner are connected."""
    touches_border: bool
    """Whether it reaches the first or last voxel along an axis of more than one."""
    extent_mm: tuple[float, float, float]
    """Of its bounding box along z, y, x."""
    intensities: tuple[Intensities, ...]
    """Of each channel; empty where there is no such structure."""


def structures_of(
    image: FloatArray,
    labels: NDArray[np.uint8],
    foreground: Mapping[str, Sequence[int]],
    spacing_mm: Spacing,
) -> dict[str, Structure]:
    """Measure every class or region of a segmentation.

    Args:
        image: (C, D, H, W), as it is stored.
        labels: (D, H, W) internal indices.
        foreground: Indices that belong to each class or region.
        spacing_mm: Spacing of both, along z, y, x.

    Returns:
        What is measured by name; of a class that is absent, zeros.
    """
    from scipy import ndimage  # noqa: PLC0415 - heavy

    boxes = ndimage.find_objects(labels, max_label=NUM_INDICES - 1)
    found = {}
    for name, members in foreground.items():
        own = [boxes[index - 1] for index in members if boxes[index - 1] is not None]
        if not own:
            found[name] = Structure(0, 0.0, None, 0, False, (0.0, 0.0, 0.0), ())
            continue
        box = joint_box(own)
        mask = is_any_of(labels[box], members)
        found[name] = _measure(image[:, *box], mask, box, labels.shape, spacing_mm)
    return found


def _measure(
    image: FloatArray, mask: NDArray[np.bool_], box: tuple[slice, ...], shape: tuple[int, ...], spacing_mm: Spacing
) -> Structure:
    import cc3d  # noqa: PLC0415 - loaded only where it is needed

    voxels = int(mask.sum())
    # Not of bool: cc3d 4.1.1 fails with lines of n x 1 x 1 of these ("maximum length exception").
    _, components = cc3d.connected_components(mask.view(np.uint8), connectivity=26, return_N=True)
    extent = tuple((part.stop - part.start) * step for part, step in zip(box, spacing_mm, strict=True))
    return Structure(
        voxels=voxels,
        volume_ml=voxels * float(np.prod(spacing_mm)) / 1000,
        surface_mm2=None if shape[0] == 1 else _surface_mm2(mask, spacing_mm),
        components=int(components),
        touches_border=any(
            size > 1 and (part.start == 0 or part.stop == size) for part, size in zip(box, shape, strict=True)
        ),
        extent_mm=(extent[0], extent[1], extent[2]),
        intensities=tuple(_intensities(channel[mask]) for channel in image),
    )


def _surface_mm2(mask: NDArray[np.bool_], spacing_mm: Spacing) -> float:
    import SimpleITK as sitk  # noqa: N813, PLC0415 - its usual name; heavy

    padded = sitk.GetImageFromArray(np.pad(mask, 1).astype(np.uint8))
    padded.SetSpacing(spacing_mm[::-1])
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.ComputePerimeterOn()
    shapes.Execute(padded)
    return float(shapes.GetPerimeter(1))


def _intensities(values: FloatArray) -> Intensities:
    exact = values.astype(np.float64)
    low, middle, high = np.percentile(exact, PERCENTILES).tolist()
    std = float(exact.std(ddof=1)) if exact.size > 1 else None
    return Intensities(float(exact.mean()), std, float(exact.min()), low, middle, high, float(exact.max()))


PredictedDice: TypeAlias = Mapping[str, Mapping[str, float | None]]
"""By case and name of the structure; None where nothing is predicted."""


class Segmented(NamedTuple):
    """An image and its segmentation."""

    case: Case
    segmentation: Path


def pair_with_images(cases: Sequence[Case], folder: Path, *, further: bool = False) -> list[Segmented]:
    """Pair images with the segmentations of a folder by name; images without one are left out, which is told.

    Args:
        cases: The images.
        folder: The segmentations.
        further: Whether segmentations without an image are left out as well.

    Raises:
        InputError: If there is nothing to measure, a case has several files, or a segmentation has no image.
    """
    files = find_segmentations(folder)
    names = {case.name for case in cases}
    strange = [name for name in files if name not in names]
    if strange and not further:
        raise InputError(
            f"{len(strange)} of {len(files)} segmentations in {folder} have no image of the same name: "
            f"{first_names(strange)}; expected images such as {strange[0]}_0000.nii.gz"
        )
    found = [Segmented(case, files[case.name]) for case in cases if case.name in files]
    if alone := [case.name for case in cases if case.name not in files]:
        logger.info("%d image(s) without a segmentation left out: %s", len(alone), first_names(alone))
    return found


def write_structures(
    cases: Sequence[Segmented],
    labels: Labels | None,
    channel_names: Sequence[str],
    path: Path,
    num_processes: int | None = None,
    predicted_dice: PredictedDice | None = None,
) -> None:
    """Measure all structures of cases and write a table with a row per case and structure.

    Cases that are measured are kept beside the table until it is written: the same call goes on after a kill.

    Args:
        cases: Images and segmentations.
        labels: Meaning of the values; None: every value above 0 is a structure, called by its number.
        channel_names: For the columns of intensities.
        path: The table, as comma-separated values; it is complete or absent afterwards.
        num_processes: Worker processes; 0 works in this process, None chooses.
        predicted_dice: For a column of what a model says of its segmentations.

    Raises:
        InputError: If a segmentation is not on the grid of its image.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that is not declared.
        BusyError: If another process writes the file.
    """
    with file_lock(path, "measuring structures"):
        per_voxel = _BYTES_PER_VOXEL + _CHANNEL_BYTES * len(channel_names)
        workers = choose_workers(num_processes, [each.segmentation for each in cases], per_voxel)
        unfinished = Unfinished(path, dict[str, Structure], _stamp, labels and labels.model_dump_json())
        measure = partial(_measure_case, labels)
        measured = map_and_keep(measure, cases, "measuring structures", unfinished, name=_name, num_workers=workers)
        found = {item.case.name: result for item, result in measured}
        write_text(path, table_of_structures(found, channel_names, predicted_dice or {}))
        forget_unfinished(path)


def _name(item: Segmented) -> str:
    return item.case.name


def _stamp(item: Segmented) -> list[Any]:
    files = item.case.model_copy(update={"label": item.segmentation})
    return [[str(path.resolve()) for path in (*files.images, item.segmentation)], source_stamp(files)]


def _measure_case(labels: Labels | None, item: Segmented) -> dict[str, Structure]:
    from seg25d.data.image_io import read_image, read_labels  # noqa: PLC0415 - loads SimpleITK

    image, geometry = read_image(item.case.images)
    values, other = read_labels(item.segmentation, labels.names if labels else None)
    if problem := grid_problem(item.segmentation, other, item.case.images[0], geometry):
        difference, cure = problem
        raise InputError(
            f"{item.case.name}: the grid of {item.segmentation} is not that of its image: {difference}; {cure}"
        )
    if labels is None:
        present = [value for value in np.unique(values).tolist() if value > 0]
        if len(present) >= NUM_INDICES - 1:
            raise InputError(f"{item.segmentation} has {len(present)} values: expected a segmentation")
        labels = Labels(names={"background": 0, **{f"{value:g}": value for value in present}})
    encoded = labels.encode(values, str(item.segmentation))
    found = structures_of(image, encoded, labels.foreground, geometry.canonical_spacing_mm)
    return {labels.name_of(key): structure for key, structure in found.items()}


def table_of_structures(
    found: Mapping[str, Mapping[str, Structure]], channel_names: Sequence[str], predicted_dice: PredictedDice
) -> str:
    """The table as comma-separated values; what is not known is an empty cell.

    Args:
        found: What was measured, by case and structure.
        channel_names: For the columns of intensities.
        predicted_dice: What a model says of its segmentations; without any, there is no such column.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    last = ("predicted_dice",) if predicted_dice else ()
    writer.writerow(
        [
            *("case", "structure", "voxels", "volume_ml", "surface_mm2", "components", "touches_border"),
            *(f"extent_{axis}_mm" for axis in reversed(AXES)),
            *(f"{channel}_{name}" for channel in channel_names for name in Intensities._fields),
            *last,
        ]
    )
    for case in sorted(found):
        for name, each in found[case].items():
            sizes = (each.voxels, each.volume_ml, each.surface_mm2, each.components, each.touches_border)
            values: list[float | None] = [value for channel in each.intensities for value in channel]
            if last:  # a structure that is absent has no intensities
                values += [None] * (len(channel_names) * len(Intensities._fields) - len(values))
                values.append(predicted_dice.get(case, {}).get(name))
            writer.writerow([case, name, *map(_cell, sizes), *map(_cell, each.extent_mm[::-1]), *map(_cell, values)])
    return text.getvalue()


def _cell(value: float | None) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
