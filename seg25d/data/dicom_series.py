"""From the files of a DICOM series to regular volumes, or one sentence that says why they are none.

A volume is a list of frames of one size, spacing and orientation, each a step further along the normal of the slices.
What is no volume is refused; `DicomOptions` allow some of it, and then the volume says what was done.
"""

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg25d.data.cases import SEGMENTATIONS
from seg25d.data.dicom_frames import CURE_OF_DAMAGE, ORIGIN_TAGS, Frame, read_frames, read_header
from seg25d.data.dicom_options import DicomOptions
from seg25d.data.dicom_phases import Phase, differing_tags, find_phases, list_frames, several_phases
from seg25d.data.dicom_values import Vector, cross
from seg25d.data.problems import FileError, first_names

logger = logging.getLogger(__name__)
Numbers = NDArray[np.float64]
_MAX_OFF_MM, _MAX_OFF_STEPS = 0.03, 0.02
"""A slice may be as far from its regular place as the larger of both: twice a jitter of 0.01 mm and a rounding, or a
fiftieth of the distance of slices, as old scanners round positions to tenths of a millimetre."""
_MAX_ASIDE_PIXELS, _MAX_TILT_DEGREES = 0.25, 0.5
"""A stack may lean by a quarter of a pixel in all, or less than half a degree where it has few slices."""
_SAME_COSINES = 1e-3
_SAME_SPACING = 1e-3
_MAX_FILLED = 4
"""Slices of a regular volume per slice that is there."""
_OTHER_DISTANCE = 0.5
"""Distances that differ by more than this share are told."""
_LISTED = 5


class NoImagesError(FileError):
    """A folder of DICOM files without images: of reports, plans or structures."""


@dataclass(frozen=True)
class DicomVolume:
    """Slices that make a volume, from first to last along their normal."""

    frames: tuple[Frame, ...]
    origin_mm: Vector
    """Centre of the first voxel, (x, y, z) in LPS."""
    step_mm: float
    """Distance of slices."""
    places: tuple[float, ...] | None = None
    """Where the slices lie in steps from the first, if slices are to be interpolated between them."""
    shifts: tuple[tuple[float, float], ...] | None = None
    """How many rows and columns each slice lies aside of the first, if the gantry was tilted."""
    phase: str = ""
    """Name among several phases: `phase1`; "" where there is one."""
    changes: tuple[str, ...] = ()
    """What was done or assumed, in sentences."""


def find_volumes(folder: Path, options: DicomOptions | None = None) -> list[DicomVolume]:
    """Find the volumes of the one DICOM series of a folder.

    Args:
        folder: A folder of DICOM files; other files in it are left alone.
        options: What is accepted.

    Returns:
        One volume, or one per phase.

    Raises:
        ImageError: If there is no series or more than one, or it is no regular volume and the options do not allow it.
    """
    options = options or DicomOptions()
    frames = _read_folder(folder)
    _check_one_series(folder, frames)
    _check_scouts(folder, frames)
    _check_copies(folder, frames)
    _check_same(folder, frames)
    along, _ = _along_and_aside(frames)
    phases = find_phases(folder, frames, along)
    if len(phases) > 1 and not options.split_phases:
        raise FileError(folder, *several_phases(phases))
    digits = len(str(len(phases)))
    names = [f"phase{number:0{digits}d}" for number in range(1, len(phases) + 1)] if len(phases) > 1 else [""]
    return [_volume(folder, phase, name, options) for name, phase in zip(names, phases, strict=True)]


def _read_folder(folder: Path) -> list[Frame]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())
    of_file = {path: read_frames(path) for path in paths}
    frames = _without_segmentations(folder, [frame for each in of_file.values() for frame in each])
    images = {_pattern(path) for path, each in of_file.items() if each}
    for path in paths:
        if _pattern(path) in images and not of_file[path] and read_header(path) is None:
            problem = "the file is called like the DICOM images beside it and is none: it is empty, cut off or damaged"
            raise FileError(path, problem, f"{CURE_OF_DAMAGE}, or move it away")
    if not frames:
        raise NoImagesError(folder, "the folder holds no DICOM images", "give a folder with the files of one series")
    return frames


