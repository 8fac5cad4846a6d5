"""Choice of a channel's normalisation from its name."""

import hashlib
import json
import math
from collections.abc import Sequence

from seg25d.core.errors import InputError
from seg25d.core.grids import NO_COMMON_SHAPE
from seg25d.core.limits import CommonShape
from seg25d.core.types import Spacing
from seg25d.planning.case_fingerprint import ChannelIntensities
from seg25d.planning.normalization import RGB_MAXIMUM, ChannelNormalization, Scheme

NAMED_SCHEMES: dict[str, Scheme] = {
    "zscore": "zscore",
    "rescale_to_0_1": "rescale_0_1",
    "rgb_to_0_1": "rgb_0_1",
    "nonorm": "none",
}
"""Channel names, in small letters, that name a scheme without parameters: those of nnU-Net
(map_channel_name_to_normalization.py, which ignores case and nothing else: blanks count)."""
DESCRIPTIONS: dict[Scheme, str] = {
    "zscore": "z-score per case",
    "rescale_0_1": "each case from its minimum and maximum to 0 .. 1",
    "rgb_0_1": f"values of 0 .. {RGB_MAXIMUM} divided by {RGB_MAXIMUM}",
    "none": "values stay as they are",
}
"""What the schemes without parameters do."""
HEADER_WINDOW = "dicom"
"""Word in place of LEVEL:WIDTH in the name of a channel: every image has the window of its own header."""
LUNG_LEVEL, LUNG_WIDTH = -600.0, 1500.0
"""The window for images without one in the header: that of lungs (methods.md 2.2)."""


def choose_normalization(channel: str, intensities: ChannelIntensities) -> ChannelNormalization:
    """Choose the normalisation of a channel; case of the name does not matter.

    `CT`: clip to the data set's 0.5 and 99.5 foreground percentiles, z-score with its foreground mean and standard
    deviation (nnU-Net, CTNormalization). `ct_window:LEVEL:WIDTH`: clip to a window; `ct_window:dicom`: to the window in
    the header of each image (Shivdeo et al. 2021: methods.md 2.2). A name of `NAMED_SCHEMES`: that scheme. Anything
    else: z-score per case.

    Args:
        channel: Name in dataset.json.
        intensities: Of the data set's foreground in this channel.

    Raises:
        InputError: If a known scheme has wrong parameters.
    """
    named = named_normalization(channel)
    if named.scheme != "ct":
        return named
    return named.model_copy(
        update={
            "lower": intensities.percentile_00_5,
            "upper": intensities.percentile_99_5,
            "mean": intensities.mean,
            "std": intensities.std,
        }
    )


def named_normalization(channel: str) -> ChannelNormalization:
    """Parse the normalisation that the name of a channel asks for; `ct` without the numbers from the data.

    Raises:
        InputError: If a known scheme has wrong parameters.
    """
    name = channel.casefold()
    scheme, *parameters = (part.strip() for part in name.split(":"))
    if scheme == "ct_window":
        return _window(channel, parameters)
    if parameters and scheme in ("ct", *NAMED_SCHEMES):
        raise InputError(
            f"channel_names: {channel!r}: {scheme!r} takes no parameters, got {':'.join(parameters)!r}; "
            f"write {scheme!r}, or ct_window:LEVEL:WIDTH for a fixed window"
        )
    return ChannelNormalization(channel=channel, scheme="ct" if name == "ct" else NAMED_SCHEMES.get(name, "zscore"))


def scheme_of_version_0_2(channel: str, scheme: Scheme) -> Scheme:
    """What version 0.2 took the name of a channel for, which knew fewer of nnU-Net's names and took off blanks.

    Args:
        channel: The name.
        scheme: What it is now; that of windows is the same.
    """
    if scheme in ("ct_window", "ct_window_dicom"):
        return scheme
    before: dict[str, Scheme] = {"ct": "ct", "rescale_0_1": "rescale_0_1", "none": "none"}
    return before.get(channel.strip().lower(), "zscore")


