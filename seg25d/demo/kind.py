"""What a kind of demo is: a data set, what is trained on it, and what is shown at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seg25d.core.types import FloatArray, IntArray
from seg25d.core.workspace import FoldFolder
from seg25d.data.image_io import read_image, read_labels
from seg25d.evaluation.summary import Summary


class Outcome(NamedTuple):
    """What one configuration came to."""

    fold: FoldFolder
    """What was trained, and its log."""
    predicted: Path
    """Folder of the predicted held-out cases."""
    summary: Summary
    """Their scores."""


@dataclass(frozen=True)
class DemoKind:
    """One kind of demo."""

    dataset_name: str
    write: Callable[[Path], None]
    """Writes the data set to its folder, unless it is there."""
    configurations: tuple[str, ...]
    """In the order of training."""
    recipe: str
    table: Callable[[Mapping[str, Outcome]], str]
    """Makes the table of what the configurations came to."""
    draw: Callable[[Path, Mapping[str, Path]], tuple[Path, ...]]
    """Draws pictures, from the data set's folder and that of the predictions per configuration, and says where."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Settings of the training that are not the recipe's."""


class ShownCase(NamedTuple):
    """The held-out case that the pictures show."""

    image: FloatArray
    """(D, H, W), one channel."""
    segmentations: dict[str, IntArray]
    """(D, H, W) by title: the truth, then one per configuration."""

    @property
    def truth(self) -> IntArray:
        """The first of the segmentations."""
        return self.segmentations["truth"]


def read_shown_case(raw: Path, predicted: Mapping[str, Path], channel: int) -> ShownCase:
    """Read the first held-out case of a data set.

    Args:
        raw: The data set's folder.
        predicted: Folder of predictions per configuration.
        channel: Of the image.
    """
    case = min(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").glob("*.nii.gz"))
    folders = {"truth": raw / "labelsTs", **predicted}
    image, _ = read_image([raw / "imagesTs" / f"{case}_{channel:04d}.nii.gz"])
    return ShownCase(image[0], {name: read_labels(path / f"{case}.nii.gz")[0] for name, path in folders.items()})
