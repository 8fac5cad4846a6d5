"""A time for everything, spent where it pays: all configurations begin small, the worse ones go, the best get the rest.

Configurations are compared by short trainings on one fold (`comparisons.py`); all that is left of the time is for the
folds of the best. Trainings that begin with what others have learnt cannot go on when those do: fusions of views, and
fine models.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from seg25d.core.errors import InputError
from seg25d.core.lengths import count
from seg25d.core.progress import format_seconds
from seg25d.orchestration.comparisons import compare, to_compare, train_round
from seg25d.orchestration.spending import (
    LEAST_SECONDS,
    RESERVE_SECONDS,
    START_SECONDS,
    Budget,
    expected_overhead,
    seconds_per_training,
)
from seg25d.orchestration.training_graph import PREPROCESS, TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.runs.task_records import ComparedRun
from seg25d.training.going_on import seconds_so_far

logger = logging.getLogger(__name__)
LEAST_GAIN = 1.1
"""How many times as long trainings have to become if the first fold, which is scored twice then, is to go on."""


def spend(budget: Budget, runs: Sequence[WantedRun]) -> tuple[TrainingGraph, list[WantedRun]]:
    """Prepare the arrays, compare configurations, and train the folds of the best ones.

    Args:
        budget: The time, and what it is spent on.
        runs: The configurations.

    Returns:
        The graph with the folds that there was time for, and the configurations of which all these are trained.

    Raises:
        InputError: If the time is too short for any training.
    """
    least = RESERVE_SECONDS + LEAST_SECONDS
    if budget.left < least and not budget.executor.journal.record.lengths:
        raise InputError(
            f"--time-budget: expected more than {format_seconds(budget.seconds - budget.left + least)} here, got "
            f"{format_seconds(budget.seconds)}; choosing the best and the report take {format_seconds(RESERVE_SECONDS)}"
        )
    budget.executor.run([budget.graph.preprocessing()])
    if not budget.executor.is_done(PREPROCESS):
        return budget.graph, []
    by_name = {budget.graph.run_name(run): run for run in runs}
    _forget_other_rounds(budget, by_name)
    compared = to_compare(budget, by_name)
    if len(compared) == 1:
        name, run = next(iter(compared.items()))
        budget.decide(f"{name} is taken", "there is nothing to compare it with")
        return _train_best(budget, by_name, _look_at(budget, name, run))
    return _train_best(budget, by_name, compare(budget, compared))


def _look_at(budget: Budget, name: str, run: WantedRun) -> list[ComparedRun]:
    """A configuration without others: what its scoring takes is measured by a short training, which then goes on.

    Reckoned from updates it was 58 s where it took 32 s, so that a third of 15 minutes was not used.
    """
    overhead = expected_overhead(budget.graph, run, budget.fold)
    alone = ComparedRun(name=name, seconds=0.0, overhead_seconds=overhead, dice=0.0, p_value=None, kept=True)
    rounds = budget.executor.journal.record.rounds
    if not rounds:
        folds = len(budget.graph.folds)
        possible = seconds_per_training(budget, run, alone)
        if folds == 1 or budget.graph.builds_on_others(run) or possible < 2 * LEAST_SECONDS:
            return [alone]  # it would cost more than it tells, or could not go on
        done = train_round(budget, {name: run}, budget.length("round 1", LEAST_SECONDS), {name: None})
        if not done.runs:
            return []
        rounds = (done,)
        budget.executor.journal.write(rounds=rounds)
    return list(rounds[-1].runs)


def _forget_other_rounds(budget: Budget, runs: Mapping[str, WantedRun]) -> None:
    """Begin comparisons anew where the record has those of other configurations: plans or the file were changed."""
    journal = budget.executor.journal
    rounds = journal.record.rounds
    known = all(each.name in runs for done in rounds for each in done.runs)
    if not (known and all(any(each.kept for each in done.runs) for done in rounds)):
        logger.warning("%s has comparisons of other configurations; they begin anew", journal.path)
        journal.write(rounds=(), lengths={})


def _train_best(
    budget: Budget, runs: Mapping[str, WantedRun], ranked: Sequence[ComparedRun]
) -> tuple[TrainingGraph, list[WantedRun]]:
    """Train the folds of the best configuration; of the next ones too, if each has its usual length by then."""
    journal = budget.executor.journal
    complete: list[WantedRun] = []
    if ranked:
        budget = _with_folds(budget, runs[ranked[0].name], ranked[0])
    graph = budget.graph
    for each in ranked:
        run, what = runs[each.name], f"folds of {each.name}"
        usual = graph.usual_seconds(run) or math.inf
        possible = seconds_per_training(budget, run, each)
        if complete and what not in journal.record.lengths and possible < usual:
            break
        length = budget.length(what, max(min(possible, usual), each.seconds))
        length = graph.accepted_seconds(run, graph.folds, length)
        best = "the best mean Dice of what was kept" if len(ranked) > 1 else "it is the only one that is left"
        why = "there is time left for its usual length" if complete else best
        budget.decide(f"{each.name} gets {format_seconds(length)} for each training of its folds", why)
        if not complete:
            length = _with_measured_scoring(budget, run, each, length)
        trainings = graph.trainings(run, length)
        last = graph.cross_validation(run, trainings, length)
        if budget.executor.run([*trainings, last])[last.name].is_done:
            complete.append(run)
    return graph, complete


def _with_measured_scoring(budget: Budget, run: WantedRun, compared: ComparedRun, length: float) -> float:
    """The length of trainings, once the first fold has said what scoring it as usual takes.

    Reckoned from quick scores it was 173 s where it took 108 s (cardiac MR, `stack`, two cores), so that of an hour a
    fifth was not used. The training of the first fold goes on afterwards.
    """
    graph, measured = budget.graph, f"scoring of {compared.name}"
    if len(graph.folds) == 1 or budget.executor.engine.places > 1 or graph.builds_on_others(run) or graph.pretext:
        return length
    if measured not in budget.executor.journal.record.lengths:
        *_, task = graph.fold(run, budget.fold, length, keep=True)
        so_far = seconds_so_far(graph.run_folder(run).fold(budget.fold))
        outcome = budget.executor.run([task])[task.name]
        if not outcome.is_done:
            return length
        beside = outcome.seconds - (length - so_far)
        # Not known where an earlier call trained all of it, and perhaps scored a part.
        known = so_far < length and START_SECONDS < beside < compared.overhead_seconds
        budget.length(measured, beside if known else compared.overhead_seconds)
    seen = compared.model_copy(
        update={"seconds": length, "overhead_seconds": budget.length(measured, compared.overhead_seconds)}
    )
    possible = min(seconds_per_training(budget, run, seen), graph.usual_seconds(run) or math.inf)
    longer = budget.length(f"longer folds of {compared.name}", possible)
    if longer < LEAST_GAIN * length or graph.accepted_seconds(run, graph.folds, longer) > longer:
        return length  # not worth it, or the first fold took longer than that already
    budget.decide(
        f"{compared.name} gets {format_seconds(longer)} for each training of its folds",
        f"scoring a fold takes {format_seconds(seen.overhead_seconds)}, less than was reckoned",
    )
    return longer


def _with_folds(budget: Budget, run: WantedRun, compared: ComparedRun) -> Budget:
    """The folds that there is time for: their trainings are at least as long as the scoring of their cases."""
    asked = budget.graph.folds
    fitting = 1
    for number in range(len(asked), 1, -1):
        some = replace(budget, graph=replace(budget.graph, folds=asked[:number]))
        if seconds_per_training(some, run, compared) >= compared.overhead_seconds:
            fitting = number
            break
    number = int(budget.length("number of folds", fitting))
    if number < len(asked):
        budget.decide(
            f"{count(number, 'fold')} of {len(asked)}",
            "with more of them, scoring their cases would take longer than training them; more time trains all",
        )
    return replace(budget, graph=replace(budget.graph, folds=asked[:number]))
