"""State of the training of a fold, and its conversion to and from checkpoints."""

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from pydantic import ConfigDict, Field
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.core.records import Record, parse_record
from seg25d.core.weights import check_finite
from seg25d.training.config import TrainingConfig
from seg25d.training.muon import Muon

Place: TypeAlias = Literal["", "loaders", "device"]
"""Where windows are augmented, see `AugmentationConfig`; empty: not decided yet."""


@dataclass
class TrainingState:
    """Everything that changes during a run."""

    model: nn.Module
    averaged: nn.Module
    """Model with the running mean of the weights, which is validated and kept."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    iteration: int = 0
    seconds: float = 0.0
    """Time spent on training so far, over all sessions."""
    best_dice: float = -1.0
    epoch_losses: list[float] = field(default_factory=list)
    """Losses of the updates of the current epoch."""
    epoch_voxels: int = 0
    """Voxels of the windows of these updates."""
    epoch_seconds: float = 0.0
    epoch_wait: float = 0.0
    """Seconds of the epoch that were spent waiting for data."""
    log: list[dict[str, Any]] = field(default_factory=list)
    """The lines of log.jsonl so far."""
    finished: bool = False
    computed_in: str = ""
    """Kind of device and type of the arithmetic, in the words of `Execution`."""
    augmented_on: Place = ""
    """What `augmentation.place=auto` came to in this run."""

    def update_average(self, decay: float) -> None:
        """Move the running mean towards the weights; faster at first, to forget the initial weights."""
        rate = 1 - min(decay, (1 + self.iteration) / (10 + self.iteration))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), rate)
            for mean, value in zip(self.averaged.buffers(), self.model.buffers(), strict=True):
                mean.copy_(value)

    def to_checkpoint(self) -> dict[str, Any]:
        """Tensors and plain values that `from_checkpoint` takes."""
        return {
            "model": self.model.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in PLAIN_FIELDS},
        }

    def from_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            ValueError: If it is of another network or optimizer, as do RuntimeError and KeyError.
        """
        self.model.load_state_dict(checkpoint["model"])
        self.averaged.load_state_dict(checkpoint["averaged"])
        _load_moments(self.optimizer, checkpoint["optimizer"])
        for parameter, values in self.optimizer.state.items():
            for name, value in values.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    # Fused optimizers read tensors in memory order: another device or version had another layout.
                    values[name] = torch.empty_like(parameter).copy_(value)
        if checkpoint["scaler"] and self.scaler.is_enabled():
            # A run that began in another precision has no scale yet.
            self.scaler.load_state_dict(checkpoint["scaler"])
        for name in PLAIN_FIELDS:
            setattr(self, name, checkpoint[name] if name in checkpoint else SINCE_0_2[name])


class _DoneLine(Record):
    """What is read of a line of the log to know how far a run is."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True)
    validation_loss: float | None


class _LogLine(_DoneLine):
    """What is read of a line of the log to go on."""

    iteration: int = Field(ge=0)
    total_seconds: float = Field(ge=0)
    epoch: int
    progress: float
    train_loss: float
    validation_dice: float | None
    validation_dice_per_label: dict[str, float | None]
    learning_rate: float


class _Done(Record):
    """What a checkpoint must hold to tell how far a run is."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True, arbitrary_types_allowed=True)
    iteration: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    finished: bool
    log: Sequence[_DoneLine]


class _Group(Record):
    """What is read of a group of weights of an optimizer; its other settings are the run's own."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    params: list[int]
    lr: float = Field(ge=0, allow_inf_nan=False)


class _Optimizer(Record):
    """What is read of an optimizer."""

    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    state: dict[int, dict[str, Tensor]]
    param_groups: list[_Group]


class _Content(_Done):
    """What a checkpoint must hold, apart from the tensors' names and shapes, which the network checks."""

    model: dict[str, Tensor]
    averaged: dict[str, Tensor]
    optimizer: _Optimizer
    scaler: dict[str, Any]
    best_dice: float
    epoch_losses: list[float]
    epoch_voxels: int = Field(default=0, ge=0)
    epoch_seconds: float = Field(ge=0)
    epoch_wait: float = Field(ge=0)
    log: list[_LogLine]
    computed_in: str = ""
    augmented_on: Place = ""


