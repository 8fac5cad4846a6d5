"""Every setting of a training run, with its default and its source; `--set key=value` changes any of them."""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from seg25d.core.errors import InputError, RecordError
from seg25d.core.lengths import Length
from seg25d.core.names import FileName
from seg25d.core.records import Record, parse_record, read_record
from seg25d.core.workspace import FoldFolder
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.pretext import PretextConfig
from seg25d.training.usual_lengths import EPOCHS, ITERATIONS_PER_EPOCH

EXTENDABLE = frozenset({"epochs", "iterations", "iterations_per_epoch", "time_budget_seconds"})
"""Settings that may change when a run continues: its length."""

PARTS = {
    "augmentation": "all",
    "fusion": "those that fuse views",
    "fine": "those of fine models",
    "pretext": "`seg25d pretrain`",
    "pretrained": "runs with --pretrained",
}
"""Settings that are made of settings, or null where a run has none of them: which runs have them."""


class AugmentationConfig(Record):
    """Random changes of windows; probabilities are per window (and channel for intensities).

    Defaults are nnU-Net's (nnUNetTrainer.get_training_transforms) unless the field says otherwise.
    """

    enabled: bool = True
    place: Literal["auto", "loaders", "device"] = "auto"
    """Where windows are augmented: by the processes that prepare batches, or on the device that trains. `auto`: by
    these processes, unless a GPU waits for them and is faster with it (`seg25d/training/supply.py`). What is drawn is
    the same; results differ by rounding, and in the values of noise."""
    spatial: float = Field(default=0.2, ge=0, le=1)
    """Probability of rotation and scaling together; nnU-Net draws each with 0.2. With 0.5 short runs are a little worse
    (documentation/concepts/choices.md)."""
    rotation_degrees: float = Field(default=15.0, ge=0, le=180)
    """Largest angle about each axis. nnU-Net: 30 in 3D; small windows lose less at their corners with 15."""
    scaling: tuple[float, float] = (0.8, 1.25)
    """Smallest and largest zoom. nnU-Net: 0.7 to 1.4."""
    scaling_per_axis: bool = False
    """Draw a zoom for each axis of its own (TorchIO) instead of one for all (nnU-Net)."""
    elastic: float = Field(default=0.0, ge=0, le=1)
    """Probability of a smooth random deformation."""
    elastic_mm: float = Field(default=2.0, ge=0)
    """Standard deviation of the shift at the control points of a deformation; the largest one where it is uniform."""
    elastic_distribution: Literal["normal", "uniform"] = "normal"
    """Distribution of the shift along each axis."""
    elastic_control_points: int = Field(default=4, ge=2, le=64)
    """Control points along each axis, the first and last at the window's borders."""
    elastic_fixed_border: bool = False
    """Whether the control points at the borders stay where they are."""
    anisotropy: float = Field(default=0.0, ge=0, le=1)
    """Probability of looking as if slices along one axis, drawn at random, were thicker; the labels stay."""
    anisotropy_factor: tuple[float, float] = (1.5, 5.0)
    """Smallest and largest thickness of such slices in voxels (TorchIO, RandomAnisotropy)."""
    noise: float = Field(default=0.1, ge=0, le=1)
    blur: float = Field(default=0.1, ge=0, le=1)
    """nnU-Net: 0.2, then half of the channels."""
    brightness: float = Field(default=0.15, ge=0, le=1)
    contrast: float = Field(default=0.15, ge=0, le=1)
    low_resolution: float = Field(default=0.125, ge=0, le=1)
    """nnU-Net: 0.25, then half of the channels."""
    gamma_inverted: float = Field(default=0.1, ge=0, le=1)
    gamma: float = Field(default=0.3, ge=0, le=1)
    log_gamma: float = Field(default=0.0, ge=0, le=1)
    """Gamma on the values as they are, with its logarithm from -0.3 to 0.3 (TorchIO, RandomGamma)."""
    mirror: float = Field(default=0.5, ge=0, le=1)
    """Probability of a flip along each axis that the plan allows."""
    cube_rotation: float = Field(default=0.0, ge=0, le=1)
    """Probability of one of the turns of a cube onto itself (24, the one that changes nothing included; fewer where
    axes differ in spacing or in the window's size)."""

    @field_validator("scaling")
    @classmethod
    def _check_scaling(cls, scaling: tuple[float, float]) -> tuple[float, float]:
        if not 0 < scaling[0] <= scaling[1]:
            raise ValueError("wanted two zooms above 0, the smaller first")
        return scaling

    @field_validator("anisotropy_factor")
    @classmethod
    def _check_factor(cls, factor: tuple[float, float]) -> tuple[float, float]:
        if not 1 <= factor[0] <= factor[1]:
            raise ValueError("wanted two thicknesses of at least one voxel, the smaller first")
        return factor


