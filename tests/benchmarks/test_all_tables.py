"""benchmarks/all_tables.py and table_commands.py: which tables are run, with which rows, and how long they take."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import all_tables
import atria
import contest
import encoder_weights
import fusions
import pretraining
import pytest
import smaller_recipes
import sparse_vessels
import stacks_and_slices
import super_image_grids
import table_commands
from claims import CLAIMS
from table_commands import COMMANDS, COSTS, ENCODER, PREPARATION_SECONDS, SPARE, Trainings

from seg25d.core.files import read_json
from seg25d.planning.recipe_names import PLACES
from seg25d.training.config import apply_settings, length_settings
from seg25d.training.recipes import RECIPES, find_recipe

CONTESTS = {module.__name__: module for module in (atria, stacks_and_slices, sparse_vessels, super_image_grids)}


@pytest.fixture(autouse=True)
def _forget_smaller_recipes() -> Iterator[None]:
    """What a script makes known is not known to other tests."""
    yield
    for name in smaller_recipes.SMALLER:
        PLACES.pop(name, None)
        RECIPES.pop(name, None)


def rows_of(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, encoder: Path) -> list[str]:
    """The rows that a command trains, as its own parser and its own code have it."""
    script, *arguments = (str(encoder) if word == ENCODER else word for word in words)
    name = script.removesuffix(".py")
    if "--output" not in arguments:
        arguments += ["--output", "FILE.json"]
    if name in CONTESTS:
        found: dict[str, Any] = {}
        module: ModuleType = CONTESTS[name]
        monkeypatch.setattr(module, "compete", lambda rows, table, options: found.update(rows=rows, only=options.only))
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        module.main()
        known = [row.name for row in found["rows"]]
        assert set(found["only"] or ()) <= set(known)
        return found["only"] or known
    if name == "fusions":
        options = fusions.make_parser().parse_args(arguments)
        return [*fusions.UNTRAINED, fusions.NETWORK, *([] if options.without_ablation else [fusions.ABLATION])]
    if name == "pretraining":
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        return [row.name for row in pretraining.read_options()[1]]
    assert name in ("network_costs", "encoder_weights")
    return []


def test_every_claim_is_tested_by_rows_that_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tmp_path / Path(ENCODER).name
    encoder.touch()
    rows = {name: rows_of(command.words, monkeypatch, encoder) for name, command in COMMANDS.items()}
    claimed = [(claim, table) for claim in CLAIMS for table in (claim.table, *claim.beside)]
    for claim, table in claimed:
        first, second = table.split(" + ")[0], table.split(" + ")[-1]
        for contrast in claim.contrasts:
            assert contrast.first in rows[first], (claim.sentence, first)
            assert contrast.second in rows[second], (claim.sentence, second)
    assert set(rows) - {name for _, table in claimed for name in table.split(" + ")} == {
        *("network_costs", "encoder_27_updates")
    }
    (short,) = [claim for claim in CLAIMS if claim.incomparable]
    words = COMMANDS[short.table].words
    assert short.incomparable.startswith(f"{words[words.index('--iterations') + 1]} of 30,000 updates")


def test_planner_networks_do_not_decide_what_is_said_of_published_ones() -> None:
    (claim,) = [claim for claim in CLAIMS if claim.sentence.startswith("stacks are above slices")]
    assert "shivdeo2021_64" in COMMANDS[claim.table].words


def test_paired_rows_share_views_or_drawn_cases() -> None:
    for claim in CLAIMS:
        scripts = {COMMANDS[name].words[0] for name in claim.table.split(" + ")}
        shared = scripts <= {"fusions.py", "pretraining.py"} and " + " not in claim.table
        assert claim.paired == shared, claim.sentence


def test_random_directions_are_drawn_often() -> None:
    """Directions of random 2.5D are drawn for each epoch, and an epoch of the recipe is longer than these runs."""
    words = list(COMMANDS["vessels_902_updates"].words)
    options = contest.make_parser("", "902").parse_args([*words[1:], "--output", "FILE.json"])
    recipe = find_recipe(options.recipe)
    lengths = length_settings(None, options.iterations, None, recipe.iterations_per_epoch)
    changes = lengths | dict(pair.split("=", 1) for pair in options.set)
    config = apply_settings(recipe, changes)
    assert config.length.updates == options.iterations
    assert options.iterations / config.length.per_epoch >= 10
    assert options.iterations / apply_settings(recipe, lengths).length.per_epoch < 2, "without the settings"
    assert config.early_stopping is None, "so that updates are equal"
    told = sparse_vessels.told_of_epochs(options.set)
    assert f"have {config.iterations_per_epoch} updates instead of {recipe.iterations_per_epoch}, and no" in told
    assert sparse_vessels.told_of_epochs([]) == ""


def test_rows_that_are_counted_for_the_time_are_those_that_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = tmp_path / Path(ENCODER).name
    encoder.touch()
    for name, command in COMMANDS.items():
        script = command.words[0].removesuffix(".py")
        trained = rows_of(command.words, monkeypatch, encoder)
        if script in CONTESTS or name == "pretrained_4_updates":
            assert sum(each.number for each in command.trainings) == table_commands.SEEDS * len(trained), name
        if "--iterations" in command.words and script in CONTESTS:
            wanted = int(command.words[command.words.index("--iterations") + 1])
            assert {each.updates for each in command.trainings} == {wanted}, name
        if "--time-budget" in command.words:
            wanted = int(command.words[command.words.index("--time-budget") + 1].removesuffix("s"))
            assert {each.seconds for each in command.trainings} == {wanted}, name


def test_all_tables_but_the_last_fit_into_six_hours() -> None:
    known = list(COMMANDS)
    assert tuple(known[-len(SPARE) :]) == SPARE
    total = PREPARATION_SECONDS + sum(COMMANDS[name].seconds for name in known if name not in SPARE)
    assert total < 6 * 3600
    assert {each.kind for command in COMMANDS.values() for each in command.trainings} == set(COSTS)


def test_seconds_by_hand() -> None:
    cost = COSTS["27 2d"]
    assert Trainings("27 2d", 3, updates=100).total_seconds == pytest.approx(3 * (100 * cost.update + cost.rest))
    assert Trainings("27 2d", 2, seconds=60).total_seconds == pytest.approx(2 * (60 + cost.rest))
    assert COMMANDS["network_costs"].seconds == 60


def test_patterns_choose_by_names_and_their_parts() -> None:
    everything = set(COMMANDS)
    assert set(all_tables.chosen([])) == everything
    timed, updates = set(all_tables.chosen(["time"])), set(all_tables.chosen(["updates"]))
    assert "grids_4_time" in timed
    assert not timed & updates
    assert everything - timed - updates == {"network_costs"}
    assert set(all_tables.chosen(["grids_*", "network_costs"])) == {
        *("grids_4_updates", "grids_4_time", "grids_27_updates", "network_costs")
    }
    assert list(all_tables.chosen(["time", "updates"])) == [name for name in COMMANDS if name != "network_costs"]
    with pytest.raises(SystemExit, match="no table is named by tim; there are network_costs, grids_4_updates"):
        all_tables.chosen(["time", "tim"])


def test_the_list_tells_minutes_sources_and_what_was_taken() -> None:
    wanted = all_tables.chosen(["grids_4_time"])
    text = all_tables.describe(wanted, {"grids_4_time": 600})
    minutes = wanted["grids_4_time"].seconds / 60
    assert f"grids_4_time: {minutes:.0f} min, took 10; 3D against super images" in text
    words = "--dataset 4 --layouts 6x8 24x2 2x24 --only 3D '6 x 8' --time-budget 120s"
    assert f"python benchmarks/super_image_grids.py {words}" in text
    total = (PREPARATION_SECONDS + wanted["grids_4_time"].seconds) / 3600
    assert f"in all, with {PREPARATION_SECONDS / 60:.0f} min for the data: {total:.1f} h" in text
    assert COSTS["4 3d"].source in text
    assert "27 2d" not in text


def test_only_what_is_needed_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(all_tables, "run", lambda words: calls.append(" ".join(words)))
    monkeypatch.setattr(all_tables, "write_vessels_dataset", lambda folder, **_: calls.append(folder.name))
    all_tables.prepare(tmp_path, all_tables.chosen(["stacks_27_updates"]))
    assert len(calls) == 1
    assert "-d 27 -c 2d 3d si stack mv mv__rstn --recipe default" in calls[0]
    assert "--cpu-gflops 64 --gpu-memory-gb 8 --device cpu" in calls[0]
    calls.clear()
    all_tables.prepare(tmp_path, all_tables.chosen(["vessels_902_*"]))
    assert calls[0] == all_tables.SMALL_VESSELS
    assert [call for call in calls if "plan_and_preprocess" in call] == calls[1:]
    assert "-d 902 -c 3d 2d mip --recipe angermann2022" in calls[1]
    calls.clear()
    all_tables.prepare(tmp_path, all_tables.chosen(["network_costs"]))
    assert calls == []
    all_tables.prepare(tmp_path, all_tables.chosen(["4"]))
    recipes = ["default", "xia2018", "sobirov2022", "sobirov2022_pta"]
    assert [call.split("--recipe ")[1].split()[0] for call in calls[:4]] == recipes
    assert "--recipe shivdeo2021_64 sobirov2022_atria_32 sobirov2022_atria64_32" in calls[4]


def test_a_table_goes_into_its_file_and_its_seconds_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(all_tables, "run", lambda words: calls.append(words) or True)
    times = iter([0.0, 30.0, 100.0, 112.0, 200.0, 201.0])
    monkeypatch.setattr(all_tables, "time", SimpleNamespace(monotonic=lambda: next(times)))
    workspace, known = tmp_path / "workspace", COMMANDS
    for name in ("grids_4_time", "grids_4_time", "encoder_27_updates"):
        all_tables.run_table(name, known[name], workspace, tmp_path)
    assert read_json(tmp_path / "seconds.json") == {"grids_4_time": 42, "encoder_27_updates": 1}
    assert set(read_json(tmp_path / all_tables.FINISHED)) == {"grids_4_time", "encoder_27_updates"}
    assert calls[0][-4:] == ["--workspace", str(workspace), "--output", str(tmp_path / "grids_4_time.json")]
    # The encoder is no table: its file lies in the workspace, where the next command looks for it.
    assert calls[2].count("--output") == 1
    made = calls[2][calls[2].index("--output") + 1]
    assert made == ENCODER.replace("WORKSPACE", str(workspace))
    assert made in [word.replace("WORKSPACE", str(workspace)) for word in known["pretrained_4_updates"].words]
    assert list(known).index("encoder_27_updates") < list(known).index("pretrained_4_updates")
    assert encoder_weights.NETWORK == pretraining.RESNET


def test_what_is_finished_is_not_run_again_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = all_tables.chosen(["grids_4_*", "encoder_27_updates", "pretrained_4_updates"])
    assert all_tables.still_to_run(wanted, None) == wanted
    assert all_tables.still_to_run(wanted, tmp_path) == wanted
    monkeypatch.setattr(all_tables, "run", lambda _: True)
    for name, command in wanted.items():
        all_tables.run_table(name, command, tmp_path / "workspace", tmp_path)
    assert all_tables.still_to_run(wanted, tmp_path) == wanted, "without their files nothing is finished"
    for name in wanted:
        (tmp_path / f"{name}.json").touch()
    assert all_tables.still_to_run(wanted, tmp_path) == {}
    # The encoder is for another table alone, and is made again where that one goes on.
    (tmp_path / "pretrained_4_updates.json").unlink()
    assert list(all_tables.still_to_run(wanted, tmp_path)) == ["encoder_27_updates", "pretrained_4_updates"]
    alone = all_tables.chosen(["encoder_27_updates"])
    assert all_tables.still_to_run(alone, tmp_path) == alone, "asked for by name"
    # Another length is another table.
    longer = wanted["grids_4_time"]._replace(words=(*wanted["grids_4_time"].words, "--seeds", "0"))
    assert list(all_tables.still_to_run({"grids_4_time": longer}, tmp_path)) == ["grids_4_time"]


def test_a_command_that_is_interrupted_has_taken_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> bool:
        raise KeyboardInterrupt

    monkeypatch.setattr(all_tables, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        all_tables.run_table("grids_4_time", COMMANDS["grids_4_time"], tmp_path / "workspace", tmp_path)
    assert not (tmp_path / all_tables.FINISHED).exists()
    assert "grids_4_time" in read_json(tmp_path / all_tables.SECONDS)


def test_what_fails_does_not_stop_the_others_and_is_told_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(words: list[str]) -> bool:
        return "xia2018" not in words and Path(words[-1]).name != "grids_4_updates.json"

    monkeypatch.setattr(all_tables, "run", run)
    words = ["--workspace", str(tmp_path), "--output", str(tmp_path / "papers"), "--only", "grids_4_*", "network_costs"]
    monkeypatch.setattr(sys, "argv", ["all_tables.py", *words])
    with pytest.raises(SystemExit) as end:
        all_tables.main()
    first, plans, table = str(end.value).splitlines()
    assert first.startswith("error: these failed, the others are done")
    assert "-m seg25d plan_and_preprocess -d 4 -c mv --recipe xia2018" in plans
    assert table.strip() == "grids_4_updates"
    done, spent = (set(read_json(tmp_path / "papers" / name)) for name in (all_tables.FINISHED, all_tables.SECONDS))
    assert done == {"network_costs", "grids_4_time"}
    assert spent == {*done, "grids_4_updates"}


@pytest.mark.parametrize(("words", "well"), [(["-c", "pass"], True), (["-c", "raise SystemExit(3)"], False)])
def test_a_process_ends_well_or_not(words: list[str], well: bool) -> None:
    assert all_tables.run(words) == well


def test_calls_at_once_lose_no_entry_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_tables, "run", lambda _: True)
    names = [name for name in COMMANDS if name != "encoder_27_updates"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: all_tables.run_table(name, COMMANDS[name], tmp_path, tmp_path / "papers"), names))
    assert set(read_json(tmp_path / "papers" / all_tables.FINISHED)) == set(names)
    assert set(read_json(tmp_path / "papers" / all_tables.SECONDS)) == set(names)
