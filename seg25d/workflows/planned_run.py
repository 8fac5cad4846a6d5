"""Entry point of training: options are resolved to complete runs before anything is done."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.locks import reading_lock
from seg25d.core.workspace import PreprocessedFolder, Workspace
from seg25d.data.splits import Split, read_splits, same_splits, short_path, splits_files
from seg25d.planning.configurations import known_names
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.plans_file import read_plans
from seg25d.planning.plans_name import DEFAULT_PLANS_NAME
from seg25d.planning.recipe_rules import find_rules
from seg25d.preprocessing.store import Store
from seg25d.runs.names import with_network
from seg25d.training.loggers import check_loggers
from seg25d.training.nnunet_trainers import DEFAULT_TRAINER, NnunetTrainer, find_trainer
from seg25d.training.processes import local_device
from seg25d.training.transfer import PretrainedFile
from seg25d.workflows.folds import Begun, RunToTrain
from seg25d.workflows.options import TrainingOptions
from seg25d.workflows.preparation import add_network, keep_network
from seg25d.workflows.settings import Settings, resolve_settings


@dataclass(frozen=True)
class PlannedRun:
    """A planned configuration to train, and the user's options."""

    workspace: Workspace
    dataset_name: str
    configuration: str
    folder: PreprocessedFolder
    plans: Plans
    splits: tuple[Split, ...]
    options: TrainingOptions
    pretrained: PretrainedFile | None
    settings: Settings
    """Settings of the configuration itself."""
    trained_plan: ConfigurationPlan | None
    """The plan with what a trainer of nnU-Net changes of it, for runs with its name; None: there is none."""
    plans_file: Path | None
    """File that its plan is to be added to; None: the plan is there already."""

    @property
    def plan(self) -> ConfigurationPlan:
        """The plan of the configuration."""
        return self.plans.configurations[self.configuration]

    @property
    def begun(self) -> Begun:
        """Treatment of folds of the configuration itself that have begun."""
        return "restarted" if self.options.restart else "checked"

    def settings_of_part(self, words: Mapping[str, str], *, fuses_views: bool = False) -> Settings:
        """The settings of a run that this one needs, with its own settings as text in place of `--set`."""
        start = None if self.pretrained is None else self.pretrained.start
        return resolve_settings(self.options, words, fuses_views=fuses_views, pretrained=start)

    def run(
        self,
        settings: Settings,
        folds: Sequence[int | str],
        *,
        configuration: str | None = None,
        plan: ConfigurationPlan | None = None,
        variants: Sequence[str] = (),
        begun: Begun = "checked",
    ) -> RunToTrain:
        """Prepare folds of the configuration, or of a run that it needs, for training.

        Args:
            settings: Settings of the training.
            folds: Numbers of folds, or `all`.
            configuration: Name of another configuration; None: this one.
            plan: Plan that replaces the one in the plans.
            variants: Suffixes of the run's name, as in `axial__fine`: some of `RUN_VARIANTS`.
            begun: Treatment of folds that have begun.

        Raises:
            InputError: If a fold was begun with other settings and is to continue with these.
        """
        configuration = configuration or self.configuration
        if self.trained_plan is not None:
            plan, variants = self.trained_plan, [str(self.options.trainer)]
        plans = self.plans if plan is None else self.plans.with_plan(configuration, plan)
        run = self.workspace.run(self.dataset_name, plans.run_name("__".join([configuration, *variants])))
        task = RunToTrain(
            dataset_name=self.dataset_name,
            configuration=configuration,
            run=run,
            folder=self.folder,
            plans=plans,
            splits=self.splits,
            settings=settings,
            folds=tuple(folds),
            begun=begun,
            pretrained=self.pretrained,
            device=self.options.device,
            num_processes=self.options.num_processes,
            loggers=self.options.loggers,
            save_probabilities=self.options.validation.save_probabilities,
            keep_probabilities=self.options.validation.keep_probabilities,
            quick_scores=self.options.validation.quick_scores,
        )
        if begun == "checked":
            for fold in folds:
                task.settled(fold)
        return task

    def reading(self) -> AbstractContextManager[None]:
        """Keep planning from changing the arrays while they are read."""
        return reading_lock(self.folder.store(self.plan.store), "training")

    def keep_network(self) -> None:
        """Add the network to the plans, if it is new there."""
        if self.plans_file is not None:
            keep_network(self.plans_file, self.plans, self.configuration)


