"""Folds that a data set brings along: our `splits.json`, or the `splits_final.json` of nnU-Net."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from seg25d.core.errors import RecordError
from seg25d.core.files import read_json
from seg25d.core.limits import MAX_FOLDS
from seg25d.core.names import CaseName
from seg25d.core.records import Record, parse_record
from seg25d.data.problems import Problem, file_problem, first_names

OWN_NAME = "splits.json"
"""Our file, in the raw data set alone: that of the preprocessed one is written by planning."""
NNUNET_NAME = "splits_final.json"
"""nnU-Net's file (documentation/manual_data_splits.md), which it keeps in the preprocessed data set."""


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


class Split(Record):
    """The cases that one fold trains on and validates on; further keys do not count, and doubled names count once."""

    model_config = ConfigDict(extra="ignore")

    train: Annotated[tuple[CaseName, ...], AfterValidator(_once)]
    val: Annotated[tuple[CaseName, ...], AfterValidator(_once)]


class GivenSplits(NamedTuple):
    """The folds that a data set brings along."""

    splits: tuple[Split, ...] | None = None
    """The folds that count; None: there are none, or they are of no use."""
    file: Path | None = None
    """Their file."""
    differing: tuple[Path, ...] = ()
    """Further files with other folds, which do not count."""
    notes: tuple[str, ...] = ()
    """What the file says that is odd, but accepted, as nnU-Net accepts it."""


class _Folds(Record):
    folds: tuple[Split, ...] = Field(min_length=1, max_length=MAX_FOLDS)


def read_splits(path: Path) -> tuple[Split, ...]:
    """Read the folds of a `splits.json`.

    Raises:
        RecordError: If it is missing or is not a list of `{"train": [...], "val": [...]}`; names the place.
    """
    return parse_record({"folds": read_json(path)}, _Folds, str(path)).folds


def splits_files(root: Path, preprocessed: Sequence[Path] = ()) -> tuple[Path, ...]:
    """Find the files with folds of a data set; the first one counts.

    Args:
        root: The raw data set, whose `splits.json` comes first, then its `splits_final.json`.
        preprocessed: Folders of the preprocessed data set, ours and nnU-Net's, in whose `splits_final.json` nnU-Net
            looks.
    """
    files = (root / OWN_NAME, *(folder / NNUNET_NAME for folder in (root, *preprocessed)))
    return tuple(dict.fromkeys(path for path in files if path.exists()))


def find_splits(root: Path, preprocessed: Sequence[Path], names: Iterable[str]) -> tuple[GivenSplits, list[Problem]]:
    """Read and check the folds of a data set.

    Args:
        root: See `splits_files`, as `preprocessed`.
        preprocessed: Likewise.
        names: Names of all cases.

    Returns:
        The folds, and the problems of the file that counts; files that do not count are only compared with it.
    """
    files = splits_files(root, preprocessed)
    if not files:
        return GivenSplits(), []
    first, *others = files
    place = first.name if first.parent == root else short_path(first)
    splits, problems = _check_splits(first, place, names)
    if splits is None:
        return GivenSplits(None, first), problems
    differing = tuple(path for path in others if not same_splits(path, splits))
    return GivenSplits(splits, first, differing, tuple(_notes(read_json(first), place))), problems


def same_splits(path: Path, splits: Sequence[Split]) -> bool:
    """Whether a file has these folds; the order of the cases does not matter. A file of no use has others."""
    try:
        own = read_splits(path)
    except RecordError:
        return False
    return [(set(each.train), set(each.val)) for each in own] == [(set(each.train), set(each.val)) for each in splits]


def short_path(path: Path) -> str:
    """Shorten the path of a data set's file: `raw/Dataset001_Name/splits_final.json`."""
    return "/".join(path.absolute().parts[-3:])


def read_table(path: Path, place: str, adapter: TypeAdapter[Any], shape: str) -> tuple[Any, list[Problem]]:
    """Read a JSON file of a data set.

    Args:
        path: The file.
        place: Name of the file in problems.
        adapter: What it must hold.
        shape: The same in words.

    Returns:
        Its content, or None, and the problems.
    """
    try:
        return adapter.validate_python(read_json(path)), []
    except RecordError as error:
        return None, [file_problem(place, str(error))]
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return None, [file_problem(place, f"{shape}; wrong at {where or 'the top'}")]


def unknown_names(origin: str, used: Iterable[str], names: Iterable[str]) -> list[Problem]:
    """List the cases that a file names and the data set does not have."""
    return [
        Problem(case=name, problem=f"{origin} names an unknown case", cure="correct the name or remove it")
        for name in sorted(set(used) - set(names))
    ]


def _check_splits(path: Path, place: str, names: Iterable[str]) -> tuple[tuple[Split, ...] | None, list[Problem]]:
    shape = 'it must be a list [{"train": [...], "val": [...]}, ...] that is not empty'
    splits, problems = read_table(path, place, TypeAdapter(tuple[Split, ...]), shape)
    if not splits:
        return None, problems or [file_problem(place, shape)]
    for fold, split in enumerate(splits):
        problems += unknown_names(f"{place} fold {fold}", (*split.train, *split.val), names)
        if not split.train or not split.val:
            problems.append(file_problem(place, f"fold {fold} is of no use: `train` and `val` must not be empty"))
    return splits, problems


def _notes(folds: Sequence[Mapping[str, Sequence[str]]], place: str) -> Iterator[str]:
    """What is odd about folds, from the file as it is."""
    for number, fold in enumerate(folds):
        where = f"{place}, fold {number}"
        if further := sorted(fold.keys() - Split.model_fields):
            yield f"{where}: the key {first_names(further)} does not count, expected are `train` and `val`"
        for key in Split.model_fields:
            if twice := sorted(case for case, count in Counter(fold[key]).items() if count > 1):
                yield f"{where}: {first_names(twice)} is there twice in `{key}`, and counts once"
        if both := sorted(set(fold["train"]).intersection(fold["val"])):
            yield f"{where}: cases in train and in val: {first_names(both)}; its scores will be too good"
