"""The plane in which views turn, and the axes that it has in a volume: numbers only, without torch.

Letters: R pixels of the plane along the rays at angle 0, S pixels of the detector.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from seg25d.core.types import Spacing


class Plane(NamedTuple):
    """The plane that is rotated.

    The detector has as many pixels as the plane has along its axis, whatever the angle, and their distance is the
    spacing of that axis (paper: all views of a 96 x 288 x 224 volume are 288 x 224): at oblique angles it does not see
    the corners. Samples of a ray are as far apart as the finer spacing of the plane.
    """

    size: tuple[int, int]
    """Pixels (R, S)."""
    spacing_mm: tuple[float, float]

    @property
    def step_mm(self) -> float:
        """Distance between the samples of a ray."""
        return min(self.spacing_mm)

    def num_samples(self, angle: float) -> int:
        """Samples of a ray at an angle in degrees: as many as can differ from 0, with the parity of R.

        At most the diagonal, as methods.md 3.2 has it. The parity puts the samples on the pixels at angle 0.
        """
        (rays, detector), (ray_mm, detector_mm) = self.size, self.spacing_mm
        cosine, sine = cosine_sine(angle)
        diagonal = math.hypot(rays * ray_mm, detector * detector_mm)
        # A pixel reaches to its neighbours: one more than the plane has, half of it at each end.
        reach = abs(cosine) * (rays + 1) * ray_mm + abs(sine) * (detector + 1) * detector_mm
        num = math.ceil(min(diagonal, reach) / self.step_mm)
        return num + (num - rays) % 2


@dataclass(frozen=True)
class ViewAxes:
    """Where the views of a volume lie, from the fields of `Projections`."""

    axis: int
    """The rotation axis."""
    detector_axis: int | None
    """The second axis of views at angle 0; None: the last of the other two."""
    spacing_mm: Spacing

    @property
    def plane_axes(self) -> tuple[int, int]:
        """The axis of the rays at angle 0 and that of the detector."""
        first, last = (axis for axis in range(3) if axis != self.axis)
        return (last, first) if self.detector_axis == first else (first, last)

    def plane(self, shape: Sequence[int]) -> Plane:
        """The plane that turns, of a volume (D, H, W)."""
        rays, detector = self.plane_axes
        return Plane((shape[rays], shape[detector]), (self.spacing_mm[rays], self.spacing_mm[detector]))

    def detector_size(self, shape: Sequence[int]) -> int:
        """Pixels of the detector that a volume (D, H, W) needs so that its plane also fits when rotated by 90 degrees.

        The detector of a window is as long as the window, so a volume that is shorter there is to be padded.
        """
        (rays, detector), (ray_mm, detector_mm) = self.plane(shape)
        return max(detector, math.ceil(round(rays * ray_mm / detector_mm, 6)))


def cosine_sine(angle: float) -> tuple[float, float]:
    """Cosine and sine of an angle in degrees; exactly 0 at multiples of 90."""
    radians = math.radians(angle)
    return round(math.cos(radians), 15), round(math.sin(radians), 15)
