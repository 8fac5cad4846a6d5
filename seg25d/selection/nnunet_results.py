"""Importing the cross-validation of nnU-Net v2 as a candidate for ensembles.

The import reads files that nnU-Net writes into `nnUNet_results/DATASET/TRAINER__PLANS__CONFIG` (export_prediction.py
and nnUNetTrainer.perform_actual_validation, version 2.8): `dataset.json`, `plans.json`, and in `fold_K/validation`
each case's segmentation and, with `--npz`, `CASE.npz` with `probabilities` (K, z, y, x); never its `.pkl` files.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import DatasetError, InputError, ResourceError
from seg25d.core.files import copy_file, read_json, write_json
from seg25d.core.limits import MAX_FOLDS
from seg25d.core.locks import folder_lock
from seg25d.core.names import is_number
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.core.records import write_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.cases import by_stem, image_files
from seg25d.data.conversion import RECORD_NAME, Conversion, read_conversion, source_digest
from seg25d.data.dataset import Split, read_description, read_splits, scan_dataset
from seg25d.data.image_geometry import Array, Geometry
from seg25d.data.labels import Labels
from seg25d.data.problems import FileError, Problem, raise_problems
from seg25d.ensembling.running_labels import RunningLabels
from seg25d.inference.probability_files import ProbabilityFile, probabilities_path, probabilities_shape
from seg25d.inference.probability_maps import write_probability_channels
from seg25d.runs.imported import ImportedRun

logger = logging.getLogger(__name__)
_CURE = "run `nnUNetv2_train DATASET CONFIG FOLD --val --npz` with nnU-Net, then this command again"
_REORIENTING = ("NibabelIOWithReorient", "SimpleITKIOWithReorient")
"""Readers of nnU-Net whose array axes always point right, anterior and superior, independent of the file's axes."""
_MOST_DIFFERENT = 0.01
"""Share of the foreground in which the segmentation may differ from the probabilities because of rounding."""


_BYTES_PER_VOXEL = 16
"""Memory of a worker: one class twice in float16, the largest probability, and two sets of labels with masks."""


class _Own(NamedTuple):
    """Labels and cases of the data set in the workspace."""

    labels: Labels
    cases: frozenset[str]
    label_files: dict[str, Path]
    """Label files of the raw data set, if it exists; predictions must have the same grid."""


class _Prediction(NamedTuple):
    """A validation case of nnU-Net."""

    case: str
    fold: int
    segmentation: Path
    geometry: Geometry

    @property
    def file(self) -> str:
        """The probability map in the folder of the run."""
        return f"fold_{self.fold}/probabilities/{self.case}.b2nd"


class _Source(NamedTuple):
    """The folder of a trained configuration of nnU-Net."""

    folder: Path
    identity: tuple[str, str, str]
    """Trainer, plans and configuration."""
    labels: Labels
    reorients: bool


def import_nnunet_results(
    workspace: Workspace, source: Path, identifier: str, num_processes: int | None = None
) -> RunFolder:
    """Import the validation cases of all folds of a configuration that nnU-Net trained.

    Writes `results/DATASET/nnunet__TRAINER__PLANS__CONFIG`: probability maps, `dataset.json`, `splits.json` and, last,
    `imported.json`. Maps that an earlier call made of the same files are kept.

    Args:
        workspace: The workspace to import into.
        source: The folder `TRAINER__PLANS__CONFIG`.
        identifier: Name or number of the data set in the workspace.
        num_processes: Worker processes; None chooses.

    Returns:
        The folder of the run.

    Raises:
        BusyError: If another process imports them, or compares these results with others.
        InputError: If folder or data set do not exist, or probabilities do not belong to their segmentations.
        DatasetError: If labels, cases or files do not fit; lists all problems, and nothing is written.
    """
    name = workspace.dataset_name(identifier)
    own = _read_own(workspace, name)
    nnunet = _read_source(source)
    predictions = _find_predictions(nnunet, own)
    run = workspace.run(name, "__".join(("nnunet", *nnunet.identity)))
    files = {
        each.file: source_digest([each.segmentation, probabilities_path(each.segmentation)]) for each in predictions
    }
    conversion = Conversion(kind="nnunet-results", files=files)
    with folder_lock(run.root, "importing", deep=True):
        earlier = read_conversion(run.root, "nnunet-results")
        made = (*(run.root / file for file in files), run.dataset, run.splits, run.imported)
        if earlier == conversion and all(path.exists() for path in made):
            logger.info("%s is imported already", run.root)
            return run
        kept = {file for file in files if earlier is not None and earlier.files.get(file) == files[file]}
        run.imported.unlink(missing_ok=True)
        for path in (run.root / file for file in {*files, *(earlier.files if earlier else ())} - kept):
            path.unlink(missing_ok=True)
        write_record(run.root / RECORD_NAME, conversion)
        _import_maps(run, nnunet, predictions, num_processes)
        copy_file(source / "dataset.json", run.dataset)
        splits = _make_splits(predictions, own.cases)
        write_json(run.splits, [split.model_dump(mode="json") for split in splits])
        trainer, plans, configuration = nnunet.identity
        imported = ImportedRun(
            program="nnU-Net",
            trainer=trainer,
            plans=plans,
            configuration=configuration,
            folds=tuple(range(len(splits))),
            num_cases=len(predictions),
        )
        write_record(run.imported, imported)
    logger.info("%s: %d cases of %d fold(s) are imported", run.root, len(predictions), len(splits))
    return run


