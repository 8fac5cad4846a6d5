"""Values of DICOM attributes as numbers and vectors; those that are none are errors that name file and attribute."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seg25d.data.problems import FileError

Vector = tuple[float, ...]
_UNIT_TOLERANCE = 1e-2
"""Headers have cosines of few digits; those that are further off are damaged."""


def cross(first: Sequence[float], second: Sequence[float]) -> Vector:
    """The vector product of two vectors of three."""
    (a, b, c), (d, e, f) = first, second
    return (b * f - c * e, c * d - a * f, a * e - b * d)


def listed(value: Any) -> list[Any]:
    """The values of an attribute, however many there are."""
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str | int | float) else list(value)


def texts(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Those of the attributes that are there, as text."""
    return {name: "\\".join(map(str, listed(values[name]))) for name in names if values.get(name) not in (None, "")}


def number(path: Path, name: str, value: Any) -> float:
    """An attribute as a finite number."""
    result = float(value)
    if not math.isfinite(result):
        raise FileError(path, f"its {name} is {result}, expected a finite number", "correct its header")
    return result


def distance(path: Path, name: str, value: Any) -> float | None:
    """An attribute as a distance, or None where it is empty."""
    return None if value in (None, "") else abs(number(path, name, value))


def vector(path: Path, name: str, value: Any, length: int) -> Vector | None:
    """An attribute as so many numbers, or None where it is empty."""
    numbers = listed(value)
    if not numbers:
        return None
    if len(numbers) != length:
        raise FileError(path, f"its {name} has {len(numbers)} numbers, expected {length}", "correct its header")
    return tuple(number(path, name, each) for each in numbers)


def unit_vectors(path: Path, cosines: Vector | None) -> Vector | None:
    """Directions of unit length at right angles; headers have rounded ones."""
    if cosines is None:
        return None
    row, column = cosines[:3], cosines[3:]
    lengths = math.hypot(*row), math.hypot(*column)
    product = sum(a * b for a, b in zip(row, column, strict=True))
    if any(abs(length - 1) > _UNIT_TOLERANCE for length in lengths) or abs(product) > _UNIT_TOLERANCE:
        raise FileError(
            path, f"its Image Orientation {list(cosines)} is no pair of right-angled directions", "correct it"
        )
    row = tuple(each / lengths[0] for each in row)
    product = sum(a * b for a, b in zip(row, column, strict=True))
    column = tuple(b - product * a for a, b in zip(row, column, strict=True))
    return (*row, *(each / math.hypot(*column) for each in column))