def _without_segmentations(folder: Path, frames: list[Frame]) -> list[Frame]:
    """Frames of images, where there are some beside segmentations of them."""
    images = [frame for frame in frames if frame.kind not in SEGMENTATIONS]
    if images and (left_out := sorted({frame.path.name for frame in frames} - {frame.path.name for frame in images})):
        logger.info("%s: segmentations are left out: %s", folder, first_names(left_out))
    return images or frames


def _pattern(path: Path) -> str:
    """A file's name without its digits, which files of one series share."""
    return re.sub(r"\d+", "", path.name)


def _check_one_series(folder: Path, frames: Sequence[Frame]) -> None:
    series: dict[str, list[Frame]] = {}
    for frame in frames:
        series.setdefault(frame.series, []).append(frame)
    if len(series) == 1:
        return
    listed = ", ".join(
        f"{name or 'without a name'} ({_count_files(each)}{', localizers' if all(f.is_scout for f in each) else ''}, "
        f"such as {each[0].path.name})"
        for name, each in series.items()
    )
    cure = "put each series into a separate folder"
    raise FileError(folder, f"the folder holds {len(series)} DICOM series: {listed}", cure)


def _count_files(frames: Iterable[Frame]) -> str:
    count = len({frame.path for frame in frames})
    return "1 file" if count == 1 else f"{count} files"


def _check_scouts(folder: Path, frames: Sequence[Frame]) -> None:
    scouts = [frame for frame in frames if frame.is_scout]
    if scouts:
        problem = f"{list_frames(scouts)} of {len(frames)} are localizers (scouts), which are no slices of a volume"
        cure = "move them away" if len(scouts) < len(frames) else "give the series that was planned with them"
        raise FileError(folder, problem, cure)


def _check_copies(folder: Path, frames: Sequence[Frame]) -> None:
    first: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        if frame.instance and (other := first.setdefault((frame.instance, frame.index), frame)) is not frame:
            problem = f"{frame.path.name} is a copy of {other.path.name} (both say they are the same image)"
            raise FileError(folder, problem, "remove one of the two")


def _check_same(folder: Path, frames: Sequence[Frame]) -> None:
    """Check that all frames have positions, one size, one spacing and one orientation."""
    for what, missing in (
        ("position (Image Position, Patient)", [frame for frame in frames if frame.position_mm is None]),
        ("orientation (Image Orientation, Patient)", [frame for frame in frames if frame.orientation is None]),
        ("pixel spacing", [frame for frame in frames if frame.spacing_mm is None]),
    ):
        if missing:
            problem = f"{list_frames(missing)} of {len(frames)} say no {what}, so that order and size are not known"
            raise FileError(folder, problem, "export the series again with all attributes of its images")
    for name in sorted(frozenset().union(*(frame.rescale for frame in frames))):
        if missing := [frame for frame in frames if name not in frame.rescale]:
            problem = f"{list_frames(missing)} of {len(frames)} say no {name}, the others do"
            raise FileError(folder, problem, "export the series again with all attributes of its images")
    if bad := [frame for frame in frames if min(frame.spacing_mm or (0,)) <= 0]:
        raise FileError(folder, f"{list_frames(bad)}: the pixel spacing is not positive", CURE_OF_DAMAGE)
    cure = "put what belongs to another image (such as a scout) into a separate folder"
    _check_one(folder, frames, "sizes", lambda frame: frame.shape, lambda a, b: a == b, cure)
    same_spacing = _close(_SAME_SPACING, relative=True)
    _check_one(folder, frames, "pixel spacings", lambda frame: frame.spacing_mm or (), same_spacing, cure)
    same_direction = _close(_SAME_COSINES, relative=False)
    _check_one(folder, frames, "orientations", lambda frame: frame.orientation or (), same_direction, cure)
    for name in ORIGIN_TAGS:
        values = Counter(frame.origin[name] for frame in frames if name in frame.origin)
        if len(values) > 1:
            (usual, _), *_ = values.most_common()
            others = [frame for frame in frames if frame.origin.get(name, usual) != usual]
            problem = (
                f"the slices differ in {name}: {list_frames(others)} of {len(frames)}, "
                f"{others[0].origin[name]} against {usual}"
            )
            raise FileError(folder, problem, "put what belongs to another image into a separate folder")