def planned_run(workspace: Workspace, identifier: str, configuration: str, options: TrainingOptions) -> PlannedRun:
    """Resolve options to a planned configuration, its preprocessed arrays and folds, and complete settings.

    Raises:
        InputError: If an argument names something that does not exist, or a logger is not installed; raised before
            anything is written.
        ModelError: If the pretrained file cannot be used.
    """
    check_loggers(options.loggers)
    find_rules(options.recipe)
    name = workspace.dataset_name(identifier)
    folder = workspace.preprocessed_dataset(name)
    path = folder.plans(options.plans_name, options.recipe)
    if not path.exists():
        raise InputError(f"{name} is not planned; run `{_planning_command(identifier, options)}` first")
    plans = read_plans(path)
    configuration = with_network(plans, configuration, options.network)
    added = configuration not in plans.configurations
    if added:
        plans = add_network(folder, plans, configuration)
    plan = plans.configurations[configuration]
    fuses_views = plan.representation.fuses_views
    trained_plan = None
    trainer = None if options.trainer in (None, DEFAULT_TRAINER) else find_trainer(options.trainer)
    if trainer is not None:
        trained_plan = _with_trainer(plan, trainer, f"-tr {options.trainer}, {configuration}")
    if options.part is not None and not fuses_views:
        raise InputError(f"--part is for what fuses views, and {configuration} is one network; leave it out")
    if options.part is not None and (options.restart or options.validation.validate_only):
        raise InputError("--part trains one model that is missing: leave --restart and --val out")
    if options.pretrained is not None and fuses_views:
        raise InputError(f"--pretrained is for one network, and {configuration} trains several; leave it out")
    pretrained = None if options.pretrained is None else PretrainedFile.read(options.pretrained)
    start = None if pretrained is None else pretrained.start
    settings = resolve_settings(options, options.settings, fuses_views=fuses_views, pretrained=start)
    if settings.config.fine is not None and not plan.representation.can_be_fine:
        raise InputError(
            f"{configuration} cannot be trained coarse-to-fine: `fine` is a setting of "
            f"{', '.join(known_names(lambda each: each.can_be_fine))}; that of "
            f"{', '.join(known_names(lambda each: each.fuses_views))} is `fusion.fine`"
        )
    if trainer is not None and settings.config.fine is not None:
        raise InputError(f"-tr {options.trainer} and coarse-to-fine models: set one of the two, --set has the settings")
    choose_execution(local_device(options.device), settings.config.precision)
    splits = read_splits(folder.recipe_splits(options.recipe))
    _check_folds(workspace, name, splits, _planning_command(identifier, options))
    _check_store(Store(folder.store(plan.store)), splits, name)
    return PlannedRun(
        workspace=workspace,
        dataset_name=name,
        configuration=configuration,
        folder=folder,
        plans=plans,
        splits=splits,
        options=options,
        pretrained=pretrained,
        settings=settings,
        trained_plan=trained_plan,
        plans_file=path if added else None,
    )


def _with_trainer(plan: ConfigurationPlan, trainer: NnunetTrainer, what: str) -> ConfigurationPlan:
    """The plan with what a trainer of nnU-Net changes of it.

    Raises:
        InputError: If several networks are trained, or the network has no such setting.
    """
    if plan.representation.fuses_views:
        raise InputError(f"{what}: trainers of nnU-Net are for one network, and this configuration trains several")
    if unknown := [setting for setting in trainer.network if not hasattr(plan.network, setting)]:
        raise InputError(f"{what}: the network {plan.network.name} has no setting {', '.join(unknown)}")
    axes = tuple(axis for axis in plan.mirror_axes if axis in trainer.mirror_axes)
    network = plan.network.model_copy(update=dict(trainer.network))
    return plan.model_copy(update={"mirror_axes": axes, "network": network})


def _planning_command(identifier: str, options: TrainingOptions) -> str:
    """The planning command that creates the plans which `options` refers to."""
    words = ["seg25d plan_and_preprocess -d", identifier]
    words += [] if options.recipe == "default" else ["--recipe", options.recipe]
    words += [] if options.plans_name == DEFAULT_PLANS_NAME else ["--plans-name", options.plans_name]
    return " ".join(words)


def _check_folds(workspace: Workspace, name: str, splits: Sequence[Split], command: str) -> None:
    """Check that the folds that the data set brings along are those that it was planned with."""
    given = splits_files(workspace.raw_dataset(name), workspace.splits_folders(name))
    if given and not same_splits(given[0], splits):
        raise InputError(
            f"{name}: {short_path(given[0])} has other folds than those that were planned; run `{command}` again to "
            "take them (arrays are kept), or remove the file"
        )


def _check_store(store: Store, splits: Sequence[Split], name: str) -> None:
    wanted = {case for split in splits for case in split.train + split.val}
    missing = sorted(wanted - set(store.cases()))
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of {len(wanted)} cases are not preprocessed ({', '.join(missing[:5])} ...); "
            "run `seg25d plan_and_preprocess` again, which continues where it stopped"
        )
