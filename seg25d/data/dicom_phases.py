"""Phases of a DICOM series: sets of slices that are volumes of their own, and the attributes that tell them apart.

A series has phases where several slices lie at one place, or where an attribute that never changes within a volume,
such as the echo time, divides it into sets of slices that reach into each other.
"""

from collections.abc import Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.data.dicom_frames import PHASE_TAGS, UID_TAGS, Frame
from seg25d.data.problems import FileError

_SAME_PLACE_MM, _SAME_PLACE_PIXELS = 0.05, 0.2
"""Slices closer than both are at one place: positions jitter by 0.01 mm, and slices lie further apart than that."""
_LISTED, _SHOWN = 5, 2
_MOST_ATTRIBUTES = 3
"""Most attributes that are needed together to tell phases apart, such as echo, part of a complex number and time."""
_ONE_PER_VOLUME = (
    "TemporalPositionIdentifier",
    "TemporalPositionIndex",
    "NominalPercentageOfCardiacPhase",
    "NominalCardiacTriggerDelayTime",
    "EchoNumbers",
    "EchoTime",
    "EffectiveEchoTime",
    "InversionTime",
    "DiffusionBValue",
    "ImageType",
    "FrameType",
    "ComplexImageComponent",
    "ConvolutionKernel",
    "StackID",
)
"""Attributes that slices of one volume share. Times and acquisitions are not among them: they differ between slices
that were measured one after the other, or odd before even."""


class Phase(NamedTuple):
    """Slices of one phase in the order of their places."""

    frames: list[Frame]
    attributes: str = ""
    """What tells it apart, such as `EchoTime`; "" where there is one phase."""
    values: str = ""
    """Its own values of the attributes."""


def list_frames(frames: Sequence[Frame]) -> str:
    """Names of frames, at most five of them."""
    names = [frame.name for frame in frames]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


def find_phases(folder: Path, frames: Sequence[Frame], along: NDArray[np.float64]) -> list[Phase]:
    """Divide the frames of a series into phases.

    Args:
        folder: For messages.
        frames: All frames, of one orientation.
        along: Their places along the normal of the slices (n), in mm.

    Returns:
        One phase where every place has one slice.

    Raises:
        ImageError: If several slices lie at one place, and no attribute tells them apart.
    """
    order = np.argsort(along, kind="stable")
    ordered, places = [frames[index] for index in order], along[order]
    pixel = min(frames[0].spacing_mm or (1,))
    starts = np.diff(places, prepend=-np.inf) > min(_SAME_PLACE_MM, _SAME_PLACE_PIXELS * pixel)
    place_of = np.cumsum(starts) - 1
    at_place: list[list[Frame]] = [[] for _ in range(place_of[-1] + 1)]
    for frame, place in zip(ordered, place_of, strict=True):
        at_place[place].append(frame)
    if all(len(each) == 1 for each in at_place):
        return _tell_apart_between_places(ordered) or [Phase(ordered)]
    if phases := _tell_apart(ordered, at_place) or _tell_apart_by_number(at_place):
        return phases
    doubled = next(each for each in at_place if len(each) > 1)
    problem = f"several slices lie at the same place, and no attribute tells them apart: {list_frames(doubled)}"
    raise FileError(folder, problem, "remove those that are there twice")


def several_phases(phases: Sequence[Phase]) -> tuple[str, str]:
    """Problem and cure of a series with several phases."""
    parts = "; ".join(f"{phase.values} ({list_frames(phase.frames)})" for phase in phases[:_SHOWN])
    more = f"; and {len(phases) - _SHOWN} more" if len(phases) > _SHOWN else ""
    cure = "make a case of each with `seg25d convert --from dicom --split-phases`, or keep one phase"
    return f"the series has {len(phases)} phases, told apart by {phases[0].attributes}: {parts}{more}", cure


def differing_tags(frames: Sequence[Frame]) -> list[str]:
    """Attributes that slices of one volume usually share, and in which these differ."""
    uids = [name for name in UID_TAGS if len({frame.origin.get(name) for frame in frames}) > 1]
    return uids + _differing(frames)


def _differing(frames: Sequence[Frame]) -> list[str]:
    return [name for name in _ONE_PER_VOLUME if len({frame.phase.get(name) for frame in frames}) > 1]


def _tell_apart_between_places(ordered: Sequence[Frame]) -> list[Phase]:
    """Phases whose slices lie between each other; none where there is one volume."""
    for name in _differing(ordered):
        groups = _group(ordered, (name,))
        numbers = [
            [index for index, frame in enumerate(ordered) if frame.phase.get(name, "") == key] for (key,) in groups
        ]
        ends = sorted((min(each), max(each)) for each in numbers)
        overlap = all(end > start for (_, end), (start, _) in pairwise(ends))
        if overlap and min(map(len, numbers)) > 1:
            return _described(groups, (name,))
    return []


def _tell_apart(ordered: Sequence[Frame], at_place: Sequence[Sequence[Frame]]) -> list[Phase]:
    """Phases by the fewest and surest attributes that differ between the slices of a place; none where none do."""
    place_of = {(frame.path, frame.index): place for place, each in enumerate(at_place) for frame in each}
    num_phases = max(map(len, at_place))
    # Times that are shared by a few slices would make many small phases of one.
    names = [name for name in PHASE_TAGS if 1 < len({frame.phase.get(name) for frame in ordered}) <= num_phases]
    for number in range(1, _MOST_ATTRIBUTES + 1):
        for chosen in combinations(names, number):
            groups = _group(ordered, chosen)
            places = [[place_of[frame.path, frame.index] for frame in each] for each in groups.values()]
            whole = min(map(len, places)) > 1 or len(at_place) == 1
            if len(groups) == num_phases and whole and all(len(set(each)) == len(each) for each in places):
                return _described(groups, chosen)
    return []


def _tell_apart_by_number(at_place: Sequence[Sequence[Frame]]) -> list[Phase]:
    """Phases one after the other by Instance Number, where every place has one slice of each."""
    numbers = [[frame.number for frame in each] for each in at_place]
    alike = len({len(each) for each in numbers}) == 1
    if not alike or any(None in each or len(set(each)) < len(each) for each in numbers):
        return []
    by_number = [sorted(each, key=_number) for each in at_place]
    phases = [list(phase) for phase in zip(*by_number, strict=True)]
    return [Phase(each, "InstanceNumber", f"{min(map(_number, each))} to {max(map(_number, each))}") for each in phases]


def _group(frames: Sequence[Frame], names: Sequence[str]) -> dict[tuple[str, ...], list[Frame]]:
    groups: dict[tuple[str, ...], list[Frame]] = {}
    for frame in frames:
        groups.setdefault(tuple(frame.phase.get(name, "") for name in names), []).append(frame)
    return groups


def _described(groups: dict[tuple[str, ...], list[Frame]], names: Sequence[str]) -> list[Phase]:
    """Phases in the order of numbers, else in that of the instances."""
    if all(_is_number(part) for key in groups for part in key):
        keys = sorted(groups, key=lambda key: [float(part) for part in key])
    else:
        keys = sorted(groups, key=lambda key: (min(map(_number, groups[key])), key))
    return [Phase(groups[key], " and ".join(names), " and ".join(part or "missing" for part in key)) for key in keys]


def _number(frame: Frame) -> int:
    return frame.number or 0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
