"""A time for everything, spent where it pays: all configurations begin small, the worse ones go, the best get the rest.

Every configuration is first trained for a short time on one fold, then for twice as long and so on (successive halving;
Jamieson & Talwalkar 2016, AISTATS); after each round those go that are worse than the best one over the same validation
cases. All that is left of the time is for the folds of the best. What a round taught is not lost: trainings go on.
Those that begin with what others have learnt cannot: fusions of views, and fine models.

The paired test is a rule for when to stop looking, and no claim: each configuration was trained once.
"""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from seg25d.core.errors import InputError
from seg25d.core.lengths import count
from seg25d.core.progress import format_seconds
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.evaluation.summary import Summary
from seg25d.orchestration.execute import Executor
from seg25d.orchestration.task import Outcome, Task
from seg25d.orchestration.training_graph import PREPROCESS, TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.runs.task_records import ComparedRun, ComparisonRound, Decision, RunRecord
from seg25d.selection.ranking import case_means, paired_p_value
from seg25d.training.going_on import seconds_so_far

logger = logging.getLogger(__name__)
LOOKING_SHARE = 0.25
"""Share of the time that is left after planning in which configurations are compared, about at the most. A choice, as
is the number of rounds: neither has been measured against others yet."""
ROUNDS = 3
"""Of comparison, at the most: each is twice as long as the one before (successive halving)."""
LEAST_SECONDS = 20.0
"""Shortest time of a training that is compared. It is also at least as long as its start and the scoring of its cases,
without mirroring (with it, scoring 14 cases of cardiac MR took 169 s beside 269 s of training of `2d`, two busy cores):
in a quarter of 15 minutes of one core four configurations of cardiac MR had 27 s each beside 37 to 75 s of scoring, and
a Dice of 0.06 to 0.08 (documentation/reference/measurements.md)."""
START_SECONDS = 5.0
"""Loading torch and the arrays, and the first update, which is slower than others (2 to 7 s on two cores)."""
WORSE_P = 0.05
"""P-value of Wilcoxon's signed-rank test over the cases, below which a configuration with a lower mean is dropped."""
RESERVE_PER_SCORING = 0.5
"""Time that choosing the best takes for each fold, in times of what predicting and scoring it took: predictions are
kept."""
LATE_SECONDS = 60.0
"""How long a file of another machine may take to appear: NFS keeps what it knows of a folder so long (nfs(5),
`acdirmax`)."""
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
    compared = _to_compare(budget, by_name)
    if len(compared) == 1:
        name, run = next(iter(compared.items()))
        budget.decide(f"{name} is taken", "there is nothing to compare it with")
        return _train_best(budget, by_name, _look_at(budget, name, run))
    return _train_best(budget, by_name, _compare(budget, compared))


def _look_at(budget: Budget, name: str, run: WantedRun) -> list[ComparedRun]:
    """A configuration without others: what its scoring takes is measured by a short training, which then goes on.

    Reckoned from updates it was 58 s where it took 32 s, so that a third of 15 minutes was not used.
    """
    overhead = _expected_overhead(budget.graph, run, budget.fold)
    alone = ComparedRun(name=name, seconds=0.0, overhead_seconds=overhead, dice=0.0, p_value=None, kept=True)
    rounds = budget.executor.journal.record.rounds
    if not rounds:
        folds = len(budget.graph.folds)
        possible = _seconds_per_training(budget, run, alone)
        if folds == 1 or budget.graph.builds_on_others(run) or possible < 2 * LEAST_SECONDS:
            return [alone]  # it would cost more than it tells, or could not go on
        done = _round(budget, {name: run}, budget.length("round 1", LEAST_SECONDS), {name: None})
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


def _to_compare(budget: Budget, runs: Mapping[str, WantedRun]) -> dict[str, WantedRun]:
    """The runs that are compared: as many as have time for it, those first whose updates are the fastest."""
    graph, fold = budget.graph, budget.fold
    whole = budget.length("comparisons", LOOKING_SHARE * budget.left)
    able = {name: run for name, run in runs.items() if not graph.builds_on_others(run)}
    before = {each.name for done in budget.executor.journal.record.rounds[:1] for each in done.runs}
    if before:
        return {name: run for name, run in able.items() if name in before}
    names = sorted(able, key=lambda name: graph.usual_seconds(able[name]) or 0.0)
    while len(names) > 1 and _rounds(budget, {name: able[name] for name in names}, whole) is None:
        del names[-1]
    compared = {name: run for name, run in able.items() if name in names}
    if not compared:
        simplest = min(runs, key=lambda name: graph.num_models(runs[name], fold))
        compared = {simplest: runs[simplest]}
    for name, run in runs.items():
        if name in compared:
            continue
        trainings = count(graph.num_models(run, fold), "training")
        reason = (
            f"{format_seconds(whole)} for comparisons are too little for it, too: its training would be shorter than "
            "the scoring of its cases; name fewer configurations, or give more time"
            if name in able
            else f"the {trainings} of a fold begin with what others of them have learnt, and so cannot go on when "
            "those do: name it alone"
        )
        budget.decide(f"{name} is not compared", reason)
    return compared