def _read_own(workspace: Workspace, name: str) -> _Own:
    """Read labels and cases of the preprocessed data set, or else of the raw one."""
    folder, raw = workspace.preprocessed_dataset(name), workspace.raw_dataset(name)
    dataset, problems = scan_dataset(raw) if raw.is_dir() else (None, [])
    label_files = {case.name: case.label for case in dataset.cases if case.label} if dataset else {}
    if folder.dataset.exists() and folder.splits.exists():
        splits = read_splits(folder.splits)
        cases = frozenset(case for split in splits for case in split.train + split.val)
        return _Own(read_description(folder.dataset).labels, cases, label_files)
    raise_problems(problems, name)
    if dataset is None:
        raise InputError(f"{name} is neither in {workspace.raw} nor preprocessed; its labels and cases are needed")
    return _Own(dataset.description.labels, frozenset(label_files), label_files)


def _read_source(source: Path) -> _Source:
    words = source.resolve().name.split("__")
    if not source.is_dir() or len(words) != 3 or not all(words):
        raise InputError(
            f"{source} is not a folder TRAINER__PLANS__CONFIG, such as "
            "nnUNet_results/Dataset001_Name/nnUNetTrainer__nnUNetPlans__3d_fullres"
        )
    labels = read_description(source / "dataset.json").labels
    plans = read_json(source / "plans.json") if (source / "plans.json").exists() else {}
    reader = plans.get("image_reader_writer") if isinstance(plans, dict) else None
    return _Source(source, (words[0], words[1], words[2]), labels, reader in _REORIENTING)


def _find_predictions(source: _Source, own: _Own) -> list[_Prediction]:
    """Find the validation cases of all folds.

    Raises:
        DatasetError: If anything does not fit; lists all problems.
    """
    problems = []
    if not source.labels.agrees_with(own.labels):
        problem = f"other labels than the data set: {source.labels.names} against {own.labels.names}"
        cure = "import results that were trained on this data set"
        problems.append(Problem(case="dataset.json", problem=problem, cure=cure))
    predictions: list[_Prediction] = []
    for fold, folder in enumerate(_fold_folders(source.folder)):
        if not folder.is_dir():
            problem = f"{folder} does not exist, but there are later folds"
            problems.append(Problem(case=folder.parent.name, problem=problem, cure=_CURE))
            continue
        if not (folder / "summary.json").exists():
            logger.warning("%s has no summary.json: was the validation of this fold interrupted?", folder)
        for case, paths in sorted(by_stem(image_files(folder)).items()):
            found = _check_prediction(case, paths[0], source, own)
            problems += [found] if isinstance(found, Problem) else []
            predictions += [] if isinstance(found, Problem) else [_Prediction(case, fold, paths[0], found)]
        problems += _find_missing_segmentations(folder)
    problems += _find_unknown_and_repeated(predictions, own)
    if not predictions and not problems:
        raise DatasetError(f"{source.folder} has no validation cases (fold_0/validation/CASE.npz ...); {_CURE}")
    raise_problems(problems, str(source.folder))
    return predictions


def _fold_folders(folder: Path) -> list[Path]:
    """The validation folders of folds 0 to the last existing one; not `fold_all`, which validates on training cases."""
    numbers = [path.name.removeprefix("fold_") for path in folder.glob("fold_*") if (path / "validation").is_dir()]
    last = max((int(number) for number in numbers if is_number(number) and int(number) < MAX_FOLDS), default=-1)
    return [folder / f"fold_{fold}" / "validation" for fold in range(last + 1)]


def _check_prediction(case: str, segmentation: Path, source: _Source, own: _Own) -> Geometry | Problem:
    """The grid of a case, or its first problem."""
    from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

    path = probabilities_path(segmentation)
    if not path.is_file():
        return Problem(case=case, problem=f"{path} is missing", cure=_CURE)
    try:
        geometry = read_geometry(segmentation)
        shape = probabilities_shape(path)
        label_file = own.label_files.get(case)
        difference = geometry.difference(read_geometry(label_file)) if label_file else None
    except FileError as error:
        return Problem(case=case, problem=f"{error.path}: {error.problem}", cure=error.cure)
    except InputError:
        return Problem(case=case, problem=f"{path} is damaged or holds no `probabilities`", cure=_CURE)
    grid = geometry.canonical_shape if source.reorients else geometry.shape
    if shape != (wanted := (source.labels.num_outputs, *grid)):
        return Problem(case=case, problem=f"{path}: shape {shape}, expected is {wanted} (K, z, y, x)", cure=_CURE)
    if difference:
        cure = "import results that were trained on this data set"
        return Problem(case=case, problem=f"another grid than {label_file}: {difference}", cure=cure)
    return geometry


