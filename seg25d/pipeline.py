"""The whole story as functions: plan, preprocess, train, predict, evaluate. The commands call these, and so can you."""

import logging
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import atomic_path, folder_lock, read_json, write_json
from seg25d.core.parallel import choose_num_workers
from seg25d.core.records import Record, parse_record, read_record, write_record
from seg25d.core.workspace import FoldFolder, PreprocessedFolder, RunFolder, Workspace
from seg25d.data.dataset import Dataset, Split, find_inputs, read_dataset, read_description
from seg25d.data.verify import raise_problems, verify_dataset
from seg25d.evaluation.evaluate import evaluate_folders, write_csv
from seg25d.evaluation.summary import Summary, summarize
from seg25d.inference.cases import CaseOptions, PredictionRecord, predict_cases
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.inference.validate import validate_fold
from seg25d.planning.fingerprint import extract_fingerprint
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import Plans
from seg25d.planning.planner import explain, plan_dataset
from seg25d.planning.splits import choose_splits
from seg25d.preprocessing.preprocess import preprocess_dataset
from seg25d.preprocessing.store import Store
from seg25d.runs import check_names, choose_folds, choose_run, find_configuration, parse_folds, prepare_run, run_name
from seg25d.training.config import TrainingConfig, apply_settings, length_settings, settle_config
from seg25d.training.recipes import find_recipe
from seg25d.training.trainer import FoldJob, clear_fold, train_fold

__all__ = [
    "PlanningOptions",
    "PredictionOptions",
    "TrainingOptions",
    "evaluate",
    "explain",
    "plan_and_preprocess",
    "predict",
    "train",
]
logger = logging.getLogger(__name__)
VERIFYING_BYTES = 1 << 29
"""Memory of a process that checks a large case: one file of 512 x 512 x 500 voxels as it is."""


class PlanningOptions(Record):
    """How to plan and preprocess."""

    configurations: tuple[str, ...] | None = None
    """Which to plan; None: all."""
    gpu_memory_gb: float = 8.0
    recipe: str = "default"
    plans_name: str = "plans"
    verify_only: bool = False
    plan_only: bool = False
    clean: bool = False
    """Remove what was preprocessed before."""
    num_processes: int | None = None


class TrainingOptions(Record):
    """How to train; None leaves a setting to the recipe."""

    recipe: str = "default"
    network: str | None = None
    plans_name: str = "plans"
    settings: dict[str, str] = Field(default_factory=dict)
    """Any setting of `TrainingConfig` by name, as text."""
    epochs: int | None = None
    iterations: int | None = None
    time_budget_s: float | None = None
    seed: int | None = None
    restart: bool = False
    device: str | None = None
    num_processes: int | None = None

    def changes(self) -> dict[str, str]:
        """What is changed of the recipe's settings, by name.

        Raises:
            InputError: If both a number of updates and a time are given.
        """
        per_epoch = find_recipe(self.recipe).iterations_per_epoch
        seed = {} if self.seed is None else {"seed": str(self.seed)}
        return seed | length_settings(self.epochs, self.iterations, self.time_budget_s, per_epoch) | self.settings

    def config(self) -> TrainingConfig:
        """The settings of the recipe with these changes.

        Raises:
            InputError: If the recipe or a setting does not exist, or a value does not fit.
        """
        return apply_settings(find_recipe(self.recipe), self.changes())


class PredictionOptions(Record):
    """What to predict with, and how."""

    dataset: str | None = None
    configuration: str | None = None
    folds: tuple[str, ...] | None = None
    """None: all that are trained."""
    model: Path | None = None
    """Folder of a trained configuration, instead of data set and configuration."""
    save_probabilities: bool = False
    mirroring: bool = True
    step_size: float = 0.5
    overwrite: bool = False
    device: str | None = None


