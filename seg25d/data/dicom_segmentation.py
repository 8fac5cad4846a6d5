"""DICOM segmentations: the labels of a DICOM series as one file that refers to its images, written by highdicom.

highdicom is an extra, `pip install 'seg25d[dicom]'`, and is loaded when a file is written.
"""
# mypy: disallow-untyped-calls=False
# pydicom makes attributes of tags when a file is read.

import colorsys
import logging
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d import __version__
from seg25d.core.apart import Crash, call_apart
from seg25d.core.errors import InputError, WorkerError
from seg25d.core.files import atomic_path
from seg25d.core.memory import lack_of_memory
from seg25d.core.records import Record
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import NUM_INDICES, Labels
from seg25d.data.problems import FileError
from seg25d.data.segment_codes import Code, SegmentCode

if TYPE_CHECKING:
    import pydicom

    from seg25d.data.dicom_source import SegmentedSeries

logger = logging.getLogger(__name__)
Kind = Literal["binary", "labelmap"]
INSTALL = "pip install 'seg25d[dicom]'"
_LARGEST_NUMBER = 255
"""Of segments in label maps. They could have 16 bits, but highdicom 0.28, reading segments one by one, finds no voxels
of higher numbers."""
_MOST_CHARACTERS = 64
"""Of a DICOM text such as a label."""
_HUE_TURN = 0.618034
"""Of the circle of hues per segment: the golden ratio keeps any number of hues apart."""
_BYTES_OF_MASKS = 1.25
"""Per voxel and segment where segments overlap: a mask, and a bit in its frames, and again in all of them together."""
_BYTES_BESIDE_MASKS = 10
"""Per voxel: its index, and what highdicom 0.28 makes to see whether segments overlap (`_check_and_cast_pixel_array`):
a sum in 64 bits and whether it is above one."""
_LESIONS, _NO_LESIONS = "7159", ("Background", "Normal")
"""The context group of lesion types in DICOM PS3.16, and what is none in it."""


class SegmentationContents(Record):
    """What a segmentation says besides its voxels."""

    kind: Kind
    """One bit per voxel and segment, or the number of the segment per voxel."""
    labels: Labels
    codes: dict[str, SegmentCode] = Field(default_factory=dict)
    """By the names of labels."""
    model: str
    """Name of the model, such as `Dataset004_Hippocampus axial`."""
    parameters: dict[str, str] = Field(default_factory=dict)
    """How it predicted."""

    @property
    def segments(self) -> tuple["Segment", ...]:
        """The segments in the order of their numbers."""
        return segments_of(self.labels, self.kind)


class Segment(NamedTuple):
    """One segment: a label, or a region."""

    number: int
    name: str
    values: tuple[int, ...]
    """The values of label files that belong to it."""


def segments_of(labels: Labels, kind: Kind) -> tuple[Segment, ...]:
    """All segments that labels can have, also those without voxels, so that numbers mean the same in all cases.

    Args:
        labels: Labels or regions; a region is a segment, and may overlap with others.
        kind: Segments of one bit per voxel are numbered 1, 2, 3 ... (PS3.3, C.8.20.2): as the values of the labels,
            unless these have gaps. Those of label maps have the values of the labels, unless these are above 255.

    Returns:
        The segments, by ascending values of labels, or regions in the order of `dataset.json`.
    """
    named = [(labels.name_of(key), members) for key, members in labels.foreground.items()]
    found = [(name, tuple(labels.values[index] for index in members)) for name, members in named]
    by_value = kind == "labelmap" and not labels.has_regions and labels.values[-1] <= _LARGEST_NUMBER
    return tuple(
        Segment(values[0] if by_value else number, name, values) for number, (name, values) in enumerate(found, 1)
    )


def overlap(labels: Labels) -> bool:
    """Whether a voxel can belong to several segments."""
    members = [value for segment in segments_of(labels, "binary") for value in segment.values]
    return len(members) > len(set(members))


def is_installed() -> bool:
    """Whether the package is installed that writes segmentations."""
    return find_spec("highdicom") is not None


def check_kind(kind: Kind, labels: Labels) -> None:
    """Check that segmentations of this kind can be written.

    Raises:
        InputError: If highdicom is not installed, or segments overlap and label maps are wanted.
    """
    if not is_installed():
        raise InputError(f"DICOM segmentations need highdicom, which is not installed; run `{INSTALL}`")
    if kind == "labelmap" and overlap(labels):
        raise InputError(
            f"the regions {', '.join(labels.foreground)} overlap, which a label map cannot hold: it has one number per "
            "voxel; use --dicom-seg binary"
        )


