"""The folders of predictions to fuse: their cases, the meaning of their values, and checks that they fit together.

Names and headers are checked before anything is computed, and all problems are reported together.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import read_record
from seg25d.data.cases import by_stem, dicom_folders, image_files, name_of_folder
from seg25d.data.description import read_description
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.prediction_files import RECORD_NAME, PredictionRecord
from seg25d.inference.probability_files import probabilities_path, probabilities_shape

logger = logging.getLogger(__name__)
_MOST_LISTED = 8


class FusionCase(NamedTuple):
    """The files of one case."""

    name: str
    segmentations: tuple[Path, ...]
    """One per folder."""
    geometry: Geometry
    """Geometry of all of them, with the header fields of the first."""
    image: Path | None
    """Image, for methods that use it."""
    reference: Path | None
    """True segmentation for fitting weights, if there is one."""


class Meaning(NamedTuple):
    """Labels, thresholds and models, as recorded in the folders."""

    labels: Labels | None
    """Labels of all folders; None if no folder records them."""
    threshold: float | None
    """See `PredictionRecord.threshold`."""
    models: tuple[dict[str, Any] | None, ...]
    """The model in the `prediction.json` of each folder, if there is one."""


class Members(NamedTuple):
    """The cases to fuse and their meaning."""

    cases: tuple[FusionCase, ...]
    """Sorted by name."""
    meaning: Meaning


def find_members(folders: Sequence[Path], out: Path, options: EnsembleOptions) -> Members:
    """Find the cases of folders of predictions, and check that they can be fused.

    Args:
        folders: At least two, each with a segmentation `CASE.ENDING` per case and, for `mean`, `CASE.npz`.
        out: Folder for the results.
        options: Options of the fusion, checked already.

    Raises:
        InputError: If anything does not fit; lists all problems.
    """
    problems = _folder_problems(folders, out, options)
    if problems:
        raise _fusion_error(problems)
    meaning = read_meaning(folders, options, problems)
    cases = _find_cases(folders, options, meaning.labels, problems)
    if problems:
        raise _fusion_error(problems)
    return Members(tuple(cases), meaning)


def _find_cases(
    folders: Sequence[Path], options: EnsembleOptions, labels: Labels | None, problems: list[str]
) -> list[FusionCase]:
    """Find the cases that are in all folders; adds to `problems`."""
    files = [_unique_files(folder, problems) for folder in folders]
    names = sorted(set().union(*files))
    for folder, found in zip(folders, files, strict=True):
        if missing := [name for name in names if name not in found]:
            problems.append(f"{folder} lacks {_list_cases(missing)}; predict them there or remove the others")
    images = _find_images(options, problems)
    references = {} if options.fit_weights is None else _unique_files(options.fit_weights, problems)
    if options.fit_weights is not None and not set(references) & set(names):
        problems.append(f"{options.fit_weights} has no reference of any predicted case")
    checks = _Checks(options, labels, problems)
    cases = [
        checks.case(name, tuple(found[name] for found in files), images.get(name), references.get(name))
        for name in names
        if all(name in found for found in files)
    ]
    return [case for case in cases if case is not None]


def read_meaning(folders: Sequence[Path], options: EnsembleOptions, problems: list[str]) -> Meaning:
    """Read the meaning of values from the `prediction.json` of each folder, or from nnU-Net's `dataset.json` there.

    Args:
        folders: Folders of predictions.
        options: The method, and `dataset_json`.
        problems: List that new problems are added to.
    """
    records = [_read_record(folder) for folder in folders]
    models = tuple(None if record is None else record.model for record in records)
    said: dict[Path, Labels] = {}
    if options.dataset_json is not None:
        _add_description(said, options.dataset_json, options.dataset_json, problems)
    for folder, record in zip(folders, records, strict=True):
        if record is not None and record.labels is not None:
            said[folder] = record.labels
        elif (folder / "dataset.json").is_file():
            _add_description(said, folder, folder / "dataset.json", problems)
        elif options.method == "mean" and options.dataset_json is None:
            problems.append(
                f"{folder} does not say what the channels of its probabilities mean (no `labels` in {RECORD_NAME}, no "
                "dataset.json); name the dataset.json of the model with --dataset-json"
            )
    first = next(iter(said.values()), None)
    problems += [
        f"{place} has other labels than {next(iter(said))}: {labels.names} against {first.names}"
        for place, labels in said.items()
        if first is not None and not labels.agrees_with(first)
    ]
    thresholds = dict.fromkeys(None if record is None else record.threshold for record in records)
    if options.method == "mean" and len(thresholds) > 1:
        listed = " and ".join("none" if each is None else f"{each:g}" for each in thresholds)
        problems.append(f"the models have different thresholds ({listed}); use --method majority")
    return Meaning(first, next(iter(thresholds)), models)


class _Checks:
    """The checks of one case, which add to `problems`."""

    def __init__(self, options: EnsembleOptions, labels: Labels | None, problems: list[str]) -> None:
        self.options = options
        self.labels = labels
        self.problems = problems

    def case(
        self, name: str, segmentations: tuple[Path, ...], image: Path | None, reference: Path | None
    ) -> FusionCase | None:
        """Check a case and return it; None if its first file cannot be read."""
        geometry = self._geometry(segmentations[0])
        if geometry is None:
            return None
        for path in [*segmentations[1:], *([image] if image else []), *([reference] if reference else [])]:
            other = self._geometry(path)
            if other is not None and (difference := geometry.difference(other)):
                self.problems.append(f"{name}: the grid of {path} is not that of {segmentations[0]}: {difference}")
        if self.options.method == "nlstaple" and image is None:
            self.problems.append(f"{name}: {self.options.images} has no image with channel {self.options.channel or 0}")
        if self.options.method == "mean":
            for path in segmentations:
                self._check_probabilities(probabilities_path(path), geometry)
        return FusionCase(name, segmentations, geometry, image, reference)

    def _geometry(self, path: Path) -> Geometry | None:
        from seg25d.data.image_io import read_geometry  # noqa: PLC0415 - loads SimpleITK

        try:
            return read_geometry(path)
        except InputError as error:
            self.problems.append(str(error))
            return None

    def _check_probabilities(self, path: Path, geometry: Geometry) -> None:
        if not path.is_file():
            self.problems.append(f"{path} does not exist; predict with --save-probabilities, or fuse with majority")
            return
        try:
            shape = probabilities_shape(path)
        except InputError as error:
            self.problems.append(str(error))
            return
        num_channels = shape[0] if self.labels is None else self.labels.num_outputs
        if shape != (wanted := (num_channels, *geometry.shape)):
            self.problems.append(f"{path}: expected probabilities of shape {wanted} (K, z, y, x), it has {shape}")


def _folder_problems(folders: Sequence[Path], out: Path, options: EnsembleOptions) -> list[str]:
    """Find problems with the folders that do not depend on their cases."""
    problems = [] if len(folders) > 1 else ["there is only one folder; name at least two to fuse"]
    sources = [*folders, *(each for each in (options.images, options.fit_weights) if each is not None)]
    problems += [f"{folder} is not a folder" for folder in sources if not folder.is_dir()]
    problems += [
        f"{folder} holds no segmentations" for folder in folders if folder.is_dir() and not image_files(folder)
    ]
    places = [folder.resolve() for folder in folders]
    problems += [f"{folder} is named twice" for folder in dict.fromkeys(folders) if places.count(folder.resolve()) > 1]
    if out.resolve() in [folder.resolve() for folder in sources]:
        problems.append(f"{out} is one of the inputs, which would be overwritten; choose another output folder")
    return problems


def _unique_files(folder: Path, problems: list[str]) -> dict[str, Path]:
    """Find the image files of a folder, by their name without ending; adds to `problems`."""
    groups = by_stem(image_files(folder))
    problems += [
        f"{' and '.join(path.name for path in paths)} in {folder} have the same case name; keep one"
        for paths in groups.values()
        if len(paths) > 1
    ]
    return {name: paths[0] for name, paths in groups.items()}


def _find_images(options: EnsembleOptions, problems: list[str]) -> dict[str, Path]:
    """Find each case's image: `CASE_0000.ENDING` of the channel, `CASE.ENDING` for the first, or a DICOM folder."""
    if options.images is None:
        return {}
    named = _unique_files(options.images, problems)
    named |= {name_of_folder(path, options.images): path for path in dicom_folders(options.images)}
    ending = f"_{options.channel or 0:04d}"
    of_channel = {name.removesuffix(ending): path for name, path in named.items() if name.endswith(ending)}
    return of_channel if options.channel else named | of_channel


def _read_record(folder: Path) -> PredictionRecord | None:
    if not (folder / RECORD_NAME).is_file():
        return None
    try:
        return read_record(folder / RECORD_NAME, PredictionRecord)
    except RecordError as error:
        logger.warning("%s; continuing without it", error)
        return None


def _add_description(said: dict[Path, Labels], place: Path, path: Path, problems: list[str]) -> None:
    try:
        said[place] = read_description(path).labels
    except InputError as error:
        problems.append(str(error))


def _list_cases(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_LISTED} more" if len(names) > _MOST_LISTED else ""
    return f"{len(names)} case(s): {', '.join(names[:_MOST_LISTED])}{more}"


def _fusion_error(problems: Sequence[str]) -> InputError:
    return InputError("the folders cannot be fused:\n" + "\n".join(f"  {problem}" for problem in problems))
