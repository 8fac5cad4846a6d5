"""Options of a run over all steps, and of predictions by several processes."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, model_validator

from seg25d.core.records import Record
from seg25d.core.types import Auto
from seg25d.orchestration.engine_names import EngineName
from seg25d.planning.pretext import PretextTask
from seg25d.workflows.options import PredictionOptions, TrainingOptions


class RunOptions(Record):
    """What is run, how long, and on what."""

    configurations: tuple[str, ...] | None = None
    """Configurations, also with a network, mixing or variants: `si__se_unet`, `si__shift`, `2d__fine`; None: all that
    their plans do not advise against."""
    folds: tuple[str, ...] = ("cv",)
    epochs: int | None = None
    iterations: int | None = None
    time_budget_s: float | None = Field(default=None, gt=0)
    """For everything together; None: each training has its own length."""
    seed: int | None = None
    pretext: PretextTask | None = None
    """What networks are pretrained by; None: they are not."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | Auto | None = None
    """Memory that one training step may take, in GiB; `auto` and None: see `PlanningOptions`."""
    on: EngineName = "local"
    num_tasks: int | None = Field(default=None, ge=1)
    """Tasks at a time; None: one per GPU, or one on CPUs; what a cluster has room for."""
    slurm: dict[str, str] = Field(default_factory=dict)
    """What jobs of SLURM ask for, see `slurm_parameters.slurm_parameters`."""
    device: str | None = None
    num_processes: int | None = None

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.time_budget_s is not None and (self.epochs is not None or self.iterations is not None):
            raise ValueError("--time-budget is for everything together: drop it, or --epochs and --iterations")
        _check_slurm(self.on, self.slurm)
        return self

    @property
    def training(self) -> TrainingOptions:
        """Length and seed of every training."""
        return TrainingOptions(epochs=self.epochs, iterations=self.iterations, seed=self.seed)


class CohortOptions(Record):
    """How the cases of a prediction are shared out, and what predicts them."""

    prediction: PredictionOptions = PredictionOptions()
    """Model and other options. Its device is that of every part; its own number of parts stays at 1."""
    on: EngineName = "local"
    num_tasks: int | None = Field(default=None, ge=1)
    """Parts at a time; None: one per GPU, or one on CPUs; what a cluster has room for."""
    slurm: dict[str, str] = Field(default_factory=dict)
    """What jobs of SLURM ask for, see `slurm_parameters.slurm_parameters`."""
    num_parts: int | None = Field(default=None, ge=2)
    """Parts of all cases; None: by the number of cases and of parts at a time."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        _check_slurm(self.on, self.slurm)
        return self


def _check_slurm(on: EngineName, slurm: Mapping[str, str]) -> None:
    if slurm and on != "slurm":
        raise ValueError(f"--slurm is for --on slurm: drop it, got --on {on}")