def write_segmentation(
    path: Path, array: NDArray[Any], geometry: Geometry, folder: Path, contents: SegmentationContents
) -> None:
    """Write the segmentation of a DICOM series, in the process that reads images.

    Args:
        path: The file, which is complete or absent afterwards.
        array: Values of labels (D, H, W) in canonical axes.
        geometry: The grid of the series when it was read.
        folder: The files of the series.
        contents: What the segmentation says.

    Raises:
        ImageError: If the series has changed, or cannot be read any more.
        InputError: If the system refuses to write, or memory has no room for the masks of regions that overlap.
        WorkerError: If the process died.
    """
    try:
        call_apart(_write, path, geometry.from_canonical(array), geometry, folder, contents)
    except Crash as crash:
        raise WorkerError(f"{path}: the process that wrote it crashed ({crash}); predict the case again") from None


def _write(path: Path, array: NDArray[Any], geometry: Geometry, folder: Path, contents: SegmentationContents) -> None:
    """Write the values of labels (z, y, x) of a series."""
    from seg25d.data.dicom_frames import quiet_pydicom  # noqa: PLC0415 - loads pydicom
    from seg25d.data.dicom_source import segmented_series  # noqa: PLC0415 - the same
    from seg25d.data.image_dicom import find_volumes, volume_geometry  # noqa: PLC0415 - loads SimpleITK

    (volume,) = find_volumes(folder)
    if difference := geometry.difference(volume_geometry(volume)):
        problem = f"the series is another one than when it was read: {difference}"
        raise FileError(folder, problem, "predict the case again, without changing its files meanwhile")
    with quiet_pydicom():
        segmentation = make_segmentation(segmented_series(volume), array, contents)
        with atomic_path(path) as temporary:
            segmentation.save_as(temporary, enforce_file_format=True)


def make_segmentation(
    source: "SegmentedSeries", array: NDArray[Any], contents: SegmentationContents
) -> "pydicom.Dataset":
    """Make the segmentation of a series, with references to its images.

    Args:
        source: The series.
        array: Values of labels (z, y, x), a slice per slice of the series.
        contents: What the segmentation says.

    Returns:
        A segmentation as DICOM PS3.3, A.51, describes it. Only slices with voxels have a frame for each of the segments
        there; one without any voxels has an empty frame per segment, of the first slice.
    """
    import highdicom  # noqa: PLC0415 - an extra
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: PLC0415 - loads pydicom

    # Without any voxels highdicom would write an empty frame per slice and segment.
    places = np.flatnonzero(array.any(axis=(1, 2))) if array.any() else np.zeros(1, np.intp)
    title = f"seg25d {contents.model}"[:_MOST_CHARACTERS]
    segmentation: pydicom.Dataset = highdicom.seg.Segmentation(
        source_images=[source.images[place] for place in places],
        pixel_array=_pixels(array[places], contents),
        segmentation_type=contents.kind.upper(),
        segment_descriptions=[_describe(segment, contents) for segment in contents.segments],
        series_instance_uid=generate_uid(prefix=None),
        series_number=source.number,
        sop_instance_uid=generate_uid(prefix=None),
        instance_number=1,
        manufacturer="seg25d",
        manufacturer_model_name=title,
        software_versions=__version__,
        device_serial_number=__version__,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        content_label="SEGMENTATION",
        content_description=title,
        series_description=title,
        specific_character_set=_character_set(f"{source.images[0]}{contents}"),
    )
    _refer(segmentation, source)
    _identify(segmentation)
    return segmentation


def _character_set(text: str) -> str:
    """Latin 1 where it has all characters, else UTF-8: dcmjs 0.51 reads texts inside sequences as Latin 1."""
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return "ISO_IR 192"
    return "ISO_IR 100"


def _pixels(array: NDArray[Any], contents: SegmentationContents) -> NDArray[Any]:
    """Numbers of segments (z, y, x), or a mask for each of them (z, y, x, segments), if they overlap.

    Raises:
        InputError: If there is no memory for the masks, all of which highdicom takes at once.
    """
    labels, segments = contents.labels, contents.segments
    needed = _BYTES_OF_MASKS * len(segments) + _BYTES_BESIDE_MASKS
    if overlap(labels) and (lack := lack_of_memory(array.shape, needed)):
        raise InputError(
            f"a DICOM segmentation of {len(segments)} regions that overlap: {lack}; predict with --dicom-seg none, "
            "stop other programs, or use a machine with more memory"
        )
    indices = labels.encode(array, contents.model)
    numbers = np.zeros(NUM_INDICES, np.uint8)
    members = np.zeros((len(segments), NUM_INDICES), np.uint8)
    for place, segment in enumerate(segments):
        own = [labels.values.index(value) for value in segment.values]
        numbers[own], members[place, own] = segment.number, 1
    if not overlap(labels):
        return numbers[indices]
    masks = np.empty((len(segments), *array.shape), np.uint8)  # in this order, as they are taken one by one
    for mask, table in zip(masks, members, strict=True):
        mask[...] = table[indices]
    return np.moveaxis(masks, 0, -1)


