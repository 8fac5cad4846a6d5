"""Data sets in the nnU-Net v2 raw layout: cases with their files, patients and splits."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from seg25d.core.errors import DatasetError, RecordError
from seg25d.core.files import read_json
from seg25d.core.records import Record, parse_record
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription, parse_description, read_description, read_object
from seg25d.data.inputs import find_inputs
from seg25d.data.layout import Layout, explicit_layout, folder_layout
from seg25d.data.problems import Problem, raise_problems

__all__ = [
    "Case",
    "Dataset",
    "DatasetDescription",
    "Split",
    "find_inputs",
    "read_dataset",
    "read_description",
    "read_splits",
    "scan_dataset",
]


class Split(Record):
    """The cases that one fold trains on and validates on."""

    train: tuple[str, ...]
    val: tuple[str, ...]


class Dataset(Record):
    """A data set: its description and its training cases.

    Attributes:
        name: Name of the folder, `DatasetNNN_Name`.
        root: The folder.
        description: What `dataset.json` says.
        cases: The training cases, sorted by name.
        patients: Patient per case, where `patients.json` names one; folds never split a patient.
        splits: The folds of `splits.json`, if there is one.
    """

    name: str
    root: Path
    description: DatasetDescription
    cases: tuple[Case, ...]
    patients: dict[str, str] = Field(default_factory=dict)
    splits: tuple[Split, ...] | None = None


class _Folds(Record):
    folds: tuple[Split, ...] = Field(min_length=1)


def read_splits(path: Path) -> tuple[Split, ...]:
    """The folds of a `splits.json`.

    Raises:
        RecordError: If it is missing or is not a list of `{"train": [...], "val": [...]}`; names the place.
    """
    return parse_record({"folds": read_json(path)}, _Folds, str(path)).folds


def read_dataset(root: Path) -> Dataset:
    """Read the list of a data set's cases; no image is opened.

    Args:
        root: The folder `DatasetNNN_Name`.

    Returns:
        The data set. Cases come from `imagesTr` and `labelsTr`, or from the key `dataset` of `dataset.json`
        (`{CASE: {"images": [...], "label": ...}}`; environment variables in paths are expanded, relative paths start
        at the folder).

    Raises:
        DatasetError: If anything is missing, doubled or wrongly named; lists all of it.
    """
    dataset, problems = scan_dataset(root)
    raise_problems(problems, root.name)
    if dataset is None:
        raise DatasetError(f"{root} is not a data set")
    return dataset


def scan_dataset(root: Path) -> tuple[Dataset | None, list[Problem]]:
    """Like `read_dataset`, but return the problems instead of raising.

    Returns:
        The data set with the cases whose files are complete (None if the folder or `dataset.json` cannot be used), and
        the problems.
    """
    if not root.is_dir():
        return None, [Problem(case=root.name, problem=f"{root} is not a folder", cure="check the name of the data set")]
    try:
        value, doubled = read_object(root / "dataset.json")
    except DatasetError as error:
        return None, [_file_problem("dataset.json", str(error))]
    problems = [_doubled_key(key) for key in doubled]
    description, issues = parse_description(value)
    problems += [_file_problem("dataset.json", issue) for issue in issues]
    if description is None:
        return None, problems
    if "dataset" in value:
        layout = explicit_layout(root, value["dataset"], description)
    else:
        layout = folder_layout(root, description)
    problems += layout.problems + _count_problems(layout, description)
    patients, patient_problems = _read_patients(root / "patients.json", layout.names)
    splits, split_problems = _check_splits(root / "splits.json", layout.names)
    dataset = Dataset(
        name=root.resolve().name,
        root=root,
        description=description,
        cases=tuple(sorted(layout.cases, key=lambda case: case.name)),
        patients=patients,
        splits=splits,
    )
    return dataset, problems + patient_problems + split_problems


def _doubled_key(key: str) -> Problem:
    problem = f"duplicate: dataset.json has '{key}' twice in one object"
    return Problem(case=key, problem=problem, cure="remove one of the two")


def _file_problem(name: str, problem: str) -> Problem:
    return Problem(case=name, problem=problem, cure=f"correct {name}")


def _count_problems(layout: Layout, description: DatasetDescription) -> list[Problem]:
    found = len(layout.names)
    if found == 0:
        cure = f"add imagesTr/CASE_0000{description.file_ending} and labelsTr/CASE{description.file_ending}"
        return [Problem(case="(all)", problem="there are no training cases", cure=cure)]
    if found != description.num_training:
        problem = f"numTraining is {description.num_training}, but there are {found} cases"
        return [
            Problem(case="dataset.json", problem=problem, cure=f"set numTraining to {found}, or add what is missing")
        ]
    return []


def _read_patients(path: Path, names: Iterable[str]) -> tuple[dict[str, str], list[Problem]]:
    if not path.exists():
        return {}, []
    shape = 'it must be an object {"CASE": "PATIENT"}'
    patients, problems = _read_as(path, TypeAdapter(dict[str, str]), shape)
    return patients or {}, problems + _unknown_names(path.name, patients or {}, names)


def _check_splits(path: Path, names: Iterable[str]) -> tuple[tuple[Split, ...] | None, list[Problem]]:
    if not path.exists():
        return None, []
    shape = 'it must be a list [{"train": [...], "val": [...]}, ...] that is not empty'
    splits, problems = _read_as(path, TypeAdapter(tuple[Split, ...]), shape)
    if not splits:
        return None, problems or [_file_problem(path.name, shape)]
    for fold, split in enumerate(splits):
        problems += _unknown_names(f"{path.name} fold {fold}", (*split.train, *split.val), names)
        problems += [_file_problem(path.name, f"fold {fold} {issue}") for issue in _fold_issues(split)]
    return splits, problems


def _fold_issues(split: Split) -> list[str]:
    issues = []
    if both := sorted(set(split.train) & set(split.val)):
        issues.append(f"trains and validates on {', '.join(both[:8])}")
    for key, cases in (("train", split.train), ("val", split.val)):
        if twice := sorted(case for case, count in Counter(cases).items() if count > 1):
            issues.append(f"has {', '.join(twice[:8])} twice in `{key}`")
    if not split.train or not split.val:
        issues.append("is of no use: `train` and `val` must not be empty")
    return issues


def _read_as(path: Path, adapter: TypeAdapter[Any], shape: str) -> tuple[Any, list[Problem]]:
    try:
        return adapter.validate_python(read_json(path)), []
    except RecordError as error:
        return None, [_file_problem(path.name, str(error))]
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        return None, [_file_problem(path.name, f"{shape}; wrong at {place or 'the top'}")]


def _unknown_names(origin: str, used: Iterable[str], names: Iterable[str]) -> list[Problem]:
    return [
        Problem(case=name, problem=f"{origin} names an unknown case", cure="correct the name or remove it")
        for name in sorted(set(used) - set(names))
    ]
