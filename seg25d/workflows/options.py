"""What can be asked of `seg25d.api`: one record per step."""

from pathlib import Path
from typing import Self

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.files import file_digest
from seg25d.core.records import Record, parse_record
from seg25d.inference.predictor import FusionName, PredictorOptions
from seg25d.planning.plan import PlansName
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.pretext import PretextConfig, PretextTask
from seg25d.runs.trained import ModelChoice
from seg25d.training.config import (
    AugmentationConfig,
    PretrainedConfig,
    TrainingConfig,
    apply_settings,
    length_settings,
)
from seg25d.training.recipes import find_recipe

JOINT = "fusion.joint"
"""The setting that has views and fusion trained together."""
PRETRAINING_EPOCHS = 300
"""Sobirov et al. 2022 (methods.md 1.8)."""
FINE = "fine"
"""The setting that has a fine model trained, for coarse-to-fine segmentation; also the parts of it."""


class PlanningOptions(Record):
    """How to plan and preprocess."""

    configurations: tuple[str, ...] | None = None
    """Which to plan; None: all."""
    gpu_memory_gb: float = Field(default=8.0, gt=0)
    recipe: str = "default"
    plans_name: PlansName = DEFAULT_PLANS_NAME
    verify_only: bool = False
    plan_only: bool = False
    clean: bool = False
    """Begin anew: forget measurements, these plans, and all arrays that plans of no other name use."""
    num_processes: int | None = None


class _Asked(Record):
    fine: bool


class TrainingOptions(Record):
    """How to train; None leaves a setting to the recipe."""

    recipe: str = "default"
    network: str | None = None
    plans_name: PlansName = DEFAULT_PLANS_NAME
    settings: dict[str, str] = Field(default_factory=dict)
    """Any setting of `TrainingConfig` by name, as text."""
    epochs: int | None = None
    iterations: int | None = None
    time_budget_s: float | None = None
    seed: int | None = None
    pretrained: Path | None = None
    """A file whose weights the run begins with."""
    restart: bool = False
    device: str | None = None
    num_processes: int | None = None
    tensorboard: bool = False
    """Whether logs are also written as curves for TensorBoard; no setting, as it may change when a run goes on."""

    @property
    def fine(self) -> bool:
        """Whether a fine model is to be trained: `fine` is true, or a part of it is set.

        Raises:
            RecordError: If `fine` is neither true nor false.
        """
        part_is_set = any(key.startswith(f"{FINE}.") for key in self.settings)
        return parse_record({FINE: self.settings.get(FINE, part_is_set)}, _Asked, "--set").fine

    def of_parts(self) -> Self:
        """The options of the fusion that is trained before it is trained together with its views."""
        settings = {key: value for key, value in self.settings.items() if key.startswith("fusion.") and key != JOINT}
        return self.model_copy(update={"settings": settings, "restart": False})

    def of_fine(self) -> Self:
        """The options of fine models as they are by default."""
        return self.model_copy(update={"settings": {FINE: "true"}})

    def of_coarse(self) -> Self:
        """The options of the coarse model that a fine one needs: `settings` are for the fine model alone."""
        return self.model_copy(update={"settings": {}, "restart": False})

    def of_views(self) -> Self:
        """The options of the views' models, of those for a fusion: `settings` are for the fusion alone."""
        return self.model_copy(update={"settings": {}, "network": None, "restart": False})

    def changes(self, configuration: str) -> dict[str, str]:
        """What is changed of the recipe's settings for a configuration, by name.

        Raises:
            InputError: If both a number of updates and a time are given.
        """
        per_epoch = self.base(configuration).iterations_per_epoch
        seed = {} if self.seed is None else {"seed": str(self.seed)}
        settings = {key: value for key, value in self.settings.items() if key != FINE}
        return seed | length_settings(self.epochs, self.iterations, self.time_budget_s, per_epoch) | settings

    def base(self, configuration: str) -> TrainingConfig:
        """The settings of the recipe for a configuration.

        Raises:
            InputError: If there is no such recipe.
        """
        apart = find_recipe(self.recipe, configuration, fine=self.fine)
        if self.pretrained is not None:
            if apart.fusion is not None:
                raise InputError(f"--pretrained is for one network; begin the views of {configuration} with it instead")
            start = PretrainedConfig(file=self.pretrained.name, digest=file_digest(self.pretrained))
            apart = apart.model_copy(update={"pretrained": start})
        if apart.fusion is None or JOINT not in self.settings:
            return apart
        fusion = apply_settings(apart, {JOINT: self.settings[JOINT]}).fusion
        assert fusion is not None, "it was there before"
        return find_recipe(self.recipe, configuration, joint=fusion.joint, fine=self.fine)

    def config(self, configuration: str) -> TrainingConfig:
        """The settings of the recipe with these changes.

        Raises:
            InputError: If the recipe or a setting does not exist, or a value does not fit.
        """
        return apply_settings(self.base(configuration), self.changes(configuration))


class PretrainingOptions(TrainingOptions):
    """How to pretrain."""

    task: PretextTask
    images: tuple[Path, ...] = ()
    """Folders of further images, without labels."""

    def base(self, configuration: str) -> TrainingConfig:
        """The settings of the recipe, as far as they are not about labels.

        Raises:
            InputError: If a file is given to begin with.
        """
        if self.pretrained is not None:
            raise InputError("pretraining begins with fresh weights: leave `pretrained` out")
        return (
            super()
            .base(configuration)
            .model_copy(
                update={
                    "epochs": PRETRAINING_EPOCHS,
                    "pretext": PretextConfig(task=self.task),
                    "restore_best": True,
                    "foreground_share": 0.0,
                    "threshold": None,
                    "early_stopping": None,
                    "augmentation": AugmentationConfig(enabled=False),
                }
            )
        )


class PredictionOptions(ModelChoice):
    """What to predict with, and how."""

    save_probabilities: bool = False
    mirroring: bool = True
    step_size: float = 0.5
    fusion: FusionName = "network"
    """What fuses the views of `mv`."""
    overwrite: bool = False
    device: str | None = None
    """None: the best there is; several with commas, such as `cuda:0,cuda:1`, share the cases."""

    @property
    def predictor(self) -> PredictorOptions:
        """What a predictor needs to know of it."""
        return PredictorOptions(mirroring=self.mirroring, step_size=self.step_size, fusion=self.fusion)
