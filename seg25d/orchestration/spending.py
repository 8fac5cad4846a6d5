"""A time for everything: what it is spent on, and how it is divided."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from seg25d.orchestration.execute import Executor
from seg25d.orchestration.task import Task, num_waves
from seg25d.orchestration.training_graph import TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.runs.task_records import ComparedRun, Decision, RunRecord

logger = logging.getLogger(__name__)
START_SECONDS = 5.0
"""Loading torch and the arrays, and the first update, which is slower than others (2 to 7 s on two cores)."""
LEAST_SECONDS = 20.0
"""Shortest time of a training that is compared. It is also at least as long as its start and the scoring of its cases,
without mirroring (with it, scoring 14 cases of cardiac MR took 169 s beside 269 s of training of `2d`, two busy cores):
in a quarter of 15 minutes of one core four configurations of cardiac MR had 27 s each beside 37 to 75 s of scoring, and
a Dice of 0.06 to 0.08 (documentation/reference/measurements.md)."""
RESERVE_PER_SCORING = 0.5
"""Time that choosing the best takes for each fold, in times of what predicting and scoring it took: predictions are
kept."""
RESERVE_SECONDS = 60.0
"""For the choice and the report, beside what grows with the cases."""


@dataclass(frozen=True)
class Budget:
    """A time for everything, and what it is spent on."""

    seconds: float
    graph: TrainingGraph
    executor: Executor[RunRecord]

    @property
    def left(self) -> float:
        """What is left of it."""
        return max(0.0, self.seconds - self.executor.journal.spent_seconds)

    @property
    def fold(self) -> int:
        """The fold on which configurations are compared."""
        return next((fold for fold in self.graph.folds if isinstance(fold, int)), 0)

    def first_trainings(self, runs: Sequence[WantedRun]) -> list[Task]:
        """The trainings of the fold on which configurations are compared, each once; their lengths are open."""
        able = [run for run in runs if not self.graph.builds_on_others(run)] or runs
        tasks = (task for run in able for task in self.graph.fold(run, self.fold))
        return list({task.name: task for task in tasks}.values())

    def length(self, what: str, seconds: float) -> float:
        """A length, to the second, as it was decided when it was first asked for: a call that goes on keeps it."""
        journal = self.executor.journal
        known = journal.record.lengths
        if what not in known:
            journal.write(lengths={**known, what: float(max(1, math.floor(seconds)))})
        return journal.record.lengths[what]

    def decide(self, what: str, reason: str) -> None:
        """Note a decision, and say it."""
        logger.info("%s: %s", what, reason)
        self.executor.journal.decide(Decision(what=what, reason=reason))


def expected_overhead(graph: TrainingGraph, run: WantedRun, fold: int, *, quick: bool = False) -> float:
    """Seconds that a training takes beside its own time, before one has been done."""
    return START_SECONDS + graph.scoring_seconds(run, fold) / (graph.mirrored_passes(run) if quick else 1)


def seconds_per_training(budget: Budget, run: WantedRun, compared: ComparedRun) -> float:
    """Time of each training of a run's folds, with which all that is left is spent."""
    graph, places = budget.graph, budget.executor.engine.places
    trainings, folds, overhead = graph.trainings(run), len(graph.folds), compared.overhead_seconds
    others = START_SECONDS * max(0, len(trainings) - folds)  # models that are needed, and not scored
    left = budget.left - RESERVE_SECONDS - RESERVE_PER_SCORING * folds * overhead - others
    if places == 1:
        done = compared.seconds if budget.fold in graph.folds else 0.0
        return (left + done - folds * overhead) / len(trainings)
    return left / num_waves(trainings, places) - overhead
