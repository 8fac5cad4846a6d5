"""The ceiling of a configuration in one case, as workers measure it: no torch is loaded here."""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from seg25d.core.limits import CommonShape
from seg25d.core.types import Spacing
from seg25d.data.cases import Case
from seg25d.data.labels import Labels
from seg25d.preprocessing.preprocess import read_model_labels


def measure_case(
    case: Case,
    *,
    meter: Callable[[NDArray[np.uint8], Mapping[str, Sequence[int]]], dict[str, float]],
    labels: Labels,
    spacing_mm: Spacing,
    common_shape: CommonShape | None,
    uncropped: Collection[str],
) -> dict[str, float]:
    """Measure the ceiling of each class or region of a case.

    Args:
        case: With a label file.
        meter: See `Representation.ceiling_meter`.
        labels: Meaning of the values in the label file.
        spacing_mm: Of the plan.
        common_shape: Of the plan.
        uncropped: Names of cases whose image has content up to all borders, so that it need not be read.
    """
    volume = read_model_labels(case, labels, spacing_mm, common_shape, is_uncropped=case.name in uncropped)
    return meter(volume, labels.foreground)
