from dataclasses import replace

import pytest

from seg25d.selection.candidates import shared_cases, shared_threshold
from seg25d.selection.scoring import Validation


def test_fewer_folds_are_other_models(validation: Validation) -> None:
    run = validation.runs["good"]
    assert run.case_folds == {"a": 0, "b": 1}
    fewer = run.only([1])
    assert (fewer.folds, fewer.missing_folds, fewer.case_folds) == ((1,), (0,), {"b": 1})
    assert fewer.stamp != run.stamp, "costs and scores of five folds are not those of one"
    assert run.only([0, 1]).stamp == run.stamp
    assert shared_cases([run, fewer]) == ("b",)


def test_a_model_or_another_fold_for_a_case_changes_the_stamp(validation: Validation) -> None:
    run = validation.runs["good"]
    assert replace(run, stamps={0: "0", 1: "trained again"}).stamp != run.stamp
    assert replace(run, held_out={0: ("b",), 1: ("a",)}).stamp != run.stamp


def test_folds_may_hold_out_the_same_cases(validation: Validation) -> None:
    run = replace(validation.runs["good"], held_out={0: ("a", "b"), 1: ("b",)})
    assert run.missing_folds == (), "fold 1 is trained, although fold 0 predicts its case"
    assert run.case_folds == {"a": 0, "b": 0}
    assert run.only([1]).case_folds == {"b": 1}


@pytest.mark.parametrize(
    ("thresholds", "shared"), [((0.2, 0.2), 0.2), ((0.2, 0.4), None), ((0.2, None), None), ((None, None), None)]
)
def test_an_ensemble_has_a_threshold_where_all_its_runs_have_the_same(
    validation: Validation, thresholds, shared
) -> None:
    runs = [replace(run, threshold=each) for run, each in zip(validation.runs.values(), thresholds, strict=True)]
    assert shared_threshold(runs) == shared


def test_cases_are_compared_that_all_runs_have_held_out(validation: Validation) -> None:
    good, poor = validation.runs.values()
    assert shared_cases([good, poor]) == ("a", "b")
    assert shared_cases([good, poor.only([1])]) == ("b",)
    assert shared_cases([good.only([0]), poor.only([1])]) == shared_cases([]) == ()
