"""Choice of the model for prediction: the one that is named, or the best configuration or ensemble that was found."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

from seg25d.core.errors import InputError, ModelError
from seg25d.core.execution import AnyExecution, HostExecution
from seg25d.core.records import read_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.description import with_codes_of
from seg25d.ensembling.case_predictor import CasePredictor
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.predicted_dice import Calibration, read_calibration
from seg25d.inference.cases import Meaning
from seg25d.inference.postprocessing import PostProcessing
from seg25d.inference.predictor import PredictorOptions
from seg25d.planning.portable_model import GRAPH_SUFFIX, header_of
from seg25d.runs.trained import ModelChoice, choose_folds, choose_run
from seg25d.selection.best import Best

logger = logging.getLogger(__name__)


class ChosenMember(NamedTuple):
    """A run, with the folds to use and its weight."""

    run: RunFolder
    folds: tuple[str, ...]
    weight: float
    stamps: Mapping[str, Mapping[str, int]]
    """Size and time of the model file of each fold when it was chosen."""
    best: bool = False
    """Whether to take the models with the best validation windows instead of the final ones."""

    @classmethod
    def of(cls, run: RunFolder, folds: Sequence[str], weight: float, *, best: bool = False) -> Self:
        """The member with the models that are there now."""
        member = cls(run, tuple(folds), weight, {}, best)
        return member._replace(stamps=_stamps(member))

    @property
    def models(self) -> list[Path]:
        """The model files of the folds."""
        folders = [self.run.fold(fold) for fold in self.folds]
        return [folder.model_best if self.best else folder.model_final for folder in folders]


class ChosenModel(NamedTuple):
    """A configuration or an ensemble."""

    members: tuple[ChosenMember, ...]
    postprocessing: PostProcessing
    calibration: Calibration | Path | None = None
    """How the Dice of its predictions is predicted, or the file that says so; None where that is not known."""

    def meaning(self) -> Meaning:
        """The meaning of input and output, from the headers without the weights.

        Codes of labels are those of the run's `dataset.json`, if it has some.

        Raises:
            ModelError: If a file cannot be used.
            DatasetError: If the codes are wrong.
        """
        headers = [header_of(member.models[0]) for member in self.members]
        thresholds = {header.threshold for header in headers}
        description = with_codes_of(headers[0].description, self.members[0].run.dataset)
        return Meaning(description, thresholds.pop() if len(thresholds) == 1 else None)

    def describe(self, options: PredictorOptions) -> dict[str, Any]:
        """Description of the model for `prediction.json`; it differs for models that predict differently."""
        dataset = header_of(self.members[0].models[0]).dataset_name
        members = [
            {"configuration": member.run.root.name, "folds": member.folds, "files": member.stamps}
            | ({"checkpoint": "best"} if member.best else {})
            for member in self.members
        ]
        fusion = {} if options.fusion == "network" else {"fusion": options.fusion}
        steps = {} if self.postprocessing.does_nothing else {"postprocessing": self.postprocessing.model_dump()}
        if len(members) == 1:
            return {"dataset": dataset, **members[0], **fusion, **steps}
        weighted = [{**said, "weight": member.weight} for said, member in zip(members, self.members, strict=True)]
        return {"dataset": dataset, "ensemble": weighted, **fusion, **steps}

    def calibration_for(self, options: PredictorOptions) -> Calibration | None:
        """How the Dice of predictions with these options is predicted; None where that is not known, which is told.

        Raises:
            RecordError: If its file is damaged.
        """
        known = self.calibration if options.fusion == "network" else None
        if isinstance(known, Path):
            known = read_calibration(known) if known.exists() else None
        if known is None:
            logger.warning(
                "no Dice is predicted, only maps are written: it takes scored validation cases of these models (final "
                "ones, and views fused by their network); `seg25d train DATASET CONFIGURATION FOLD` scores those that "
                "lack it, and installed models need an archive that has crossval/predicted_dice.json"
            )
            return None
        usual = PredictorOptions()
        of_all = any("all" in member.folds for member in self.members)
        if (options.mirroring, options.step_size) != (usual.mirroring, usual.step_size) or of_all:
            logger.warning(
                "the predicted Dice is fitted to the folds with mirroring and steps of %g windows, and less sure for "
                "other models and options",
                usual.step_size,
            )
        return known

    def _execution(self, device: str | None) -> AnyExecution:
        if any(model.suffix == GRAPH_SUFFIX for member in self.members for model in member.models):
            check_host(device)
            return HostExecution()
        from seg25d.core.device import choose_execution  # noqa: PLC0415 - loads torch

        return choose_execution(device)

    def load(self, options: PredictorOptions, device: str | None) -> CasePredictor:
        """Load all weights.

        Raises:
            ModelError: If a file cannot be used or is another one than was chosen, or the members do not belong
                together.
            InputError: If the device cannot be used.
        """
        execution = self._execution(device)
        predictors = [load_predictor(member.models, execution, options) for member in self.members]
        for member in self.members:
            if _stamps(member) != member.stamps:
                raise ModelError(
                    f"{member.run.root} was trained or installed anew while its models were read, expected are those "
                    "that were chosen; run the command again"
                )
        weights = [member.weight for member in self.members]
        return CasePredictor(predictors, weights if len(set(weights)) > 1 else None, self.postprocessing)


def check_host(device: str | None) -> None:
    """Check that a device is one for graphs, which are computed by the CPU alone.

    Raises:
        InputError: If it is not.
    """
    if device not in (None, "cpu"):
        raise InputError(
            f"--device {device}: graphs without torch are computed by the CPU; leave --device out, or take an archive "
            "that export_model wrote without --format"
        )


def choose_model(workspace: Workspace, choice: ModelChoice) -> ChosenModel:
    """Find the chosen model; if only a data set is given, or nothing, the best one that was found.

    Raises:
        InputError: If nothing is trained or installed under that name, or the choice is ambiguous; lists the choices.
    """
    narrowed = (choice.model, choice.configuration, choice.plans_name, choice.recipe) != (None,) * 4
    best = None if narrowed else _best(workspace, choice.dataset)
    if best is not None:
        return _with_checkpoint(_chosen_best(workspace, best, choice.folds), choice.checkpoint)
    run = choose_run(workspace, choice)
    member = ChosenMember.of(run, choose_folds(run, choice.folds), 1.0)
    return _with_checkpoint(ChosenModel((member,), PostProcessing(), run.predicted_dice), choice.checkpoint)


def loader(model: ChosenModel, options: PredictorOptions) -> partial[CasePredictor]:
    """A picklable function that loads the model to a device."""
    return partial(model.load, options)


def _with_checkpoint(model: ChosenModel, checkpoint: str) -> ChosenModel:
    if checkpoint == "final":
        return model
    members = tuple(ChosenMember.of(each.run, each.folds, each.weight, best=True) for each in model.members)
    missing = [path for member in members for path in member.models if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} is missing: take the final model, which is the default")
    return ChosenModel(members, model.postprocessing)


def _best(workspace: Workspace, dataset: str | None) -> Best | None:
    """The best model of the data set; if none is given, that of the only data set that has one."""
    if dataset is not None:
        names = [workspace.dataset_name(dataset)]
    else:
        names = [name for name in workspace.dataset_names() if workspace.best(name).exists()]
        if len(names) > 1:
            raise InputError(f"the best is known for several data sets; choose one with -d: {', '.join(names)}")
    paths = [path for name in names if (path := workspace.best(name)).exists()]
    return read_record(paths[0], Best) if paths else None


def _chosen_best(workspace: Workspace, best: Best, folds: Sequence[str] | None) -> ChosenModel:
    foreign = [member.run for member in best.members if member.imported]
    if foreign:
        lines = "\n".join(f"  {command}" for command in best.commands)
        raise InputError(
            f"the best model for {best.dataset_name} includes {', '.join(foreign)}, with which another program has to "
            f"predict:\n{lines}\nor choose a configuration with -c"
        )
    members = []
    chosen_ns = workspace.best(best.dataset_name).stat().st_mtime_ns
    for member in best.members:
        run = workspace.run(best.dataset_name, member.run)
        missing = [fold for fold in member.folds if not run.fold(fold).model_final.exists()]
        if missing:
            raise ModelError(
                f"{workspace.best(best.dataset_name)} names {member.run}, fold {', '.join(missing)}, which is not in "
                f"{run.root}; run `seg25d find_best_configuration {best.dataset_name}` again, or choose with -c"
            )
        if any(run.fold(fold).model_final.stat().st_mtime_ns > chosen_ns for fold in member.folds):
            logger.warning(
                "%s was trained again since it was chosen, so that weight and post-processing may not fit; run `seg25d "
                "find_best_configuration %s` again",
                member.run,
                best.dataset_name,
            )
        chosen = choose_folds(run, member.folds if folds is None else folds)
        members.append(ChosenMember.of(run, chosen, member.weight))
    return ChosenModel(tuple(members), best.postprocessing, best.predicted_dice)


def _stamps(member: ChosenMember) -> dict[str, dict[str, int]]:
    """Size and time of the model files that are there, to recognise changes."""
    stamps = {}
    for fold, path in zip(member.folds, member.models, strict=True):
        with suppress(FileNotFoundError):
            status = path.stat()
            stamps[fold] = {"bytes": status.st_size, "modified_ns": status.st_mtime_ns}
    return stamps
