"""Labels that are chosen class by class are those of all probabilities together."""

import numpy as np
import pytest

from seg25d.data.labels import Labels
from seg25d.ensembling.running_labels import RunningLabels

CLASSES = Labels(names={"background": 0, "a": 3, "b": 7})
ORGAN = Labels(names={"background": 0, "organ": 4})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))


@pytest.mark.parametrize(
    ("labels", "threshold"), [(CLASSES, None), (ORGAN, None), (ORGAN, 0.3), (REGIONS, None), (REGIONS, 0.3)]
)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_they_are_those_of_all_together(
    labels: Labels, threshold: float | None, dtype: type, rng: np.random.Generator
) -> None:
    # Tenths, so that many are equal.
    probabilities = (rng.integers(0, 11, (labels.num_outputs, 6, 7, 8)) / 10).astype(dtype)
    running = RunningLabels(labels, (6, 7, 8), threshold, dtype)
    for channel, volume in enumerate(probabilities):
        for start in (0, 4):
            running.add(channel, start, volume[start : start + 4])
    expected = labels.from_probabilities(probabilities, threshold)
    assert len(np.unique(expected)) == len(labels.values)
    np.testing.assert_array_equal(running.indices, expected)