def value_ranges(channels: Sequence[str]) -> dict[int, tuple[float, float]]:
    """Find the channels whose scheme takes values of some range only: its ends, by the number of the channel.

    Raises:
        InputError: If a known scheme has wrong parameters.
    """
    schemes = [named_normalization(channel).scheme for channel in channels]
    return {index: (0.0, float(RGB_MAXIMUM)) for index, scheme in enumerate(schemes) if scheme == "rgb_0_1"}


def asks_for_scheme(channel: str) -> bool:
    """Whether the name of a channel names a normalisation, instead of what the channel shows.

    Raises:
        InputError: If a known scheme has wrong parameters.
    """
    return (
        named_normalization(channel).scheme in ("ct_window", "ct_window_dicom") or channel.casefold() in NAMED_SCHEMES
    )


def normalization_reason(normalization: ChannelNormalization) -> str:
    """Explain the normalisation of a channel."""
    name = repr(normalization.channel)
    if normalization.scheme == "ct":
        return (
            f"{name} is CT: clipped to {normalization.lower:.4g} .. {normalization.upper:.4g} (0.5 and 99.5 percentile "
            f"of the data set's foreground), then (x - {normalization.mean:.4g}) / {normalization.std:.4g} (nnU-Net)"
        )
    if normalization.scheme == "ct_window":
        return f"{name} asks for the window {normalization.lower:.4g} .. {normalization.upper:.4g}"
    if normalization.scheme == "ct_window_dicom":
        return f"{name} asks for {header_window(normalization)}"
    if normalization.channel.casefold() in NAMED_SCHEMES:
        return f"{name} asks for {normalization.scheme}: {DESCRIPTIONS[normalization.scheme]}"
    if normalization.channel.strip().casefold() in ("ct", *NAMED_SCHEMES):
        return f"{name} is no name of a scheme, as its blanks count: z-score per case (nnU-Net's choice for all but CT)"
    return f"{name} has no scale of its own: z-score per case (nnU-Net's choice for all but CT)"


def header_window(normalization: ChannelNormalization) -> str:
    """Describe the scheme `ct_window_dicom` in words."""
    return (
        "the window in the header of each image (DICOM 0028,1050 and 0028,1051), "
        f"{normalization.lower:.4g} .. {normalization.upper:.4g} where it has none"
    )


def store_name(
    spacing_mm: Spacing, normalization: Sequence[ChannelNormalization], common_shape: CommonShape | None = None
) -> str:
    """Name of the folder of arrays: spacing or size and schemes for the reader, and a hash of all other numbers."""
    content = {"spacing_mm": spacing_mm, "normalization": [channel.model_dump() for channel in normalization]}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:8]
    spacing = "_".join(
        f"{size}voxels" if size else f"{step:.2f}"
        for step, size in zip(spacing_mm, common_shape or NO_COMMON_SHAPE, strict=True)
    )
    schemes = "-".join(dict.fromkeys(channel.scheme for channel in normalization))
    return f"spacing_{spacing}_{schemes}_{digest}"


def _window(channel: str, parameters: Sequence[str]) -> ChannelNormalization:
    of_header = list(parameters) == [HEADER_WINDOW]
    try:
        level, width = (LUNG_LEVEL, LUNG_WIDTH) if of_header else (float(parameter) for parameter in parameters)
    except ValueError:
        level, width = math.nan, math.nan
    if not (math.isfinite(level) and math.isfinite(width) and width > 0):
        raise InputError(
            f"channel_names: {channel!r} must be ct_window:LEVEL:WIDTH with numbers, WIDTH above 0, such as "
            f"ct_window:40:400, or ct_window:{HEADER_WINDOW} for the window in each image's header; "
            f"got {list(parameters)}"
        )
    scheme: Scheme = "ct_window_dicom" if of_header else "ct_window"
    return ChannelNormalization(channel=channel, scheme=scheme, lower=level - width / 2, upper=level + width / 2)
