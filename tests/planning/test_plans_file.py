"""A configuration that cannot be read is named and left out; the others work, and nothing of the file is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import write_record
from seg25d.planning.plan import Plans
from seg25d.planning.planner import plan_dataset
from seg25d.planning.plans_file import read_plans, save_plans
from seg25d.planning.recipe_rules import DEFAULT_RULES
from seg25d.planning.revision import revise_plans
from seg25d.runs.names import find_configuration, with_network
from seg25d.workflows.preparation import keep_network
from tests.planning import published_fingerprints as published

DATA = published.make_fingerprint(published.PUBLISHED["tiny"])
OPTIONS: dict[str, Any] = {"gpu_memory_gb": 8.0, "rules": DEFAULT_RULES, "plans_name": "plans"}


@pytest.fixture
def plans(bytes_per_voxel: None) -> Plans:
    return plan_dataset(*DATA, configurations=["axial", "si"])


@pytest.fixture
def edited(plans: Plans, tmp_path: Path) -> Callable[..., Path]:
    """Makes a file of plans in which keys of `si`, or of a configuration `other` like it, have other values."""

    def edit(name: str = "si", **changes: Any) -> Path:
        path = tmp_path / "plans.json"
        write_record(path, plans)
        content = json.loads(path.read_text())
        content["configurations"][name] = content["configurations"]["si"] | changes
        path.write_text(json.dumps(content))
        return path

    return edit


def test_sound_plans_are_read_and_written_as_they_are(plans: Plans, tmp_path: Path) -> None:
    write_record(tmp_path / "plans.json", plans)
    assert read_plans(tmp_path / "plans.json") == plans
    save_plans(tmp_path / "again.json", read_plans(tmp_path / "plans.json"))
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "plans.json").read_bytes()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        (
            {"representation": {"name": "cubes", "edge": 3}},
            "configurations.si.representation: Value error, there is no representation with the name 'cubes'; known: "
            "slices, super_image",
        ),
        ({"representation": {"grid": [2, 2]}}, "there is no representation with no name"),
        ({"representation": 3}, "configurations.si.representation"),
        ({"representation": {"name": "super_image", "rows": 3}}, "configurations.si.representation.rows: Extra"),
        ({"network": {"name": "transformer"}}, "there is no network with the name 'transformer'; known: unet, se_unet"),
        ({"window": [0, 4, 4]}, "configurations.si.window.0"),
        ({"store": "elsewhere"}, "configurations.si.store is 'elsewhere'"),
        ({"batch": 3}, "configurations.si.batch: Extra inputs"),
    ],
)
def test_what_cannot_be_read_is_named_and_left_out(
    edited: Callable[..., Path], caplog: pytest.LogCaptureFixture, changes: dict[str, Any], place: str
) -> None:
    path = edited(**changes)
    plans = read_plans(path)
    assert list(plans.configurations) == ["axial"]
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    for words in (record.getMessage(), plans.unreadable["si"].reason):
        assert str(path) in words
        assert place in words
    # Once, however often the file is read.
    assert read_plans(path) == plans
    assert len(caplog.records) == 1


def test_asking_for_it_is_an_error_that_names_place_and_cure(edited: Callable[..., Path]) -> None:
    plans = read_plans(edited(batch_size=0))
    assert find_configuration(plans, "2d")[0] == "axial"
    message = r"plans\.json is not valid:\n  configurations\.si\.batch_size: .*\nCorrect it, or delete"
    with pytest.raises(RecordError, match=message):
        find_configuration(plans, "si")
    with pytest.raises(RecordError, match=message):
        with_network(plans, "si", "unet")
    with pytest.raises(RecordError, match=message):
        revise_plans(plans, *DATA, configurations=("si",), **OPTIONS)
    other = read_plans(edited("si__vnet", network={"name": "vnet", "depth": 9}))
    assert with_network(other, "si", "se_unet") == "si__se_unet"
    with pytest.raises(RecordError, match=r"configurations\.si__vnet\.network"):
        with_network(other, "si", "vnet")


def test_wrong_values_for_all_are_an_error(edited: Callable[..., Path]) -> None:
    path = edited()
    path.write_text(path.read_text().replace('"slice_axis": 0', '"slice_axis": 3'))
    with pytest.raises(RecordError, match="slice_axis"):
        read_plans(path)
    for text in ("[]", "{}", '{"configurations": []}'):
        path.write_text(text)
        with pytest.raises(RecordError, match=r"plans\.json"):
            read_plans(path)


def test_nothing_is_lost_when_others_are_added(edited: Callable[..., Path]) -> None:
    path = edited("foreign", representation={"name": "cubes"})
    before = json.loads(path.read_text())["configurations"]
    plans = read_plans(path)
    keep_network(
        path, plans.model_copy(update={"configurations": {"si__vnet": plans.configurations["si"]}}), "si__vnet"
    )
    after = json.loads(path.read_text())["configurations"]
    assert after == before | {"si__vnet": before["si"]}
    revised = revise_plans(read_plans(path), *DATA, configurations=("coronal",), **OPTIONS)
    save_plans(path, revised)
    assert list(json.loads(path.read_text())["configurations"]) == ["axial", "si", "si__vnet", "coronal", "foreign"]


def test_a_wrong_edit_is_not_planned_over_unless_everything_is(
    edited: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    stored = read_plans(edited(batch_size=0))
    kept = revise_plans(stored, *DATA, configurations=None, **OPTIONS)
    assert "si" not in kept.configurations
    assert {"axial", "3d"} <= set(kept.configurations)
    assert list(kept.unreadable) == ["si"]
    anew = revise_plans(stored, *DATA, configurations=("axial",), **OPTIONS | {"gpu_memory_gb": 6.0})
    assert set(anew.configurations) == {"axial", "si"}
    assert not anew.unreadable
    assert "without any edits" in caplog.text


def test_what_cannot_be_planned_again_is_not_thrown_away(edited: Callable[..., Path]) -> None:
    stored = read_plans(edited("foreign", representation={"name": "cubes"}))
    with pytest.raises(InputError, match=r"does not know foreign: delete it from the file, .*--clean.*--plans-name"):
        revise_plans(stored, *DATA, configurations=("axial",), **OPTIONS | {"gpu_memory_gb": 6.0})