def _load_moments(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """Take what a saved optimizer noted of each weight, and its learning rates; other settings are the run's own."""
    own = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in own] != [group["params"] for group in saved["param_groups"]]:
        raise ValueError("the optimizer has other groups of weights than expected")
    groups = [group | {"lr": other["lr"]} for group, other in zip(own, saved["param_groups"], strict=True)]
    optimizer.load_state_dict({"state": saved["state"], "param_groups": groups})
    for group in optimizer.param_groups:
        names = _names_of_moments(optimizer, group)
        for parameter in group["params"]:
            noted = {name: value.shape for name, value in optimizer.state.get(parameter, {}).items()}
            expected = {name: torch.Size([]) if name in COUNTERS else parameter.shape for name in names}
            if noted and noted != expected:
                raise ValueError(f"the optimizer noted {noted} of a weight, expected {expected}")


def _names_of_moments(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> tuple[str, ...]:
    if isinstance(optimizer, Muon):
        return ("momentum",) if group["matrices"] else ("updates", "mean", "variance")
    return ("momentum_buffer",) if isinstance(optimizer, torch.optim.SGD) else ("step", "exp_avg", "exp_avg_sq")


def check_done(checkpoint: Any, path: Path) -> None:
    """Check what a file of `save_checkpoint` says of how far a run is; not its tensors.

    Raises:
        RecordError: If it is something else; names file and places.
    """
    parse_record(checkpoint, _Done, str(path))


def check_checkpoint(checkpoint: Any, path: Path) -> None:
    """Check what a file of `save_checkpoint` holds, before any of it is used.

    Raises:
        RecordError: If it is something else; names file and places.
        ModelError: If weights are NaN.
    """
    content = parse_record(checkpoint, _Content, str(path))
    check_finite(path, content.model)
    check_finite(path, content.averaged)


ENCODERS = frozenset({"encoder", "swinViT"})
"""Names of the part of a network that sees the image; the second one is MONAI's Swin UNETR."""
DECAYING = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)
PLAIN_FIELDS = (
    "iteration",
    "seconds",
    "best_dice",
    "epoch_losses",
    "epoch_voxels",
    "epoch_seconds",
    "epoch_wait",
    "log",
    "finished",
    "computed_in",
    "augmented_on",
)


COUNTERS = ("step", "updates")
"""What optimizers note of a weight that is one number."""
SINCE_0_2: Mapping[str, Any] = {"epoch_voxels": 0, "computed_in": "", "augmented_on": "loaders"}
"""Entries that older checkpoints lack, and what they would say."""
NEW, LEARNT, LEARNT_ENCODER = "new", "learnt", "learnt_encoder"
"""Roles of weights in a run that begins with a pretrained model; in other runs all are new."""


def new_state(
    model: nn.Module, config: TrainingConfig, execution: Execution, learnt: Collection[str] = ()
) -> TrainingState:
    """Make the state of a run that has not started.

    Weight decay acts on convolutions and linear layers only, not on norms, biases and other parameters of a method, as
    is customary.

    Args:
        model: On the CPU.
        config: Optimizer and weight decay.
        execution: Device and precision.
        learnt: Names of weights that were learnt before.
    """
    model = execution.place(model)
    layers = [layer for layer in model.modules() if isinstance(layer, DECAYING)]
    decayed = {id(layer.weight) for layer in layers}
    # A depthwise convolution is no map of all channels to all.
    apart = config.optimizer == "muon"
    matrices = {id(layer.weight) for layer in layers if not (apart and getattr(layer, "groups", 1) > 1)}
    by_kind: dict[tuple[str, bool, bool], list[nn.Parameter]] = {(NEW, True, True): [], (NEW, False, False): []}
    for name, parameter in model.named_parameters():
        role = (LEARNT_ENCODER if ENCODERS & set(name.split(".")) else LEARNT) if name in learnt else NEW
        by_kind.setdefault((role, id(parameter) in decayed, id(parameter) in matrices), []).append(parameter)
    groups = [
        {"params": found, "weight_decay": config.weight_decay * decays, "role": role, "matrices": are_matrices}
        for (role, decays, are_matrices), found in by_kind.items()
    ]
    return TrainingState(
        model=model,
        averaged=copy.deepcopy(model),
        optimizer=_new_optimizer(groups, config),
        scaler=torch.amp.GradScaler(execution.device.type, enabled=execution.dtype == torch.float16),
    )


def _new_optimizer(groups: list[dict[str, Any]], config: TrainingConfig) -> torch.optim.Optimizer:
    """Make the optimizer by its name, with all updates of a step in one kernel where available."""
    if config.optimizer == "muon":
        return Muon(groups, config.learning_rate)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)
        # torch makes it of uninitialised memory, which stays where float16 overflows in the first update (optim/sgd.py,
        # _fused_sgd); of zeros the first update is the same to the bit.
        for parameter in (each for group in optimizer.param_groups for each in group["params"] if config.momentum):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        return optimizer
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate, fused=True)
