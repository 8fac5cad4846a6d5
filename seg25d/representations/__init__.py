"""What lifts a 2D or 3D network to volumes, one file each.

To add one: a file with a `Representation` record (a literal `name`), and one line in `AnyRepresentation` and in
`REPRESENTATIONS`. The laws in tests/representations then run on its examples.
"""

from typing import Annotated, TypeAlias

from pydantic import Field

from seg25d.representations.base import Representation
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

AnyRepresentation: TypeAlias = Annotated[
    Slices | SuperImage | Stack | Projections | FusedViews | Volume, Field(discriminator="name")
]
"""Any representation; `name` tells them apart."""

REPRESENTATIONS: dict[str, type[Representation]] = {
    "slices": Slices,
    "super_image": SuperImage,
    "projections": Projections,
    "stack": Stack,
    "fused_views": FusedViews,
    "volume": Volume,
}
"""Representations by name."""