def _describe(segment: Segment, contents: SegmentationContents) -> "pydicom.Dataset":
    """What a segment is; without a code it is tissue, as 3D Slicer and dcmqi say where nobody says more."""
    import highdicom  # noqa: PLC0415 - an extra
    from pydicom.sr.codedict import codes  # noqa: PLC0415 - a large table

    code = contents.codes.get(segment.name)
    category, kind = codes.SCT.Tissue, codes.SCT.Tissue
    if code is not None:
        kind = _concept(code.type)
        category = _category(code.type) if code.category is None else _concept(code.category)
    red, green, blue = colorsys.hsv_to_rgb((segment.number - 1) * _HUE_TURN % 1, 0.75, 0.95)
    described: pydicom.Dataset = highdicom.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.name.replace("\\", "/").strip()[:_MOST_CHARACTERS],
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=f"seg25d {contents.model}"[:_MOST_CHARACTERS],
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            parameters=contents.parameters,
        ),
        anatomic_regions=None if code is None or code.region is None else [_concept(code.region)],
        display_color=highdicom.color.CIELabColor.from_rgb(255 * red, 255 * green, 255 * blue),
    )
    noun = "value" if len(segment.values) == 1 else "values"
    described.SegmentDescription = f"{noun} {', '.join(map(str, segment.values))} of the label file"
    if code is not None and code.modifier is not None:
        described.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
            _concept(code.modifier)
        ]
    return described


def _concept(code: Code) -> "pydicom.Dataset":
    import highdicom  # noqa: PLC0415 - an extra

    concept: pydicom.Dataset = highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)
    return concept


def _category(code: Code) -> Any:
    """Abnormal where DICOM counts the type to the lesions, else anatomical structure."""
    from pydicom.sr.codedict import codes  # noqa: PLC0415 - a large table

    lesions = getattr(codes, f"cid{_LESIONS}").concepts
    known = {(each.value, each.scheme_designator) for name, each in lesions.items() if name not in _NO_LESIONS}
    is_lesion = (code.value, code.scheme) in known
    return codes.SCT.MorphologicallyAbnormalStructure if is_lesion else codes.SCT.AnatomicalStructure


def _identify(segmentation: "pydicom.Dataset") -> None:
    """Name the segment with every frame, also where it is the only one: simple readers do not look elsewhere."""
    shared = segmentation.SharedFunctionalGroupsSequence[0]
    if "SegmentIdentificationSequence" in shared:
        for group in segmentation.PerFrameFunctionalGroupsSequence:
            group.SegmentIdentificationSequence = shared.SegmentIdentificationSequence
        del shared.SegmentIdentificationSequence


def _refer(segmentation: "pydicom.Dataset", source: "SegmentedSeries") -> None:
    """Refer to the images of the series in place of those that stood for them."""
    import pydicom  # noqa: PLC0415 - late, as everything of DICOM here

    known = {reference.instance for reference in source.references.values()}
    for group in segmentation.PerFrameFunctionalGroupsSequence:
        (item,) = group.DerivationImageSequence[0].SourceImageSequence
        if (reference := source.references.get(item.ReferencedSOPInstanceUID)) is not None:
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = reference[:2]
            if reference.frame_number is not None:
                item.ReferencedFrameNumber = reference.frame_number
        elif item.ReferencedSOPInstanceUID not in known:  # frames of several segments share an item
            group.DerivationImageSequence = []
    instances = dict.fromkeys((each.kind, each.instance) for each in source.references.values())
    del segmentation.SourceImageSequence, segmentation.ReferencedSeriesSequence
    if not instances:
        return
    items = []
    for kind, instance in instances:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = kind, instance
        items.append(item)
    segmentation.SourceImageSequence = items
    series = pydicom.Dataset()
    series.SeriesInstanceUID = source.series
    series.ReferencedInstanceSequence = items
    segmentation.ReferencedSeriesSequence = [series]
