"""Views of a volume along rotated rays, and back: the geometry of Angermann & Haltmeier in millimetres.

The slices along the rotation axis are independent of each other: each is a plane whose first axis is that of the rays
at angle 0 and whose second is that of the detector. A volume comes as *rows*: one row per pixel of the plane, with the
same pixel of all slices, channels and samples side by side. Projecting and back-projecting are then sums of a few
weighted rows (`embedding_bag`), whose weights are the same for all of a row. They are those of `grid_sample` (bilinear,
zeros, align_corners=False), at a seventh of its time on a CPU.

Letters: R pixels of the plane along the rays at angle 0, S pixels of the detector, T samples of a ray, V views,
N numbers in a row.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from seg25d.representations.projections.plane import Plane, cosine_sine

CPU = torch.device("cpu")


def ray_maxima(rows: Tensor, plane: Plane, angles: Sequence[float]) -> Tensor:
    """Compute the largest value along each ray (paper, section 3.1; methods.md 3.2); the plane is padded with 0.

    Args:
        rows: (R * S, N), row by row of the plane.
        plane: Geometry of the rows.
        angles: In degrees, V of them. At 0 rays run along the first axis of the plane, at 90 along the second.

    Returns:
        (V, S, N).
    """
    return torch.stack([_samples(rows, plane, angle).amax(1) for angle in angles])


def ray_sums(rows: Tensor, plane: Plane, angles: Sequence[float]) -> Tensor:
    """The sum along each ray, in units of the first axis' pixels: the adjoint of `back_project`, up to interpolation.

    A sample counts for its share of a pixel's area, so that at angle 0 a sum has R summands of weight 1 whatever the
    spacing. See `ray_maxima` for arguments and shapes.
    """
    weight = plane.step_mm / plane.spacing_mm[0]
    return torch.stack([_samples(rows, plane, angle).sum(1) * weight for angle in angles])


def _samples(rows: Tensor, plane: Plane, angle: float) -> Tensor:
    """Interpolate all samples of all rays at an angle: (S, T, N)."""
    indices, weights = _ray_table(plane, angle, rows.device)
    samples = weighted_rows(rows, indices, weights.to(rows.dtype))
    return samples.reshape(plane.size[1], -1, rows.shape[1])


def weighted_rows(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sums of weighted rows.

    Args:
        rows: (M, N).
        indices: (n, k), of rows.
        weights: (n, k).

    Returns:
        (n, N).
    """
    if not torch.compiler.is_exporting():
        return functional.embedding_bag(indices, rows, mode="sum", per_sample_weights=weights)
    # ONNX has no such operator; summand by summand, all rows that are wanted are there once and not k times.
    total = rows.index_select(0, indices[:, 0]) * weights[:, :1]
    for summand in range(1, indices.shape[1]):
        total = total + rows.index_select(0, indices[:, summand]) * weights[:, summand : summand + 1]
    return total


def _ray_table(plane: Plane, angle: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """The four pixels that a sample lies between, with their weights: twice (S * T, 4)."""
    (rays, detector), (ray_mm, detector_mm) = plane.size, plane.spacing_mm
    cosine, sine = cosine_sine(angle)
    place = _double_device(device)
    s = _centred_points(detector, place)[:, None] * detector_mm
    t = _centred_points(plane.num_samples(angle), place) * plane.step_mm
    first, first_weights = _neighbours((s * sine + t * cosine) / ray_mm + (rays - 1) / 2, rays)
    second, second_weights = _neighbours((s * cosine - t * sine) / detector_mm + (detector - 1) / 2, detector)
    indices = first[..., :, None] * detector + second[..., None, :]
    weights = first_weights[..., :, None] * second_weights[..., None, :]
    return indices.reshape(-1, 4).to(device), weights.reshape(-1, 4).to(device)


def ramp_filter(views: Tensor, plane: Plane) -> Tensor:
    """The filter of the inversion formula of the Radon transform: back-projecting its result inverts the means of rays.

    The mean over many views of a half turn of what comes back is then the plane (Ramachandran & Lakshminarayanan 1971,
    the discrete filter: 1/4 in the middle, -1 / (pi n)^2 at odd distances n, 0 at even ones).

    Args:
        views: (..., S), sums along the rays divided by the plane's length, as `ViewGeometry.project` has them.
        plane: The plane that they are views of.

    Returns:
        (..., S) in the precision of `views`, whatever autocast says: large values cancel.
    """
    size = views.shape[-1]
    distance = torch.arange(size, device=views.device)
    distance = (distance[:, None] - distance).abs().to(views.dtype)
    weights = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp_min(1)) ** 2, torch.zeros_like(distance))
    weights += torch.eye(size, dtype=views.dtype, device=views.device) / 4
    length = plane.size[0] * plane.spacing_mm[0] / plane.spacing_mm[1]
    with torch.autocast(views.device.type, enabled=False):
        return views @ (weights * (math.pi * length))


