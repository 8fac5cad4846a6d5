"""Trainings that a fusion of views needs: models of views, checks that they fit together, and expected times."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.lengths import count
from seg25d.core.parallel import torchrun_processes
from seg25d.core.progress import format_seconds
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.dataset import Split, read_description
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.plans_name import RUN_VARIANTS
from seg25d.representations.fused_views import FusedViews
from seg25d.runs.files import check_run
from seg25d.runs.names import find_configuration
from seg25d.training.config import FusionConfig, TrainingConfig, read_config
from seg25d.training.durations import SHORT_BUDGET_S, expected_seconds, format_duration, is_trained, share_left
from seg25d.training.going_on import KeptLength, tell_changes, tell_kept_lengths
from seg25d.views.joint import build_joint, joint_plan
from seg25d.views.model_sets import FusionCases, ModelSet, fusion_cases
from seg25d.workflows.coarse_to_fine import FineRun, check_coarse, fine_run
from seg25d.workflows.durations import announce_folds, time_update
from seg25d.workflows.folds import Begun, RunToTrain, check_folds, is_scored, split_of
from seg25d.workflows.planned_run import PlannedRun
from seg25d.workflows.settings import FINE, FINE_VIEWS, JOINT, Settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ViewModel:
    """A model of a view: that of an ordinary fold, or one that only the fusion needs."""

    view: RunToTrain
    models: ModelSet
    fine: FineRun | None = None
    """Both runs, if it is a fine model."""

    @property
    def folder(self) -> FoldFolder:
        """Folder of the model, which may not exist yet."""
        return self.view.run.model_set(self.models.name)

    @property
    def is_trained(self) -> bool:
        """Whether it is done, and not being made longer: then its model is one of before."""
        return is_trained(self.folder)

    @property
    def is_complete(self) -> bool:
        """Whether it is done, with its scores if it is an ordinary fold."""
        return self.is_trained and (self.models.fold is None or is_scored(self.folder, self.models.split.val))

    @property
    def name(self) -> str:
        """Name for messages."""
        return self.folder.name


@dataclass(frozen=True)
class FusedFold:
    """One fold of a fusion of views and all that it needs."""

    task: RunToTrain
    views: Mapping[str, RunToTrain]
    """Runs of the views by the names that the plan of the fusion has for them, in its order."""
    fold: int | str
    cases: FusionCases
    fine: Mapping[str, FineRun]
    """The fine models of the views and their coarse ones, if `views` are fine; else none."""

    @property
    def folder(self) -> FoldFolder:
        """Folder of the fold."""
        return self.task.run.fold(self.fold)

    @property
    def split(self) -> Split:
        """Cases that the fusion network learns from, and those of the fold."""
        return Split(train=tuple(self.cases.training), val=split_of(self.task.splits, self.fold).val)

    @property
    def is_done(self) -> bool:
        """Whether the fusion network is trained with the settings that are asked for."""
        folder = self.folder
        if not folder.config.exists() or not is_trained(folder):
            return False
        return self.task.settled(self.fold) == read_config(folder)

    @property
    def is_complete(self) -> bool:
        """Whether there is a model with its scores, of whatever settings."""
        return is_trained(self.folder) and is_scored(self.folder, self.split.val)

    def view_models(self) -> list[ViewModel]:
        """All models of views, those of the fold itself first."""
        return [model for each in self.cases.sets for model in self.coarse_of(each) + self.models_of(each)]

    def models_of(self, models: ModelSet) -> list[ViewModel]:
        """The models of a set that are fused, in the order of the plan."""
        return [ViewModel(view, models, self.fine.get(name)) for name, view in self.views.items()]

    def coarse_of(self, models: ModelSet) -> list[ViewModel]:
        """The coarse models of a set, in the same order; none if the views have none."""
        return [ViewModel(fine.coarse, models) for fine in self.fine.values()]


class Fusion(NamedTuple):
    """Trainings that a fusion of views needs."""

    folds: list[FusedFold]
    """The fusion of views that are trained apart from it."""
    joint: RunToTrain | None
    """The run in which views and fusion are trained on together, if that is asked for."""

    @property
    def task(self) -> RunToTrain:
        """The run that was asked for; all others are needed for it."""
        return self.joint or self.folds[0].task


def plan_fusion(planned: PlannedRun, folds: Sequence[int | str]) -> Fusion:
    """Work out what has to be trained, and make sure that it can be, before anything is written.

    Args:
        planned: A configuration that fuses views.
        folds: Numbers of folds, or `all`.

    Raises:
        InputError: If something does not fit.
    """
    if torchrun_processes() > 1:
        raise InputError(
            f"{planned.configuration} trains with one process; train the views with several before: their folds "
            "are kept"
        )
    settings, begun = planned.settings, planned.begun
    fusion = _fusion_config(settings)
    joint = None
    if fusion.joint:
        joint = _named_run(planned, settings, folds, begun=begun)
        joint = replace(joint, plans=joint.plans.with_plan(joint.configuration, _joint_plan(planned, joint.plan)))
        check_folds(joint)
        # The parts are needed as views are: those that have begun go on as they are.
        said = planned.options.settings
        words = {key: value for key, value in said.items() if key.startswith("fusion.") and key != JOINT}
        settings, begun = planned.settings_of_part({**words, FINE_VIEWS: "false"}, fuses_views=True), "kept"
    task = _named_run(planned, settings, folds, begun=begun)
    needed = [fusion_cases(planned.splits, fold, fusion.data) for fold in folds]
    view_folds = list(dict.fromkeys(each.fold for cases in needed for each in cases.sets if each.fold is not None))
    views = _views(planned, view_folds)
    fine: dict[str, FineRun] = {}
    if fusion.fine:
        finer = planned.settings_of_part({FINE: "true"})
        fine = {name: fine_run(planned, finer, view, begun="kept") for name, view in views.items()}
        views = {name: each.task for name, each in fine.items()}
    jobs = [FusedFold(task, views, fold, cases, fine) for fold, cases in zip(folds, needed, strict=True)]
    _check(jobs)
    return Fusion(jobs, joint)


def announce(jobs: Sequence[FusedFold]) -> None:
    """Log how fusions that have begun go on, what will be trained, and how long that takes on this machine."""
    for job in jobs:
        if job.task.begun != "kept":
            tell_changes(job.folder, job.task.settled(job.fold), job.task.config)
    fusions = [job for job in jobs if not job.is_done]
    if not fusions:
        return
    models = {model.name: (model, job.cases.own) for job in fusions for model in job.view_models()}
    configs = {name: _config_of(model, own) for name, (model, own) in models.items()}
    tell_kept_lengths(KeptLength(name, configs[name], model.view.config) for name, (model, _) in models.items())
    missing = {name: model for name, (model, _) in models.items() if not model.is_trained}
    parts = [(model.folder, _seconds_of_view(model, configs[name])) for name, model in missing.items()]
    parts += [(job.folder, _seconds_of(job)) for job in fusions]
    known = [seconds for _, seconds in parts if seconds is not None]
    time = f"{format_duration(sum(known))} in all on this machine" if known else "the time cannot be told here"
    new = [seconds or 0.0 for folder, seconds in parts if not folder.checkpoint.exists()]
    views = f"{count(len(missing), 'model')} of views ({', '.join(missing)}) and " if missing else ""
    logger.info(
        "%s: training %s%s: %s, predictions and scores of whole cases aside%s",
        *(jobs[0].task.run.root.name, views, count(len(fusions), "fusion network"), time),
        f"; --time-budget 15min would be {format_seconds(SHORT_BUDGET_S * len(new))} for what has not begun"
        if sum(new) > SHORT_BUDGET_S * len(new)
        else "",
    )


def announce_joint(joint: RunToTrain, fold: FusedFold) -> None:
    """Log how long views and fusion are then trained together."""
    description = read_description(joint.folder.dataset)
    announce_folds(
        joint, build=partial(build_joint, joint.plan, [view.plan for view in fold.views.values()], description)
    )


def view_config(model: ViewModel, own: ModelSet) -> TrainingConfig:
    """The settings of a model that only the fusion needs.

    Those of the view's own fold, so that all predictions are of the same kind, or else of the recipe. Its validation
    cases are to be predicted: nothing may be chosen by them.

    Args:
        model: The model.
        own: The set of the fold itself.
    """
    if model.folder.checkpoint.exists():
        return read_config(model.folder)
    path = model.view.run.model_set(own.name).config
    config = read_record(path, TrainingConfig) if own.fold is not None and path.exists() else model.view.config
    return config.model_copy(update={"restore_best": False, "early_stopping": None})


def _config_of(model: ViewModel, own: ModelSet) -> TrainingConfig:
    """The settings that a model of a view was or will be trained with."""
    if model.is_trained and model.folder.config.exists():
        return read_config(model.folder)
    return view_config(model, own) if model.models.fold is None else model.view.settled(model.models.fold)


def _seconds_of_view(model: ViewModel, config: TrainingConfig) -> float | None:
    """The time that a model of a view still takes; None if it cannot be told."""
    update = time_update(model.view, config)
    if update is None:
        return None
    whole = expected_seconds(config, model.view.plan, len(model.models.split.val), update)
    return whole * share_left(model.folder, config)


def _seconds_of(job: FusedFold) -> float | None:
    """The time that the fusion network of a fold still takes; None if it cannot be told."""
    config, update = job.task.settled(job.fold), time_update(job.task)
    if update is None:
        return None
    return expected_seconds(config, job.task.plan, len(job.split.val), update) * share_left(job.folder, config)


def _views(planned: PlannedRun, folds: Sequence[int | str]) -> dict[str, RunToTrain]:
    """The runs of the views; settings other than lengths and seed are for the fusion alone."""
    settings = planned.settings_of_part({})
    names = {
        view: find_configuration(planned.plans, view)[0] for view in FusedViews.of(planned.plan.representation).views
    }
    return {view: planned.run(settings, folds, configuration=name, begun="kept") for view, name in names.items()}


def _named_run(planned: PlannedRun, settings: Settings, folds: Sequence[int | str], *, begun: Begun) -> RunToTrain:
    """The run of `mv` with its settings: `mv`, or `mv__holdout`, `mv__no_image`, `mv__joint` and so on.

    What is not as usual has a folder of its own, as it is there to be compared.
    """
    fusion, plan = _fusion_config(settings), planned.plan
    asked = {"joint": fusion.joint, "fine": fusion.fine}
    asked |= {"holdout": fusion.data == "holdout", "no_image": not fusion.image}
    variants = [variant for variant in RUN_VARIANTS if asked[variant]]
    seen = FusedViews.of(plan.representation)
    seen = seen.model_copy(update={"image": seen.image and fusion.image})
    plan = plan.model_copy(update={"representation": seen})
    return planned.run(settings, folds, plan=plan, variants=variants, begun=begun)


def _joint_plan(planned: PlannedRun, plan: ConfigurationPlan) -> ConfigurationPlan:
    """The plan of views and fusion together."""
    names = (find_configuration(planned.plans, view)[0] for view in FusedViews.of(plan.representation).views)
    views = [planned.plans.configurations[name] for name in names]
    return joint_plan(plan, views, read_description(planned.folder.dataset), planned.plans.gpu_memory_gb)


def _fusion_config(settings: Settings) -> FusionConfig:
    assert settings.config.fusion is not None, "the recipe of what fuses views has it"
    return settings.config.fusion


def _check(jobs: Sequence[FusedFold]) -> None:
    task, views = jobs[0].task, jobs[0].views
    check_folds(task)
    _check_view_plans(task, views)
    for view in [*(fine.coarse for fine in jobs[0].fine.values()), *views.values()]:
        check_run(view.run, view.folder, view.plans, view.configuration, ())
    for job in jobs:
        for model in job.view_models():
            _check_cases(model)
            _check_start(model, job.cases.own)
            if model.fine is not None and model.models.fold is not None and not model.is_trained:
                check_coarse(model.fine.only(model.models.fold))


def _check_view_plans(task: RunToTrain, views: Mapping[str, RunToTrain]) -> None:
    """Make sure that views see the arrays of the fusion, and have the maps that it takes."""
    own, representation = task.plan, FusedViews.of(task.plan.representation)
    labels = read_description(task.folder.dataset).labels
    maps = labels.num_outputs - (not labels.has_regions)
    if (representation.maps_per_view, representation.regions) != (maps, labels.has_regions):
        raise InputError(
            f"plans: {task.configuration} has representation.maps_per_view {representation.maps_per_view} and regions "
            f"{representation.regions}; these labels want {maps} and {labels.has_regions}"
        )
    for view in views.values():
        plan = view.plan
        if plan.arrays != own.arrays:
            raise InputError(
                f"plans: {view.configuration} has another spacing, common size or normalisation than "
                f"{task.configuration}, which fuses it; give both the same and run plan_and_preprocess"
            )


def _check_start(model: ViewModel, own: ModelSet) -> None:
    """Models that only the fusion needs begin with fresh weights, and so must those of the view's own fold."""
    if model.models.fold is not None or model.is_trained or model.folder.checkpoint.exists():
        return
    start = view_config(model, own).pretrained
    if start is not None:
        raise InputError(
            f"{model.view.run.root.name} {own.name} began with {start.file}, and {model.models.name}, which the fusion "
            "needs too, would begin with fresh weights: train the view again without --pretrained"
        )


def _check_cases(model: ViewModel) -> None:
    folder = model.folder
    if not folder.split.exists() or not (folder.checkpoint.exists() or model.is_trained):
        return
    if read_record(folder.split, Split) != model.models.split:
        raise InputError(
            f"{folder.root} was trained on other cases, as the folds changed since; put splits.json back, or delete "
            "this folder to train it again"
        )
