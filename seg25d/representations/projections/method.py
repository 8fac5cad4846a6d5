"""Projections: maximum-intensity views through one 2D network and back (Angermann & Haltmeier, arXiv 1910.10398).

Letters: B batch, C channels, K foreground classes, D H W volume, V views, b pixels along the rotation axis, s pixels of
the detector, p and m views of path 1 and path 2.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from seg25d.core.errors import InputError
from seg25d.core.grids import AXIS_NAMES, SAME_SPACING
from seg25d.core.limits import NumChannels, NumViews, SpacingMm
from seg25d.core.types import Shape, Spacing
from seg25d.representations import ALIAS, LARGER_LIMITS
from seg25d.representations.base import CeilingMeter, ConfigurationRules, Representation, VolumeGeometry, shrink
from seg25d.representations.projections.ceiling import case_ceilings, ceiling_reason
from seg25d.representations.projections.plane import ViewAxes

if TYPE_CHECKING:
    from torch import nn

    from seg25d.representations.projections.views import ViewGeometry

VIEWS = ((12, 60), (12, 36), (6, 36), (6, 18))
"""Views (p, m) from the paper's (section 3.2: more cost more and gain nothing) to the cheapest: halves of p keep the
ceiling of thin vessels at 0.97 (methods.md 3.5), thirds of m keep m three times p."""
SMALLEST_ALONG_ROTATION = 32
IN_PLANE_STEPS = 16
SMALLEST_IN_PLANE = 32


class Projections(Representation):
    """Views of the whole window from directions around `axis`, from which a volume is reconstructed.

    In the paper's terms: the network U gives a map per view and class, F filters them, R projects them back and T
    pools and normalises. Path 1 (`num_training_views` random directions, drawn per epoch) trains U; path 2 (`num_views`
    even directions, without gradient through U) trains a filter and a normalisation of its own, and predicts.

    A training step costs p passes of U with gradient and m without, in groups of p: with (12, 60) three times what U
    takes for path 1 alone (3.9 s against 1.3 s on one core, 48 x 96 x 80 voxels, a U-Net of 7.8 million weights).
    Nothing but the maps in [0, 1] is kept of path 2.
    """

    network_dims: ClassVar[int] = 2
    needs_third_dimension: ClassVar[bool] = True
    deep_supervision: ClassVar[bool] = False
    padded_with_lowest: ClassVar[bool] = True
    """Brighter padding would hide the image behind it in maximum projections."""
    ceiling_fields: ClassVar[frozenset[str]] = frozenset({"axis", "detector_axis", "spacing_mm", "num_views"})
    name: Literal["projections"] = "projections"
    axis: int = Field(ge=0, le=2)
    """The rotation axis, which views and volume share (b in the paper)."""
    detector_axis: int | None = Field(default=None, ge=0, le=2)
    """The second axis of views at angle 0 (c in the paper); None: the last of the other two."""
    spacing_mm: tuple[SpacingMm, SpacingMm, SpacingMm]
    """Spacing (D, H, W) of the volume, which is rotated in millimetres."""
    num_training_views: int = Field(default=12, ge=1, le=180)
    """p, of path 1."""
    num_views: NumViews = 60
    """m, of path 2."""
    projection: Literal["max", "mean"] = "max"
    """Largest value or mean along the rays."""
    inversion: bool = False
    """Whether the maps of means are projected back by the inversion formula of the Radon transform, which the paper
    names for other organs than vessels (section 5): a ramp filter before the learnt one. A map then is the mean of the
    segmentation along each ray, and views of hollow or concave objects bring them back."""
    normalization: Literal["affine", "batch"] = "affine"
    """Normalisation from back-projected values to scores, see `FineTuning`."""
    path_schedule: Literal["progress", "paper"] = "progress"
    """Decay of path 1's loss: `progress` spreads the paper's 30 epochs over the run, `paper` counts epochs."""
    num_classes: NumChannels = 1
    """Foreground classes or regions, K."""
    background: bool = True
    """Whether a background score of 0 is added, so that the softmax over it and one class is the paper's sigmoid.
    False for regions."""

    @model_validator(mode="after")
    def _check_geometry(self) -> Self:
        if self.detector_axis == self.axis:
            raise ValueError(
                f"detector_axis and axis are both {self.axis}: views need two axes; choose another detector_axis, or "
                "null for the last of the other two"
            )
        if self.inversion and self.projection != "mean":
            raise ValueError(
                "inversion is for means along rays, and projection is 'max': set projection to 'mean', or inversion to "
                "false"
            )
        return self

    @property
    def network_axes(self) -> tuple[int, ...]:
        """The rotation axis and the axis of the detector."""
        return self.axis, self.axes.plane_axes[1]

    @property
    def axes(self) -> ViewAxes:
        """Where the views lie."""
        return ViewAxes(self.axis, self.detector_axis, self.spacing_mm)

    @property
    def geometry(self) -> "ViewGeometry":
        """Settings of the views."""
        from seg25d.representations.projections.views import ViewGeometry  # noqa: PLC0415 - loads torch

        return ViewGeometry(self.axis, self.detector_axis, self.spacing_mm, self.projection, self.inversion)

    @property
    def resizable_axes(self) -> tuple[int, ...]:
        """The rotation axis: the geometry of the plane is that of the window."""
        return (self.axis,)

    @property
    def summary(self) -> str:
        """How many views predict."""
        return f"{self.num_views} projections"

    @property
    def cost_factor(self) -> float:
        """Path 1 keeps the activations of its views."""
        return float(self.num_training_views)

    @property
    def scoring_share(self) -> float:
        """M passes, of the 3 p + m of an update."""
        return self.num_views / (3 * self.num_training_views + self.num_views)

    def needed_voxels(self, geometry: VolumeGeometry) -> float:
        """Any number: a part of a volume has other projections than the whole."""
        del geometry
        return math.inf

    def network_outputs(self, num_outputs: int) -> int:
        """The background needs no map.

        Raises:
            InputError: If the record is for another number of classes.
        """
        if num_outputs - self.background != self.num_classes:
            raise InputError(
                f"projections with num_classes {self.num_classes} and background {self.background} give "
                f"{self.num_classes + self.background} scores per voxel, but {num_outputs} are needed; put "
                "representation.num_classes and background in plans.json back, or plan with --clean"
            )
        return self.num_classes

    def network_settings(self, network: str) -> dict[str, Any]:
        """The RSTN's maps are sigmoids, as all maps of views here."""
        return {"regions": True} if network == "rstn" else {}

    def check(self, window: Shape, spacing_mm: Spacing) -> None:
        """Check that the spacing is that of the plan, as views are rotated in millimetres."""
        del window
        if self.spacing_mm != spacing_mm:
            raise ValueError(
                f"representation.spacing_mm {self.spacing_mm} differs from spacing_mm {spacing_mm}: projections turn "
                "in millimetres; give both the same numbers"
            )

    def lift(self, network: "nn.Module") -> "nn.Module":
        """The random 2.5D U-Net around a network that gives `num_classes` scores per pixel."""
        from seg25d.representations.projections.model import LiftedProjections, Paths  # noqa: PLC0415 - loads torch

        paths = Paths(self.num_training_views, self.num_views, self.path_schedule)
        return LiftedProjections(network, self.geometry, paths, self.num_classes, self.normalization, self.background)

    @classmethod
    def candidates(cls, geometry: VolumeGeometry, *, axis: int | None = None, **_: int) -> Iterator[tuple[Self, Shape]]:
        """The whole volume, rotated about its longest axis (or `axis`); then less along that axis; then fewer views.

        Slices across the rotation axis are independent of each other, so that a part of them loses nothing but the
        network's context. A part of the plane is another object than the whole; it is the last resort.
        """
        best = cls._plan(geometry, axis)
        (along, across), rays = best.network_axes, best.axes.plane_axes[0]
        whole = list(geometry.shape)
        whole[across] = best.axes.detector_size(geometry.shape)
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
    def _plan(cls, geometry: VolumeGeometry, axis: int | None) -> Self:
        """Plan the paper's numbers of views around the longest axis (paper: head to chest)."""
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

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Axes and numbers of views."""
        del rules
        along, across = self.network_axes
        length_mm = geometry.shape[along] * geometry.spacing_mm[along]
        return (
            f"turned about {AXIS_NAMES[along]}, the longest axis ({length_mm:.4g} mm); at 0 degrees the other axis of "
            f"the views is {AXIS_NAMES[across]}, the finer of the two (of equal ones the longer, then the last); "
            f"{self.num_training_views} random directions train the network, {self.num_views} even ones predict (12 "
            "and 60: Angermann & Haltmeier, section 3.2; fewer only where memory is short)"
        )

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """The volume from all around."""
        del geometry, rules
        shown = "largest values" if self.projection == "max" else "means"
        return (
            f"{self.num_views} views of the volume from around {AXIS_NAMES[self.axis]}, its longest axis, each of the "
            f"{shown} along parallel rays, through a 2D network and projected back, as bright things stand out in them"
        )

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """Projections of a part of the plane are those of another object."""
        (_, across), rays = self.network_axes, self.axes.plane_axes[0]
        cut = [side for side in (rays, across) if window[side] < geometry.shape[side]]
        if not cut:
            return super().caution(window, geometry)
        told = " and ".join(f"{window[side]} of {geometry.shape[side]} voxels along {AXIS_NAMES[side]}" for side in cut)
        return (
            f"projections are of the whole volume (Angermann & Haltmeier), and here only {told} fit; "
            f"{LARGER_LIMITS}, or take {ALIAS}"
        )

    def window_warning(self, window: Shape) -> str | None:
        """Warn if the detector is too short."""
        axis, wanted = self.network_axes[1], self.axes.detector_size(window)
        if window[axis] >= wanted:
            return None
        return (
            f"the window {'x'.join(map(str, window))} has {window[axis]} voxels along axis {axis}, where its detector "
            f"lies, and its views from the side want {wanted}: they are cut off at both ends; give `window` more there "
            "if memory allows"
        )

    def ceiling_meter(self) -> CeilingMeter:
        """The Dice that perfect views allow."""
        return partial(case_ceilings, axes=self.axes, num_views=self.num_views)

    @classmethod
    def ceiling_reason(cls, dice: Mapping[str, float | None] | None, caution: str | None = None) -> str:
        """Figures and advice."""
        return ceiling_reason(dice, caution)

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
                axis=0,
                spacing_mm=(1, 1, 1),
                num_training_views=4,
                num_views=12,
                projection="mean",
                inversion=True,
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
