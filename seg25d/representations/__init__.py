"""Representations, which apply a 2D or 3D network to volumes, one file each.

To add one: a file with a `Representation` record (a literal `name`, capabilities, its rules and its reasons), and one
line in `PLACES` per configuration that is to be planned with it. The laws in tests/representations then run on its
examples, and every command, `--help` and `--explain` know it.
"""

ANATOMICAL = ("axial", "coronal", "sagittal")
"""Configurations that slice along axis 0, 1, 2."""

ALIAS = "2d"
"""Alias of the configuration that slices along the planned axis."""

LARGER_LIMITS = "plan with more --gpu-memory-gb or --cpu-gflops (--explain says which of them bounds it)"
"""What makes a window larger, for messages."""

PLACES: dict[str, str] = {
    "axial": "seg25d.representations.slices:Slices",
    "coronal": "seg25d.representations.slices:Slices",
    "sagittal": "seg25d.representations.slices:Slices",
    "si": "seg25d.representations.super_image:SuperImage",
    "stack": "seg25d.representations.stack:Stack",
    "mip": "seg25d.representations.projections.method:Projections",
    "mv": "seg25d.representations.fused_views:FusedViews",
    "3d": "seg25d.representations.volume:Volume",
}
"""Configurations by name, in the order in which they are planned: where the record of each is, see `Registry`."""
