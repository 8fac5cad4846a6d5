"""Labels of probabilities that come class by class, of which only the largest are kept."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seg25d.data.labels import Labels


class RunningLabels:
    """Internal indices as `Labels.from_probabilities` chooses them, without all probabilities at the same time.

    Args:
        labels: Meaning of the channels.
        shape: (D, H, W), in any orientation.
        threshold: See `Labels.from_probabilities`.
        dtype: Of the probabilities.
    """

    def __init__(
        self, labels: Labels, shape: Sequence[int], threshold: float | None = None, dtype: Any = np.float32
    ) -> None:
        self.labels = labels
        self.threshold = threshold
        self.indices = np.zeros(shape, np.uint8)
        """(D, H, W): the labels, once all channels are added."""
        self._largest = None if labels.has_regions or threshold is not None else np.full(shape, -np.inf, dtype)

    def add(self, channel: int, start: int, planes: NDArray[np.floating[Any]]) -> None:
        """Add planes (n, H, W) of a channel from plane `start` on; a plane gets its channels in ascending order."""
        place = slice(start, start + len(planes))
        indices = self.indices[place]
        if self._largest is not None:
            largest = self._largest[place]
            indices[planes > largest] = channel
            np.maximum(largest, planes, out=largest)
            return
        chosen = planes > 0.5 if self.threshold is None else planes >= self.threshold
        if self.labels.regions_class_order is not None:
            indices[chosen] = self.labels.values.index(self.labels.regions_class_order[channel])
        elif channel == 1:
            indices[...] = chosen
