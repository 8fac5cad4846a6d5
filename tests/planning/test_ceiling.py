"""What the ceiling of projections advises, which cases say it, and when it has to be measured again."""

import pytest
import torch

from seg25d.core.records import RecordError, parse_record
from seg25d.data.labels import Labels
from seg25d.planning.ceiling import choose_cases, lacks_ceiling, with_ceiling
from seg25d.planning.explanation import explain
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.planning.planner import plan_dataset
from seg25d.representations.projections.ceiling import NOT_MEASURED
from tests.planning import published_fingerprints as published

DATA = published.make_fingerprint(published.Published((6, 24, 16), ((9, (3.0, 1.0, 1.0)),), ("MRI",), 2))
LABELS = Labels(names={"background": 0, "vessels": 4, "organ": 9})


@pytest.fixture
def plans(bytes_per_voxel: None) -> Plans:
    return plan_dataset(*DATA, configurations=["si", "mip"])


@pytest.fixture
def plan(plans: Plans) -> ConfigurationPlan:
    return plans.configurations["mip"]


def fingerprint_of(voxels: dict[str, dict[str, int]]) -> Fingerprint:
    """Cases with so many voxels per class."""
    fingerprint: Fingerprint = DATA[0]
    case = fingerprint.cases[0]
    cases = tuple(case.model_copy(update={"case": name, "voxels": each}) for name, each in voxels.items())
    return fingerprint.model_copy(update={"cases": cases})


def test_without_images_there_is_no_ceiling_and_the_reason_says_so(plans: Plans) -> None:
    assert plans.configurations["mip"].ceiling is None
    assert plans.configurations["mip"].reasons["ceiling"] == NOT_MEASURED
    assert "ceiling" not in plans.configurations["si"].reasons


@pytest.mark.parametrize(
    ("dice", "advice"),
    [
        ({"4": 0.95, "9": 0.98}, "0.95 (vessels), 0.98 (organ): as far as its views are concerned, mip is a good"),
        (
            {"4": 0.97, "9": 0.9494},
            "0.95 (organ), 0.97 (vessels): mip can be tried, but its views lose a part of organ",
        ),
        ({"4": 0.97, "9": 0.85}, "0.85 (organ), 0.97 (vessels): mip can be tried"),
        ({"4": 0.97, "9": 0.62}, "0.62 (organ), 0.97 (vessels): mip is not advised for organ (below 0.85"),
        ({"4": 0.97, "9": None}, "0.97 (vessels); not in the cases looked at: organ: as far as"),
    ],
)
def test_the_advice_follows_the_worst_class(
    plan: ConfigurationPlan, dice: dict[str, float | None], advice: str
) -> None:
    explained = with_ceiling(plan, dice, LABELS)
    assert advice in explained.reasons["ceiling"]
    assert explained.ceiling is not None
    assert explained.ceiling.dice == {name: value and round(value, 3) for name, value in dice.items()}
    assert set(explained.reasons) == set(plan.reasons)


@pytest.mark.usefixtures("bytes_per_voxel")
def test_mip_is_no_good_choice_for_a_single_slice() -> None:
    data = published.Published((1, 24, 16), ((9, (1.0, 1.0, 1.0)),), ("MRI",), 2)
    fingerprint, description = published.make_fingerprint(data)
    first, *others = fingerprint.cases
    fingerprint = fingerprint.model_copy(update={"cases": (first.model_copy(update={"shape": (2, 24, 16)}), *others)})
    single = plan_dataset(fingerprint, description, configurations=["mip"]).configurations["mip"]
    reason = with_ceiling(single, {"4": 1.0, "9": 1.0}, LABELS).reasons["ceiling"]
    assert "good choice" not in reason
    assert "that says little here, as the volumes have a single slice" in reason


def test_the_ceiling_is_told_by_explain_and_survives_its_file(plans: Plans, plan: ConfigurationPlan) -> None:
    explained = plans.model_copy(update={"configurations": {"mip": with_ceiling(plan, {"4": 0.5}, LABELS)}})
    assert "ceiling: perfect views" in explain(explained)
    assert parse_record(explained.model_dump(mode="json"), Plans, "plans.json") == explained


def test_regions_are_told_by_their_names(plan: ConfigurationPlan) -> None:
    regions = Labels(names={"background": 0, "whole": (1, 2), "1": 2}, regions_class_order=(1, 2))
    reason = with_ceiling(plan, {"whole": 0.9, "1": 0.97}, regions).reasons["ceiling"]
    assert "0.90 (whole), 0.97 (1)" in reason


def test_of_many_classes_the_worst_are_told(plan: ConfigurationPlan) -> None:
    many = Labels(names={"background": 0} | {f"bone {value}": value for value in range(1, 21)})
    dice = {str(value): 1 - value / 100 for value in range(1, 21)}
    reason = with_ceiling(plan, dice, many).reasons["ceiling"]
    assert "of 0.80 (bone 20), 0.81 (bone 19), 0.82 (bone 18)" in reason
    assert "0.85 (bone 15) and 14 more" in reason
    assert "not advised for bone 20, bone 19, bone 18, bone 17, bone 16 (below" in reason