def _find_missing_segmentations(folder: Path) -> list[Problem]:
    segmentations = by_stem(image_files(folder))
    return [
        Problem(case=path.stem, problem=f"{path} has no segmentation of the same name", cure=_CURE)
        for path in sorted(folder.glob("*.npz"))
        if path.stem not in segmentations
    ]


def _find_unknown_and_repeated(predictions: Sequence[_Prediction], own: _Own) -> list[Problem]:
    first: dict[str, int] = {}
    problems = []
    for each in predictions:
        if each.case not in own.cases:
            cure = "import results that were trained on this data set"
            problems.append(Problem(case=each.case, problem="the data set has no such case", cure=cure))
        if first.setdefault(each.case, each.fold) != each.fold:
            problem = f"it is in the validation of fold {first[each.case]} and of fold {each.fold}"
            problems.append(Problem(case=each.case, problem=problem, cure="keep the fold that it belongs to"))
    return problems


def _make_splits(predictions: Sequence[_Prediction], cases: frozenset[str]) -> list[Split]:
    """Training and validation cases of each fold; all cases that a fold does not validate on were trained on."""
    held_out = [{each.case for each in predictions if each.fold == fold} for fold in _folds(predictions)]
    return [Split(train=tuple(sorted(cases - each)), val=tuple(sorted(each))) for each in held_out]


def _folds(predictions: Sequence[_Prediction]) -> range:
    return range(max(each.fold for each in predictions) + 1)


def _import_maps(
    run: RunFolder, source: _Source, predictions: Sequence[_Prediction], num_processes: int | None
) -> None:
    """Write the probability maps that do not exist yet.

    Raises:
        InputError: If segmentations do not agree with the probabilities; names all of them.
    """
    todo = [each for each in predictions if not (run.root / each.file).exists()]
    largest = max((np.prod(each.geometry.shape) for each in todo), default=0)
    workers = choose_num_workers(num_processes, _BYTES_PER_VOXEL * int(largest), len(todo))
    work = partial(_import_map, run, source)
    failures = []
    for _, failure in track(
        map_cases(work, todo, name=lambda each: each.case, num_workers=workers), len(todo), "importing"
    ):
        failures += [failure] if failure else []
    if failures:
        listed = "\n".join(f"  {failure}" for failure in sorted(failures))
        raise InputError(f"{source.folder} cannot be imported:\n{listed}\n{_CURE}")


def _import_map(run: RunFolder, source: _Source, prediction: _Prediction) -> str | None:
    """Write the map of a case; return a message if it cannot be used, else None."""
    from seg25d.data.image_io import read_labels  # noqa: PLC0415 - loads SimpleITK

    path = probabilities_path(prediction.segmentation)

    def channels(file: ProbabilityFile) -> Iterator[NDArray[np.float16]]:
        chosen = RunningLabels(source.labels, file.shape[1:], dtype=file.dtype)
        for channel in range(file.shape[0]):
            yield to_canonical(_read_channel(file, channel, chosen))
        most_probable = to_canonical(chosen.indices)
        segmentation = source.labels.encode(read_labels(prediction.segmentation)[0], str(prediction.segmentation))
        different = int(np.count_nonzero(most_probable != segmentation))
        foreground = int(np.count_nonzero(most_probable | segmentation))
        if different > max(1, _MOST_DIFFERENT * foreground):
            raise InputError(
                f"{path} does not belong to {prediction.segmentation.name}: its most probable labels differ in "
                f"{different} voxels, of {foreground} in the foreground"
            )

    def to_canonical(array: Array) -> Array:
        """The array (D, H, W) in canonical axes, which point left, posterior and superior."""
        return array[:, ::-1, ::-1] if source.reorients else prediction.geometry.to_canonical(array)  # type: ignore[return-value]

    try:
        with ProbabilityFile(path) as file:
            shape = prediction.geometry.canonical_shape
            write_probability_channels(run.root / prediction.file, (file.shape[0], *shape), channels(file))
    except ResourceError:
        raise  # a problem of the disk concerns all cases
    except InputError as error:
        return str(error)
    return None


def _read_channel(file: ProbabilityFile, channel: int, chosen: RunningLabels) -> NDArray[np.float16]:
    """Read a channel (z, y, x), and choose labels."""
    import torch  # noqa: PLC0415 - heavy

    volume = np.empty(file.shape[1:], np.float16)
    halves = torch.from_numpy(volume)
    for start, planes in file.planes(channel):
        chosen.add(channel, start, planes)
        native = torch.from_numpy(planes.astype(planes.dtype.newbyteorder("=")))
        halves[start : start + len(planes)].copy_(native)  # numpy takes a hundred times as long to round to float16
    return volume
