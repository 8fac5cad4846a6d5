"""Segmentations of 3D Slicer in NRRD files, whose segments may lie in layers.

Slicer writes a segment's name, layer and value into the header (`Segment0_Name`, `Segment0_Layer`,
`Segment0_LabelValue`; before version 4.11 the N-th segment is 1 in the N-th layer). Segments that overlap, or did once,
are in layers of their own: more than one number per voxel.
"""
# mypy: disallow-untyped-calls=False
# SimpleITK is generated code with few types.

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from numpy.typing import NDArray

from seg25d.data.label_problems import members_of
from seg25d.data.problems import FileError, first_names

Values = Mapping[str, int | tuple[int, ...]]
_MAX_SEGMENTS = 10_000
_EXPORT = "in Slicer, export the segmentation as a labelmap (module Segmentations, Export), each voxel with one label"


class Segment(NamedTuple):
    """One segment: its name, the layer that it is in, and its value there."""

    name: str
    layer: int
    value: int


def segments(image: sitk.ImageFileReader | sitk.Image) -> list[Segment]:
    """The segments that the header of a segmentation of Slicer names; none if it is another image."""
    found = []
    for index in range(_MAX_SEGMENTS):
        keys = {key: f"Segment{index}_{key}" for key in ("ID", "Name", "Layer", "LabelValue")}
        said = {key: image.GetMetaData(name).strip() for key, name in keys.items() if image.HasMetaDataKey(name)}
        if not said:
            break
        numbers = [said.get("Layer", str(index)), said.get("LabelValue", "1")]
        if all(re.fullmatch(r"\d{1,9}", number) for number in numbers):
            found.append(Segment(said.get("Name", said.get("ID", f"segment {index}")), *map(int, numbers)))
    return found


def check_names(path: Path, layers: NDArray[Any], found: Sequence[Segment], values: Values) -> None:
    """Check that segments whose values are the labels have the values that `dataset.json` declares for their names.

    Names that are not declared say nothing, and neither do segments without a voxel.

    Args:
        path: The file, for messages.
        layers: (z, y, x, layer), as in the file.
        found: The segments.
        values: The declared value, or values of a region, by name.

    Raises:
        ImageError: If a segment has another value than its name.
    """
    if not _have_own_values(found):
        return
    declared = {name.lower(): members_of(value) for name, value in values.items()}
    for name, layer, value in found:
        wanted = declared.get(name.lower(), (value,))
        if value not in wanted and layer < layers.shape[-1] and bool((layers[..., layer] == value).any()):
            said = " or ".join(map(str, wanted))
            problem = f"its header says that {name} is {value}, but in dataset.json {name} is {said}"
            raise FileError(path, problem, f"rename the segment or the label, or {_EXPORT} of dataset.json")


def merge_layers(path: Path, layers: NDArray[Any], found: Sequence[Segment], values: Values) -> NDArray[np.int32]:
    """Make one label map of the layers of a segmentation.

    A voxel gets the value of its segment; if segments in several layers share a value, that of the segment's name in
    `dataset.json`.

    Args:
        path: The file, for messages.
        layers: (z, y, x, layer), as in the file.
        found: The segments.
        values: The declared value, or values of a region, by name.

    Returns:
        The values (z, y, x).

    Raises:
        ImageError: If segments overlap, or it is not clear which value one has.
    """
    merged = np.zeros(layers.shape[:-1], np.int32)
    owner = np.zeros(layers.shape[:-1], np.int32)
    known = np.zeros(layers.shape, np.bool_)
    targets = _targets(path, found, values)
    for number, (segment, target) in enumerate(zip(found, targets, strict=True), 1):
        if segment.layer >= layers.shape[-1]:
            problem = f"its segment {segment.name} is in layer {segment.layer}, but there are {layers.shape[-1]} layers"
            raise FileError(path, problem, _EXPORT)
        mask = layers[..., segment.layer] == segment.value
        known[..., segment.layer] |= mask
        if overlap := int(np.count_nonzero(owner[mask])):
            other = found[int(owner[mask].max()) - 1].name
            problem = f"the segments {other} and {segment.name} of Slicer overlap in {overlap} voxels"
            raise FileError(path, problem, f"a voxel can have one label only: {_EXPORT}")
        merged[mask], owner[mask] = target, number
    if unknown := int(np.count_nonzero((layers != 0) & ~known)):
        raise FileError(path, f"{unknown} voxels of its layers belong to no segment that the header names", _EXPORT)
    return merged


def layers_are_no_image(path: Path, num_layers: int) -> FileError:
    """The error for a segmentation with layers where an image is expected."""
    problem = f"the file is a segmentation of Slicer with {num_layers} layers, expected is an image"
    return FileError(path, problem, "export the image itself; segmentations belong into labelsTr")


def _have_own_values(found: Sequence[Segment]) -> bool:
    """Whether no two segments share a value."""
    return len({segment.value for segment in found}) == len(found)


def _targets(path: Path, found: Sequence[Segment], values: Values) -> list[int]:
    own = [segment.value for segment in found]
    if _have_own_values(found):
        return own
    by_name = {name.lower(): value for name, value in values.items() if isinstance(value, int)}
    declared = [by_name.get(segment.name.lower(), 0) for segment in found]
    if all(declared) and len(set(declared)) == len(declared):
        return declared
    names = first_names([segment.name for segment in found if own.count(segment.value) > 1])
    problem = f"the file is a segmentation of Slicer in which {names} have the same value in different layers"
    raise FileError(path, problem, f"name the segments as the labels in dataset.json, or {_EXPORT}")
