"""Initialisation with the weights of another model: fitting weights are loaded, the others are listed.

Layers that give scores (heads) are new, as classes or tasks differ; convolutions that see the image are adapted to
another number of channels; all other weights must exist and fit, otherwise the networks differ.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from seg25d.core.errors import ModelError
from seg25d.core.files import file_digest
from seg25d.core.records import Record
from seg25d.evaluation.tables import text_table
from seg25d.networks.resnet_unet import ResNetUNet
from seg25d.networks.torchvision_weights import adapt_first_convolution, load_torchvision_encoder, read_state_dict
from seg25d.planning.model_file import ModelHeader, is_model_file, load_model
from seg25d.training.config import PretrainedConfig

logger = logging.getLogger(__name__)
MOST_DIFFERENCES = 6


class Transfer(Record):
    """Names of the weights of a run by their origin."""

    schema_version: Literal[1] = 1
    file: str
    digest: str
    taken: tuple[str, ...]
    """Names of weights that were loaded unchanged from the file."""
    adapted: tuple[str, ...]
    """Names of weights that were adapted to another number of image channels."""
    new: tuple[str, ...]
    """Fresh."""

    @property
    def learnt(self) -> frozenset[str]:
        """Names of all pretrained weights."""
        return frozenset((*self.taken, *self.adapted))

    def table(self) -> str:
        """Origin of the weights of each part of the model, as a table."""
        parts: dict[str, dict[str, int]] = {}
        for kind in ("taken", "adapted", "new"):
            for name in getattr(self, kind):
                counts = parts.setdefault(".".join(name.split(".")[:2]), dict.fromkeys(("taken", "adapted", "new"), 0))
                counts[kind] += 1
        rows = [[part, *(str(count or "-") for count in counts.values())] for part, counts in parts.items()]
        return text_table(["weights of", "taken over", "adapted", "new"], rows)


@dataclass(frozen=True)
class PretrainedFile:
    """A file whose weights runs begin with, in memory: read and hashed once per command."""

    path: Path
    digest: str
    header: ModelHeader | None
    """None: weights of another program."""
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file.

        Args:
            path: A model file of seg25d, pretrained or trained on this or another data set; or weights of a torchvision
                ResNet, for `resnet_unet`.

        Raises:
            ModelError: If it is missing, damaged, or neither of these.
        """
        header, weights = load_model(path) if is_model_file(path) else (None, read_state_dict(path))
        return cls(path, file_digest(path), header, weights)

    @property
    def start(self) -> PretrainedConfig:
        """Entry for this file in the settings of a run."""
        return PretrainedConfig(file=self.path.name, digest=self.digest)


def take_over(model: nn.Module, header: ModelHeader, file: PretrainedFile) -> Transfer:
    """Load the fitting weights of a file into a model.

    Args:
        model: Of `header.build_model()`; changed.
        header: Of the new run.
        file: The pretrained file.

    Returns:
        The origin of every weight.

    Raises:
        ModelError: If the networks differ; the message lists the differences.
    """
    if file.header is None:
        return _from_torchvision(model, file)
    other, weights = file.header, file.weights
    own = model.state_dict()
    names_differ = sorted(set(own) ^ set(weights))
    heads, first = _heads(header), _first_layers(header)
    # Heads are kept if scores and task are the same.
    same_task = other.pretext == header.pretext and other.description.labels == header.description.labels
    taken: dict[str, Tensor] = {}
    adapted: dict[str, Tensor] = {}
    misfits = []
    for name, value in own.items():
        found = weights.get(name)
        if found is None or (name in heads and not same_task):
            continue
        if found.shape == value.shape:
            taken[name] = found
        elif name in first and found.shape[0] == value.shape[0] and found.shape[2:] == value.shape[2:]:
            adapted[name] = _adapted(found, value.shape[1], _slices_seen(header, other))
        elif name not in heads:
            misfits.append(name)
    if misfits or set(names_differ) - heads:
        raise ModelError(_differences(file.path, header, other, [*misfits, *(set(names_differ) - heads)]))
    model.load_state_dict({**own, **taken, **adapted})
    new = tuple(name for name in own if name not in taken and name not in adapted)
    return Transfer(file=file.path.name, digest=file.digest, taken=tuple(taken), adapted=tuple(adapted), new=new)


def _from_torchvision(model: nn.Module, file: PretrainedFile) -> Transfer:
    """Load an encoder that was trained on ImageNet."""
    network = getattr(model, "network", None)
    if not isinstance(network, ResNetUNet):
        raise ModelError(
            f"{file.path} is not a model file of seg25d; weights of torchvision's ResNets are for --network resnet_unet"
        )
    found = load_torchvision_encoder(network, file.weights, file.path)
    taken, adapted = (tuple(f"network.encoder.{name}" for name in names) for names in (found.taken, found.adapted))
    new = tuple(name for name in model.state_dict() if name not in {*taken, *adapted})
    return Transfer(file=file.path.name, digest=file.digest, taken=taken, adapted=adapted, new=new)


def _slices_seen(*headers: ModelHeader) -> int:
    """Count the slices among the channels of the networks' images, if all have the same number; else 1."""
    (number, *others) = {header.plan.representation.network_channels(1) for header in headers}
    return 1 if others else number


def _adapted(weight: Tensor, num_channels: int, num_slices: int) -> Tensor:
    """Adapt a kernel to another number of channels, separately for each slice that it sees (`with_neighbours`)."""
    if weight.shape[1] % num_slices or num_channels % num_slices:
        return adapt_first_convolution(weight, num_channels)
    parts = weight.chunk(num_slices, 1)
    return torch.cat([adapt_first_convolution(part, num_channels // num_slices) for part in parts], 1)


def _heads(header: ModelHeader) -> frozenset[str]:
    """The weights whose size follows from the number of outputs."""
    channels, outputs = len(header.description.channel_names), header.description.labels.num_outputs
    return _changing(header, (channels, outputs), (channels, outputs + 1))


def _first_layers(header: ModelHeader) -> frozenset[str]:
    """The weights whose size follows from the number of image channels."""
    channels, outputs = len(header.description.channel_names), header.description.labels.num_outputs
    return _changing(header, (channels, outputs), (channels + 1, outputs))


def _changing(header: ModelHeader, here: tuple[int, int], there: tuple[int, int]) -> frozenset[str]:
    with torch.random.fork_rng(devices=[]):
        shapes = [_shapes(header.plan.build_model(*numbers)) for numbers in (here, there)]
    return frozenset(name for name, shape in shapes[0].items() if shapes[1].get(name) != shape)


def _shapes(model: nn.Module) -> Mapping[str, torch.Size]:
    return {name: value.shape for name, value in model.state_dict().items()}


def _differences(path: Path, own: ModelHeader, other: ModelHeader, names: list[str]) -> str:
    """The message for networks that are not the same."""
    mine, theirs = own.plan.network.model_dump(), other.plan.network.model_dump()
    settings = [
        f"{key}: {theirs.get(key)} in the file, {mine.get(key)} here"
        for key in dict.fromkeys((*theirs, *mine))
        if mine.get(key) != theirs.get(key)
    ]
    listed = "; ".join(settings[:MOST_DIFFERENCES]) or f"weights: {', '.join(sorted(names)[:MOST_DIFFERENCES])}"
    return (
        f"{path} has another network ({listed}); pretrain with the configuration and network that you train, or plan "
        "with the same network"
    )
