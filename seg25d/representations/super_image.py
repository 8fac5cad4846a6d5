"""Super images: all slices of a window tiled into one 2D image (Sobirov, Saeed, Yaqub 2022).

Letters: B batch, C channels, K scores, D H W volume, r c rows and columns of the grid, h w image.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import Field

from seg25d.core.grids import AXIS_NAMES
from seg25d.core.limits import NumNeighbours, NumSlices
from seg25d.core.types import Shape, Spacing
from seg25d.representations import ALIAS, LARGER_LIMITS
from seg25d.representations.base import (
    ConfigurationRules,
    Representation,
    VolumeGeometry,
    shrink,
)
from seg25d.representations.slices import slices_apart

if TYPE_CHECKING:
    from torch import Tensor, nn

SQUARE_ENOUGH = 4 / 3
"""Aspect ratios up to here count as square: in Table 2 of the paper 8 x 6 (1.33) equals 3D, 12 x 4 (3.0) loses."""
CONTEXT = 0
"""Neighbours per side: none, as in the paper."""
LEAST_SHARE = 0.5
"""Share of a volume's slices in a window below which a super image is not the paper's, which has all; our choice."""
SHRINKING_STEPS = 16
SMALLEST_IN_PLANE = 32


def choose_grid(num_slices: int, height: int, width: int) -> tuple[int, int]:
    """The grid (rows, columns) of the super image of `num_slices` slices of `height` x `width` pixels.

    As square as possible (paper, Table 2), where aspect ratios up to 4/3 count as square; then the least padding; then
    the smaller ratio; then more rows than columns. 144 of 144 x 144 give 12 x 12; 48 of 80 x 80 give 8 x 6.
    """

    def rank(rows: int) -> tuple[float, int, float, int]:
        columns = math.ceil(num_slices / rows)
        sides = rows * height, columns * width
        ratio = max(sides) / min(sides)
        return max(ratio, SQUARE_ENOUGH), rows * columns - num_slices, ratio, -rows

    filled = [rows for rows in range(1, num_slices + 1) if (rows - 1) * math.ceil(num_slices / rows) < num_slices]
    rows = min(filled, key=rank)
    return rows, math.ceil(num_slices / rows)


class SuperImage(Representation):
    """Slices along `axis` tiled into `grid` rows and columns, row by row, each with `context` neighbours per side."""

    network_dims: ClassVar[int] = 2
    keeps_scores: ClassVar[bool] = True
    mixes_slices: ClassVar[bool] = True
    needs_third_dimension: ClassVar[bool] = True
    network_note: ClassVar[str] = "decided on one tile of the super image, so that pooling stays within slices"
    name: Literal["super_image"] = "super_image"
    grid: tuple[NumSlices, NumSlices]
    axis: int = Field(default=0, ge=0, le=2)
    context: NumNeighbours = 0

    @property
    def summary(self) -> str:
        """Rows and columns."""
        rows, columns = self.grid
        return f"super image {rows}x{columns}"

    @property
    def network_axes(self) -> tuple[int, ...]:
        """The two axes in the plane of a tile."""
        return tuple(axis for axis in range(3) if axis != self.axis)

    @property
    def piece_axes(self) -> tuple[int, ...]:
        """Pieces of slices."""
        return self.network_axes

    @property
    def stacking_axis(self) -> int:
        """Slices are seen together."""
        return self.axis

    def network_channels(self, num_channels: int) -> int:
        """The channels of each slice and all its neighbours."""
        return num_channels * (2 * self.context + 1)

    def check(self, window: Shape, spacing_mm: Spacing) -> None:
        """Check that the grid has room for all slices of the window."""
        del spacing_mm
        rows, columns = self.grid
        if min(rows, columns) < 1:
            raise ValueError(f"grid {rows} x {columns}: rows and columns must be at least 1")
        if rows * columns < window[self.axis]:
            raise ValueError(f"grid {rows} x {columns} has no room for the window's {window[self.axis]} slices")

    def refit(self, window: Shape) -> Self:
        """Return the super image of another window, with its grid."""
        height, width = (window[axis] for axis in self.network_axes)
        return self.model_copy(update={"grid": choose_grid(window[self.axis], height, width)})

    def grid_for(self, window: Shape) -> tuple[int, int]:
        """The grid of a window: the planned one, or with more slices than that has room for, the window's own."""
        height, width = (window[axis] for axis in self.network_axes)
        rows, columns = self.grid
        depth = window[self.axis]
        return (rows, columns) if depth <= rows * columns else choose_grid(depth, height, width)

    def with_settings(self, settings: Mapping[str, Any], window: Shape) -> Self:
        """Return the super image with a recipe's fields; its grid only for as many slices as that has places."""
        suits = math.prod(settings.get("grid", ())) == window[self.axis]
        return super().with_settings(
            {name: value for name, value in settings.items() if suits or name != "grid"}, window
        )

    def needed_voxels(self, geometry: VolumeGeometry) -> float:
        """All slices, half as high and as wide."""
        return math.prod(size if axis == self.axis else math.ceil(size / 2) for axis, size in enumerate(geometry.shape))

    def map_images(self, window: "Tensor", change: "Callable[[Tensor], Tensor]") -> "Tensor":
        """Change the super image of a window."""
        from seg25d.representations.context import slices_back, slices_first  # noqa: PLC0415 - loads torch
        from seg25d.representations.lifted.super_image import from_super_image, to_super_image  # noqa: PLC0415

        slices = slices_first(window[None], self.axis)
        changed = change(to_super_image(slices, self.grid)[0])
        return slices_back(from_super_image(changed[None], self.grid, slices.shape[2]), self.axis)[0]

    def lift(self, network: "nn.Module") -> "nn.Module":
        """All slices of a volume become one image."""
        from seg25d.representations.lifted.super_image import LiftedSuperImage  # noqa: PLC0415 - loads torch

        return LiftedSuperImage(network, self)

    @classmethod
    def candidates(
        cls, geometry: VolumeGeometry, *, axis: int = 0, context: int = 0, **_: int
    ) -> Iterator[tuple[Self, Shape]]:
        """The whole volume; then smaller in the plane, down to half; then fewer slices; then smaller still."""
        blank = cls(grid=(1, 1), axis=axis, context=context)

        def window(step: int, depth: int) -> tuple[Self, Shape]:
            sizes = [shrink(size, step, SHRINKING_STEPS, SMALLEST_IN_PLANE) for size in geometry.shape]
            sizes[axis] = depth
            shape = (sizes[0], sizes[1], sizes[2])
            return blank.refit(shape), shape

        half, depth = SHRINKING_STEPS // 2, geometry.shape[axis]
        least = min(depth, geometry.least_slices)
        for step in range(half + 1):
            yield window(step, depth)
        while depth > least:
            # Equal ratios, not equal steps: of 400 slices, 27 may be too many where 16 fit.
            depth = max(least, min(depth - 1, depth * (SHRINKING_STEPS - 1) // SHRINKING_STEPS))
            yield window(half, depth)
        for step in range(half + 1, SHRINKING_STEPS):
            yield window(step, least)

    @classmethod
    def from_rules(
        cls, configuration: str, geometry: VolumeGeometry, rules: ConfigurationRules
    ) -> Iterator[tuple[Self, Shape]]:
        """The candidates along the planned axis."""
        del configuration
        context = CONTEXT if rules.context is None else rules.context
        return cls.candidates(geometry, axis=geometry.slice_axis, context=context)

    def reason(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """Axis, grid and neighbours."""
        rows, columns = self.grid
        why = (
            "the recipe's"
            if rules.settings.get("grid") == self.grid
            else "as square as possible, ratios up to 4/3 count as square, then least padding, then more rows than "
            "columns (Sobirov et al. 2022, Table 2)"
        )
        return (
            f"{slices_apart(geometry.spacing_mm, self.axis)}, tiled {rows} x {columns}: {why}; {self.context} "
            "neighbours per side (0: as in the paper)"
        )

    def choice(self, geometry: VolumeGeometry, rules: ConfigurationRules) -> str:
        """A volume as one image."""
        del geometry, rules
        rows, columns = self.grid
        return (
            f"all slices of a window along {AXIS_NAMES[self.axis]} tiled into one image, {rows} x {columns} of them, "
            "so that a 2D network sees all at once"
        )

    def caution(self, window: Shape, geometry: VolumeGeometry) -> str | None:
        """A super image of few of the slices is not the paper's, which has all of them."""
        size, slices = window[self.axis], geometry.shape[self.axis]
        if size >= LEAST_SHARE * slices:
            return super().caution(window, geometry)
        return (
            f"a super image shows all slices of a volume (Sobirov et al. 2022), and here only {size} of {slices} fit; "
            f"{LARGER_LIMITS}, or take {ALIAS}"
        )

    @classmethod
    def examples(cls) -> list[Self]:
        """Square and oblong grids, every axis, with padding slices and with neighbours."""
        return [cls(grid=(2, 3)), cls(grid=(3, 3), axis=1), cls(grid=(4, 2), axis=2, context=1)]