def _expected_overhead(graph: TrainingGraph, run: WantedRun, fold: int, *, quick: bool = False) -> float:
    """Seconds that a training takes beside its own time, before one has been done."""
    return START_SECONDS + graph.scoring_seconds(run, fold) / (graph.mirrored_passes(run) if quick else 1)


def _rounds(budget: Budget, runs: Mapping[str, WantedRun], whole: float) -> tuple[int, float] | None:
    """How many rounds there is time for, and the seconds of each training in the first one; None: not for one."""
    each = whole * min(budget.executor.engine.places, len(runs)) / len(runs)
    overhead = max(_expected_overhead(budget.graph, run, budget.fold, quick=True) for run in runs.values())
    most = max(budget.graph.num_models(run, budget.fold) for run in runs.values())
    for rounds in range(ROUNDS, 0, -1):
        first = (each - rounds * overhead) / (1 << (rounds - 1))
        if first / most >= max(LEAST_SECONDS, overhead):
            return rounds, first
    return None


def _compare(budget: Budget, runs: Mapping[str, WantedRun]) -> list[ComparedRun]:
    """Rounds of trainings on one fold; what was not dropped, the best first."""
    journal = budget.executor.journal
    whole = budget.length("comparisons", 0.0)
    number_and_first = _rounds(budget, runs, whole) or (1, LEAST_SECONDS)  # as it was decided, with other places
    rounds, first = int(budget.length("rounds", number_and_first[0])), number_and_first[1]
    begun = budget.length("begin of the comparisons", journal.spent_seconds)
    kept: Mapping[str, ComparedRun | None] = dict.fromkeys(runs)
    for number in range(rounds):
        if number < len(journal.record.rounds):
            done = journal.record.rounds[number]
        else:
            length = budget.length(f"round {number + 1}", first * 2**number)
            done = _round(budget, {name: runs[name] for name in kept}, length, kept)
            if done.runs:
                journal.write(rounds=(*journal.record.rounds, done))
                _tell(budget, number + 1, done)
        kept = {each.name: each for each in done.runs if each.kept}
        if len(kept) <= 1 or journal.spent_seconds - begun >= whole:
            break
    return sorted((each for each in done.runs if each.kept), key=lambda each: -each.dice)


def _round(
    budget: Budget, runs: Mapping[str, WantedRun], length: float, before: Mapping[str, ComparedRun | None]
) -> ComparisonRound:
    """Train configurations on the fold, up to a time for all models of each; those that failed are gone."""
    graph = budget.graph
    seconds, so_far = {}, {}
    for name, run in runs.items():
        so_far[name] = seconds_so_far(graph.run_folder(run).fold(budget.fold))
        wanted = _within_usual(graph, run, length / graph.num_models(run, budget.fold))
        seconds[name] = graph.accepted_seconds(run, [budget.fold], wanted)
    tasks = {name: list(graph.fold(run, budget.fold, seconds[name], quick=True)) for name, run in runs.items()}
    outcomes = budget.executor.run([task for each in tasks.values() for task in each])
    summaries, overheads = {}, {}
    for name, own in tasks.items():
        outcome = outcomes[own[-1].name]
        if not outcome.is_done:
            budget.decide(f"{name} is dropped", f"its training failed: {outcome.message}")
            continue
        summaries[name] = _scores(graph.run_folder(runs[name]).fold(budget.fold))
        passes = graph.mirrored_passes(runs[name])
        overheads[name] = _overhead(outcome, seconds[name], so_far[name], before[name], passes)
    dice = {name: summary.foreground_mean.dice or 0.0 for name, summary in summaries.items()}
    means = {name: case_means(summary) for name, summary in summaries.items()}
    best = max(dice, key=lambda name: dice[name]) if dice else ""
    compared = []
    for name in summaries:
        p_value = None if name == best else paired_p_value(means[name], means[best])
        is_worse = p_value is not None and p_value < WORSE_P and dice[name] < dice[best]
        compared.append(
            ComparedRun(
                name=name,
                seconds=seconds[name],
                overhead_seconds=overheads[name]  # 0: it is not known
                or max(overheads.values())
                or _expected_overhead(graph, runs[name], budget.fold),
                dice=dice[name],
                p_value=p_value,
                kept=not is_worse,
            )
        )
    return ComparisonRound(fold=budget.fold, num_cases=len(means[best]) if best else 0, runs=tuple(compared))


