"""Bounds of what records from files may ask for: what lies beyond is a mistake, or meant to use up memory or time.

They are far beyond all that is of use; what a machine can hold is compared with its free memory apart from them.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

MAX_CHANNELS = 1024
"""Images of hyperspectral cameras have some hundred channels, medical ones a handful."""
MAX_FOLDS = 1000
MAX_STAGES = 16
"""Each stage but the first halves the size: 65,536 voxels become 2."""
MAX_WIDTH = 1 << 14
"""Channels of a convolution; published U-Nets have 1,024 at most."""

MIN_SPACING_MM, MAX_SPACING_MM = 1e-6, 1e4
"""From the nanometre of electron microscopes to ten metres."""

SpacingMm: TypeAlias = Annotated[float, Field(ge=MIN_SPACING_MM, le=MAX_SPACING_MM)]
WindowSize: TypeAlias = Annotated[int, Field(ge=1, le=1 << 16)]
"""Voxels of a window along an axis."""
NumVoxels: TypeAlias = Annotated[int, Field(ge=0, le=1 << 31)]
"""Voxels of a volume along an axis."""
VolumeShape: TypeAlias = tuple[NumVoxels, NumVoxels, NumVoxels]
"""Voxels along (D, H, W)."""
CommonShape: TypeAlias = tuple[WindowSize | None, WindowSize | None, WindowSize | None]
"""Voxels along (D, H, W) that every case is resized to; None: as many as the spacing gives it."""
BatchSize: TypeAlias = Annotated[int, Field(ge=1, le=1 << 16)]
NumChannels: TypeAlias = Annotated[int, Field(ge=1, le=MAX_CHANNELS)]
Width: TypeAlias = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
NumBlocks: TypeAlias = Annotated[int, Field(ge=1, le=64)]
"""Convolutions of a stage; published networks have 8 at most."""
NumNeighbours: TypeAlias = Annotated[int, Field(ge=0, le=256)]
"""Slices on each side that are further channels."""
NumSlices: TypeAlias = Annotated[int, Field(ge=1, le=1 << 16)]
NumViews: TypeAlias = Annotated[int, Field(ge=1, le=3600)]
"""Directions of projections: ten for each degree."""
Margin: TypeAlias = Annotated[int, Field(ge=0, le=1 << 16)]
"""Voxels around an object."""
Fold: TypeAlias = Annotated[int, Field(ge=0, lt=MAX_FOLDS)]
