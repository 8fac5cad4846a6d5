"""Projections: maximum-intensity views through one 2D network and back (Angermann & Haltmeier, arXiv 1910.10398).

Letters: B batch, C channels, K foreground classes, D H W volume, V views, b pixels along the rotation axis, s pixels of
the detector, p and m views of path 1 and path 2.
"""

import math
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from seg25d.core.errors import InputError
from seg25d.core.types import Shape, Spacing
from seg25d.representations.base import Representation, VolumeGeometry, shrink
from seg25d.representations.projections.geometry import (
    BackProjection,
    Plane,
    back_project,
    back_projection,
    ray_maxima,
    ray_sums,
)
from seg25d.representations.projections.model import LiftedProjections

VIEWS = ((12, 60), (12, 36), (6, 36), (6, 18))
"""Views (p, m) from the paper's (section 3.2: more cost more and gain nothing) to the cheapest: halves of p keep the
ceiling of thin vessels at 0.97 (methods.md 3.5), thirds of m keep m three times p."""
SMALLEST_ALONG_ROTATION = 32
IN_PLANE_STEPS = 16
SMALLEST_IN_PLANE = 32
SAME_SPACING = 0.99
"""Spacings that differ by less than 1 % count as equal, as for the slicing axis."""


class Projections(Representation):
    """Views of the whole window from directions that turn about `axis`, of which a volume is put together again.

    In the paper's terms: the network U gives a map per view and class, F filters them, R projects them back and T
    pools and normalises. Path 1 (`num_training_views` random directions, drawn per epoch) trains U; path 2 (`num_views`
    even directions, without gradient through U) trains a filter and a normalisation of its own, and predicts.

    A training step costs p passes of U with gradient and m without, in groups of p: with (12, 60) three times what U
    takes for path 1 alone (3.9 s against 1.3 s on one core, 48 x 96 x 80 voxels, a U-Net of 7.8 million weights).
    Nothing but the maps in [0, 1] is kept of path 2.
    """

    network_dims: ClassVar[int] = 2
    deep_supervision: ClassVar[bool] = False
    padded_with_lowest: ClassVar[bool] = True
    """Whatever is brighter would hide what lies behind it."""
    name: Literal["projections"] = "projections"
    axis: int = Field(ge=0, le=2)
    """The rotation axis, along which the views are as the volume is (b of the paper)."""
    detector_axis: int | None = Field(default=None, ge=0, le=2)
    """The axis that views at angle 0 have besides (c of the paper); None: the last of the other two."""
    spacing_mm: tuple[float, float, float]
    """Of the volume: it is turned in millimetres."""
    num_training_views: int = Field(default=12, ge=1, le=180)
    """p, of path 1."""
    num_views: int = Field(default=60, ge=1)
    """m, of path 2."""
    projection: Literal["max", "mean"] = "max"
    """Largest value or mean along the rays."""
    normalization: Literal["affine", "batch"] = "affine"
    """How back-projected values become scores, see `FineTuning`."""
    path_schedule: Literal["progress", "paper"] = "progress"
    """Whether path 1 fades as over 30 epochs of the paper, however long the run, or by the number of epochs."""
    num_classes: int = Field(default=1, ge=1)
    """Foreground classes or regions, K."""
    background: bool = True
    """Whether volumes get a score of the background besides: it is 0, so that the softmax over it and one class is
    the paper's sigmoid. False for regions."""

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        if self.detector_axis == self.axis:
            raise ValueError(
                f"detector_axis and axis are both {self.axis}: views need two axes; choose another detector_axis, or "
                "null for the last of the other two"
            )
        if min(self.spacing_mm) <= 0:
            raise ValueError(f"spacing_mm must be positive, got {self.spacing_mm}")
        return self

    @property
    def network_axes(self) -> tuple[int, ...]:
        """The rotation axis and the axis of the detector."""
        return self.axis, self._plane_axes[1]

    @property
    def cost_factor(self) -> float:
        """Path 1 keeps the activations of its views."""
        return float(self.num_training_views)

    @property
    def scoring_share(self) -> float:
        """M passes, of the 3 p + m of an update."""
        return self.num_views / (3 * self.num_training_views + self.num_views)

    def network_outputs(self, num_outputs: int) -> int:
        """The background needs no map.

        Raises:
            InputError: If the record is for another number of classes.
        """
        if num_outputs - self.background != self.num_classes:
            raise InputError(
                f"projections with num_classes {self.num_classes} and background {self.background} give "
                f"{self.num_classes + self.background} scores per voxel, wanted are {num_outputs}; put "
                "representation.num_classes and background in plans.json back, or plan with --clean"
            )
        return self.num_classes

    def check(self, window: Shape, spacing_mm: Spacing) -> None:
        """Views are turned in millimetres."""
        del window
        if self.spacing_mm != spacing_mm:
            raise ValueError(
                f"representation.spacing_mm {self.spacing_mm} differs from spacing_mm {spacing_mm}: projections turn "
                "in millimetres; give both the same numbers"
            )

    def plane(self, shape: Sequence[int]) -> Plane:
        """The plane that turns, of a volume (D, H, W)."""
        rays, detector = self._plane_axes
        return Plane((shape[rays], shape[detector]), (self.spacing_mm[rays], self.spacing_mm[detector]))

    def detector_size(self, shape: Sequence[int]) -> int:
        """Pixels of the detector that a volume (D, H, W) wants: so many that its plane also fits standing on its side.

        The detector of a window is as long as the window, so a volume that is shorter there is to be padded.
        """
        (rays, detector), (ray_mm, detector_mm) = self.plane(shape)
        return max(detector, math.ceil(round(rays * ray_mm / detector_mm, 6)))

    def project(self, volume: Tensor, angles: Sequence[float]) -> Tensor:
        """Views of volumes.

        Outside of the volume there is its smallest value, per sample and channel: that is 0 in the paper, whose images
        are in [0, 1], and does no harm where intensities are negative.

        Args:
            volume: (B, C, D, H, W).
            angles: In degrees, V of them; at 0 rays run along the axis that is neither `axis` nor the detector's.

        Returns:
            (B, V, C, b, s): the largest values along the rays, or their sums divided by the plane's length.
        """
        batch, channels, depth = *volume.shape[:2], volume.shape[2 + self.axis]
        rays, detector = self._plane_axes
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
        """The sum over views of what each says of a voxel (operator R of the paper).

        Args:
            views: (B, V, K, b, s).
            angles: In degrees, V of them.
            shape: Of the volume, (D, H, W).
            matrix: The back-projection of this plane and these angles, where it is there already.

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
        """The same, divided by the number of views that see each voxel.

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
        place = {self._plane_axes[0]: 0, self._plane_axes[1]: 1, self.axis: 4}
        return rows.permute(2, 3, *(place[axis] for axis in range(3)))

    def lift(self, network: nn.Module) -> nn.Module:
        """The random 2.5D U-Net around a network that gives `num_classes` scores per pixel."""
        return LiftedProjections(network, self)

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, *, axis: int | None = None, **_: int) -> Iterator[tuple[Self, Shape]]:
        """The whole volume, turned about its longest axis (or `axis`); less and less along it; fewer views.

        Slices across the rotation axis are independent of each other, so that a part of them loses nothing but the
        network's context. A part of the plane is another object than the whole; it is the last resort.
        """
        best = cls._planned(geometry, axis)
        (along, across), rays = best.network_axes, best._plane_axes[0]
        whole = list(geometry.shape)
        whole[across] = best.detector_size(geometry.shape)
        window = whole.copy()
        smallest = min(window[along], SMALLEST_ALONG_ROTATION)
        while window[along] > smallest:
            yield best, (window[0], window[1], window[2])
            window[along] = max(smallest, window[along] * 3 // 4)
        for training, applied in VIEWS:
            cheaper = best.model_copy(update={"num_training_views": training, "num_views": applied})
            yield cheaper, (window[0], window[1], window[2])
        for step in range(1, IN_PLANE_STEPS):
            for side in (rays, across):
                window[side] = shrink(whole[side], step, IN_PLANE_STEPS, SMALLEST_IN_PLANE)
            yield cheaper, (window[0], window[1], window[2])

    @classmethod
    def _planned(cls, geometry: VolumeGeometry, axis: int | None) -> Self:
        """The paper's numbers of views, about the axis that is longest (paper: head to chest)."""
        spacing_mm = geometry.spacing_mm
        lengths_mm = [size * step for size, step in zip(geometry.shape, spacing_mm, strict=True)]
        axis = lengths_mm.index(max(lengths_mm)) if axis is None else axis
        first, last = (other for other in range(3) if other != axis)
        detector_axis = first if lengths_mm[first] > lengths_mm[last] else last
        if min(spacing_mm[first], spacing_mm[last]) < SAME_SPACING * max(spacing_mm[first], spacing_mm[last]):
            # The detector is as fine as its axis.
            detector_axis = first if spacing_mm[first] < spacing_mm[last] else last
        return cls(
            axis=axis,
            detector_axis=detector_axis,
            spacing_mm=spacing_mm,
            num_classes=geometry.num_outputs - (not geometry.has_regions),
            background=not geometry.has_regions,
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """Every axis, both detectors, projections and normalisations, with and without background."""
        return [
            cls(axis=0, spacing_mm=(1, 1, 1), num_training_views=4, num_views=12, num_classes=2),
            cls(
                axis=1,
                detector_axis=0,
                spacing_mm=(1, 3, 1.5),
                num_training_views=3,
                num_views=16,
                projection="mean",
                normalization="batch",
                num_classes=2,
            ),
            cls(
                axis=2,
                spacing_mm=(1, 1.25, 1),
                num_training_views=5,
                num_views=12,
                path_schedule="paper",
                num_classes=3,
                background=False,
            ),
        ]

    @property
    def _plane_axes(self) -> tuple[int, int]:
        """The axis of the rays at angle 0 and that of the detector."""
        first, last = (axis for axis in range(3) if axis != self.axis)
        return (last, first) if self.detector_axis == first else (first, last)
