"""The Python interface: functions to plan, preprocess, train, predict, ensemble, evaluate and share.

The commands of the terminal call the same functions.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

from seg25d.core.device import choose_execution
from seg25d.core.locks import file_lock
from seg25d.core.process import crashes_named
from seg25d.core.records import write_record
from seg25d.core.workspace import Workspace
from seg25d.data.convert_dicom import convert_dicom
from seg25d.data.convert_msd import convert_msd
from seg25d.data.convert_slices import convert_slices
from seg25d.data.dicom_options import DicomOptions
from seg25d.ensembling.case_predictor import CasePredictor
from seg25d.ensembling.ensemble import ensemble_folders
from seg25d.ensembling.options import EnsembleOptions
from seg25d.evaluation.evaluate import evaluate
from seg25d.evaluation.summary import Summary
from seg25d.machine.self_test import check_before_training
from seg25d.orchestration.options import CohortOptions, RunOptions
from seg25d.orchestration.prediction import predict_cohort
from seg25d.orchestration.run import run_dataset
from seg25d.planning.explanation import explain
from seg25d.planning.plan import Plans
from seg25d.portable.archive import write_models
from seg25d.prediction.predict import predict_images
from seg25d.runs.names import parse_folds
from seg25d.runs.task_records import RunRecord
from seg25d.runs.trained import prediction_command
from seg25d.selection.best import Best
from seg25d.selection.compared_runs import runs_to_compare
from seg25d.selection.find_best import FindOptions, find_best, held
from seg25d.selection.nnunet_results import import_nnunet_results
from seg25d.selection.ranking import describe_best
from seg25d.sharing.choice import ExportOptions, model_to_predict, models_to_export
from seg25d.sharing.install import install
from seg25d.sharing.manifest import Manifest
from seg25d.training.processes import is_first_process
from seg25d.views.train import train_views
from seg25d.views.training_times import describe_times, training_times
from seg25d.workflows.coarse_to_fine import train_network
from seg25d.workflows.measuring import measure_structures
from seg25d.workflows.options import (
    PlanningOptions,
    PredictionOptions,
    PretrainingOptions,
    TrainingOptions,
    ValidationOptions,
)
from seg25d.workflows.planned_run import planned_run
from seg25d.workflows.preparation import prepare_datasets
from seg25d.workflows.pretraining import plan_pretraining, pretrain_network
from seg25d.workflows.validation import validate_folds

__all__ = [
    "CohortOptions",
    "DicomOptions",
    "EnsembleOptions",
    "ExportOptions",
    "FindOptions",
    "PlanningOptions",
    "PredictionOptions",
    "PretrainingOptions",
    "RunOptions",
    "TrainingOptions",
    "ValidationOptions",
    "convert_dicom",
    "convert_msd",
    "convert_nnunet_results",
    "convert_slices",
    "describe_best",
    "describe_times",
    "ensemble",
    "evaluate",
    "explain",
    "export_model",
    "find_best_configuration",
    "install_model",
    "load_model",
    "measure_structures",
    "plan_and_preprocess",
    "predict",
    "pretrain",
    "report",
    "run",
    "train",
    "training_times",
]
logger = logging.getLogger(__name__)
CRASHED = (
    "error: the process ended in the middle of its work: a native library crashed (above: where), or it was killed (by "
    "the system for lack of memory, or by a time limit). `seg25d info --check` tests whether this machine computes "
    "correctly and says what to set; the same command continues from the last checkpoint"
)


def plan_and_preprocess(
    workspace: Workspace, identifiers: Sequence[str], options: PlanningOptions | None = None
) -> dict[str, Plans]:
    """Check data sets, plan their configurations and prepare the arrays for training; existing results are kept.

    Args:
        workspace: The workspace.
        identifiers: Data sets: `1`, `001` or `Dataset001_Name`.
        options: Options; nothing is preprocessed with `plan_only`, and nothing is written with `verify_only`.

    Returns:
        The plans of each data set (none with `verify_only`).

    Raises:
        InputError: If a data set does not exist, an option is invalid, or existing plans were edited incorrectly.
        DatasetError: If data sets have problems; lists all of them, and nothing is written.
        BusyError: If another process plans one of them, or reads arrays that would change.
    """
    return prepare_datasets(workspace, identifiers, options or PlanningOptions())


@crashes_named(CRASHED)
def train(
    workspace: Workspace,
    identifier: str,
    configuration: str,
    folds: Sequence[str],
    options: TrainingOptions | None = None,
) -> dict[str, Summary]:
    """Train folds of a configuration; interrupted folds continue where they stopped, finished ones are kept.

    Only the preprocessed data set is needed, not the raw one. Another network than the planned one is planned on the
    first request, and added to the plans as `CONFIG__NETWORK`.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        configuration: Such as `si`, `2d` or `3d`.
        folds: Numbers of folds, `cv` for all of them, or `all` for one model on all cases.
        options: Options.

    Returns:
        The scores of the validation cases of each fold. `crossval/summary.json` has those of all folds once all are
        trained.

    Raises:
        InputError: If an argument names something that does not exist; raised before anything is done.
        BusyError: If another process trains one of the folds or changes their arrays.
    """
    options = options or TrainingOptions()
    planned = planned_run(workspace, identifier, configuration, options)
    chosen = parse_folds(folds, len(planned.splits))
    check_before_training(options.device, planned.settings.config.precision)
    with planned.reading():
        train_chosen = train_views if planned.plan.representation.fuses_views else train_network
        task, summaries = train_chosen(planned, chosen)
        if options.validation.wants_more and options.part is None and is_first_process():
            summaries = validate_folds(task, options.validation)
        if summaries:
            logger.info("predict with: %s", prediction_command(workspace, identifier, task.run, summaries))
        return summaries


@crashes_named(CRASHED)
def pretrain(workspace: Workspace, identifier: str, configuration: str, options: PretrainingOptions) -> Path:
    """Pretrain the network of a configuration on images without labels; an interrupted run continues.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`; planned and preprocessed.
        configuration: Such as `si`, `2d` or `3d`.
        options: Pretext task, further images and other options.

    Returns:
        The file for `TrainingOptions.pretrained`.

    Raises:
        InputError: If an argument names something that does not exist, or the configuration cannot use the task; raised
            before anything is done.
    """
    planned = planned_run(workspace, identifier, configuration, options)
    run = plan_pretraining(planned, options)
    check_before_training(options.device, run.settings.config.precision)
    with planned.reading():
        if is_first_process():
            planned.keep_network()
        return pretrain_network(run)


def run(workspace: Workspace, identifier: str, options: RunOptions | None = None) -> RunRecord:
    """From a data set to its best model and its page: verify, plan, preprocess, train, choose and report.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        options: What is trained, how long, and on what; a time may be for everything.

    Returns:
        What was done, as in `results/DATASET/run.json`; it says how to predict.

    Raises:
        InputError: If an argument, the data set, or what is to run the tasks is at fault; nothing is trained then.
        BusyError: If another process runs this data set.
        TaskFailures: If tasks failed; all that do not need them are done.
    """
    return run_dataset(workspace, identifier, options or RunOptions())


def predict(
    workspace: Workspace, source: Path, out: Path, options: PredictionOptions | CohortOptions | None = None
) -> None:
    """Segment images and write `CASE.ENDING` and `prediction.json` to `out`, and `CASE.dcm` for DICOM series.

    Args:
        workspace: The workspace.
        source: A folder of images, one image, or a folder of DICOM files.
        out: Folder for the segmentations; existing cases are skipped, unless `overwrite` is set.
        options: Model and other options; of a cohort, also what predicts parts of the cases at the same time.

    Raises:
        InputError: If the model (lists the choices) or the images do not exist, or `out` holds predictions of another
            model.
        BusyError: If another process predicts into `out`.
        CaseFailures: If some cases failed; all others are written.
    """
    options = options or PredictionOptions()
    if isinstance(options, CohortOptions):
        predict_cohort(workspace, source, out, options)
    else:
        predict_images(workspace, source, out, options)


def load_model(workspace: Workspace, options: PredictionOptions | None = None) -> CasePredictor:
    """Load the model that `predict` would use, to predict any number of arrays.

    Args:
        workspace: The workspace.
        options: Model and other options; `save_probabilities` and `overwrite` have no effect here.

    Returns:
        The model; see `CasePredictor.predict_array`.

    Raises:
        InputError: If the model does not exist; lists the choices.
    """
    options = options or PredictionOptions()
    with model_to_predict(workspace, options) as model:
        return model.load(options.predictor, options.device)


def find_best_configuration(
    workspace: Workspace,
    identifier: str,
    configurations: Sequence[str] | None = None,
    folds: Sequence[str] | None = None,
    options: FindOptions | None = None,
) -> Best:
    """Choose the configuration or ensemble that is best in cross-validation, and write `results/DATASET/best.json`.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        configurations: Configurations to compare; None: all whose folds are trained.
        folds: Folds to compare; None: all of them.
        options: Candidates to try, and limits of the cost.

    Returns:
        The choice, with all candidates that it was compared with.

    Raises:
        BusyError: See `held`.
        InputError: If there is nothing to compare, folds are missing, or no candidate is within the limits.
    """
    options = options or FindOptions()
    choose_execution(options.device)
    name = workspace.dataset_name(identifier)
    runs = runs_to_compare(workspace, name, configurations, folds)
    folder, scores = workspace.preprocessed_dataset(name), workspace.candidate_scores(name)
    with held(runs, folder, scores, workspace.best(name)):
        best = find_best(name, runs, folder, scores, options)
        write_record(workspace.best(name), best)
    return best


def ensemble(folders: Sequence[Path], out: Path, options: EnsembleOptions | None = None) -> None:
    """Fuse folders of predictions and write `CASE.ENDING` and `prediction.json` to `out`.

    Args:
        folders: Two or more folders of predictions, of seg25d or nnU-Net, with the same cases on the same grids.
        out: Folder for the results; existing cases are skipped, unless `overwrite` is set.
        options: Method and other options.

    Raises:
        InputError: If options contradict each other, the folders do not fit (lists all problems), or `out` holds other
            predictions; nothing is written then.
        CaseFailures: If some cases failed; all others are written.
    """
    ensemble_folders(folders, out, options)


def convert_nnunet_results(
    workspace: Workspace, source: Path, identifier: str, num_processes: int | None = None
) -> Path:
    """Import nnU-Net's predictions of validation cases, see `import_nnunet_results`; returns the run's folder."""
    return import_nnunet_results(workspace, source, identifier, num_processes).root


def report(workspace: Workspace, identifier: str, out: Path | None = None, num_processes: int | None = None) -> Path:
    """Write one self-contained HTML file with plans, trainings and results, which works offline.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        out: The file; None: `report.html` in the results of the data set.
        num_processes: Worker processes; None: by cores and memory.

    Returns:
        The file.

    Raises:
        InputError: If the data set is not planned, or the file cannot be written.
    """
    from seg25d.report.write import write_report  # noqa: PLC0415 - only reports need what it loads

    name = workspace.dataset_name(identifier)
    out = out or workspace.report(name)
    with file_lock(out, "writing a report"):
        write_report(workspace, name, out, num_processes)
    return out


def export_model(workspace: Workspace, identifier: str, path: Path, options: ExportOptions | None = None) -> Manifest:
    """Write trained models, with everything that prediction needs, to one zip file.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        path: The archive.
        options: Models, their format and their licence.

    Returns:
        The manifest of the archive.

    Raises:
        InputError: If the models do not exist or do not belong together, the choice is ambiguous (lists the choices),
            or `path` exists with other content and `overwrite` is not set; nothing is written then.
    """
    options = options or ExportOptions()
    name = workspace.dataset_name(identifier)
    models = models_to_export(workspace, name, options)
    with file_lock(path, "exporting models"):
        manifest = write_models(path, workspace.results / name, models, options)
    logger.info("%s holds %s of %s, %.0f MB", path, ", ".join(models.folds), name, manifest.num_bytes / 1e6)
    return manifest


def install_model(workspace: Workspace, path: Path, *, overwrite: bool = False) -> Manifest:
    """Install the models of an archive in `results`, where prediction finds them, without needing the data set.

    Args:
        workspace: The workspace to install into.
        path: The archive.
        overwrite: Replace existing runs.

    Returns:
        The manifest of the installed models.

    Raises:
        InputError: If the archive is invalid, or a run exists already; nothing is written then.
        BusyError: If a run to be replaced is being trained.
    """
    return install(workspace, path, overwrite=overwrite)