def plan_and_preprocess(
    workspace: Workspace, identifiers: Sequence[str], options: PlanningOptions | None = None
) -> dict[str, Plans]:
    """Check data sets, plan their configurations and prepare the arrays for training; what is done already is kept.

    Args:
        workspace: Where everything is.
        identifiers: Data sets: `1`, `001` or `Dataset001_Name`.
        options: How; nothing is preprocessed with `plan_only`, and nothing at all is written with `verify_only`.

    Returns:
        The plans per data set (none with `verify_only`).

    Raises:
        InputError: If there is no such data set.
        DatasetError: If data sets have problems; lists all of them, and nothing is written.
    """
    options = options or PlanningOptions()
    check_names(options.configurations or (), options.recipe)
    names = [workspace.dataset_name(identifier) for identifier in identifiers]
    datasets = [_verified(workspace.raw_dataset(name), options) for name in dict.fromkeys(names)]
    if options.verify_only:
        return {}
    return {dataset.name: _prepare(workspace, dataset, options) for dataset in datasets}


def _verified(root: Path, options: PlanningOptions) -> Dataset:
    """The data set in a folder, when nothing is wrong with it."""
    raise_problems(verify_dataset(root, choose_num_workers(options.num_processes, VERIFYING_BYTES)), root.name)
    dataset = read_dataset(root)
    choose_splits(dataset)
    logger.info("%s: %d cases, no problems found", dataset.name, len(dataset.cases))
    return dataset


def _prepare(workspace: Workspace, dataset: Dataset, options: PlanningOptions) -> Plans:
    """Fingerprint, plan, splits and arrays of one data set."""
    folder = workspace.preprocessed_dataset(dataset.name)
    fingerprint = extract_fingerprint(dataset, folder, options.num_processes)
    plans = plan_dataset(
        fingerprint,
        dataset.description,
        configurations=_configurations(folder, options),
        gpu_memory_gb=options.gpu_memory_gb,
        recipe=options.recipe,
        plans_name=options.plans_name,
    )
    _copy(dataset.root / "dataset.json", folder.dataset)
    write_record(folder.plans(options.plans_name), plans)
    write_json(folder.splits, [split.model_dump(mode="json") for split in choose_splits(dataset)])
    if not options.plan_only:
        preprocess_dataset(dataset, plans.configurations.values(), folder, options.num_processes, options.clean)
    return plans


def _configurations(folder: PreprocessedFolder, options: PlanningOptions) -> tuple[str, ...] | None:
    """The configurations to plan: those that are asked for, and those that the plans have already."""
    path = folder.plans(options.plans_name)
    if options.configurations is None or options.clean or not path.exists():
        return options.configurations
    try:
        before = tuple(read_record(path, Plans).configurations)
    except RecordError as error:
        logger.warning("%s; planning anew", error)
        return options.configurations
    return tuple(dict.fromkeys(before + options.configurations))


def _read_splits(folder: PreprocessedFolder) -> tuple[Split, ...]:
    return tuple(parse_record(value, Split, str(folder.splits)) for value in read_json(folder.splits))


def train(
    workspace: Workspace,
    identifier: str,
    configuration: str,
    folds: Sequence[str],
    options: TrainingOptions | None = None,
) -> dict[str, Summary]:
    """Train folds of a configuration; each that was cut off goes on where it stopped, each that is done is left.

    Needs the preprocessed data set only, not the raw one.

    Args:
        workspace: Where everything is.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        configuration: Such as `si`, `2d` or `3d`.
        folds: Numbers of folds, `cv` for all of them, or `all` for one model on all cases.
        options: How.

    Returns:
        The scores of the validation cases per fold. `crossval/summary.json` has those of all folds as soon as all
        are trained.

    Raises:
        InputError: If an argument names what is not there; raised before anything is done.
    """
    options = options or TrainingOptions()
    config = options.config()
    choose_execution(options.device, config.precision)
    name = workspace.dataset_name(identifier)
    folder = workspace.preprocessed_dataset(name)
    if not folder.plans(options.plans_name).exists():
        raise InputError(f"{name} is not planned; run `seg25d plan_and_preprocess -d {identifier}` first")
    plans = read_record(folder.plans(options.plans_name), Plans)
    configuration, plan = find_configuration(plans, configuration, options.network)
    splits = _read_splits(folder)
    chosen = parse_folds(folds, len(splits))
    store = Store(folder.store(plan.store))
    _check_store(store, splits, name)
    run = workspace.run(name, run_name(configuration, plans, options.recipe))
    prepare_run(run, folder, plans, configuration, restart=options.restart)
    summaries = {}
    for fold in chosen:
        header = ModelHeader(
            dataset_name=name,
            configuration=configuration,
            fold=fold,
            plan=plan,
            description=read_description(folder.dataset),
        )
        summary = _train_fold(run.fold(fold), store, _split(splits, fold), header, options)
        if summary is not None:
            summaries[str(fold)] = summary
    _summarize_folds(run, len(splits))
    return summaries


