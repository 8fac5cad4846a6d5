import json

import pytest

from seg25d.core.records import read_record, write_record
from seg25d.evaluation.metrics import Counts, overlap_metrics
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.evaluation.surfaces import SurfaceScores

ABSENT = overlap_metrics(Counts(0, 0, 0, 100))


def case(name, **metrics):
    return CaseSummary(case=name, metrics={label.removeprefix("l"): each for label, each in metrics.items()})


def measured(counts, hd95_mm, surface_dice):
    return overlap_metrics(counts, surfaces=SurfaceScores(hd95_mm, surface_dice))


def test_means_by_hand():
    summary = summarize(
        [
            case("b", l1=measured(Counts(8, 2, 2, 88), 2.0, 0.9), l2=ABSENT),
            case(
                "a",
                l1=measured(Counts(6, 4, 4, 86), 4.0, 0.7),
                l2=measured(Counts(1, 1, 1, 97), 9.0, 0.1),
            ),
        ]
    )
    assert [each.case for each in summary.per_case] == ["a", "b"]
    assert summary.mean["1"].dice == pytest.approx((0.8 + 0.6) / 2)
    assert summary.mean["1"].hd95_mm == pytest.approx(3.0)
    # Label 2 is in neither file of b, so a alone counts.
    assert summary.mean["2"].dice == pytest.approx(0.5)
    assert summary.foreground_mean.dice == pytest.approx((0.7 + 0.5) / 2)
    assert summary.foreground_mean.hd95_mm == pytest.approx(6.0)


def test_a_class_absent_everywhere_does_not_spoil_the_mean():
    summary = summarize([case("a", l1=measured(Counts(1, 0, 0, 9), 0.0, 1.0), l2=ABSENT)])
    assert summary.mean["2"].dice is None
    assert summary.foreground_mean.dice == 1


def test_no_cases_give_no_scores():
    summary = summarize([])
    assert summary.mean == {}
    assert summary.foreground_mean.dice is None


def test_the_file_has_the_promised_keys(tmp_path):
    summary = summarize([case("a", l1=measured(Counts(1, 0, 0, 9), 0.0, 1.0), l2=ABSENT)])
    write_record(tmp_path / "summary.json", summary)
    value = json.loads((tmp_path / "summary.json").read_text())
    assert set(value) == {"foreground_mean", "mean", "per_case", "surface_tolerance_mm"}
    assert {"dice", "hd95_mm", "precision", "recall", "iou"} <= set(value["foreground_mean"])
    assert {"dice", "hd95_mm", "precision", "recall", "iou"} <= set(value["mean"]["1"])
    assert value["per_case"][0]["case"] == "a"
    scores = {"dice", "hd95_mm", "precision", "recall", "iou", "mean_accuracy", "tp", "fp", "fn", "tn"}
    scores |= {"mean_iou", "surface_dice", "lesion_f1", "volume_error_ml", "volume_error_percent"}
    scores |= {f"num_{kind}_components" for kind in ("true", "found", "missed", "false")}
    assert set(value["per_case"][0]["metrics"]["1"]) == scores
    assert value["per_case"][0]["metrics"]["2"]["dice"] is None
    assert read_record(tmp_path / "summary.json", Summary) == summary


def test_files_of_earlier_versions_are_read(tmp_path):
    scores = dict.fromkeys(["dice", "hd95_mm", "precision", "recall", "iou", "mean_accuracy"], 0.5)
    metrics = scores | {"tp": 1, "fp": 1, "fn": 1, "tn": 7}
    earlier = {"foreground_mean": scores, "mean": {"1": scores}, "per_case": [{"case": "a", "metrics": {"1": metrics}}]}
    (tmp_path / "summary.json").write_text(json.dumps(earlier))
    summary = read_record(tmp_path / "summary.json", Summary)
    assert summary.foreground_mean.dice == 0.5
    assert summary.foreground_mean.surface_dice is None
    assert summary.per_case[0].metrics["1"].num_true_components is None
    # Summed up anew, as for cross-validation, they do not claim a tolerance.
    assert summarize(summary.per_case).surface_tolerance_mm is None
