"""Which models predict what a fusion network learns from."""

import pytest

from seg25d.core.errors import InputError
from seg25d.data.dataset import Split
from seg25d.views.model_sets import FusionCases, ModelSet, fusion_cases, leaks


def make_splits(num_folds: int, per_fold: int = 2) -> list[Split]:
    cases = [f"case_{index}" for index in range(num_folds * per_fold)]
    parts = [tuple(cases[fold::num_folds]) for fold in range(num_folds)]
    return [Split(train=tuple(sorted(set(cases) - set(part))), val=part) for part in parts]


def trained_on(cases: FusionCases) -> dict[str, tuple[str, ...]]:
    return {each.name: each.split.train for each in cases.sets}


@pytest.mark.parametrize(("num_folds", "num_pairs"), [(3, 3), (4, 6), (5, 10)])
def test_k_folds_take_k_standard_and_k_over_2_pair_sets(num_folds: int, num_pairs: int) -> None:
    splits = make_splits(num_folds)
    names = {each.name for fold in range(num_folds) for each in fusion_cases(splits, fold, "cross").sets}
    assert {name for name in names if name.startswith("fold_")} == {f"fold_{fold}" for fold in range(num_folds)}
    assert len({name for name in names if name.startswith("pair_")}) == num_pairs
    assert len(names) == num_folds + num_pairs


@pytest.mark.parametrize("fold", range(4))
@pytest.mark.parametrize("data", ["cross", "holdout"])
def test_no_case_of_the_fold_and_none_that_its_predictor_saw_is_learnt_from(fold: int, data) -> None:
    splits = make_splits(4)
    cases = fusion_cases(splits, fold, data)
    assert not leaks(cases, splits[fold].val, trained_on(cases))
    assert set(cases.training) <= set(splits[fold].train)
    if data == "cross":
        assert set(cases.training) == set(splits[fold].train)
        assert cases.own.split == splits[fold]


def test_pairs_are_the_same_set_whichever_fold_asks() -> None:
    splits = make_splits(3)
    first = {each.name: each for each in fusion_cases(splits, 0, "cross").sets}
    second = {each.name: each for each in fusion_cases(splits, 1, "cross").sets}
    assert first["pair_0_1"] == second["pair_0_1"]
    assert first["pair_0_1"].split.train == splits[2].val


def test_the_fusion_of_all_cases_learns_from_the_ordinary_folds() -> None:
    splits = make_splits(3)
    cases = fusion_cases(splits, "all", "cross")
    assert {each.name for each in cases.sets} == {"fold_all", "fold_0", "fold_1", "fold_2"}
    assert len(cases.training) == 6
    assert all(case not in each.split.train for case, each in cases.training.items())


def test_holdout_takes_one_set_and_about_two_fifths_of_the_cases() -> None:
    splits = make_splits(5, per_fold=3)
    cases = fusion_cases(splits, 1, "holdout")
    assert [each.name for each in cases.sets] == ["holdout_1"]
    assert set(cases.training) == {*splits[2].val, *splits[3].val}
    assert set(cases.own.split.train) == {*splits[0].val, *splits[4].val}
    assert cases.own.split.val == splits[1].val
    everything = fusion_cases(splits, "all", "holdout")
    assert set(everything.training) == {*splits[0].val, *splits[1].val}
    assert not set(everything.own.split.train) & set(everything.training)


def test_leaks_are_found() -> None:
    seen = ModelSet("pair_0_1", Split(train=("a", "b"), val=()))
    cases = FusionCases(ModelSet("fold_0", Split(train=("a", "b"), val=("c",))), {"a": seen, "c": seen, "d": seen})
    assert leaks(cases, ("c",), {"pair_0_1": ("a", "b")}) == ["a", "c"]
    assert leaks(cases, ("c",), {"pair_0_1": ("b", "c")}) == ["a", "c", "d"]


def test_folds_that_overlap_do_not_leak() -> None:
    """A user's own folds may validate on some cases twice, or train on what they validate on."""
    splits = [
        Split(train=("b", "c", "d", "a"), val=("a",)),
        Split(train=("a", "c", "d"), val=("b", "c")),
        Split(train=("a", "b"), val=("c", "d")),
    ]
    for fold in range(3):
        cases = fusion_cases(splits, fold, "cross")
        assert not leaks(cases, splits[fold].val, trained_on(cases))


def test_too_few_folds_are_refused() -> None:
    with pytest.raises(InputError, match="three folds"):
        fusion_cases(make_splits(2), 0, "cross")
    with pytest.raises(InputError, match="three folds"):
        fusion_cases(make_splits(1), 0, "holdout")
