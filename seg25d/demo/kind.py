"""A kind of demo: a data set, the trainings on it, and the output at the end."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seg25d.core.types import FloatArray, IntArray
from seg25d.core.workspace import FoldFolder
from seg25d.data.image_io import read_image, read_labels
from seg25d.evaluation.summary import Summary


class Outcome(NamedTuple):
    """Result of one configuration."""

    fold: FoldFolder
    """Folder of the trained fold, with its log."""
    predicted: Path
    """Folder of the predicted held-out cases."""
    summary: Summary
    """Scores of the held-out cases."""


@dataclass(frozen=True)
class DemoKind:
    """One kind of demo."""

    dataset_name: str
    write: Callable[[Path], None]
    """Function that writes the data set to its folder, unless it exists."""
    configurations: tuple[str, ...]
    """Configurations in the order of training."""
    recipe: str
    table: Callable[[Mapping[str, Outcome]], str]
    """Function that formats the results of the configurations as a table."""
    draw: Callable[[Path, Mapping[str, Path]], tuple[Path, ...]]
    """Function that draws pictures from the folders of the data set and of each configuration's predictions; returns
    their paths."""
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By configuration, settings of its training that differ from the recipe."""


class ShownCase(NamedTuple):
    """The held-out case that the pictures show."""

    image: FloatArray
    """(D, H, W), one channel."""
    segmentations: dict[str, IntArray]
    """(D, H, W) by title: the truth, then the prediction of each configuration."""

    @property
    def truth(self) -> IntArray:
        """The true segmentation."""
        return self.segmentations["truth"]


def read_shown_case(raw: Path, predicted: Mapping[str, Path], channel: int) -> ShownCase:
    """Read the first held-out case of a data set.

    Args:
        raw: The data set's folder.
        predicted: Folder of predictions of each configuration.
        channel: Channel of the image.
    """
    case = min(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTs").glob("*.nii.gz"))
    folders = {"truth": raw / "labelsTs", **predicted}
    image, _ = read_image([raw / "imagesTs" / f"{case}_{channel:04d}.nii.gz"])
    return ShownCase(image[0], {name: read_labels(path / f"{case}.nii.gz")[0] for name, path in folders.items()})
