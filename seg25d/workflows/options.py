"""Options of the functions of `seg25d.api`: one record per step."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from seg25d.core.records import Record
from seg25d.core.types import Auto, Spacing
from seg25d.inference.cases import CaseOptions
from seg25d.inference.dicom_output import SegmentationChoice
from seg25d.inference.predictor import FusionName, PredictorOptions
from seg25d.planning.plan import PlansName
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.pretext import PretextTask
from seg25d.runs.trained import ModelChoice
from seg25d.training.logger_names import LoggerName


class ValidationOptions(Record):
    """What is done with the validation cases of a fold at its end, beside the scores of its final model."""

    validate_only: bool = False
    """Train nothing: score the cases of trained folds again."""
    validate_best: bool = False
    """Also score the model with the best validation windows, in `validation_best/`."""
    save_probabilities: bool = False
    """Also write `CASE.npz`."""
    keep_probabilities: bool = False
    """Also keep the probabilities for `find_best_configuration`, which need not be predicted again then."""
    quick_scores: bool = False
    """Score without mirroring, in `validation_quick/` in place of `validation/`, unless that is there and current."""

    @property
    def wants_more(self) -> bool:
        """Whether anything is to be done that training does not do at its end."""
        return self.validate_only or self.validate_best or self.save_probabilities


class PlanningOptions(Record):
    """Options of planning and preprocessing."""

    configurations: tuple[str, ...] | None = None
    """Configurations to plan; None: all."""
    gpu_memory_gb: Annotated[float, Field(gt=0)] | Auto = "auto"
    """GiB that a training step may take; `auto`: as planned before, else those of the GPU, else 8 or,
    on a machine with less than twice that, 4 or 2."""
    cpu_gflops: Annotated[float, Field(ge=0)] | Auto | None = None
    """Speed of the CPUs that train, in GFLOP/s, which bounds updates to `search.UPDATE_SECONDS`, or 0: not bounded;
    `auto`: as planned before, else that of this machine if it trains on CPUs; None: as planned before, else 0."""
    time_budget_s: Annotated[float, Field(ge=0)] | None = None
    """Seconds that each training (one fold of one configuration) will be given, for which updates on CPUs are bounded
    (`search.update_seconds`); 0: any time; None: as planned before, else any time."""
    device: str | None = None
    """Where it would be trained; None: the best there is."""
    recipe: str = "default"
    plans_name: PlansName = DEFAULT_PLANS_NAME
    verify_only: bool = False
    plan_only: bool = False
    fingerprint_only: bool = False
    preprocess_only: bool = False
    """Make the arrays of existing plans, and change nothing in these; of `configurations` those that are planned."""
    spacing_3d_mm: Spacing | None = None
    """Target spacing of `3d` in mm (D, H, W); None: the planned one."""
    clean: bool = False
    """Start over: remove measurements, these plans, and all arrays that no plans of another name use."""
    num_processes: int | None = None
    num_fingerprint_processes: int | None = None
    """Processes that measure the data set; None: `num_processes`."""


class TrainingOptions(Record):
    """Options of training; None leaves a setting to the recipe."""

    recipe: str = "default"
    trainer: str | None = None
    """One of nnU-Net's trainers (`NNUNET_TRAINERS`), which also gives the run its name; None: the recipe as it is."""
    network: str | None = None
    plans_name: PlansName = DEFAULT_PLANS_NAME
    settings: dict[str, str] = Field(default_factory=dict)
    """Any setting of `TrainingConfig` by name, as text."""
    epochs: int | None = None
    iterations: int | None = None
    time_budget_s: float | None = None
    seed: int | None = None
    pretrained: Path | None = None
    """A file with the initial weights of the run."""
    part: str | None = None
    """Of a fusion of views, train only this model that it needs, such as `axial/pair_0_1`."""
    restart: bool = False
    device: str | None = None
    num_processes: int | None = None
    loggers: tuple[LoggerName, ...] = ()
    """Where logs are also written; not a setting, as it may change when a run continues."""
    validation: ValidationOptions = ValidationOptions()


class PretrainingOptions(TrainingOptions):
    """Options of pretraining."""

    task: PretextTask
    images: tuple[Path, ...] = ()
    """Folders of further images, without labels."""
    without_fold: Annotated[int, Field(ge=0)] | None = None
    """The fold whose validation images are left out, so that scores on them are of images not seen; None: all count."""


class PredictionOptions(ModelChoice):
    """The model to predict with, and options of prediction."""

    save_probabilities: bool = False
    mirroring: bool = True
    step_size: float = 0.5
    fusion: FusionName = "network"
    """Fusion of views: by the network, or one without training."""
    dicom_seg: SegmentationChoice = "auto"
    """Kind of the DICOM segmentations of DICOM series; `auto`: binary, where highdicom is installed."""
    overwrite: bool = False
    uncertainty: bool = False
    """Whether to say how sure the segmentations are: a map, and the predicted Dice of each structure."""
    statistics: Path | None = None
    """Table of sizes and intensities of all structures that are predicted; None: none."""
    num_parts: int = Field(default=1, ge=1)
    """Number of calls that share the cases, at the same time if wanted."""
    part_id: int = Field(default=0, ge=0)
    """Which of them this is: it predicts every `num_parts`-th case, from this one on."""
    device: str | None = None
    """None: the best one available; several, separated by commas, such as `cuda:0,cuda:1`, share the cases."""

    @property
    def cases(self) -> CaseOptions:
        """The options of the output of each case."""
        said = self.model_dump(include={"save_probabilities", "overwrite", "uncertainty", "dicom_seg"})
        return CaseOptions(is_part=self.num_parts > 1, **said)

    @property
    def predictor(self) -> PredictorOptions:
        """The options of the predictor."""
        return PredictorOptions(mirroring=self.mirroring, step_size=self.step_size, fusion=self.fusion)
