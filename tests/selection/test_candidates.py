from dataclasses import replace

from seg25d.selection.candidates import shared_cases
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
