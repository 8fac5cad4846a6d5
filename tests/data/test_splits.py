"""Folds that a data set brings along: which file counts, and what is wrong with it."""

import json
from pathlib import Path
from typing import Any

import pytest

from seg25d.core.errors import RecordError
from seg25d.data.splits import GivenSplits, Split, find_splits, read_splits, same_splits, short_path, splits_files

FOLDS = (Split(train=("a",), val=("b",)), Split(train=("b",), val=("a",)))
OTHER = (Split(train=("b",), val=("a",)),)
NNUNET, OWN = "splits_final.json", "splits.json"


def write(folder: Path, name: str, folds: tuple[Split, ...] | str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    text = folds if isinstance(folds, str) else json.dumps([fold.model_dump(mode="json") for fold in folds])
    (folder / name).write_text(text)
    return folder / name


def found(root: Path, *preprocessed: Path) -> GivenSplits:
    given, problems = find_splits(root, preprocessed, ["a", "b"])
    assert problems == []
    return given


def test_no_file_no_folds(tmp_path: Path) -> None:
    assert found(tmp_path, tmp_path / "gone") == GivenSplits()


def test_ours_counts_before_nnunets_and_raw_before_preprocessed(tmp_path: Path) -> None:
    raw, preprocessed, nnunet = (tmp_path / name / "Dataset001_X" for name in ("raw", "preprocessed", "nnunet"))
    files = [
        write(nnunet, NNUNET, FOLDS),
        write(preprocessed, NNUNET, FOLDS),
        write(raw, NNUNET, FOLDS),
        write(raw, OWN, FOLDS),
    ]
    write(preprocessed, OWN, OTHER)  # written by planning: never read
    for number in range(len(files), 0, -1):
        assert splits_files(raw, [preprocessed, nnunet]) == tuple(reversed(files[:number]))
        assert found(raw, preprocessed, nnunet) == GivenSplits(FOLDS, files[number - 1])
        files[number - 1].unlink()


def test_files_with_other_folds_are_named(tmp_path: Path) -> None:
    raw, preprocessed = tmp_path / "raw", tmp_path / "preprocessed"
    own, nnunet = write(raw, OWN, FOLDS), write(raw, NNUNET, OTHER)
    damaged = write(preprocessed, NNUNET, "{")
    assert found(raw, preprocessed) == GivenSplits(FOLDS, own, (nnunet, damaged))
    assert found(raw, raw) == GivenSplits(FOLDS, own, (nnunet,))


def test_the_order_of_cases_makes_no_difference_that_of_folds_does(tmp_path: Path) -> None:
    path = write(tmp_path, OWN, (Split(train=("a", "c"), val=("b",)), FOLDS[1]))
    assert same_splits(path, (Split(train=("c", "a"), val=("b",)), FOLDS[1]))
    assert not same_splits(path, (FOLDS[1], Split(train=("a", "c"), val=("b",))))
    assert not same_splits(path, FOLDS)


@pytest.mark.parametrize("name", [OWN, NNUNET])
@pytest.mark.parametrize(
    ("content", "case", "problem"),
    [
        ('[{"train": ["z"], "val": ["b"]}]', "z", "{} fold 0 names an unknown case"),
        ('[{"train": ["a"], "val": []}]', "{}", "must not be empty"),
        ('[{"training": ["a"]}]', "{}", "wrong at 0.train"),
        ("[]", "{}", "it must be a list"),
        ("{", "{}", "splits"),
    ],
)
def test_wrong_folds(name: str, content: str, case: str, problem: str, tmp_path: Path) -> None:
    write(tmp_path, name, content)
    _, problems = find_splits(tmp_path, [], ["a", "b"])
    assert problems[0].case == case.format(name)
    assert problem.format(name) in problems[0].problem


@pytest.mark.parametrize("name", [OWN, NNUNET])
@pytest.mark.parametrize(
    ("folds", "expected", "note"),
    [
        (
            [{"train": ["a"], "val": ["b"], "test": ["z"]}],
            (("a",), ("b",)),
            "the key test does not count, expected are",
        ),
        ([{"train": ["a", "b"], "val": ["b"]}], (("a", "b"), ("b",)), "cases in train and in val: b; its scores will"),
        (
            [{"train": ["b", "a", "b"], "val": ["b"]}],
            (("b", "a"), ("b",)),
            "b is there twice in `train`, and counts once",
        ),
    ],
)
def test_what_nnunet_accepts_is_told(name: str, folds: Any, expected: Any, note: str, tmp_path: Path) -> None:
    """A further key (nnU-Net looks for none), cases in both parts (it warns), cases twice (it takes them)."""
    path = write(tmp_path, name, json.dumps([{"train": ["b"], "val": ["a"]}, *folds]))
    given = found(tmp_path)
    assert given.splits is not None
    assert (given.splits[1].train, given.splits[1].val) == expected
    assert f"{name}, fold 1: " in given.notes[0]
    assert note in given.notes[0]
    assert same_splits(path, given.splits)


@pytest.mark.parametrize("name", [OWN, NNUNET])
def test_a_folder_of_that_name_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    given, (problem,) = find_splits(tmp_path, [], ["a", "b"])
    assert given.splits is None
    assert problem.case == name
    assert "is a folder, expected is a file" in problem.problem
    assert not same_splits(tmp_path / name, FOLDS)


def test_a_wrong_file_elsewhere_is_named_with_its_folders(tmp_path: Path) -> None:
    folder = tmp_path / "nnUNet_preprocessed" / "Dataset001_X"
    write(folder, NNUNET, "[]")
    _, problems = find_splits(tmp_path, [folder], ["a", "b"])
    assert problems[0].case == "nnUNet_preprocessed/Dataset001_X/splits_final.json"
    assert problems[0].cure == "correct nnUNet_preprocessed/Dataset001_X/splits_final.json"


def test_all_problems_are_listed_together(tmp_path: Path) -> None:
    folds = [{"train": ["a", "x"], "val": ["b"]}, {"train": ["b"], "val": ["y"]}, {"train": ["a"], "val": []}]
    write(tmp_path, OWN, json.dumps(folds))
    text = "\n".join(f"{item.case}: {item.problem}" for item in find_splits(tmp_path, [], ["a", "b"])[1])
    for part in ("x: splits.json fold 0 names an unknown", "y: splits.json fold 1 names", "fold 2 is of no use"):
        assert part in text


@pytest.mark.parametrize("content", ["[]", "{}", '[{"train": ["a"]}]', '[{"train": "a", "val": ["b"]}]'])
def test_a_wrong_file_names_itself_and_the_place(tmp_path: Path, content: str) -> None:
    with pytest.raises(RecordError, match=r"splits\.json is not valid:\n  folds"):
        read_splits(write(tmp_path, OWN, content))


def test_a_path_is_shortened_to_its_data_set() -> None:
    assert short_path(Path("/a/b/raw/Dataset001_X/splits.json")) == "raw/Dataset001_X/splits.json"
