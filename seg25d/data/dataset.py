"""Data sets in the nnU-Net v2 raw layout: cases with their files, patients and splits."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field, TypeAdapter

from seg25d.core.errors import DatasetError
from seg25d.core.records import Record
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription, parse_description, read_description, read_object
from seg25d.data.inputs import find_inputs
from seg25d.data.layout import Layout, explicit_layout, folder_layout
from seg25d.data.problems import Problem, file_problem, raise_problems
from seg25d.data.splits import Split, find_splits, read_splits, read_table, unknown_names

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


class Dataset(Record):
    """A data set: its description and its training cases.

    Attributes:
        name: Name of the folder, `DatasetNNN_Name`.
        root: The folder.
        description: What `dataset.json` says.
        cases: The training cases, sorted by name.
        patients: Patient per case, where `patients.json` names one; folds never split a patient.
        splits: The folds of `splits.json` or nnU-Net's `splits_final.json`, if there is one.
        splits_file: Their file.
        differing_splits: Further such files, with other folds, which do not count.
        splits_notes: What is odd about the folds, but accepted.
    """

    name: str
    root: Path
    description: DatasetDescription
    cases: tuple[Case, ...]
    patients: dict[str, str] = Field(default_factory=dict)
    splits: tuple[Split, ...] | None = None
    splits_file: Path | None = None
    differing_splits: tuple[Path, ...] = ()
    splits_notes: tuple[str, ...] = ()


def read_dataset(root: Path, preprocessed: Sequence[Path] = ()) -> Dataset:
    """Read the list of a data set's cases; no image is opened.

    Args:
        root: The folder `DatasetNNN_Name`.
        preprocessed: Folders in which nnU-Net's `splits_final.json` may be as well.

    Returns:
        The data set. Cases come from `imagesTr` and `labelsTr`, or from the key `dataset` of `dataset.json`
        (`{CASE: {"images": [...], "label": ...}}`; environment variables in paths are expanded, relative paths start
        at the folder).

    Raises:
        DatasetError: If anything is missing, doubled or wrongly named; lists all of it.
    """
    dataset, problems = scan_dataset(root, preprocessed)
    raise_problems(problems, root.name)
    if dataset is None:
        raise DatasetError(f"{root} is not a data set")
    return dataset


def scan_dataset(root: Path, preprocessed: Sequence[Path] = ()) -> tuple[Dataset | None, list[Problem]]:
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
        return None, [file_problem("dataset.json", str(error))]
    problems = [_doubled_key(key) for key in doubled]
    description, issues = parse_description(value)
    problems += [file_problem("dataset.json", issue) for issue in issues]
    if description is None:
        return None, problems
    if "dataset" in value:
        layout = explicit_layout(root, value["dataset"], description)
    else:
        layout = folder_layout(root, description)
    problems += layout.problems + _count_problems(layout, description)
    patients, patient_problems = _read_patients(root / "patients.json", layout.names)
    given, split_problems = find_splits(root, preprocessed, layout.names)
    dataset = Dataset(
        name=root.resolve().name,
        root=root,
        description=description,
        cases=tuple(sorted(layout.cases, key=lambda case: case.name)),
        patients=patients,
        splits=given.splits,
        splits_file=given.file,
        differing_splits=given.differing,
        splits_notes=given.notes,
    )
    return dataset, problems + patient_problems + split_problems


def _doubled_key(key: str) -> Problem:
    problem = f"duplicate: dataset.json has '{key}' twice in one object"
    return Problem(case=key, problem=problem, cure="remove one of the two")


def _count_problems(layout: Layout, description: DatasetDescription) -> list[Problem]:
    found = len(layout.names)
    if found == 0 and layout.problems:
        return []  # they say why
    if found == 0:
        cure = f"add imagesTr/CASE_0000{description.file_ending} and labelsTr/CASE{description.label_ending}"
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
    patients, problems = read_table(path, path.name, TypeAdapter(dict[str, str]), shape)
    return patients or {}, problems + unknown_names(path.name, patients or {}, names)