class FusionConfig(Record):
    """Training of the network that fuses views."""

    data: Literal["cross", "holdout"] = "cross"
    """Training data of the fusion network: predictions of all training cases by models that saw neither them nor the
    fold (cross-cross-augmentation, methods.md 4.4), or of a part of the cases that the views then go without."""
    image: bool = True
    """Whether the fusion network sees the image; without it is the paper's ablation."""
    joint: bool = False
    """Whether views and fusion network, trained apart, are then trained on together."""
    fine: bool = False
    """Whether the views are coarse-to-fine (methods.md 4.1), each with two models."""

    @model_validator(mode="after")
    def _check_joint(self) -> Self:
        if self.joint and self.fine:
            raise ValueError(
                "views cannot be coarse-to-fine and be trained together with the fusion: set one of the two"
            )
        return self


class PretrainedConfig(Record):
    """Weights that a run starts from, and how cautiously they are changed."""

    file: str
    """Name of the file."""
    digest: str
    """Digest of its content."""
    learning_rate_factor: float = Field(default=1.0, ge=0)
    """Factor on the learning rate, for the weights that were taken over."""
    frozen_epochs: int = Field(default=0, ge=0)
    """Epochs in which weights that were taken over of the encoder stay as they are; batch norm statistics do not."""


class TrainingConfig(Record):
    """Everything that decides how a fold is trained, apart from the plan."""

    schema_version: Literal[1] = 1
    recipe: FileName = "default"
    seed: int = Field(default=0, ge=0, lt=2**64)
    epochs: int = Field(default=EPOCHS, ge=1)
    """Length of a run without a time budget. An epoch is a number of updates, not a pass over the data."""
    iterations_per_epoch: int = Field(default=ITERATIONS_PER_EPOCH, ge=1)
    iterations: int | None = Field(default=None, ge=1)
    """Updates in all, if that should be no whole number of epochs."""
    time_budget_seconds: float | None = Field(default=None, gt=0)
    """If set, the run ends when this much time is spent on training, and the schedule follows the share of it."""
    loss: Literal["dice_cross_entropy", "dice", "dice_squared", "dice_focal"] = "dice_cross_entropy"
    """See `seg25d/training/losses.py`."""
    dice_smooth: float = Field(default=1.0, gt=0)
    """Added to numerator and denominator of the soft Dice."""
    optimizer: Literal["muon", "adamw", "adam", "sgd"] = "muon"
    """Muon (`seg25d/training/muon.py`), AdamW (Loshchilov & Hutter 2019), Adam (Kingma & Ba 2015), or gradient descent
    with momentum. Muon needs about half of AdamW's updates (documentation/concepts/choices.md)."""
    learning_rate: float = Field(default=3e-3, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """Momentum of `sgd`; the others do not use it."""
    weight_decay: float = Field(default=1e-2, ge=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    """Share of the run during which the learning rate rises."""
    schedule: Literal["cosine", "cosine_restarts", "step", "drops", "plateau", "poly", "constant"] = "cosine"
    """See `seg25d/training/schedules.py`."""
    schedule_epochs: int = Field(default=25, ge=1)
    """`cosine_restarts`: epochs between restarts (25: methods.md 1.7); `step`: between steps; `plateau`: epochs without
    a lower validation loss before the step. An epoch is a share of 1 / `epochs` of the run, also with a time budget."""
    schedule_factor: float = Field(default=0.5, gt=0, lt=1)
    """`step`, `drops` and `plateau`: what the learning rate is multiplied by (0.5: methods.md 3.7)."""
    schedule_drops: tuple[float, ...] = (2 / 3, 5 / 6)
    """`drops`: shares of the run after which the learning rate falls (methods.md 4.3: 20,000 and 25,000 of 30,000)."""
    lowest_learning_rate: float = Field(default=0.0, ge=0)
    """Learning rate at which both cosines end, and below which the other schedules do not go."""
    early_stopping: int | None = Field(default=None, ge=1)
    """The run ends after this many epochs without a lower validation loss; null, or with a time budget: never before
    its length is over."""
    restore_best: bool = False
    """Whether the final model is that of the epoch with the lowest validation loss instead of the last one."""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    """Probability from which on a voxel is foreground, where there is one class or there are regions; null: the
    likeliest class, or regions above 0.5. It is stored with the model."""
    gradient_clip: float | None = Field(default=12.0, gt=0)
    """Largest norm of the gradient (nnU-Net's 12); null: any."""
    weight_averaging: float = Field(default=0.99, ge=0, lt=1)
    """Decay of the running mean of the weights that is validated and kept; 0 turns it off."""
    foreground_share: float = Field(default=0.5, ge=0, le=1)
    """Share of windows centred on a voxel of a class drawn at random (nnU-Net: 0.33, rounded up in small batches)."""
    largest_slices: float | None = Field(default=None, gt=0, le=1)
    """Share of the slices with foreground: windows of `foreground_share` are centred on one of those with the largest
    area of it, drawn uniformly from all cases (methods.md 4.1: 0.98); for methods of single slices. null: on a voxel of
    a class, as above (`seg25d/training/largest_slices.py`)."""
    small_windows: float | None = Field(default=0.0, ge=0, le=1)
    """Share of the run, from its beginning, in which a part of each window is trained on; null: 0.6 for `stack` with a
    time budget where a window holds a volume of median shape, else 0. Others than `stack` and `3d` take no parts
    (`seg25d/training/small_windows.py`). The default is that of runs from before this setting."""
    validation_windows: int = Field(default=40, ge=1, le=1_000_000)
    """Windows of the validation cases that are scored after each epoch; four per case and 20 batches at the most. They
    are the same after every epoch, and as many are centred on the foreground as in training (`foreground_share`), as in
    nnU-Net: the others show what is found where there is nothing."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """`auto`: bfloat16 on GPUs and CPUs that multiply matrices in it, float16 on older GPUs, else float32."""
    augmentation: AugmentationConfig = AugmentationConfig()
    fusion: FusionConfig | None = None
    """Settings of the fusion of views; null where none are fused."""
    fine: FineConfig | None = None
    """Settings of fine models (coarse-to-fine); null for all others."""
    pretext: PretextConfig | None = None
    """Settings of pretraining: what is done to windows, which are to be restored; null for training."""
    pretrained: PretrainedConfig | None = None
    """File with the weights that the run begins with; null: fresh weights."""

    @model_validator(mode="after")
    def _check_learning_rates(self) -> Self:
        if self.lowest_learning_rate > self.learning_rate:
            raise ValueError(
                f"lowest_learning_rate must not be above learning_rate, got {self.lowest_learning_rate:g} and "
                f"{self.learning_rate:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_largest_slices(self) -> Self:
        if self.largest_slices is not None and not self.foreground_share:
            raise ValueError(
                "expected a foreground_share above 0 with largest_slices, which says what these windows are centred "
                "on, got 0; set a share, or largest_slices=null"
            )
        return self

    @property
    def length(self) -> Length:
        """How long the run is."""
        return Length.of(self.model_dump(include=set(EXTENDABLE)))

    def num_iterations(self) -> int:
        """Updates of a run without a time budget."""
        return self.iterations or self.epochs * self.iterations_per_epoch


def length_settings(
    epochs: int | None, iterations: int | None, time_budget_seconds: float | None, iterations_per_epoch: int
) -> dict[str, str]:
    """The settings that give a run the length that was asked for.

    Args:
        epochs: How many epochs.
        iterations: How many updates in all; split into `epochs` epochs, or into epochs of the usual length.
        time_budget_seconds: Or how long to train.
        iterations_per_epoch: The usual length of an epoch.

    Raises:
        InputError: If both a number of updates and a time are given.
    """
    if time_budget_seconds is not None:
        if epochs is not None or iterations is not None:
            raise InputError("a run ends after a time or after a number of updates: drop --time-budget, or the others")
        return {"time_budget_seconds": str(time_budget_seconds)}
    if iterations is not None:
        epochs = epochs or max(1, round(iterations / iterations_per_epoch))
        per_epoch = math.ceil(iterations / epochs)
        lengths = {"epochs": epochs, "iterations": iterations, "iterations_per_epoch": per_epoch}
        return {name: str(value) for name, value in lengths.items()} | {"time_budget_seconds": "null"}
    if epochs is not None:
        return {"epochs": str(epochs), "iterations": "null", "time_budget_seconds": "null"}
    return {}


def changed_settings(before: TrainingConfig, after: TrainingConfig) -> list[str]:
    """Names of the settings in which two runs differ; the name of a pretrained file is none."""
    old, new = (config.model_dump(exclude={"pretrained": {"file"}}) for config in (before, after))
    return [name for name in old if old[name] != new[name]]


def apply_settings(config: TrainingConfig, settings: Mapping[str, str]) -> TrainingConfig:
    """Change settings by name, as `--set key=value` does.

    Args:
        config: Where to start from.
        settings: Text per name; parts of a nested setting are joined by dots (`augmentation.noise`). Values are read
            as JSON where they are JSON (numbers, true, null, lists), else as text.

    Raises:
        InputError: If there is no such setting, lists those that there are; or if it is one of other runs.
        RecordError: If the value does not fit.
    """
    values = config.model_dump(mode="json")
    for key, text in settings.items():
        *path, last = key.split(".")
        place: Any = values
        for part in path:
            place = place.get(part) if isinstance(place, dict) else None
        if path and path[0] in PARTS and values[path[0]] is None:
            raise InputError(f"there is no setting {key!r} in this run, only in {PARTS[path[0]]}; leave it out")
        if not isinstance(place, dict) or last not in place or (not path and last in PARTS):
            raise InputError(f"there is no setting {key!r}; known: {', '.join(_names(config.model_dump()))}")
        place[last] = _parse(text)
    return parse_record(values, type(config), "--set")


def read_config(folder: FoldFolder) -> TrainingConfig:
    """Read the settings that a fold was begun with.

    Raises:
        RecordError: If the file is missing or damaged.
    """
    try:
        return read_record(folder.config, TrainingConfig)
    except RecordError as error:
        raise RecordError(f"{error}; restore it from a copy, or start the fold over with --restart") from None


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _names(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        if isinstance(value, dict):
            names += _names(value, f"{prefix}{key}.")
        elif prefix or key not in PARTS:
            names.append(prefix + key)
    return names
