"""Normalisation of intensities, channel by channel, as planned.

Letters: C channels, D H W volume.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError, RecordError
from seg25d.planning.normalization import RGB_MAXIMUM, ChannelNormalization, Scheme

STD_OFFSET = 1e-3
"""Added to the standard deviation by `zscore_offset` (Sobirov et al. 2022: methods.md 1.7)."""
SMALLEST_STD = 1e-8
"""Standard deviation below which a channel counts as constant (nnU-Net, default_normalization_schemes.py)."""


def normalize(
    image: NDArray[Any], normalization: Sequence[ChannelNormalization], out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Normalise every channel.

    Args:
        image: (C, D, H, W), any number type; not changed, unless it is `out` as well.
        normalization: One per channel, in the order of the channels.
        out: (C, D, H, W) where the result goes, which may be the image itself; None: a new array.

    Returns:
        (C, D, H, W). A constant channel becomes 0 where the scheme would divide by its spread.

    Raises:
        InputError: If the number of channels differs from the plan's, or a channel of `rgb_0_1` has other values than
            colours.
        RecordError: If the plan lacks a number that the scheme needs.
    """
    if len(image) != len(normalization):
        raise InputError(
            f"the plan has {len(normalization)} channel(s) ({', '.join(n.channel for n in normalization)}), the image "
            f"has {len(image)}; give one file per channel, in this order (one picture in colours has three)"
        )
    result = np.empty(image.shape, np.float32) if out is None else out
    for channel, settings, normalized in zip(image, normalization, result, strict=True):
        SCHEMES[settings.scheme](channel, settings, normalized)
    return result


def _ct(channel: NDArray[Any], settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    lower, upper = _number(settings, "lower"), _number(settings, "upper")
    mean, std = _number(settings, "mean"), _number(settings, "std")
    np.clip(channel, lower, upper, out=out, casting="unsafe")
    out -= np.float32(mean)
    out /= np.float32(max(std, SMALLEST_STD))


def _zscore(channel: NDArray[Any], _settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    # Sums in float64: values up to 1.7e6 occur, whose squares are too large to sum in float32.
    mean, std = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
    np.subtract(channel, mean, out=out, casting="unsafe")
    # The mean of equal values can be off by a rounding error, which must not be magnified.
    if std < max(SMALLEST_STD, 1e-7 * abs(mean)):
        out[...] = 0
    else:
        out /= np.float32(std)


def _zscore_offset(channel: NDArray[Any], _settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    mean, std = float(channel.mean(dtype=np.float64)), float(channel.std(dtype=np.float64))
    np.subtract(channel, mean, out=out, casting="unsafe")
    out /= np.float32(std + STD_OFFSET)


def _rescale(channel: NDArray[Any], _settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    _to_unit_range(channel, float(channel.min()), float(channel.max()), out)


def _rgb(channel: NDArray[Any], settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    lower, upper = float(channel.min()), float(channel.max())
    if lower < 0 or upper > RGB_MAXIMUM:
        raise InputError(
            f"channel {settings.channel}: expected colours from 0 to {RGB_MAXIMUM}, got values from {lower:g} to "
            f"{upper:g}; give images like those of training"
        )
    np.divide(channel, np.float32(RGB_MAXIMUM), out=out, casting="unsafe")


def _ct_window(channel: NDArray[Any], settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    lower, upper = _number(settings, "lower"), _number(settings, "upper")
    _to_unit_range(channel, lower, upper, out)


def _none(channel: NDArray[Any], _settings: ChannelNormalization, out: NDArray[np.float32]) -> None:
    out[...] = channel


def _to_unit_range(channel: NDArray[Any], lower: float, upper: float, out: NDArray[np.float32]) -> None:
    if upper - lower < SMALLEST_STD:
        out[...] = 0
        return
    np.clip(channel, lower, upper, out=out, casting="unsafe")
    out -= np.float32(lower)
    out /= np.float32(upper - lower)


def _number(settings: ChannelNormalization, name: str) -> float:
    value: float | None = getattr(settings, name)
    if value is None:
        raise RecordError(
            f"channel {settings.channel}: normalisation {settings.scheme} needs `{name}`, which the plan lacks; "
            "plan again"
        )
    return value


SCHEMES: dict[Scheme, Callable[[NDArray[Any], ChannelNormalization, NDArray[np.float32]], None]] = {
    "ct": _ct,
    "zscore": _zscore,
    "rescale_0_1": _rescale,
    "rgb_0_1": _rgb,
    "none": _none,
    "ct_window": _ct_window,
    "ct_window_dicom": _ct_window,  # with the numbers of the case, see header_windows.py
    "zscore_offset": _zscore_offset,
}
"""Normalisations by name."""
