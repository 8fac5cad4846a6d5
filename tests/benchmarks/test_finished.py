"""benchmarks/finished.py: what a file keeps of trainings, and what it says of them together."""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from finished import (
    facts_of,
    find_training,
    keep_training,
    known_dataset,
    over_trainings,
    plan_digest,
    planned_digest,
    read_trainings,
)
from result_tables import Table, write_tables

from seg25d.core.files import read_json, write_json
from seg25d.core.records import read_record
from seg25d.data.phantom import DATASET_NAME
from seg25d.planning.plan import Plans

MACHINE = {"device": "Processor X", "cores": 2, "threads": 1, "versions": {"torch": "2.13.0"}}


def training(name: str, seed: int, **facts: Any) -> dict[str, Any]:
    """A finished training whose figures are those of its seed."""
    return {
        "table": "duel",
        "name": name,
        "settings": {"dataset": "4", "iterations": "80", "seeds": str(seed)},
        "dataset": "Dataset004_Hippocampus",
        "seed": seed,
        "machine": MACHINE,
        "cases": ["a", "b"],
        "scores": {"dice": [0.5 + seed / 10, None]},
        "iterations": [80, 40],
        "training_s": [60.0 + seed, 30.0],
        "seconds_per_update": 1.0 + seed,
        "training_memory_gb": 1.0 + seed,
        "cost": {"num_parameters": 7, "seconds_per_case": 1.0 + seed, "flops_per_case": 3.0},
        **facts,
    }


def test_a_training_is_found_by_table_name_and_settings(tmp_path: Path) -> None:
    output = tmp_path / "results" / "duel.json"
    wanted = training("one", 0)
    assert find_training(output, wanted) is None
    assert read_trainings(output) == []
    assert known_dataset(output, "4") is None
    keep_training(output, wanted)
    keep_training(output, training("one", 1))
    assert find_training(output, training("one", 0)) == wanted
    for other in (
        training("two", 0),
        training("one", 2),
        training("one", 0, table="another"),
        training("one", 0, settings={**wanted["settings"], "iterations": "90"}),
    ):
        assert find_training(output, other) is None
    assert known_dataset(output, "4") == "Dataset004_Hippocampus"
    assert known_dataset(output, "27") is None


def test_another_plan_is_another_training_where_one_is_planned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "duel.json"
    keep_training(output, training("one", 0, plan="first"))
    assert find_training(output, training("one", 0, plan="first")) is not None
    assert find_training(output, training("one", 0, plan=None)) is not None, "nothing is planned here"
    for _ in range(2):
        assert find_training(output, training("one", 0, plan="second")) is None
    assert [record.getMessage() for record in caplog.records] == [
        "one, seed 0: trained by another plan than second; it does not count"
    ]
    # Of earlier versions, which did not note the plan.
    keep_training(output, training("two", 0))
    assert find_training(output, training("two", 0, plan=None)) is not None
    assert find_training(output, training("two", 0, plan="first")) is None


def test_all_settings_but_places_distinguish_a_training() -> None:
    options = argparse.Namespace(
        dataset="4", iterations=80, time_budget=None, set=["a=1"], seeds=[0, 1], output=Path("x"), workspace=Path("y")
    )
    facts = facts_of("duel", "one", 1, options, "plan", set=["a=1", "b=2"], labels=10)
    assert facts == {
        "table": "duel",
        "name": "one",
        "seed": 1,
        "settings": {"dataset": "4", "iterations": "80", "set": "['a=1', 'b=2']", "seeds": "1", "labels": "10"},
        "plan": "plan",
    }
    assert "iterations" not in facts_of("duel", "one", 1, options, iterations=None)["settings"]


def test_trainings_that_end_at_once_are_all_kept(tmp_path: Path) -> None:
    output = tmp_path / "results" / "duel.json"
    table = Table("duel", "A duel", {"": lambda row: row["name"]})
    with ThreadPoolExecutor(8) as pool:
        kept = [pool.submit(keep_training, output, training("one", seed)) for seed in range(16)]
        kept.append(pool.submit(write_tables, table, [], {"settings": {"device": "cpu"}}, output))
    assert all(each.exception() is None for each in kept)
    assert sorted(each["seed"] for each in read_trainings(output)) == list(range(16))


def test_the_digest_is_that_of_the_plan_that_there_is(trained_once: Path) -> None:
    path = trained_once / "preprocessed" / DATASET_NAME / "plans.json"
    plans = read_record(path, Plans)
    assert planned_digest(path, "2d") == plan_digest(plans.configurations["axial"])
    assert planned_digest(path, "si") not in (None, planned_digest(path, "2d"))
    assert planned_digest(path, "stack") is None, "not planned"
    assert planned_digest(path.with_name("none.json"), "2d") is None
    assert plan_digest(plans.configurations["si"]) != plan_digest(*plans.configurations.values())


def test_a_training_takes_the_place_of_its_earlier_record_and_all_else_stays(tmp_path: Path) -> None:
    output = tmp_path / "duel.json"
    write_json(output, {"title": "A duel", "rows": [1]})
    for each in (training("one", 0), training("two", 0), training("one", 0, plan="new")):
        keep_training(output, each)
    document = read_json(output)
    assert (document["title"], document["rows"]) == ("A duel", [1])
    assert [(each["name"], each.get("plan")) for each in document["trainings"]] == [("two", None), ("one", "new")]


def test_a_table_that_is_written_leaves_the_trainings_in_its_file(tmp_path: Path) -> None:
    output = tmp_path / "duel.json"
    keep_training(output, training("one", 0))
    table = Table("duel", "A duel", {"": lambda row: row["name"]})
    write_tables(table, [{"name": "one"}], {"settings": {"device": "cpu"}}, output)
    assert read_trainings(output) == [training("one", 0)]
    assert read_json(output)["rows"] == [{"name": "one"}]


def test_one_row_of_several_trainings_by_hand() -> None:
    other = {**MACHINE, "threads": 2}
    merged = over_trainings([training("one", 0), training("one", 2, machine=other)])
    assert merged == {
        "seeds": [0, 2],
        "machines": [MACHINE, other],
        "scores": {"dice": [[0.5, None], [0.7, None]]},
        "iterations": 120,
        "training_s": 91.0,
        "seconds_per_update": 2.0,
        "training_memory_gb": 3.0,
        "cases": ["a", "b"],
        "cost": {"num_parameters": 7, "seconds_per_case": 2.0, "flops_per_case": 3.0},
    }


def test_scores_that_one_training_lacks_are_left_out_and_other_cases_are_refused() -> None:
    more = training("one", 1, scores={"dice": [0.1, 0.2], "area": [1.0, 2.0]})
    assert list(over_trainings([more, training("one", 0)])["scores"]) == ["dice"]
    assert list(over_trainings([training("one", 0), more])["scores"]) == ["dice"]
    with pytest.raises(SystemExit, match=r"expected the same validation cases .* of one, got 2 with seed 0"):
        over_trainings([training("one", 0), training("one", 1, cases=["a", "c"])])
