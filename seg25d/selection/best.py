"""The chosen model and the reasons for it: the file `best.json`."""

from typing import Literal

from pydantic import Field

from seg25d.core.limits import MAX_FOLDS
from seg25d.core.names import CaseName, FileName
from seg25d.core.records import Record
from seg25d.core.versions import library_versions
from seg25d.evaluation.predicted_dice import CalibrationOfBest
from seg25d.inference.postprocessing import PostProcessing
from seg25d.selection.cost import Cost


class Member(Record):
    """A run that is part of the best model."""

    run: FileName
    """Name of its folder in the results of the data set."""
    folds: tuple[FileName, ...] = Field(max_length=MAX_FOLDS)
    """Folds whose scores are averaged."""
    weight: float = Field(gt=0, le=1)
    """Weight of its probabilities; weights add up to 1."""
    imported: bool = False
    """Whether these are results of another program, which also has to predict."""


class Scored(Record):
    """A candidate: a run or an ensemble, with its scores in cross-validation."""

    name: str
    runs: tuple[FileName, ...]
    weights: tuple[float, ...] | None = None
    """None: equal weights."""
    dice: float | None
    """Mean over classes of the class means over cases."""
    dice_std: float | None
    """Standard deviation (n - 1) over cases of the mean over classes."""
    hd95_mm: float | None
    dice_per_class: dict[str, float | None]
    p_value: float | None
    """Result of Wilcoxon's signed-rank test against the best over cases; None for the best, or if all cases agree.
    Both tests are of these models, whatever another training would have given."""
    t_test_p_value: float | None = None
    """The same of the paired t-test, which Xia et al. 2018 use."""
    cost: Cost | None
    """None if another program has to predict with it."""
    on_pareto_front: bool
    """Whether no other candidate is at least as good and at least as fast, and better in one of the two."""
    within_limits: bool
    """Whether its cost is within the requested limits."""


class Best(Record):
    """The configuration or ensemble that was chosen for a data set."""

    schema_version: Literal[1] = 1
    dataset_name: CaseName
    name: str
    members: tuple[Member, ...] = Field(min_length=1, max_length=100)
    postprocessing: PostProcessing
    dice: float | None
    """With post-processing, in cross-validation."""
    dice_without_postprocessing: float | None
    hd95_mm: float | None
    """With post-processing."""
    cost: Cost | None
    num_cases: int
    folds: tuple[int, ...]
    """Folds that were compared."""
    limits: dict[str, float]
    """Limits of the cost."""
    commands: tuple[str, ...]
    """Commands that predict with it."""
    reasons: dict[str, str] = Field(default_factory=dict)
    """Reason for the choice and for its post-processing, and what the scores are worth."""
    candidates: tuple[Scored, ...]
    """All candidates, the best first."""
    predicted_dice: CalibrationOfBest = None
    """How the Dice of its predictions is predicted; null if another program predicts."""
    versions: dict[str, str] = Field(default_factory=library_versions)
