"""Record of the changes to the grid of a case in preprocessing, so that they can be undone."""

from seg25d.core.grids import ANISOTROPY, NO_COMMON_SHAPE, box_shape, sampled_shape, sampled_spacing
from seg25d.core.limits import CommonShape, VolumeShape
from seg25d.core.records import Record
from seg25d.core.types import BoundingBox, Shape, Spacing


class Grid(Record):
    """From the canonical grid of a file, through the crop, to the grid of the model."""

    canonical_shape: VolumeShape
    """Voxels of the whole volume in canonical orientation."""
    canonical_spacing_mm: Spacing
    """Spacing of the whole volume in canonical orientation."""
    bounding_box: BoundingBox
    """The part that was kept, in voxels of the canonical grid."""
    spacing_mm: Spacing
    """Spacing of the model's grid: the planned one (the true one differs slightly, as the shape is rounded); along axes
    of a common size that of this case."""
    shape: VolumeShape
    """Voxels of the model's grid."""
    common_shape: CommonShape | None = None
    """Size that all cases were resized to, see `ConfigurationPlan`."""

    @classmethod
    def plan(
        cls,
        canonical_shape: Shape,
        canonical_spacing_mm: Spacing,
        box: BoundingBox,
        spacing_mm: Spacing,
        common_shape: CommonShape | None = None,
    ) -> "Grid":
        """The grid that a cropped volume gets at the planned spacing, or in the planned size.

        Along axes of a common size nothing is cropped, as the papers resize whole slices: a crop that differs from case
        to case would be another enlargement of each.
        """
        depth, height, width = (
            (0, size) if common else ends
            for ends, size, common in zip(box, canonical_shape, common_shape or NO_COMMON_SHAPE, strict=True)
        )
        kept = (depth, height, width)
        return cls(
            canonical_shape=canonical_shape,
            canonical_spacing_mm=canonical_spacing_mm,
            bounding_box=kept,
            spacing_mm=sampled_spacing(canonical_shape, canonical_spacing_mm, spacing_mm, common_shape),
            shape=sampled_shape(box_shape(kept), canonical_spacing_mm, spacing_mm, common_shape),
            common_shape=common_shape,
        )

    @property
    def cropped_shape(self) -> Shape:
        """Voxels of the kept part before resampling."""
        return box_shape(self.bounding_box)

    @property
    def separate_axis(self) -> int | None:
        """The axis that resampling to the model's grid handles separately, see `separate_axis`."""
        return self._resampled(separate_axis(self.canonical_spacing_mm, self.spacing_mm))

    @property
    def inverse_separate_axis(self) -> int | None:
        """The axis that resampling back to the file's grid handles separately, see `positions.separate_positions`."""
        return self._resampled(separate_axis(self.spacing_mm, self.canonical_spacing_mm))

    def _resampled(self, axis: int | None) -> int | None:
        """An axis if it is resampled by its spacing; one that is resized is interpolated, as in the papers."""
        return None if axis is None or (self.common_shape or NO_COMMON_SHAPE)[axis] else axis


def separate_axis(spacing_mm: Spacing, target_spacing_mm: Spacing) -> int | None:
    """The axis whose voxels are so thick that interpolating across them would invent content.

    The rule of nnU-Net (preprocessing/resampling/default_resampling.py, determine_do_sep_z_and_axis): the current
    spacing decides if it is anisotropic, else the target spacing; two equally coarse axes are not handled separately.

    Args:
        spacing_mm: Current spacing.
        target_spacing_mm: Spacing after resampling.

    Returns:
        The axis, or None if all axes are interpolated alike.
    """
    for spacing in (spacing_mm, target_spacing_mm):
        coarsest = max(spacing)
        if coarsest / min(spacing) > ANISOTROPY:
            return spacing.index(coarsest) if spacing.count(coarsest) == 1 else None
    return None
