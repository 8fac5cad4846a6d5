"""Perfect views of masks, and what they give when they are projected back: numpy alone, each mask in its own box.

The numbers are those of `ViewGeometry.project` and `mean_of_views`, which take the whole plane, with every slice
and mask as a number of a row. Here a bit stands for a slice, as a mask is 0 or 1: whether the value of a sample
is at least 0.5 is a matter of which of its four pixels are set. No torch, so that workers start in a moment.

Letters: N slices of a mask, R S pixels of the plane, T samples of a ray, V views, P pixels that are looked at.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.representations.projections.plane import Plane, cosine_sine

SLICES_AT_ONCE = 16
"""Bits of a number of `_Bits`."""
_Bits = np.uint16
_CORNERS = tuple(members for size in range(1, 5) for members in combinations(range(4), size))
"""Sets of the four pixels around a sample, by their numbers: the first axis of the plane counts twice."""
_BLOCK = 4
"""Pixels a side that are looked at together for whether a mask may be there."""
_PIXELS_AT_ONCE = 4096
"""Pixels that are projected back together: 4096 x 60 views take 20 MB."""


class PlaneMask(NamedTuple):
    """Slices of a mask, as far as its box reaches."""

    voxels: NDArray[np.bool_]
    """(N, r, s)."""
    corner: tuple[int, int]
    """Of the box in the plane."""


class _Rays(NamedTuple):
    """All samples of the rays at an angle."""

    angle: float
    first: NDArray[np.intp]
    """(S, T) pixels before the samples, along the first axis of the plane."""
    second: NDArray[np.intp]
    """The same along the second axis."""
    enough: tuple[NDArray[np.uint16], ...]
    """(S, T) for each of `_CORNERS`: all bits, where these pixels alone make a sample foreground, or none."""


def silhouettes(masks: Sequence[PlaneMask], plane: Plane, angles: Sequence[float]) -> list[NDArray[np.bool_]]:
    """Perfect views of masks: a pixel is set if the largest sample along its ray is at least 0.5.

    Args:
        masks: In the plane.
        plane: Its geometry.
        angles: In degrees, V of them.

    Returns:
        (V, S, N) for each mask.
    """
    groups = [
        (index, start, _packed(mask.voxels[start : start + SLICES_AT_ONCE]))
        for index, mask in enumerate(masks)
        for start in range(0, len(mask.voxels), SLICES_AT_ONCE)
    ]
    found = [np.zeros((len(angles), plane.size[1], len(mask.voxels)), np.bool_) for mask in masks]
    for view, angle in enumerate(angles):
        rays = _rays(plane, angle)
        for index, start, packed in groups:
            part = found[index][view, :, start : start + SLICES_AT_ONCE]
            places = np.arange(part.shape[1], dtype=_Bits)
            detector, bits = _cross(rays, plane, packed, masks[index].corner)
            part[detector] = (bits[:, None] >> places) & 1
    return found


def candidates(views: NDArray[np.bool_], plane: Plane, angles: Sequence[float], share: float) -> NDArray[np.bool_]:
    """Find the pixels that may be foreground in at least a share of the views that see them.

    Args:
        views: (V, S, N) silhouettes.
        plane: Geometry of the plane.
        angles: In degrees, V of them.
        share: From 0 on; 0 gives all pixels.

    Returns:
        (R, S): all pixels of which that is true in any slice, and some others.
    """
    (rays, detector), (ray_mm, detector_mm) = plane.size, plane.spacing_mm
    # Of blocks of pixels: their middles, and how far the others are from there.
    across, along = ((np.arange(-(-size // _BLOCK)) * _BLOCK + (_BLOCK - 1) / 2) for size in plane.size)
    across, along = (across[:, None] - (rays - 1) / 2) * ray_mm, (along - (detector - 1) / 2) * detector_mm
    hits = np.zeros((across.size, along.size), np.float32)
    seen = np.zeros_like(hits)
    together: NDArray[np.bool_] = np.any(views, axis=2)
    for view, angle in zip(together, angles, strict=True):
        cosine, sine = cosine_sine(angle)
        reach = (_BLOCK - 1) / 2 * (abs(cosine) * detector_mm + abs(sine) * ray_mm) / detector_mm
        place = (along * cosine + across * sine) / detector_mm + (detector - 1) / 2
        seen += (place >= reach) & (place <= detector - 1 - reach)
        if (shown := np.flatnonzero(view)).size:
            # Linear interpolation reaches to the next pixels of the detector.
            hits += (place > shown[0] - 1 - reach) & (place < shown[-1] + 1 + reach)
    chosen = hits >= share * np.maximum(seen, 1)
    return chosen.repeat(_BLOCK, 0).repeat(_BLOCK, 1)[:rays, :detector]


def hull(
    views: NDArray[np.bool_], plane: Plane, angles: Sequence[float], pixels: tuple[NDArray[np.intp], ...]
) -> NDArray[np.float32]:
    """The mean over the views that see a pixel of what they show there, as `mean_of_views`.

    Args:
        views: (V, S, N) silhouettes.
        plane: Geometry of the plane.
        angles: In degrees, V of them.
        pixels: Places (P,) along both axes.

    Returns:
        (P, N).
    """
    from scipy import sparse  # noqa: PLC0415 - heavy

    # The last column sums the weights in the same order, so that what all views show is 1 exactly.
    values = np.ones((len(angles) * plane.size[1], views.shape[2] + 1), np.float32)
    values[:, :-1] = views.reshape(len(values), -1)
    result = np.empty((len(pixels[0]), views.shape[2]), np.float32)
    for start in range(0, len(result), _PIXELS_AT_ONCE):
        part = slice(start, start + _PIXELS_AT_ONCE)
        indices, weights = _back_projection(plane, angles, (pixels[0][part], pixels[1][part]))
        offsets = np.arange(0, indices.size + 1, indices.shape[1], dtype=np.int32)
        matrix = sparse.csr_array((weights.ravel(), indices.ravel(), offsets), (len(indices), len(values)))
        summed = matrix @ values
        result[part] = summed[:, :-1] / np.maximum(summed[:, -1:], 1)
    return result


def _packed(voxels: NDArray[np.bool_]) -> NDArray[np.uint16]:
    """A bit per slice of at most 16 (N, r, s), with two empty pixels around: (r + 4, s + 4)."""
    packed = np.zeros((voxels.shape[1] + 4, voxels.shape[2] + 4), _Bits)
    for bit, plane in enumerate(voxels):
        packed[2:-2, 2:-2] |= plane.astype(_Bits) << _Bits(bit)
    return packed


def _rays(plane: Plane, angle: float) -> _Rays:
    (rays, detector), (ray_mm, detector_mm) = plane.size, plane.spacing_mm
    cosine, sine = cosine_sine(angle)
    s = _centred_points(detector)[:, None] * detector_mm
    t = _centred_points(plane.num_samples(angle)) * plane.step_mm
    first, first_weights = _neighbours((s * sine + t * cosine) / ray_mm + (rays - 1) / 2)
    second, second_weights = _neighbours((s * cosine - t * sine) / detector_mm + (detector - 1) / 2)
    weights = [one * other for one in first_weights for other in second_weights]
    sums = (sum((weights[member] for member in members[1:]), weights[members[0]]) for members in _CORNERS)
    enough = tuple(np.negative(total >= 0.5, dtype=_Bits, casting="unsafe") for total in sums)
    return _Rays(angle, first, second, enough)


def _cross(
    rays: _Rays, plane: Plane, packed: NDArray[np.uint16], corner: tuple[int, int]
) -> tuple[slice, NDArray[np.uint16]]:
    """What rays meet in the box of a mask: the pixels of the detector whose rays cross it, and a bit per slice each."""
    height, width = packed.shape
    part = _samples_in_box(rays.angle, plane, corner, (height - 4, width - 4))
    # What lies outside of the box is moved to the empty pixels around it.
    first, second = rays.first[part] - (corner[0] - 2), rays.second[part] - (corner[1] - 2)
    np.clip(first, 0, height - 2, out=first)
    np.clip(second, 0, width - 2, out=second)
    first *= width
    first += second
    flat = packed.ravel()
    corners = [flat[offset:].take(first) for offset in (0, 1, width, width + 1)]
    found, hit = np.zeros_like(corners[0]), np.empty_like(corners[0])
    for members, enough in zip(_CORNERS, rays.enough, strict=True):
        np.bitwise_and(enough[part], corners[members[0]], out=hit)
        for member in members[1:]:
            hit &= corners[member]
        found |= hit
    return part[0], np.bitwise_or.reduce(found, axis=1)


def _samples_in_box(angle: float, plane: Plane, corner: tuple[int, int], size: tuple[int, int]) -> tuple[slice, slice]:
    """Samples, along S and T, that may be within a pixel of a box."""
    cosine, sine = cosine_sine(angle)
    ends = (
        np.array([start - 1, start + length]) - (whole - 1) / 2
        for start, length, whole in zip(corner, size, plane.size, strict=True)
    )
    first, second = (end * step for end, step in zip(ends, plane.spacing_mm, strict=True))
    first = first[:, None]
    s = (first * sine + second * cosine) / plane.spacing_mm[1] + (plane.size[1] - 1) / 2
    num = plane.num_samples(angle)
    t = (first * cosine - second * sine) / plane.step_mm + (num - 1) / 2
    return _covering(s, plane.size[1]), _covering(t, num)


def _covering(places: NDArray[np.float64], size: int) -> slice:
    low, high = (int(end) for end in (np.floor(places.min()), np.ceil(places.max())))
    return slice(min(max(0, low), size), min(max(0, high + 1), size))


def _back_projection(
    plane: Plane, angles: Sequence[float], pixels: tuple[NDArray[np.intp], ...]
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Pixels of the detector, numbered across all views, that add up to a pixel of the plane, and weights: (P, 2V)."""
    (rays, detector), (ray_mm, detector_mm) = plane.size, plane.spacing_mm
    across = (pixels[0] - (rays - 1) / 2) * ray_mm
    along = (pixels[1] - (detector - 1) / 2) * detector_mm
    indices = np.empty((len(across), len(angles), 2), np.int32)
    weights = np.empty((len(across), len(angles), 2), np.float32)
    for view, angle in enumerate(angles):
        cosine, sine = cosine_sine(angle)
        before, both = _neighbours((along * cosine + across * sine) / detector_mm + (detector - 1) / 2)
        for side, weight in enumerate(both):
            place = before + side
            indices[:, view, side] = np.clip(place, 0, detector - 1) + view * detector
            weights[:, view, side] = weight * ((place >= 0) & (place < detector))
    return indices.reshape(len(across), -1), weights.reshape(len(across), -1)


def _neighbours(
    positions: NDArray[np.float64],
) -> tuple[NDArray[np.intp], tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """The pixels before positions, and the weights in linear interpolation of these and of the next ones."""
    before = np.floor(positions)
    fraction = positions - before
    return before.astype(np.intp), ((1 - fraction).astype(np.float32), fraction.astype(np.float32))


def _centred_points(size: int) -> NDArray[np.float64]:
    """Coordinates of `size` points at distance 1, centred on 0."""
    points: NDArray[np.float64] = np.arange(size, dtype=np.float64) - (size - 1) / 2
    return points
