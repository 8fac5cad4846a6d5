"""Resampling of images and labels between grids; scores, which come in planes, go back in `inference/export.py`.

Voxels are cells, so both grids share their outer border and voxel i of n lies at (i + 0.5) / n of it (as
skimage.transform.resize and torch's `align_corners=False`). Outside the volume the border voxel is repeated.

Interpolation along one axis is linear in the values, also for splines, so each axis is one small sparse matrix, taken
from scipy's own result for unit vectors. Three such products equal `scipy.ndimage.zoom` and `skimage.transform.resize`
up to rounding, in about a tenth of the time. They are made for a part of the result after the other, so that a volume
takes no more memory than it and the result.

Letters: C channels, D H W volume, d h w the volume on the new grid.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seg25d.core.types import Shape
from seg25d.preprocessing.grid import separate_axis
from seg25d.preprocessing.positions import nearest_voxels

__all__ = ["axis_matrix", "resample_image", "resample_labels", "separate_axis"]

Order = Literal[0, 1, 3]
"""Order of the spline: 0 nearest, 1 linear, 3 cubic."""
IMAGE_ORDER: Order = 3
"""Cubic splines for images (nnU-Net, default_resampling.py)."""
LABEL_ORDER: Order = 1
"""Linear for one-hot masks (nnU-Net, default_resampling.py)."""
NEGLIGIBLE = 1e-7
"""Weights below this, less than float32 resolves, are left out; a cubic spline keeps about 25 of them."""

PART_BYTES = 32 << 20
"""Of a part of the result in float32, at least a plane or row of all planes: with 500 planes of 512 voxels' width 32
rows. An intermediate of about the same size exists beside it."""

Matrix: TypeAlias = Any
"""A scipy.sparse.csr_array, or None where the size stays; scipy is loaded only when something is resampled."""
Index: TypeAlias = tuple[slice, ...]


def resample_image(image: NDArray[np.float32], shape: Shape, axis: int | None = None) -> NDArray[np.float32]:
    """Resample an image with cubic splines.

    Args:
        image: (C, D, H, W); not changed.
        shape: The new (d, h, w).
        axis: The axis that takes the nearest voxel instead, see `separate_axis`.

    Returns:
        (C, d, h, w). The input itself, not a copy, if the shape is the same.
    """
    if image.shape[1:] == tuple(shape):
        return image
    matrices = _matrices(image.shape[1:], shape, IMAGE_ORDER, axis)
    result = np.empty((len(image), *shape), np.float32)
    for channel, out in zip(image, result, strict=True):
        for part, values in _parts(matrices, channel):
            out[part] = values
    return result


def resample_labels(labels: NDArray[np.uint8], shape: Shape, axis: int | None = None) -> NDArray[np.uint8]:
    """Resample labels: every class's mask linearly, then the class with the highest value; the lower index on ties.

    One class after the other, and each only inside its bounding box, so that memory and time do not grow with the
    number of classes.

    Args:
        labels: (D, H, W); not changed.
        shape: The new (d, h, w).
        axis: The axis that takes the nearest voxel instead, see `separate_axis`.

    Returns:
        (d, h, w), holding only values of the input. The input itself, not a copy, if the shape is the same.
    """
    if labels.shape == tuple(shape):
        return labels
    matrices = _matrices(labels.shape, shape, LABEL_ORDER, axis)
    result = np.zeros(shape, np.uint8)
    best = np.zeros(shape, np.float32)
    for value, box in _class_boxes(labels).items():
        target, cut = _find_affected_voxels(matrices, box)
        for part, share in _parts(cut, labels[box] == value):
            highest = best[target][part]
            # A difference within rounding is a tie.
            better = share > highest + 1e-6
            result[target][part][better] = value
            np.maximum(highest, share, out=highest)
    return result


def axis_matrix(size: int, new_size: int, order: Order) -> Matrix:
    """Compute the matrix of the interpolation along one axis.

    Args:
        size: Voxels before.
        new_size: Voxels after.
        order: Of the spline: 0 nearest, 1 linear, 3 cubic.

    Returns:
        A sparse matrix (new_size, size) in float32 from values on the old voxels to values on the new ones.
    """
    from scipy import ndimage, sparse  # noqa: PLC0415 - heavy

    if order == 0:
        entries = (np.ones(new_size, np.float32), (np.arange(new_size), nearest_voxels(size, new_size)))
        return sparse.csr_array(entries, shape=(new_size, size))
    dense: NDArray[np.float64] = ndimage.zoom(
        np.eye(size), [new_size / size, 1.0], order=order, mode="nearest", grid_mode=True
    )
    dense[np.abs(dense) < NEGLIGIBLE] = 0
    return sparse.csr_array(dense.astype(np.float32))


def _matrices(shape: Sequence[int], new_shape: Shape, order: Order, axis: int | None) -> list[Matrix]:
    """Compute one matrix per axis; None where the size stays."""
    return [
        None if size == new_size else axis_matrix(size, new_size, 0 if index == axis else order)
        for index, (size, new_size) in enumerate(zip(shape, new_shape, strict=True))
    ]


def _parts(matrices: Sequence[Matrix], volume: NDArray[Any]) -> Iterator[tuple[Index, NDArray[np.float32]]]:
    """Interpolate (D, H, W) along all axes, depth or plane first, whichever is cheaper, in parts of the result.

    Yields:
        Where a part lies in the result (d, h, w), and its values.
    """
    depth, rows, columns = matrices
    new = [size if matrix is None else matrix.shape[0] for size, matrix in zip(volume.shape, matrices, strict=True)]
    if depth is not None and depth.shape[0] < depth.shape[1]:
        for part in _divide(new[0], math.prod(volume.shape[1:])):
            yield (part,), _apply_planes(rows, columns, _apply_depth(depth[part], volume))
    else:
        for part in _divide(new[1], max(len(volume), new[0]) * max(volume.shape[2], new[2])):
            own, some = (None, volume[:, part]) if rows is None else (rows[part], volume)
            yield (slice(None), part), _apply_depth(depth, _apply_planes(own, columns, some))


def _divide(size: int, voxels: int) -> Iterator[slice]:
    """Parts of an axis, of about `PART_BYTES` for so many voxels per entry."""
    step = max(1, PART_BYTES // (4 * max(1, voxels)))
    return (slice(start, min(start + step, size)) for start in range(0, size, step))


def _apply_depth(matrix: Matrix, volume: NDArray[Any]) -> NDArray[np.float32]:
    if matrix is None:
        return volume
    matrix, band = _cut(matrix)
    some = np.ascontiguousarray(volume[band], np.float32)
    flat: NDArray[np.float32] = matrix @ some.reshape(len(some), -1)
    return flat.reshape(len(flat), *volume.shape[1:])


def _apply_planes(rows: Matrix, columns: Matrix, volume: NDArray[Any]) -> NDArray[np.float32]:
    rows, band = (None, slice(None)) if rows is None else _cut(rows)
    height = volume.shape[1] if rows is None else rows.shape[0]
    width = volume.shape[2] if columns is None else columns.shape[0]
    result = np.empty((len(volume), height, width), np.float32)
    for plane, out in zip(volume, result, strict=True):
        some = plane[band].astype(np.float32, copy=False)
        stretched = some if rows is None else rows @ some
        out[...] = stretched if columns is None else (columns @ np.ascontiguousarray(stretched.T)).T
    return result


def _cut(matrix: Matrix) -> tuple[Matrix, slice]:
    """A matrix without the columns before and after all entries, and which ones are left."""
    if not matrix.nnz:
        return matrix[:, :0], slice(0, 0)
    band = slice(int(matrix.indices.min()), int(matrix.indices.max()) + 1)
    return matrix[:, band], band


def _class_boxes(labels: NDArray[np.uint8]) -> dict[int, tuple[slice, slice, slice]]:
    """Find the bounding box of every value that occurs, including 0, in ascending order."""
    from scipy import ndimage  # noqa: PLC0415 - heavy

    boxes = ndimage.find_objects(labels)
    present = {value: (box[0], box[1], box[2]) for value, box in enumerate(boxes, 1) if box is not None}
    whole = (slice(0, labels.shape[0]), slice(0, labels.shape[1]), slice(0, labels.shape[2]))
    return {0: whole} | present if (labels == 0).any() else present


def _find_affected_voxels(
    matrices: Sequence[Matrix], box: tuple[slice, slice, slice]
) -> tuple[tuple[slice, slice, slice], list[Matrix]]:
    """Find the new voxels that depend on the old ones of a box, and the matrices between the two boxes."""
    targets: list[slice] = []
    cut: list[Matrix] = []
    for matrix, part in zip(matrices, box, strict=True):
        if matrix is None:
            targets.append(part)
            cut.append(None)
            continue
        columns = matrix[:, part]
        hit = np.flatnonzero(np.diff(columns.indptr))
        # A class thinner than the new voxels may affect none of them.
        target = slice(int(hit[0]), int(hit[-1]) + 1) if hit.size else slice(0, 0)
        targets.append(target)
        cut.append(columns[target])
    return (targets[0], targets[1], targets[2]), cut
