"""Self-supervised pretraining: settings of the task in which a network restores changed windows (methods.md 1.8)."""

from typing import Literal, TypeAlias

from pydantic import Field

from seg25d.core.records import Record

PretextTask: TypeAlias = Literal["inpainting", "jigsaw"]


class PretextConfig(Record):
    """The pretext task; a piece is a part of a slice, or for networks of volumes a part of the window."""

    task: PretextTask = "inpainting"
    """Pieces are hidden (filled with 0), or exchanged; the whole window is to be restored."""
    hidden_share: float = Field(default=0.5, gt=0, lt=1)
    """`inpainting`: share of the pieces that are hidden (1.8: 0.5 of squares, 0.6 of whole slices)."""
    piece: float = Field(default=0.25, gt=0, lt=1)
    """`inpainting`: sides of a piece as a share of the window's (1.8: a quarter of the height of a slice)."""
    whole_slices: bool = False
    """`inpainting`: hide whole slices, where the network sees several at once."""
    grid: int | None = Field(default=None, ge=2, le=1024)
    """`jigsaw`: pieces along each axis, of the super image, a slice or the window; null: whole slices where the network
    sees several at once, else 4 (1.8)."""
    exchanged_share: float = Field(default=1.0, gt=0, le=1)
    """`jigsaw`: share of the pieces that are exchanged with each other; the others stay where they are."""
