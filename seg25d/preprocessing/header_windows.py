"""Intensity windows from the headers of a case's images, for the normalisation of the case."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seg25d.data.cases import Case
from seg25d.planning.normalization import ChannelNormalization


class Remark(NamedTuple):
    """A message to the user with its level in `logging`, returned by worker processes, which cannot log it."""

    level: int
    text: str


def with_header_windows(
    normalization: Sequence[ChannelNormalization], case: Case
) -> tuple[tuple[ChannelNormalization, ...], tuple[Remark, ...]]:
    """The normalisation of a case: channels with `ct_window_dicom` get the window in the header of their image.

    Files are opened for such channels only. Where a header has no valid window, that of the plan is used.

    Args:
        normalization: As planned, one per channel.
        case: One image per channel.

    Returns:
        One per channel, and remarks about windows that are missing or not used.

    Raises:
        ImageError: If a header cannot be read.
    """
    found, remarks = list(normalization), []
    # `normalize` refuses images with another number of channels.
    for channel, (settings, path) in enumerate(zip(normalization, case.images, strict=False)):
        if settings.scheme == "ct_window_dicom":
            found[channel], remark = _with_window(settings, path, case.name)
            remarks += [remark] if remark else []
    return tuple(found), tuple(remarks)


def parse_window(center: str, width: str) -> tuple[float, float]:
    """Lower and upper end of a window: centre - width / 2 and centre + width / 2 (methods.md 2.2).

    Args:
        center: As in the header; the first of several values counts.
        width: Likewise.

    Raises:
        ValueError: If one is not a number, or the width is not above 0.
    """
    middle, extent = (float(text.partition("\\")[0]) for text in (center, width))
    if not (math.isfinite(middle) and math.isfinite(extent) and extent > 0):
        raise ValueError(f"no window: {middle}, {extent}")
    return middle - extent / 2, middle + extent / 2


def _with_window(
    settings: ChannelNormalization, path: Path, case_name: str
) -> tuple[ChannelNormalization, Remark | None]:
    from seg25d.data.image_window import read_window_tags  # noqa: PLC0415 - loads SimpleITK

    center, width = read_window_tags(path)
    taken = f"using the plan's, {settings.lower} .. {settings.upper}"
    if not (center or width):
        return settings, Remark(logging.INFO, f"{case_name}: {path.name} has no window in its header; {taken}")
    try:
        lower, upper = parse_window(center, width)
    except ValueError:
        problem = (
            f"the window in the header has centre {center!r} and width {width!r}, but must have numbers, width above 0"
        )
        advice = "correct the tags 0028|1050 and 0028|1051 if it should have its own"
        return settings, Remark(logging.WARNING, f"{case_name}: {path.name}: {problem}; {taken}; {advice}")
    return settings.model_copy(update={"lower": lower, "upper": upper}), None