def test_nobody_looked(plan: ConfigurationPlan) -> None:
    explained = with_ceiling(with_ceiling(plan, {"4": 0.9, "9": 0.9}, LABELS), None, LABELS)
    assert explained == plan


def test_a_ceiling_belongs_to_its_projections(plans: Plans, plan: ConfigurationPlan) -> None:
    assert lacks_ceiling(plan)
    measured = with_ceiling(plan, {"4": 0.9, "9": 0.9}, LABELS)
    assert not lacks_ceiling(measured)
    for change in ({"axis": 0}, {"detector_axis": 0}, {"num_views": 18}, {"spacing_mm": (2.0, 1.0, 1.0)}):
        edited = measured.representation.model_copy(update=change)
        assert lacks_ceiling(measured.model_copy(update={"representation": edited})), change
    for change in ({"num_training_views": 6}, {"normalization": "batch"}, {"projection": "mean"}):
        edited = measured.representation.model_copy(update=change)
        assert not lacks_ceiling(measured.model_copy(update={"representation": edited})), change
    assert not lacks_ceiling(plans.configurations["si"])


def test_a_run_does_not_depend_on_what_explains_its_plan(plan: ConfigurationPlan) -> None:
    explained = with_ceiling(plan, {"4": 0.9, "9": 0.9}, LABELS)
    assert explained.decisions == plan.decisions
    assert plan.model_copy(update={"batch_size": 7}).decisions != plan.decisions


def test_plans_of_before_ceilings_can_be_read(plans: Plans) -> None:
    content = plans.model_dump(mode="json")
    for configuration in content["configurations"].values():
        del configuration["ceiling"]
    assert parse_record(content, Plans, "plans.json") == plans


def test_cases_with_classes_that_none_before_has_come_first() -> None:
    fingerprint = fingerprint_of(
        {
            "empty": {"1": 0, "2": 0, "3": 0},
            "b": {"1": 5, "2": 0, "3": 0},
            "a": {"1": 5, "2": 0, "3": 0},
            "rare": {"1": 0, "2": 0, "3": 1},
            "both": {"1": 5, "2": 5, "3": 0},
        }
    )
    assert choose_cases(fingerprint) == ("both", "rare", "a", "b")
    assert choose_cases(fingerprint, 2) == ("both", "rare")
    assert len(choose_cases(fingerprint_of({f"c{index}": {"1": 1} for index in range(9)}))) == 5


def test_of_large_cases_fewer_are_looked_at_but_all_classes() -> None:
    large = (256, 512, 512)  # half of what all may have

    def chosen(**voxels: dict[str, int]) -> tuple[str, ...]:
        fingerprint = fingerprint_of(voxels)
        cases = [case.model_copy(update={"shape": large}) for case in fingerprint.cases]
        return choose_cases(fingerprint.model_copy(update={"cases": tuple(cases)}))

    both, rare = {"1": 5, "2": 5, "3": 0}, {"1": 0, "2": 0, "3": 1}
    assert chosen(a=both, b=both, c=both) == ("a", "b")
    assert chosen(a=both, b=both, c=rare) == ("a", "c")
    assert chosen(a={"1": 1}, b={"2": 1}, c={"3": 1}) == ("a", "b", "c")


def edit(plans: Plans, window: list[int] | None = None, **changes: object) -> Plans:
    content = plans.model_dump(mode="json")
    content["configurations"]["mip"]["representation"].update(changes)
    if window:
        content["configurations"]["mip"]["window"] = window
    return parse_record(content, Plans, "plans.json")


def test_the_rotation_axis_can_be_set(plans: Plans) -> None:
    """It was H, with views of H x W and a network that halves twice."""
    item = plans.configurations["mip"]
    assert (item.window, item.representation.network_axes, item.network.divisor) == ((6, 24, 20), (1, 2), (4, 4))
    edited = edit(plans, [8, 24, 24], axis=0).configurations["mip"]
    assert edited.representation.network_axes == (0, 2)
    narrow = edited.network.model_copy(update={"widths": (2,) * len(edited.network.widths)})
    model = edited.model_copy(update={"network": narrow}).build_model(1, 3).eval()
    assert model(torch.zeros(1, 1, 8, 24, 24)).shape == (1, 3, 8, 24, 24)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": 2}, r"configurations\.mip.*detector_axis and axis are both 2.*choose another detector_axis, or null"),
        ({"axis": 3}, r"configurations\.mip\.representation\.axis: .*less than or equal to 2, got 3"),
        (
            {"axis": 0, "window": [6, 24, 24]},
            r"configurations\.mip: .*along axes \(0, 2\), got \[6, 24\]; use \[8, 24\]",
        ),
        ({"detector_axis": 0, "window": [6, 24, 24]}, r"configurations\.mip: .*along axes \(1, 0\), got \[24, 6\]"),
    ],
)
def test_a_wrong_axis_is_one_error_that_names_the_place(plans: Plans, changes: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError, match=message) as caught:
        edit(plans, **changes)  # type: ignore[arg-type]
    assert str(caught.value).count("configurations.") == 1
