"""A trained model as one file that stands alone: safetensors, with everything that prediction needs as JSON."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from seg25d.core.errors import ModelError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.limits import Fold
from seg25d.core.names import CaseName, FileName
from seg25d.core.records import Record, parse_record
from seg25d.core.system_errors import refusal_to_read
from seg25d.core.versions import library_versions
from seg25d.data.description import DatasetDescription
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.pretext import PretextConfig
from seg25d.representations.fused_views import FusedViews

if TYPE_CHECKING:
    from torch import Tensor, nn

METADATA_KEY = "seg25d"
MAX_WEIGHTS = 100_000
"""Tensors of a file; the largest published networks have some thousands."""


class ModelHeader(Record):
    """Everything about a model except its weights. The axes that allow mirroring are those of the plan."""

    schema_version: Literal[1] = 1
    dataset_name: CaseName
    configuration: FileName
    fold: Fold | FileName
    """Number of the fold, `all`, or the name of a set of models."""
    plan: ConfigurationPlan
    description: DatasetDescription
    """Channels and labels."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability from which on a voxel is foreground, see `Labels.from_scores`; None: the likeliest class."""
    fine: FineConfig | None = None
    """Settings of a fine model, which predicts around the object that a coarse model found; None: whole volumes."""
    pretext: PretextConfig | None = None
    """Task of a pretrained model, which restores images; None: the model gives scores."""
    versions: dict[str, str] = Field(default_factory=library_versions)
    """Versions of the libraries that the model was trained with."""

    @model_validator(mode="after")
    def _check_maps(self) -> Self:
        """Check that what is fused is what views with these labels give."""
        fused, labels = self.plan.representation, self.description.labels
        if isinstance(fused, FusedViews) and (fused.maps_per_view, fused.regions) != (
            wanted := (labels.num_outputs - (not labels.has_regions), labels.has_regions)
        ):
            raise ValueError(f"maps_per_view and regions must be {wanted} for the labels of the model")
        return self

    @property
    def num_outputs(self) -> int:
        """Scores per voxel, or the channels that a pretrained model restores."""
        return self.description.labels.num_outputs if self.pretext is None else len(self.description.channel_names)

    def build_model(self) -> "nn.Module":
        """The model with fresh weights, see `ConfigurationPlan.build_model`."""
        return self.plan.build_model(len(self.description.channel_names), self.num_outputs)


def save_model(path: Path, state: "Mapping[str, Tensor]", header: ModelHeader) -> None:
    """Write a model file atomically.

    Args:
        path: The file, `.safetensors`.
        state: The model's `state_dict()`, on any device.
        header: Everything else about the model.
    """
    import torch  # noqa: PLC0415 - only where a model is written
    from safetensors.torch import save_file  # noqa: PLC0415 - only where a model is written

    # Each tensor by itself: the format knows neither shared memory nor memory layouts.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: header.model_dump_json()})


def is_model_file(path: Path) -> bool:
    """Whether an existing file is a model file of seg25d, intact or damaged, and not weights of another program."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where a model is read

    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return METADATA_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return True


def load_header(path: Path) -> ModelHeader:
    """Read the header of a model, without its weights.

    Raises:
        ModelError: If the file is missing, damaged, or not one of ours; names the file.
    """
    return _load(path, with_weights=False)[0]


def load_model(path: Path) -> "tuple[ModelHeader, dict[str, Tensor]]":
    """Read a model file; code in the file is never run.

    Returns:
        The header, and the weights on the CPU for `load_state_dict`.

    Raises:
        ModelError: If the file is missing, damaged, or not one of ours, or weights are NaN; names the file.
    """
    from seg25d.core.weights import check_finite  # noqa: PLC0415 - loads torch

    header, state = _load(path, with_weights=True)
    check_finite(path, state)
    return header, state


def _load(path: Path, *, with_weights: bool) -> "tuple[ModelHeader, dict[str, Tensor]]":
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - only where a model is read

    if not path.is_file():
        raise ModelError(f"{path} does not exist; wanted a model file (.safetensors)")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            if len(names) > MAX_WEIGHTS:
                raise ModelError(f"{path} has {len(names):,} weights; at most {MAX_WEIGHTS:,} are possible")
            state = {name: file.get_tensor(name) for name in names} if with_weights else {}
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise refusal_to_read(error, path) or ModelError(
            f"{path} is damaged or not a model file ({error}); copy it again or train again"
        ) from None
    if METADATA_KEY not in metadata:
        raise ModelError(f"{path} was not written by seg25d: its metadata have no key {METADATA_KEY!r}")
    return _parse_header(metadata[METADATA_KEY], path), state


def _parse_header(text: str, path: Path) -> ModelHeader:
    try:
        return parse_record(json.loads(text), ModelHeader, str(path))
    except (RecordError, ValueError, RecursionError) as error:
        raise ModelError(f"{error}\n{path} was written by another version of seg25d, or changed by hand") from None
