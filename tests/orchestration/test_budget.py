"""A time for everything: who is compared for how long, who is dropped, and what the best gets. The clock is made up."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seg25d.cli.argument_types import duration
from seg25d.cli.main import main
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.data.splits import read_splits
from seg25d.evaluation.metrics import Metrics
from seg25d.evaluation.summary import CaseSummary, summarize
from seg25d.orchestration import budget as module
from seg25d.orchestration import comparisons
from seg25d.orchestration.budget import spend
from seg25d.orchestration.comparisons import LOOKING_SHARE
from seg25d.orchestration.engine import Job
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.journal import Journal
from seg25d.orchestration.spending import LEAST_SECONDS, START_SECONDS, Budget
from seg25d.orchestration.table import Table
from seg25d.orchestration.task import Outcome, Task, num_waves
from seg25d.orchestration.training_graph import TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.planning.plans_file import read_plans
from seg25d.runs.task_records import RunRecord, TaskRecord
from seg25d.training.checkpoint import save_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.going_on import accepted_seconds
from seg25d.workflows.options import TrainingOptions
from tests.untraced import untraced

OVERHEAD = 5.0
NAMES = ("axial", "si", "stack", "3d")
RUNS = [WantedRun(name) for name in NAMES]


class PretendedTrainings:
    """An engine whose trainings take no time but that of a made-up clock, and whose scores follow a formula."""

    name = "pretended"
    places = 1

    def __init__(self, workspace: Workspace, dice: Mapping[str, Callable[[float], float]]) -> None:
        self.workspace = workspace
        self.dice = dice
        self.now = 0.0
        self.waiting: list[Job] = []
        self.trained: dict[str, float] = {}
        """Seconds of each fold, in the order in which they were asked for last."""
        self.failing: set[str] = set()
        self.overhead = OVERHEAD
        self.fixed = 0.0
        """Of the scoring, whatever the number of passes."""
        plans = read_plans(workspace.preprocessed_dataset(DATASET_NAME).plans())
        self.passes = {name: 1 << len(plan.mirror_axes) for name, plan in plans.configurations.items()}
        self.cut_off_before = ""
        self.slowness: dict[tuple[str, int], float] = {}
        """How many times as long as its time the n-th training of a name takes, as the machine is slow just then."""
        self.begun: list[str] = []

    def clock(self) -> float:
        return self.now

    def start(self, jobs: Sequence[Job]) -> None:
        self.waiting += jobs

    def finished(self, patience_seconds: float) -> list[tuple[str, Outcome]]:
        if not self.waiting:
            return []
        job = self.waiting.pop(0)
        name, words = job.task.name, job.call.words
        if name == self.cut_off_before:
            raise KeyboardInterrupt
        if name in self.failing:
            return [(name, Outcome(status=2, message="made to fail"))]
        before, seconds = self.now, 0.0
        if words[0] == "train" and "crossval" not in name:
            asked = duration(words[words.index("--time-budget") + 1])
            assert asked >= self.trained.get(name, 0.0), "a training does not become shorter"
            passes = self.passes[words[2]] if "--quick-scores" in words else 1
            scoring = self.fixed + (self.overhead - START_SECONDS - self.fixed) / passes
            self.begun.append(name)
            slowness = self.slowness.get((name, self.begun.count(name)), 1.0)
            self.now += slowness * asked - self.trained.pop(name, 0.0) + START_SECONDS + scoring
            self.trained[name] = asked
            self._write(job, words[2], asked, slowness)
        else:
            folds = [FoldFolder(root=each.parents[1]) for each in job.task.outputs if each.parent.name == "validation"]
            refused = [each.name for each in folds if not _is_accepted(each, words)]
            if refused:
                return [(name, Outcome(status=2, message=f"not longer than what is there: {refused}"))]
            self.now += 2
        seconds = self.now - before
        record = TaskRecord(words=words, place="here", begun=before, seconds=seconds, status=0)
        write_record(job.call.folder / f"{name}.json", record)
        return [(name, Outcome(status=0, seconds=seconds))]

    def stop(self) -> None:
        self.waiting.clear()

    def _write(self, job: Job, configuration: str, seconds: float, slowness: float) -> None:
        rng = np.random.default_rng(list(configuration.encode()))
        dice = self.dice[configuration](seconds) + 0.02 * rng.standard_normal(20)
        scores = [Metrics(dice=float(np.clip(each, 0, 1)), tp=1, fp=1, fn=1, tn=1) for each in dice]
        cases = [CaseSummary(case=f"c{number:02d}", metrics={"1": each}) for number, each in enumerate(scores)]
        model, *scored = job.task.outputs
        fold = FoldFolder(root=model.parent)
        model.parent.mkdir(parents=True, exist_ok=True)
        model.touch()
        write_record(fold.config, TrainingConfig(time_budget_seconds=seconds))
        save_checkpoint(
            fold.checkpoint, {"iteration": 1, "seconds": slowness * seconds + 0.4, "finished": True, "log": []}
        )
        for summary in scored:
            write_record(summary, summarize(cases))


def _is_accepted(fold: FoldFolder, words: Sequence[str]) -> bool:
    asked = duration(words[words.index("--time-budget") + 1])
    return accepted_seconds(fold, asked) == asked


@pytest.fixture(scope="module")
def planned(three_folds, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    words = ["plan_and_preprocess", "-d", "900", "-c", *NAMES, "mv", "--plan-only", "--workspace", str(root)]
    with untraced():
        assert main([*words, "--num-processes", "0"]) == 0
    return root


@pytest.fixture
def graph(planned, tmp_path) -> TrainingGraph:
    shutil.copytree(planned, tmp_path / "workspace")
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    folder = workspace.preprocessed_dataset(DATASET_NAME)
    updates = dict.fromkeys((*NAMES, "mv"), 1.0)
    plans, splits = read_plans(folder.plans()), read_splits(folder.splits)
    return TrainingGraph(workspace, plans, splits, (0, 1, 2), TrainingOptions(), seconds_per_update=updates)


def budget_of(graph: TrainingGraph, engine: PretendedTrainings, seconds: float) -> Budget:
    path = graph.workspace.results / DATASET_NAME / "run.json"
    new = RunRecord(dataset_name=DATASET_NAME, arguments={}, on="local")
    record = read_record(path, RunRecord) if path.exists() else new
    journal = Journal(path, record, engine.clock)
    folder = path.parent / "tasks"
    return Budget(seconds, graph, Executor(engine, journal, Table(journal, folder), folder, {}))


def spent(budget: Budget, runs: Sequence[WantedRun]) -> list[WantedRun]:
    return spend(budget, runs)[1]


def curves(**best: float) -> dict[str, Callable[[float], float]]:
    """Dice that comes near its best with time."""

    def curve(top: float) -> Callable[[float], float]:
        return lambda seconds: top * seconds / (seconds + 60)

    return {name: curve(best.get(name, 0.5)) for name in (*NAMES, "mv", "coronal", "sagittal")}


def test_the_worse_are_dropped_and_the_best_gets_the_rest(graph):
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9, si=0.5, stack=0.9, **{"3d": 0.3}))
    budget = budget_of(graph, engine, 3600)
    (best,) = spent(budget, RUNS)
    record = budget.executor.journal.record
    assert best.configuration == max(record.rounds[-1].runs, key=lambda each: each.dice).name
    first = record.rounds[0]
    assert {each.name: each.kept for each in first.runs} == {"axial": True, "si": False, "stack": True, "3d": False}
    assert all(each.p_value < 0.05 for each in first.runs if not each.kept)
    assert {each.name for each in record.rounds[1].runs} == {"axial", "stack"}
    assert engine.trained["si_fold_0"] == first.runs[1].seconds
    final = record.lengths[f"folds of {best.configuration}"]
    assert [engine.trained[f"{best.configuration}_fold_{fold}"] for fold in range(3)] == [final] * 3
    assert final > 2 * record.rounds[-1].runs[0].seconds
    looking = sum(seconds for name, seconds in engine.trained.items() if not name.startswith(best.configuration))
    assert looking < LOOKING_SHARE * 3600
    assert 0.85 * 3600 < engine.now < 3600, "all of the time is used, and what choosing the best takes is left"
    assert record.decisions[0].what.startswith("round 1: si (")
    assert f"{best.configuration} gets" in record.decisions[-1].what


def test_a_configuration_gets_no_more_than_its_usual_length_and_the_next_one_then_has_its_turn(graph):
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9, stack=0.9))
    usual = graph.usual_seconds(WantedRun("axial"))
    done = spent(budget_of(graph, engine, 12 * usual), RUNS[:3:2])
    assert set(done) == {WantedRun("axial"), WantedRun("stack")}
    assert engine.trained["axial_fold_1"] == int(usual)
    alone = PretendedTrainings(graph.workspace, curves())
    shutil.rmtree(graph.workspace.results)
    assert spent(budget_of(graph, alone, 5 * usual), RUNS[:3:2]) in ([WantedRun("axial")], [WantedRun("stack")])


def test_what_does_not_fit_is_not_compared_and_one_alone_gets_everything(graph):
    engine = PretendedTrainings(graph.workspace, curves(mv=0.9))
    budget = budget_of(graph, engine, 4 * 4 * 2 * LEAST_SECONDS)
    spent(budget, [*RUNS[:3], WantedRun("mv")])
    assert len(budget.executor.journal.record.rounds) == 2, "there is no time for a third one"
    shutil.rmtree(graph.workspace.results)
    budget = budget_of(graph, PretendedTrainings(graph.workspace, curves()), 4 * 2 * LEAST_SECONDS)
    assert spent(budget, RUNS[:3]) == RUNS[:1]
    decisions = {each.what: each.reason for each in budget.executor.journal.record.decisions}
    assert "would be shorter than the scoring of its cases" in decisions["stack is not compared"]
    shutil.rmtree(graph.workspace.results)
    engine = PretendedTrainings(graph.workspace, curves())
    budget = budget_of(graph, engine, 600)
    assert spent(budget, RUNS[:1]) == RUNS[:1]
    (measured,) = budget.executor.journal.record.rounds
    assert [(each.name, each.seconds, each.overhead_seconds) for each in measured.runs] == [
        ("axial", LEAST_SECONDS, OVERHEAD)
    ]
    assert 500 < engine.now < 600


def test_where_scoring_takes_long_fewer_folds_are_trained_and_each_of_them_for_longer(graph):
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9))
    engine.overhead = 90
    budget = budget_of(graph, engine, 600)
    trained, complete = spend(budget, RUNS[:2])
    assert complete == RUNS[:1]
    assert trained.folds == (0, 1)
    assert set(engine.trained) == {"axial_fold_0", "axial_fold_1", "si_fold_0"}
    assert engine.trained["axial_fold_1"] >= engine.overhead
    assert engine.now < 600
    assert any(each.what == "2 folds of 3" for each in budget.executor.journal.record.decisions)
    assert trained.choice(complete)[0].words[4:7] == ("-f", "0", "1")


def test_those_that_no_round_has_told_apart_are_compared_once_more(graph, monkeypatch):
    """What is ahead after a short training is not what is ahead after a long one."""
    monkeypatch.setattr(comparisons, "ROUNDS", 1)
    scores = curves(si=0.3)
    scores |= {"stack": lambda seconds: 0.5, "axial": lambda seconds: 0.485 if seconds < 500 else 0.8}
    chosen = {}
    for share in (comparisons.UNDECIDED_SHARE, 0.0):
        monkeypatch.setattr(comparisons, "UNDECIDED_SHARE", share)
        budget = budget_of(graph, PretendedTrainings(graph.workspace, scores), 3600)
        (best,) = spent(budget, RUNS[:3])
        rounds = budget.executor.journal.record.rounds
        chosen[best.configuration] = [[each.name for each in done.runs] for done in rounds]
        assert rounds[-1].runs[0].seconds < 3600 / 5, "no longer than the folds of the best"
        shutil.rmtree(graph.workspace.results)
    assert chosen["axial"] == [["axial", "si", "stack"], ["stack", "axial"]]
    assert chosen["stack"] == [["axial", "si", "stack"]]


def test_what_scoring_takes_is_measured_on_the_first_fold(graph, monkeypatch):
    """Reckoned from quick scores it is too long where a part of it does not depend on the number of passes."""
    ends = {}
    for adapts in (False, True):
        engine = PretendedTrainings(graph.workspace, curves(axial=0.9))
        engine.overhead, engine.fixed = 60.0, 20.0
        if not adapts:
            monkeypatch.setattr(module, "LEAST_GAIN", 1e9)
        budget = budget_of(graph, engine, 1800)
        assert spent(budget, RUNS[:2]) == RUNS[:1]
        lengths = budget.executor.journal.record.lengths
        assert len({engine.trained[f"axial_fold_{fold}"] for fold in range(3)}) == 1
        ends[adapts] = engine.now
        assert lengths["scoring of axial"] == pytest.approx(60, abs=1)
        decisions = {each.reason for each in budget.executor.journal.record.decisions}
        assert ("scoring a fold takes 1 min 0 s, less than was reckoned" in decisions) == adapts
        shutil.rmtree(graph.workspace.results)
        monkeypatch.undo()
    assert ends[False] < 0.85 * 1800
    assert 0.9 * 1800 < ends[True] < 1800


@pytest.mark.parametrize("share", [0.9, 1.0])
def test_a_first_fold_that_was_cut_off_does_not_make_scoring_look_short(share, graph, monkeypatch):
    """What an earlier call trained is not counted, and where it trained everything nothing is known."""
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9))
    engine.overhead, engine.fixed = 60.0, 20.0
    budget = budget_of(graph, engine, 1800)

    def so_far(folder: FoldFolder) -> float:
        asked = budget.executor.journal.record.lengths["folds of axial"]
        engine.trained["axial_fold_0"] = float(int(share * asked))
        return engine.trained["axial_fold_0"]

    monkeypatch.setattr(module, "seconds_so_far", so_far)
    assert spent(budget, RUNS[:2]) == RUNS[:1]
    record = budget.executor.journal.record
    reckoned = record.rounds[-1].runs[0].overhead_seconds
    assert reckoned > 100
    assert record.lengths["scoring of axial"] == pytest.approx(60 if share < 1 else reckoned, abs=1)
    assert engine.now < 1800


@pytest.mark.parametrize(("number", "slowness"), [(1, 9.0), (2, 1.3), (3, 1.5)])
def test_a_training_that_took_longer_than_its_time_refuses_nothing(number, slowness, graph):
    """A machine that becomes slow in the comparison, in the first fold, or as that goes on; others take its length."""
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9))
    engine.overhead, engine.fixed = 60.0, 20.0
    engine.slowness["axial_fold_0", number] = slowness
    budget = budget_of(graph, engine, 1800)
    assert spent(budget, RUNS[:2]) == RUNS[:1]
    assert engine.begun.count("axial_fold_0") >= number
    assert spent(budget_of(graph, engine, 1800), RUNS[:2]) == RUNS[:1]


@pytest.mark.parametrize(
    ("folds", "expected"),
    [
        ({0: (20, 20.4), 1: (50, 50.4)}, 60),
        ({0: (20, 90.4), 1: (60, 60.4)}, 91),
        ({0: (20, 90.4), 1: (60, 120.4)}, 121),  # with 91 the second one would be refused
        ({0: (60, 90.4), 1: (60, 120.4)}, 60),
    ],
)
def test_a_length_that_every_fold_takes(folds, expected, graph):
    """By fold: the time that it was given, and what it took; 60 s are asked for."""
    run = RUNS[0]
    for number, (given, taken) in folds.items():
        fold = graph.run_folder(run).fold(number)
        fold.root.mkdir(parents=True)
        write_record(fold.config, TrainingConfig(time_budget_seconds=given))
        save_checkpoint(fold.checkpoint, {"iteration": 1, "seconds": taken, "finished": True, "log": []})
    length = graph.accepted_seconds(run, list(folds), 60)
    assert length == expected
    assert all(accepted_seconds(graph.run_folder(run).fold(number), length) == length for number in folds)


def test_a_failing_configuration_is_told_and_the_others_go_on(graph):
    engine = PretendedTrainings(graph.workspace, curves(axial=0.9))
    engine.failing.add("axial_fold_0")
    budget = budget_of(graph, engine, 1800)
    (best,) = spent(budget, RUNS)
    assert best != WantedRun("axial")
    decisions = {each.what: each.reason for each in budget.executor.journal.record.decisions}
    assert decisions["axial is dropped"] == "its training failed: made to fail"
    engine.failing.add("preprocess")
    shutil.rmtree(graph.workspace.results)
    assert spent(budget_of(graph, engine, 1800), RUNS) == []


@pytest.mark.parametrize("cut_off", ["si_fold_0", "stack_fold_0", "axial_fold_1"])
def test_a_run_that_was_cut_off_decides_and_spends_as_if_it_had_not_been(cut_off, graph):
    scores = curves(axial=0.9, stack=0.89)
    whole = PretendedTrainings(graph.workspace, scores)
    budget = budget_of(graph, whole, 3600)
    spent(budget, RUNS)
    expected = budget.executor.journal.record
    shutil.rmtree(graph.workspace.results)
    engine = PretendedTrainings(graph.workspace, scores)
    engine.cut_off_before = cut_off
    with pytest.raises(KeyboardInterrupt):
        spent(budget_of(graph, engine, 3600), RUNS)
    engine.cut_off_before = ""
    again = budget_of(graph, engine, 3600)
    spent(again, RUNS)
    record = again.executor.journal.record
    best = f"folds of {max(record.rounds[-1].runs, key=lambda each: each.dice).name}"
    assert record.rounds == expected.rounds
    assert record.lengths.keys() == expected.lengths.keys()
    assert record.lengths["comparisons"] == expected.lengths["comparisons"]
    assert record.lengths[best] == pytest.approx(expected.lengths[best], rel=0.05)
    assert record.spent_seconds < 3600
    assert json.loads((graph.workspace.results / DATASET_NAME / "run.json").read_text())["decisions"]


def test_what_begins_with_other_models_is_not_compared_as_it_cannot_go_on_when_those_do(graph):
    fine, fused = WantedRun("axial", ("fine",)), WantedRun("mv")
    engine = PretendedTrainings(graph.workspace, curves(mv=0.9))
    budget = budget_of(graph, engine, 100_000)
    assert {task.name for task in budget.first_trainings([*RUNS[:2], fused])} == {"axial_fold_0", "si_fold_0"}
    assert fused not in spent(budget, [*RUNS[:2], fused, fine])
    decisions = {each.what: each.reason for each in budget.executor.journal.record.decisions}
    for name in ("mv", "axial__fine"):
        assert "name it alone" in decisions[f"{name} is not compared"]
    shutil.rmtree(graph.workspace.results)
    assert spent(budget_of(graph, PretendedTrainings(graph.workspace, curves()), 100_000), [fused]) == [fused]


@pytest.mark.parametrize("seconds", [7200, 1800])
def test_another_time_goes_on_with_what_is_trained_and_shortens_nothing(seconds, graph):
    scores = curves(axial=0.9)
    first = PretendedTrainings(graph.workspace, scores)
    spent(budget_of(graph, first, 3600), RUNS)
    before = dict(first.trained)
    (graph.workspace.results / DATASET_NAME / "run.json").unlink()  # as where the arguments are others
    again = PretendedTrainings(graph.workspace, scores)
    again.trained = dict(before)
    budget = budget_of(graph, again, seconds)
    (best,) = spent(budget, RUNS)
    assert best == WantedRun("axial")
    assert not any("failed" in each.reason for each in budget.executor.journal.record.decisions)
    assert all(again.trained[name] >= length for name, length in before.items())
    overheads = [each.overhead_seconds for done in budget.executor.journal.record.rounds for each in done.runs]
    assert seconds < 3600 or min(overheads) >= OVERHEAD


def test_comparisons_that_ended_for_their_time_stay_so(graph, monkeypatch):
    monkeypatch.setattr(f"{__name__}.OVERHEAD", 600.0)
    scores = curves()
    spent(budget_of(graph, PretendedTrainings(graph.workspace, scores), 3600), RUNS)
    path = graph.workspace.results / DATASET_NAME / "run.json"
    rounds = read_record(path, RunRecord).rounds
    assert len(rounds) == 2
    assert sum(each.kept for each in rounds[1].runs) > 1
    again = PretendedTrainings(graph.workspace, scores)
    spent(budget_of(graph, again, 3600), RUNS)
    assert read_record(path, RunRecord).rounds == rounds
    assert not again.trained


def test_a_record_of_other_configurations_is_told_and_begun_anew(graph, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("seg25d"), "propagate", True)
    scores = curves(stack=0.9)
    spent(budget_of(graph, PretendedTrainings(graph.workspace, scores), 3600), RUNS)
    shutil.rmtree(graph.workspace.results / DATASET_NAME / "tasks")
    budget = budget_of(graph, PretendedTrainings(graph.workspace, scores), 8000)
    assert spent(budget, RUNS[:2])
    assert "run.json has comparisons of other configurations" in caplog.text
    assert {each.name for each in budget.executor.journal.record.rounds[0].runs} == {"axial", "si"}


def test_a_usual_length_that_is_reached_costs_no_more_than_before(graph):
    usual = graph.usual_seconds(WantedRun("axial"))
    engine = PretendedTrainings(graph.workspace, curves())
    budget = budget_of(graph, engine, 20 * usual)
    spent(budget, RUNS[:3:2])
    rounds = budget.executor.journal.record.rounds
    assert rounds[-1].runs[0].seconds == rounds[-2].runs[0].seconds == int(usual)
    assert max(each.overhead_seconds for done in rounds for each in done.runs) < OVERHEAD + 4  # 0.8 s, four times


def test_trainings_that_need_each_other_are_not_done_at_the_same_time(graph):
    tasks = graph.trainings(WantedRun("axial", ("fine",)), 100.0)
    assert [num_waves(tasks, places) for places in (1, 3, 1000)] == [6, 2, 2]
    assert num_waves(graph.trainings(WantedRun("mv"), 100.0), 1000) == 3
    assert num_waves([Task(name=name, words=()) for name in "abcde"], 2) == 3


def test_pretraining_keeps_its_length_when_trainings_go_on(graph):
    pretrained = replace(graph, pretext="inpainting")
    (first, _) = pretrained.fold(RUNS[0], 0, 100.0)
    assert "100s" in first.words
    assert first.progress is not None
    folder = FoldFolder(root=first.progress)
    write_record(folder.config, TrainingConfig(time_budget_seconds=100.0))
    save_checkpoint(folder.checkpoint, {"iteration": 1, "seconds": 50.0, "finished": False, "log": []})
    again, fold = pretrained.fold(RUNS[0], 0, 2_000_000.0)
    assert (again.words, again.expected_seconds) == (first.words, 100.0)
    assert "2000000s" in fold.words


def test_comparisons_go_on_with_the_same_configurations_on_fewer_places(graph):
    scores = curves(stack=0.9)
    engine = PretendedTrainings(graph.workspace, scores)
    engine.places = len(RUNS)
    best = spent(budget_of(graph, engine, 250), RUNS)
    assert best == [WantedRun("stack")]
    again = PretendedTrainings(graph.workspace, scores)
    assert spent(budget_of(graph, again, 250), RUNS) == best
    assert not again.trained


def test_models_of_views_that_had_more_time_keep_it(graph):
    fold = graph.workspace.run(DATASET_NAME, "axial").fold(0)
    write_record(fold.config, TrainingConfig(time_budget_seconds=500.0))
    save_checkpoint(fold.checkpoint, {"iteration": 1, "seconds": 500.4, "finished": True, "log": []})
    tasks = {task.name: task for task in graph.fold(WantedRun("mv"), 0, 100.0)}
    assert "500s" in tasks["axial_fold_0"].words
    assert "100s" in tasks["mv_fold_0"].words
