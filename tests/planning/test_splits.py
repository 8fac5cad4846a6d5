"""Folds: nnU-Net's where it makes any; no patient in two."""

import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.errors import InputError
from seg25d.data.cases import Case
from seg25d.data.dataset import Dataset, Split
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.planning.splits import choose_splits, make_splits, splits_reason


@pytest.mark.parametrize("count", [5, 7, 20, 203])
def test_folds_without_patients_are_those_of_nnunet(count: int) -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    names = [f"case_{index:03d}" for index in range(count)]
    expected = selection.KFold(n_splits=5, shuffle=True, random_state=12345).split(names)
    splits = make_splits(list(reversed(names)), {})
    assert [split.val for split in splits] == [tuple(names[i] for i in val) for _, val in expected]


@given(st.lists(st.integers(0, 12), min_size=1, max_size=40), st.integers(0, 5))
def test_laws_of_folds(owners: list[int], seed: int) -> None:
    names = [f"c{index:02d}" for index in range(len(owners))]
    # Patient 12 is left out of the table: each of its cases stands alone.
    patients = {name: f"p{owner}" for name, owner in zip(names, owners, strict=True) if owner < 12}
    splits = make_splits(names, patients, seed=seed)
    assert splits == make_splits(names[::-1], patients, seed=seed)
    num_patients = len({patients.get(name, name) for name in names})
    assert len(splits) == max(1, min(5, num_patients))
    if num_patients == 1:
        assert splits[0].train == splits[0].val == tuple(names)
        return
    assert sorted(case for split in splits for case in split.val) == names
    for split in splits:
        assert sorted(split.train + split.val) == names
        assert split.train
        assert split.val
        assert not {patients.get(c, c) for c in split.train} & {patients.get(c, c) for c in split.val}


@pytest.mark.parametrize("seed", range(5))
def test_patients_of_different_sizes_give_balanced_folds(seed: int) -> None:
    # Dealt last, the large patient would come on top of folds that are level already.
    sizes = [1] * 12 + [6]
    names = [f"p{patient}_{index}" for patient, size in enumerate(sizes) for index in range(size)]
    splits = make_splits(names, {name: name.split("_")[0] for name in names}, 3, seed)
    assert sorted(len(split.val) for split in splits) == [6, 6, 6]


def test_a_case_called_like_a_patient_is_not_that_patient() -> None:
    assert len(make_splits(["a", "b"], {"a": "b"})) == 2


def test_one_case_validates_on_itself_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_splits(["only"], {}) == (Split(train=("only",), val=("only",)),)
    assert "validates on the cases that it trains on" in caplog.text


def test_no_cases() -> None:
    with pytest.raises(InputError, match="no cases"):
        make_splits([], {})


def _dataset(splits: tuple[Split, ...] | None, patients: dict[str, str] | None = None, *others: Path) -> Dataset:
    description = DatasetDescription(
        channel_names=("CT",), labels=Labels(names={"background": 0, "a": 1}), file_ending=".nii.gz", num_training=3
    )
    cases = tuple(Case(name=name, images=(Path(f"{name}.nii.gz"),)) for name in "abc")
    return Dataset(
        name="Dataset001_X",
        root=Path(),
        description=description,
        cases=cases,
        splits=splits,
        splits_file=Path("/w/raw/Dataset001_X/splits_final.json") if splits else None,
        differing_splits=others,
        patients=patients or {},
    )


def test_own_splits_win() -> None:
    own = (Split(train=("a", "b"), val=("c",)),)
    assert choose_splits(_dataset(own)) == own
    assert len(choose_splits(_dataset(None))) == 3


def test_what_is_odd_about_own_splits_is_told(caplog: pytest.LogCaptureFixture) -> None:
    own = (Split(train=("a", "b"), val=("b", "c")),)
    dataset = _dataset(own).model_copy(update={"splits_notes": ("splits.json, fold 0: cases in train and in val: b",)})
    assert choose_splits(dataset) == own
    assert f"{dataset.name}: splits.json, fold 0: cases in train and in val: b" in caplog.text


def test_own_splits_that_divide_a_patient_warn(caplog: pytest.LogCaptureFixture) -> None:
    own = (Split(train=("a", "b"), val=("c",)),)
    with caplog.at_level(logging.WARNING):
        choose_splits(_dataset(own, {"a": "p", "c": "p"}))
    assert "raw/Dataset001_X/splits_final.json, fold 0: patients in train and in val: p" in caplog.text


def test_files_that_do_not_count_are_named(caplog: pytest.LogCaptureFixture) -> None:
    own = (Split(train=("a", "b"), val=("c",)),)
    other = Path("/w/preprocessed/Dataset001_X/splits_final.json")
    with caplog.at_level(logging.WARNING):
        choose_splits(_dataset(own))
        assert caplog.text == ""
        choose_splits(_dataset(own, {}, other))
    for words in (
        "raw/Dataset001_X/splits_final.json and preprocessed/Dataset001_X/splits_final.json have different folds",
        "raw/Dataset001_X/splits_final.json counts",
    ):
        assert words in caplog.text


def test_cases_in_no_fold_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        choose_splits(_dataset((Split(train=("a",), val=("b",)),)))
    assert (
        "1 of 3 cases are in no fold of raw/Dataset001_X/splits_final.json, so that nothing is trained" in caplog.text
    )
    assert caplog.text.strip().endswith("on them: c")


def test_the_reason_says_where_the_folds_are_from() -> None:
    own = (Split(train=("a", "b"), val=("c",)),)
    assert splits_reason(_dataset(own), own) == "1, those of raw/Dataset001_X/splits_final.json"
    ignored = _dataset(own, {}, Path("/w/preprocessed/Dataset001_X/splits_final.json"))
    assert splits_reason(ignored, own).endswith(
        "; preprocessed/Dataset001_X/splits_final.json has others and does not count"
    )
    assert splits_reason(_dataset(None), own * 5, 7) == (
        "5, made of the sorted names of the cases with seed 7, as nnU-Net makes them"
    )
    assert splits_reason(_dataset(None), own * 4, 7) == (
        "4, made of the sorted names of the cases with seed 7, in the way in which nnU-Net makes its 5"
    )
    assert splits_reason(_dataset(None, {"a": "p"}), own * 2) == (
        "2, with whole patients of patients.json dealt out, seed 12345"
    )


def test_the_reason_of_few_folds_says_what_they_are() -> None:
    for patients, unit in (({}, "case"), ({"a": "p"}, "patient")):
        dataset = _dataset(None, patients)
        assert splits_reason(dataset, choose_splits(dataset)) == f"3, one {unit} each, as there are fewer than 5"
    dataset = _dataset(None, dict.fromkeys("abc", "p"))
    assert splits_reason(dataset, choose_splits(dataset)) == (
        "1, which trains and validates on the same cases, as there is one patient: its scores say little about new ones"
    )