def _close(tolerance: float, *, relative: bool) -> Callable[[Vector, Vector], bool]:
    def close(first: Vector, second: Vector) -> bool:
        scale = max(map(abs, first)) if relative else 1.0
        return all(abs(a - b) <= tolerance * scale for a, b in zip(first, second, strict=True))

    return close


def _check_one(
    folder: Path,
    frames: Sequence[Frame],
    what: str,
    value_of: Callable[[Frame], Vector],
    same: Callable[[Vector, Vector], bool],
    cure: str,
) -> None:
    """Check that all frames share a value, and name those that have not the usual one."""
    usual = Counter(value_of(frame) for frame in frames).most_common(1)[0][0]
    others = [frame for frame in frames if not same(usual, value_of(frame))]
    if others:
        values = f"{_show(value_of(others[0]))} against {_show(usual)}"
        problem = f"the slices have several {what}: {list_frames(others)} of {len(frames)}, {values}"
        raise FileError(folder, problem, cure)


def _show(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:.4g}" for number in numbers)


def _along_and_aside(frames: Sequence[Frame]) -> tuple[Numbers, Numbers]:
    """Places along the normal (n) and within the plane, along columns and rows (n, 2), in mm."""
    first = frames[0].orientation
    assert first is not None, "all frames have the same"
    row, column = np.array(first[:3]), np.array(first[3:])
    positions = np.array([frame.position_mm for frame in frames], dtype=np.float64)
    normal = np.array(cross(first[:3], first[3:]))
    return positions @ normal, np.stack([positions @ column, positions @ row], axis=1)


def _volume(folder: Path, phase: Phase, name: str, options: DicomOptions) -> DicomVolume:
    frames = phase.frames
    changes = [f"the phase with {phase.attributes} {phase.values}"] if phase.attributes else []
    if frames[0].origin.get("PhotometricInterpretation") == "MONOCHROME1":
        changes.append("the numbers are as stored, although higher ones are meant to be darker (MONOCHROME1)")
    if len(frames) == 1:
        return _single_slice(folder, frames[0], name, changes)
    along, aside = _along_and_aside(frames)
    if names := differing_tags(frames):
        changes.append(f"taken as one volume, although its slices differ in {' and '.join(names)}")
    shifts = _tilt_shifts(folder, frames, along, aside, options, changes)
    step = float(along[-1] - along[0]) / (len(frames) - 1)
    off = np.abs(along - along[0] - step * np.arange(len(frames)))
    places = None
    if off.max() > max(_MAX_OFF_MM, _MAX_OFF_STEPS * step):
        step = _check_gaps(folder, frames, along, options, changes)
        places = tuple(float(place) for place in (along - along[0]) / step)
    elif (said := frames[0].between_mm) and abs(step / said - 1) > _OTHER_DISTANCE:
        changes.append(
            f"the slices are {step:.4g} mm apart by their positions; Spacing Between Slices says {said:.4g} mm"
        )
    return DicomVolume(
        frames=tuple(frames),
        origin_mm=frames[0].position_mm or (),
        step_mm=step,
        places=places,
        shifts=shifts,
        phase=name,
        changes=tuple(changes),
    )


