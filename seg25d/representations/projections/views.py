"""Views of volumes from directions that turn about one of their axes, and back (Angermann & Haltmeier).

Letters: B batch, C channels, K classes, D H W volume, V views, b pixels along the rotation axis, s pixels of the
detector, R S pixels of the plane that turns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from seg25d.representations.projections.geometry import (
    BackProjection,
    back_project,
    back_projection,
    ramp_filter,
    ray_maxima,
    ray_sums,
)
from seg25d.representations.projections.plane import ViewAxes


@dataclass(frozen=True)
class ViewGeometry(ViewAxes):
    """Settings of the views of a volume, from the fields of `Projections`."""

    projection: Literal["max", "mean"] = "max"
    """Largest value or mean along the rays."""
    inversion: bool = False
    """Whether views are filtered so that back-projection inverts means along rays."""

    def filtered(self, views: Tensor, shape: Sequence[int]) -> Tensor:
        """Views (B, V, K, b, s) of volumes (D, H, W), ready to be projected back."""
        return ramp_filter(views, self.plane(shape)) if self.inversion else views

    def project(self, volume: Tensor, angles: Sequence[float]) -> Tensor:
        """Views of volumes.

        The volume is padded with its smallest value, per sample and channel: that is 0 in the paper, whose images are
        in [0, 1], and also suits negative intensities.

        Args:
            volume: (B, C, D, H, W).
            angles: In degrees, V of them; at 0 rays run along the axis that is neither `axis` nor the detector's.

        Returns:
            (B, V, C, b, s): the largest values along the rays, or their sums divided by the plane's length.
        """
        batch, channels, depth = *volume.shape[:2], volume.shape[2 + self.axis]
        rays, detector = self.plane_axes
        plane = self.plane(volume.shape[2:])
        floor = volume.amin((2, 3, 4))[..., None].expand(-1, -1, depth).flatten()
        rows = volume.permute(2 + rays, 2 + detector, 0, 1, 2 + self.axis).flatten(2).flatten(0, 1) - floor
        # Rows that do not lie side by side in memory take six times as long, see `embedding_bag`.
        rows = rows.contiguous()
        if self.projection == "max":
            views = ray_maxima(rows, plane, angles)
        else:
            views = ray_sums(rows, plane, angles) / plane.size[0]
        return (views + floor).reshape(*views.shape[:2], batch, channels, depth).permute(2, 0, 3, 4, 1)

    def back_project(
        self, views: Tensor, angles: Sequence[float], shape: Sequence[int], matrix: BackProjection | None = None
    ) -> Tensor:
        """Sum the values of all views at each voxel (operator R of the paper).

        Args:
            views: (B, V, K, b, s).
            angles: In degrees, V of them.
            shape: Of the volume, (D, H, W).
            matrix: The back-projection of this plane and these angles, if it has been computed before.

        Returns:
            (B, K, D, H, W).
        """
        batch, num_views, classes, depth, detector = views.shape
        plane = self.plane(shape)
        if matrix is None:
            matrix = back_projection(plane, angles, views.device)
        columns = views.permute(1, 4, 0, 2, 3).reshape(num_views * detector, batch * classes * depth)
        volume = back_project(columns, matrix).reshape(*plane.size, batch, classes, depth)
        return self._as_volume(volume)

    def mean_of_views(
        self, views: Tensor, angles: Sequence[float], shape: Sequence[int], matrix: BackProjection | None = None
    ) -> Tensor:
        """Compute the same sum, divided by the number of views that see each voxel.

        The paper's fine-tuning follows on the sum (section 3.4); the detector sees nearly all of its planes in all
        views. Of a square plane a fifth lies outside of some views, which are not to count as zeros.
        """
        plane = self.plane(shape)
        if matrix is None:
            matrix = back_projection(plane, angles, views.device)
        seen = matrix.seen.clamp_min(1).reshape(*plane.size, 1, 1, 1)
        return self.back_project(views, angles, shape, matrix) / self._as_volume(seen)

    def _as_volume(self, rows: Tensor) -> Tensor:
        """(R, S, B, K, b) to (B, K, D, H, W)."""
        place = {self.plane_axes[0]: 0, self.plane_axes[1]: 1, self.axis: 4}
        return rows.permute(2, 3, *(place[axis] for axis in range(3)))
