"""Grids that differ, with a cure that goes with the cause: resampling only if the numbers of voxels differ.

A NIfTI header may have two affines, qform and sform. SimpleITK reads one of them, by their codes, and so do we; other
programs may read the other one. Where it takes the sform, the spacing is still that of pixdim.
"""

import math
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg25d.data.image_geometry import Geometry
from seg25d.data.image_nifti import unpack_geometry

_MM_PER_UNIT = {1: 1e3, 3: 1e-3}
"""Millimetres per metre and micrometre, by the lower three bits of `xyzt_units` (nifti1.h); all others are mm."""
_WHOLE_TOLERANCE = 0.01
"""In voxels, as that of origins (`Geometry.difference`)."""
_WRITE_BOTH = (
    "for instance in Python with nibabel: image = nibabel.load(FILE); image.set_qform(image.get_sform(), 1); "
    "nibabel.save(image, NEW)"
)
_TO_LPS = np.diag([-1.0, -1.0, 1.0])


def grid_problem(path: Path, geometry: Geometry, first_path: Path, first: Geometry) -> tuple[str, str] | None:
    """Describe how the grid of a file differs from that of the image that it belongs to.

    Returns:
        The difference, with the numbers, and what to do; None if the grids are the same.
    """
    difference = first.difference(geometry)
    if difference is None:
        return None
    difference = geometry.difference(first) or difference
    if geometry.shape != first.shape:
        if _is_part(geometry, first):
            cure = f"with {first_path.name} as reference (as Slicer does for a labelmap): it was saved cropped"
            return difference, f"export {path.name} again, {cure}"
        return difference, f"export {path.name} again, or resample it to the grid of {first_path.name}"
    for odd_path, odd, other_path, other in ((first_path, first, path, geometry), (path, geometry, first_path, first)):
        if found := _on_other_form(odd, other):
            counts, ignored = found
            return (
                f"{difference}: {' and '.join(_forms(odd))} of {odd_path.name} disagree, the {counts} counts, as in "
                f"SimpleITK, and {other_path.name} lies on the {ignored}",
                f"the voxels match: write the right affine into both forms of {odd_path.name}, {_WRITE_BOTH}",
            )
    for odd_path, odd in ((first_path, first), (path, geometry)):
        if conflict := form_conflict(odd):
            cure = f"write the right affine into both forms of {odd_path.name} first, {_WRITE_BOTH}"
            return f"{difference}; in {odd_path.name} {conflict}", cure
    return difference, (
        f"the numbers of voxels match: if {path.name} was made voxel by voxel for {first_path.name}, copy the geometry "
        "of its header (in Python with SimpleITK: label.CopyInformation(image)); else export it again on that grid"
    )


def form_conflict(geometry: Geometry) -> str | None:
    """Say that the affines of a NIfTI header disagree, by how much, and which one counts; None if they agree."""
    forms = _forms(geometry)
    if len(forms) < 2 or (difference := next(iter(forms.values())).difference(forms["sform"])) is None:
        return None
    counting = next((name for name, form in forms.items() if geometry.difference(form) is None), None)
    said = "SimpleITK's reading" if counting is None else f"the {counting}"
    return f"{' and '.join(forms)} disagree ({difference}); {said} counts, as in SimpleITK"


def _is_part(geometry: Geometry, first: Geometry) -> bool:
    """Whether all voxels of a grid are voxels of a larger one."""
    moved = geometry.model_copy(update={"shape": first.shape, "origin_mm": first.origin_mm})
    axes = np.reshape(first.direction, (3, 3)) * np.array(first.spacing_mm[::-1])
    start = np.linalg.solve(axes, np.subtract(geometry.origin_mm, first.origin_mm))[::-1]
    whole = np.rint(start)
    return (
        first.difference(moved) is None
        and bool(np.all(np.abs(start - whole) < _WHOLE_TOLERANCE))
        and bool(np.all(whole >= 0) and np.all(whole + geometry.shape <= first.shape))
    )


def _on_other_form(geometry: Geometry, other: Geometry) -> tuple[str, str] | None:
    """The form that counts and the one that does not, if the latter is where the other file lies."""
    forms = _forms(geometry)
    for counts, ignored in permutations(forms, 2):
        if forms[ignored].difference(other) is None and geometry.difference(forms[counts]) is None:
            return counts, ignored
    return None


def _forms(geometry: Geometry) -> Mapping[str, Geometry]:
    """The grids that the affines of a NIfTI header stand for, those with a code above 0 that are affines.

    The sform alone is there with the spacing of pixdim, too.
    """
    if geometry.nifti_geometry is None:
        return {}
    pixdim, (units,), (qform_code, sform_code, *numbers) = unpack_geometry(geometry.nifti_geometry)
    scale = _MM_PER_UNIT.get(units & 7, 1.0)
    affines = {}
    if qform_code > 0:
        affines["qform"] = (_rotation(numbers[:3], pixdim[0]) * np.abs(pixdim[1:]), np.array(numbers[3:6]))
    if sform_code > 0:
        rows = np.array(numbers[6:]).reshape(3, 4)
        lengths = np.linalg.norm(rows[:, :3], axis=0)
        if qform_code <= 0 and lengths.all():
            affines["pixdim"] = (rows[:, :3] / lengths * np.abs(pixdim[1:]), rows[:, 3])
        affines["sform"] = (rows[:, :3], rows[:, 3])
    forms = {name: _on_affine(geometry, matrix * scale, origin * scale) for name, (matrix, origin) in affines.items()}
    return {name: form for name, form in forms.items() if form is not None}


def _on_affine(geometry: Geometry, matrix: NDArray[np.float64], origin: NDArray[np.float64]) -> Geometry | None:
    """The grid with another affine, of which NIfTI counts in RAS; None if it is none."""
    spacing = np.linalg.norm(matrix, axis=0)
    if not (np.isfinite(matrix).all() and np.isfinite(origin).all() and np.isfinite(spacing).all() and spacing.all()):
        return None
    direction = _TO_LPS @ matrix / spacing
    changes = {
        "spacing_mm": tuple(spacing[::-1].tolist()),
        "origin_mm": tuple((_TO_LPS @ origin).tolist()),
        "direction": tuple(direction.ravel().tolist()),
    }
    return geometry.model_copy(update=changes)


def _rotation(quaternion: list[float], handedness: float) -> NDArray[np.float64]:
    """The matrix of quatern_b, quatern_c, quatern_d (nifti1.h, "QUATERNION REPRESENTATION OF ROTATION MATRIX")."""
    b, c, d = quaternion
    a = math.sqrt(max(0.0, 1 - (b * b + c * c + d * d))) if all(map(math.isfinite, quaternion)) else math.nan
    if a < 1e-7:
        length = math.hypot(b, c, d)
        b, c, d = b / length, c / length, d / length
    matrix = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed: NDArray[np.float64] = matrix * np.array([1, 1, -1 if handedness < 0 else 1])
    return handed
