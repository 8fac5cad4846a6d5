import pytest

from seg25d.evaluation.metrics import Counts, overlap_metrics
from seg25d.evaluation.summary import CaseSummary, summarize
from seg25d.selection.candidates import Ensemble
from seg25d.selection.cost import Cost, joint_cost
from seg25d.selection.ranking import case_means, paired_p_value, rank, t_test_p_value


def summary(*dice):
    """A case per Dice, of one class of 100 voxels in truth and prediction."""
    counts = [Counts(round(100 * each), 100 - round(100 * each), 100 - round(100 * each), 1000) for each in dice]
    cases = [CaseSummary(case=f"case_{n}", metrics={"1": overlap_metrics(each)}) for n, each in enumerate(counts)]
    return summarize(cases)


def cost(seconds):
    return Cost(num_parameters=10, flops_per_case=5.0, seconds_per_case=seconds, peak_memory_gb=seconds)


SLOW, FAST, WORSE, FOREIGN = (Ensemble((name,)) for name in ("slow", "fast", "worse", "foreign"))


def test_best_first_then_by_dice_with_the_pareto_front():
    summaries = {
        FAST: summary(0.7, 0.8, 0.7),
        WORSE: summary(0.6, 0.7, 0.6),
        SLOW: summary(0.9, 0.8, 0.9),
        FOREIGN: summary(0.8, 0.8, 0.8),
    }
    costs = {FAST: cost(1.0), WORSE: cost(2.0), SLOW: cost(3.0), FOREIGN: None}
    rows = rank(summaries, costs, SLOW, lambda each: each is not None and each.seconds_per_case < 2.5)
    assert [row.name for row in rows] == ["slow", "foreign", "fast", "worse"]
    assert [row.on_pareto_front for row in rows] == [True, False, True, False]
    assert [row.within_limits for row in rows] == [False, False, True, True]
    assert rows[0].p_value is None
    assert rows[0].dice == pytest.approx(0.8667, abs=1e-4)
    assert rows[0].dice_std == pytest.approx(0.0577, abs=1e-4)


def test_equal_candidates_are_both_on_the_front():
    summaries = {FAST: summary(0.7, 0.8), SLOW: summary(0.7, 0.8)}
    rows = rank(summaries, {FAST: cost(1.0), SLOW: cost(1.0)}, FAST, lambda _: True)
    assert [row.on_pareto_front for row in rows] == [True, True]
    assert rows[1].p_value is None, "they nowhere differ"


def test_paired_test_by_hand():
    # Six differences of one sign: the exact two-sided p is 2 / 2^6.
    better, worse = summary(0.9, 0.8, 0.7, 0.6, 0.5, 0.4), summary(0.89, 0.78, 0.67, 0.56, 0.45, 0.34)
    assert paired_p_value(case_means(better), case_means(worse)) == pytest.approx(2 / 64)


def test_paired_t_test_by_hand():
    # Differences 1, 2, 3 hundredths: t = 2 / (1 / sqrt(3)) with 2 degrees of freedom.
    mine, others = {"a": 0.81, "b": 0.82, "c": 0.83, "d": None}, {"a": 0.8, "b": 0.8, "c": 0.8, "d": 0.1}
    assert t_test_p_value(mine, others) == pytest.approx(0.07418, abs=1e-5)
    assert t_test_p_value(others, mine) == pytest.approx(0.07418, abs=1e-5), "two-sided"
    assert t_test_p_value(mine, mine) is None


def test_costs_add_up_but_for_the_memory():
    joint = joint_cost([cost(1.0), cost(2.5)])
    assert joint == Cost(num_parameters=20, flops_per_case=10.0, seconds_per_case=3.5, peak_memory_gb=2.5)


def test_cases_are_paired_by_their_names_and_left_out_where_one_has_no_score():
    mine = {"a": 0.9, "b": 0.8, "c": 0.7, "d": None, "e": 0.5}
    others = {"e": 0.4, "d": 0.1, "c": 0.68, "b": 0.77, "a": 0.86}
    # Four differences of one sign; paired by place there would be both.
    assert paired_p_value(mine, others) == pytest.approx(2 / 2**4)
    assert paired_p_value(others, mine) == pytest.approx(2 / 2**4), "two-sided"
    assert paired_p_value({"a": None}, {"a": 0.5}) is None


def test_a_class_that_a_case_does_not_have_does_not_count_in_its_mean():
    nowhere, half = overlap_metrics(Counts(0, 0, 0, 100)), overlap_metrics(Counts(50, 50, 50, 1000))
    assert nowhere.dice is None
    both = summarize(
        [CaseSummary(case="a", metrics={"1": half, "2": nowhere}), CaseSummary(case="b", metrics={"2": nowhere})]
    )
    assert case_means(both) == {"a": pytest.approx(0.5), "b": None}