def _single_slice(folder: Path, frame: Frame, phase: str, changes: Sequence[str]) -> DicomVolume:
    if not frame.thickness_mm:
        problem = f"{frame.name} is a single slice that does not say how thick it is"
        raise FileError(folder, problem, "add the other slices, or write Slice Thickness into its header")
    change = f"a single slice, taken to be {frame.thickness_mm:g} mm thick as its header says"
    return DicomVolume((frame,), frame.position_mm or (), frame.thickness_mm, phase=phase, changes=(*changes, change))


def _tilt_shifts(
    folder: Path, frames: Sequence[Frame], along: Numbers, aside: Numbers, options: DicomOptions, changes: list[str]
) -> tuple[tuple[float, float], ...] | None:
    """How many rows and columns slices lie aside of the first; None where they lie straight behind it."""
    spacing = np.array(frames[0].spacing_mm)
    relative = aside - aside[0]
    lean = relative[-1] / (along[-1] - along[0])
    astray = np.abs(relative - np.outer(along - along[0], lean)).max(axis=1)
    allowed = max(_MAX_OFF_MM, _MAX_ASIDE_PIXELS * float(spacing.min()))
    if astray.max() > allowed:
        worst = frames[int(astray.argmax())]
        problem = f"{worst.name} lies {astray.max():.3g} mm aside of the line through the other slices"
        raise FileError(folder, problem, "leave out slices of other images, or export the series again")
    drift = float(np.abs(relative[-1]).max())
    angle = math.degrees(math.atan(float(np.hypot(*lean))))
    if drift <= _MAX_OFF_MM or (drift <= allowed and angle <= _MAX_TILT_DEGREES):
        return None
    if not options.resample_tilt:
        problem = (
            f"the gantry was tilted: from {frames[0].name} to {frames[-1].name} the slices lie up to {drift:.3g} mm "
            f"aside of each other ({angle:.3g} degrees)"
        )
        raise FileError(folder, problem, "straighten it with `seg25d convert --from dicom --resample-tilt`")
    changes.append(f"slices shifted within their planes, as the gantry was tilted by {angle:.3g} degrees")
    return tuple((float(row), float(column)) for row, column in relative / spacing)


def _check_gaps(
    folder: Path, frames: Sequence[Frame], along: Numbers, options: DicomOptions, changes: list[str]
) -> float:
    """The distance of slices to interpolate at, where that is allowed."""
    distances = np.diff(along)
    step = float(distances.min())
    step = float(distances[distances < 1.5 * step].mean())
    multiples = distances / step
    gaps = np.flatnonzero(multiples > 1.5)
    whole = np.abs(multiples - np.round(multiples)).max() * step <= 2 * max(_MAX_OFF_MM, _MAX_OFF_STEPS * step)
    if not whole:
        step = float(np.median(distances))
    if whole and gaps.size:
        missing = int((np.round(multiples[gaps]) - 1).sum())
        between = [f"{frames[gap].name} and {frames[gap + 1].name}" for gap in gaps[:_LISTED]]
        noun = "1 slice is" if missing == 1 else f"{missing} slices are"
        problem = f"{noun} missing between {', between '.join(between)}; the others are {step:.4g} mm apart"
    else:
        off = int(np.abs(distances - step).argmax())
        problem = (
            f"the slices are {distances.min():.4g} to {distances.max():.4g} mm apart, such as {distances[off]:.4g} mm "
            f"between {frames[off].name} and {frames[off + 1].name}"
        )
    if not options.accept_gaps:
        cure = "add what is missing, or interpolate with `seg25d convert --from dicom --accept-gaps`"
        raise FileError(folder, problem, cure)
    wanted = round(float(along[-1] - along[0]) / step) + 1
    if wanted > _MAX_FILLED * len(frames) + 1:
        raise FileError(folder, f"{problem}; {wanted} slices would be made of {len(frames)}", "add what is missing")
    step = float(along[-1] - along[0]) / (wanted - 1)
    changes.append(f"slices interpolated to {wanted} that are {step:.4g} mm apart, as {problem}")
    return step