def _train_fold(
    folder: FoldFolder, store: Store, split: Split, header: ModelHeader, options: TrainingOptions
) -> Summary | None:
    """Train a fold to its end and score it; None on processes other than the first of several."""
    if options.restart:
        with folder_lock(folder.root, "restarting"):
            clear_fold(folder)
    config = settle_config(folder, find_recipe(options.recipe), options.changes())
    job = FoldJob(folder, store, split, config, header, options.device, options.num_processes)
    if not train_fold(job):
        return None
    predictor = Predictor.load([folder.model_final], choose_execution(options.device, config.precision))
    return validate_fold(folder, store, split.val, predictor)


def _split(splits: Sequence[Split], fold: int | str) -> Split:
    """The cases of a fold; `all` trains on every case, and validates on them too, as nnU-Net does."""
    if isinstance(fold, int):
        return splits[fold]
    cases = tuple(sorted({case for split in splits for case in split.train + split.val}))
    return Split(train=cases, val=cases)


def _check_store(store: Store, splits: Sequence[Split], name: str) -> None:
    wanted = {case for split in splits for case in split.train + split.val}
    missing = sorted(wanted - set(store.cases()))
    if missing:
        raise InputError(
            f"{name}: {len(missing)} of {len(wanted)} cases are not preprocessed ({', '.join(missing[:5])} ...); "
            "run `seg25d plan_and_preprocess` again, it goes on where it stopped"
        )


def _summarize_folds(run: RunFolder, num_folds: int) -> None:
    """Write `crossval/summary.json` when all folds are trained."""
    files = [run.fold(fold).validation / "summary.json" for fold in range(num_folds)]
    if all(file.exists() for file in files):
        cases = [case for file in files for case in read_record(file, Summary).per_case]
        write_record(run.crossval, summarize(cases))


def predict(workspace: Workspace, source: Path, out: Path, options: PredictionOptions | None = None) -> None:
    """Segment images with a trained configuration and write `CASE.ENDING` and `prediction.json` to `out`.

    Args:
        workspace: Where everything is.
        source: A folder of images, one image, or a folder of DICOM files.
        out: Folder for the segmentations; cases that are there already are skipped, unless `overwrite`.
        options: Which model, and how.

    Raises:
        InputError: If the model or the images are not there; lists the choices.
        CaseFailures: If some cases failed; all others are written.
    """
    options = options or PredictionOptions()
    execution = choose_execution(options.device)
    run = choose_run(workspace, options.dataset, options.configuration, options.model)
    folds = choose_folds(run, options.folds)
    models = [run.fold(fold).model_final for fold in folds]
    predictor_options = PredictorOptions(mirroring=options.mirroring, step_size=options.step_size)
    predictor = Predictor.load(models, execution, predictor_options)
    description = predictor.header.description
    cases = find_inputs(source, len(description.channel_names), description.file_ending)
    record = PredictionRecord(
        arguments={"input": str(source)} | options.model_dump(mode="json"),
        model={
            "dataset": predictor.header.dataset_name,
            "configuration": run.root.name,
            "folds": folds,
        },
    )
    case_options = CaseOptions(save_probabilities=options.save_probabilities, overwrite=options.overwrite)
    predict_cases(predictor, cases, out, case_options, record)


def evaluate(
    reference: Path,
    prediction: Path,
    *,
    output: Path | None = None,
    csv: Path | None = None,
    num_processes: int | None = None,
) -> Summary:
    """Compare a folder of segmentations with the truth and write the summary.

    Args:
        reference: Folder of true segmentations.
        prediction: Folder of predicted ones, with the same names.
        output: The summary's file; `summary.json` beside the predictions by default.
        csv: A table with a line per case and label, if wanted.
        num_processes: Worker processes.

    Raises:
        InputError: If cases are missing or do not fit; nothing is written then.
    """
    summary = evaluate_folders(reference, prediction, num_processes)
    write_record(output or prediction / "summary.json", summary)
    if csv is not None:
        write_csv(summary, csv)
    return summary


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        temporary.write_bytes(source.read_bytes())