class BackProjection(NamedTuple):
    """A linear map from views to the plane as a sparse matrix, by its rows and by its columns."""

    indices: Tensor
    """(R * S, 2V) int32: detector pixels (numbered across all views) that add up to a pixel."""
    weights: Tensor
    """(R * S, 2V) float32."""
    pixels: Tensor
    """(2V * R * S) int32: pixels to which a detector pixel contributes, in the order of detector pixels."""
    pixel_weights: Tensor
    """(2V * R * S) float32."""
    offsets: Tensor
    """(V * S) int32: index in `pixels` at which those of a detector pixel begin."""
    seen: Tensor
    """(R * S) float32: number of views that see a pixel; a fraction at the ends of the detector."""

    def to(self, device: torch.device) -> "BackProjection":
        """Move the matrix to another device."""
        return BackProjection(*(tensor.to(device) for tensor in self))


def back_projection(
    plane: Plane, angles: Sequence[float], device: torch.device = CPU, *, between_pixels: bool = False
) -> BackProjection:
    """The matrix of linear back-projection: the sum over views of the detector's value, interpolated linearly.

    Outside of the detector there is 0; no division by the number of views (paper, Fig. 3a; methods.md 3.4).

    Args:
        plane: The plane that views are projected back to.
        angles: In degrees, V of them.
        device: Device of the matrix.
        between_pixels: Whether values of the detector are those half a pixel after it (a filter of two pixels was
            applied), and values are wanted half a pixel before those of the plane (two are to be averaged).
    """
    (rays, detector), (ray_mm, detector_mm) = plane.size, plane.spacing_mm
    place = _double_device(device)
    half = 0.5 if between_pixels else 0.0
    across = (_centred_points(rays, place) - half)[:, None] * ray_mm
    along = (_centred_points(detector, place) - half) * detector_mm
    directions = torch.tensor([cosine_sine(angle) for angle in angles], dtype=torch.float64, device=place)
    positions = along * directions[:, :1, None] + across * directions[:, 1:, None]
    found, weights = _neighbours(positions.flatten(1) / detector_mm + (detector - 1) / 2 - half, detector)
    first_pixels = torch.arange(0, len(angles) * detector, detector, dtype=torch.int32, device=place)
    indices = (found + first_pixels[:, None, None]).transpose(0, 1).flatten(1).contiguous()
    weights = weights.transpose(0, 1).flatten(1).contiguous()
    if torch.compiler.is_exporting():  # a graph has no gradients, for which the rest is
        nothing = indices.flatten()[:0]
        return BackProjection(indices, weights, nothing, weights.flatten()[:0], nothing, weights.sum(1)).to(device)
    in_order, order = indices.flatten().sort(stable=True)
    views = torch.arange(len(angles) * detector, dtype=torch.int32, device=place)
    offsets = torch.searchsorted(in_order, views, out_int32=True)
    pixels = torch.div(order, indices.shape[1], rounding_mode="floor").to(torch.int32)
    return BackProjection(indices, weights, pixels, weights.flatten()[order], offsets, weights.sum(1)).to(device)


def back_project(views: Tensor, matrix: BackProjection) -> Tensor:
    """Apply a back-projection; its gradient is the exact transpose and keeps no activations.

    Args:
        views: (V * S, N).
        matrix: From `back_projection`, on the same device.

    Returns:
        Rows (R * S, N).
    """
    if torch.compiler.is_exporting():
        return weighted_rows(views, matrix.indices, matrix.weights)
    rows: Tensor = _BackProject.apply(views, matrix)  # type: ignore[no-untyped-call]
    return rows


class _BackProject(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, views: Tensor, matrix: BackProjection) -> Tensor:
        ctx.matrix = matrix
        weights = matrix.weights.to(views.dtype)
        return weighted_rows(views, matrix.indices, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrix: BackProjection = ctx.matrix
        views = functional.embedding_bag(
            matrix.pixels,
            gradient.contiguous(),
            matrix.offsets,
            mode="sum",
            per_sample_weights=matrix.pixel_weights.to(gradient.dtype),
        )
        return views, None


def _neighbours(positions: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """The pixels before and after each position, with the weights of linear interpolation.

    Args:
        positions: In pixels, any shape, float64.
        size: Pixels there are; one outside gets weight 0 and the index of the nearest.

    Returns:
        Indices (..., 2) int32 and weights (..., 2) float32.
    """
    before = positions.floor()
    fraction = positions - before
    indices = torch.stack((before, before + 1), -1)
    weights = torch.stack((1 - fraction, fraction), -1) * ((indices >= 0) & (indices < size))
    return indices.clamp(0, size - 1).to(torch.int32), weights.float()


def _centred_points(size: int, device: torch.device) -> Tensor:
    """Coordinates of `size` points at distance 1, centred on 0."""
    return torch.arange(size, dtype=torch.float64, device=device) - (size - 1) / 2


def _double_device(device: torch.device) -> torch.device:
    """Choose the device for computing in double precision: the given one if it can, else the CPU."""
    return CPU if device.type == "mps" else device
