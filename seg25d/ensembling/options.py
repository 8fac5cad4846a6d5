"""Options of an ensemble, and checks of their combination."""

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.records import Record
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings

Method = Literal["mean", "majority", "staple", "nlstaple"]
METHODS: tuple[Method, ...] = get_args(Method)
_APPLIES: dict[str, tuple[Method, ...]] = {
    "weights": ("mean", "majority"),
    "fit_weights": ("mean",),
    "dataset_json": ("mean",),
    "save_probabilities": ("mean",),
    "images": ("nlstaple",),
    "channel": ("nlstaple",),
    "nonlocal_staple": ("nlstaple",),
}
"""The methods that each option applies to; options not listed apply to all."""


class EnsembleOptions(Record):
    """Options of fusing folders of predictions."""

    method: Method = "mean"
    weights: tuple[float, ...] | None = None
    """One weight per folder; None: equal weights."""
    fit_weights: Path | None = None
    """Folder of true segmentations of some of the cases, on which the weights are fitted."""
    dataset_json: Path | None = None
    """File with the meaning of the probabilities' channels, if the folders do not record it."""
    images: Path | None = None
    """Folder of the segmented images."""
    channel: int | None = Field(default=None, ge=0)
    """Channel of the images; None: the first."""
    nonlocal_staple: NonlocalStapleSettings = NonlocalStapleSettings()
    save_probabilities: bool = False
    overwrite: bool = False
    num_processes: int | None = None

    def check(self, num_folders: int) -> None:
        """Check that all options apply to the method, and that none is missing.

        Raises:
            InputError: If not; lists all problems.
        """
        problems = [
            f"--{name.replace('_', '-')} is for {' and '.join(methods)}, not for {self.method}; leave it out"
            for name, methods in _APPLIES.items()
            if self._is_given(name) and self.method not in methods
        ]
        if self.method == "nlstaple" and self.images is None:
            problems.append("nlstaple needs the segmented images: name their folder with --images")
        if self.weights is not None and self.fit_weights is not None:
            problems.append("--weights sets the weights and --fit-weights fits them; choose one of the two")
        if self.weights is not None and len(self.weights) != num_folders:
            problems.append(f"expected one weight for each of the {num_folders} folders, got {len(self.weights)}")
        if self.weights is not None and (min(self.weights, default=0) < 0 or not any(self.weights)):
            problems.append("weights must be at least 0, and one of them above 0")
        if problems:
            raise InputError("; ".join(problems))

    def _is_given(self, name: str) -> bool:
        """Whether an option differs from its default; 0 and False are different."""
        value, default = getattr(self, name), type(self).model_fields[name].default
        return bool(value != default or type(value) is not type(default))