def _scores(fold: FoldFolder) -> Summary:
    """The scores of a training that has ended, perhaps on another machine whose files appear late.

    They are the quick ones, unless an earlier call has others by the same model.

    Raises:
        RecordError: If they are damaged, or do not appear.
    """
    quick, usual = (folder / "summary.json" for folder in (fold.validation_quick, fold.validation))
    until = time.monotonic() + LATE_SECONDS
    while not (quick.exists() or usual.exists()) and time.monotonic() < until:
        time.sleep(1.0)
        for folder in (quick.parent, usual.parent):
            with suppress(OSError):
                os.listdir(folder)  # noqa: PTH208 - has NFS look again
    return read_record(quick if quick.exists() else usual, Summary)


def _overhead(outcome: Outcome, seconds: float, so_far: float, before: ComparedRun | None, passes: int) -> float:
    """What a training with usual scores takes beside its time, reckoned from one with quick ones; 0: not known.

    Args:
        outcome: How it ended: now, or in an earlier call.
        seconds: Its time.
        so_far: How much of it was trained when this call came to it.
        before: The round before.
        passes: How often usual scores predict a window, in place of once.
    """
    if so_far >= seconds:  # it was trained by an earlier call, or has its usual length since the round before
        if before is not None and seconds <= before.seconds:
            return before.overhead_seconds
        so_far = 0.0 if before is None else before.seconds
    measured = max(0.0, outcome.seconds - (seconds - so_far))
    return measured + (passes - 1) * max(0.0, measured - START_SECONDS)


def _within_usual(graph: TrainingGraph, run: WantedRun, seconds: float) -> float:
    """The time of a training, to the second, which is not to be longer than usual."""
    return float(max(1, math.floor(min(seconds, graph.usual_seconds(run) or math.inf))))


def _tell(budget: Budget, number: int, done: ComparisonRound) -> None:
    """Note what a round has decided."""
    dropped = ", ".join(f"{each.name} ({each.dice:.3f}, p {each.p_value:.2g})" for each in done.runs if not each.kept)
    kept = ", ".join(f"{each.name} ({each.dice:.3f})" for each in done.runs if each.kept)
    where = f"the {count(done.num_cases, 'case')} of fold {done.fold}"
    what = f"round {number}: {dropped} dropped, {kept} kept" if dropped else f"round {number}: {kept} kept"
    reason = "worse than the best" if dropped else "none is worse than the best"
    budget.decide(what, f"{reason} over {where} (Wilcoxon's signed-rank test, p < {WORSE_P:g})")


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
        possible = _seconds_per_training(budget, run, each)
        if complete and what not in journal.record.lengths and possible < usual:
            break
        length = budget.length(what, max(min(possible, usual), each.seconds))
        length = graph.accepted_seconds(run, graph.folds, length)
        best = "the best mean Dice of what was kept" if len(ranked) > 1 else "it is the only one that is left"
        why = "there is time left for its usual length" if complete else best
        budget.decide(f"{each.name} gets {format_seconds(length)} for each training of its folds", why)
        trainings = graph.trainings(run, length)
        last = graph.cross_validation(run, trainings, length)
        if budget.executor.run([*trainings, last])[last.name].is_done:
            complete.append(run)
    return graph, complete


def _with_folds(budget: Budget, run: WantedRun, compared: ComparedRun) -> Budget:
    """The folds that there is time for: their trainings are at least as long as the scoring of their cases."""
    asked = budget.graph.folds
    fitting = 1
    for number in range(len(asked), 1, -1):
        some = replace(budget, graph=replace(budget.graph, folds=asked[:number]))
        if _seconds_per_training(some, run, compared) >= compared.overhead_seconds:
            fitting = number
            break
    number = int(budget.length("number of folds", fitting))
    if number < len(asked):
        budget.decide(
            f"{count(number, 'fold')} of {len(asked)}",
            "with more of them, scoring their cases would take longer than training them; more time trains all",
        )
    return replace(budget, graph=replace(budget.graph, folds=asked[:number]))


def _seconds_per_training(budget: Budget, run: WantedRun, compared: ComparedRun) -> float:
    """Time of each training of a run's folds, with which all that is left is spent."""
    graph, places = budget.graph, budget.executor.engine.places
    trainings, folds, overhead = graph.trainings(run), len(graph.folds), compared.overhead_seconds
    others = START_SECONDS * max(0, len(trainings) - folds)  # models that are needed, and not scored
    left = budget.left - RESERVE_SECONDS - RESERVE_PER_SCORING * folds * overhead - others
    if places == 1:
        done = compared.seconds if budget.fold in graph.folds else 0.0
        return (left + done - folds * overhead) / len(trainings)
    return left / _num_waves(trainings, places) - overhead


def _num_waves(tasks: Sequence[Task], places: int) -> int:
    """How many tasks of equal length are done one after the other, where some need others of them."""
    waiting, waves = list(tasks), 0
    while waiting:
        names = {task.name for task in waiting}
        ready = [task for task in waiting if names.isdisjoint(task.needs)][:places]
        waiting = [task for task in waiting if task not in ready]
        waves += 1
    return waves
