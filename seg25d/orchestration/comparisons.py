"""Comparison of configurations by short trainings on one fold, in rounds; after each the worse ones go.

Successive halving (Jamieson & Talwalkar 2016, AISTATS). What a round taught is not lost: trainings go on. The paired
test is a rule for when to stop looking, and no claim: each configuration was trained once.
"""

import math
from collections.abc import Mapping, Sequence

from seg25d.core.lengths import count
from seg25d.core.progress import format_seconds
from seg25d.orchestration.late_scores import late_scores
from seg25d.orchestration.spending import LEAST_SECONDS, START_SECONDS, Budget, expected_overhead, seconds_per_training
from seg25d.orchestration.task import Outcome
from seg25d.orchestration.training_graph import TrainingGraph
from seg25d.orchestration.wanted_runs import WantedRun
from seg25d.runs.task_records import ComparedRun, ComparisonRound
from seg25d.selection.ranking import case_means, paired_p_value
from seg25d.training.going_on import seconds_so_far

LOOKING_SHARE = 0.25
"""Share of the time that is left after planning in which configurations are compared, about at the most. A choice, as
is the number of rounds: neither has been measured against others yet."""
UNDECIDED_SHARE = 0.25
"""Share of what is left then that another round may take between configurations that no round has told apart: between
two of them half of it is lost, as what the better one has learnt stays."""
ROUNDS = 3
"""Of comparison, at the most: each is twice as long as the one before (successive halving)."""
WORSE_P = 0.05
"""P-value of Wilcoxon's signed-rank test over the cases, below which a configuration with a lower mean is dropped."""


def to_compare(budget: Budget, runs: Mapping[str, WantedRun]) -> dict[str, WantedRun]:
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


def _rounds(budget: Budget, runs: Mapping[str, WantedRun], whole: float) -> tuple[int, float] | None:
    """How many rounds there is time for, and the seconds of each training in the first one; None: not for one."""
    each = whole * min(budget.executor.engine.places, len(runs)) / len(runs)
    overhead = max(expected_overhead(budget.graph, run, budget.fold, quick=True) for run in runs.values())
    most = max(budget.graph.num_models(run, budget.fold) for run in runs.values())
    for rounds in range(ROUNDS, 0, -1):
        first = (each - rounds * overhead) / (1 << (rounds - 1))
        if first / most >= max(LEAST_SECONDS, overhead):
            return rounds, first
    return None


def compare(budget: Budget, runs: Mapping[str, WantedRun]) -> list[ComparedRun]:
    """Rounds of trainings on one fold; what was not dropped, the best first."""
    journal = budget.executor.journal
    whole = budget.length("comparisons", 0.0)
    number_and_first = _rounds(budget, runs, whole) or (1, LEAST_SECONDS)  # as it was decided, with other places
    rounds, first = int(budget.length("rounds", number_and_first[0])), number_and_first[1]
    begun = budget.length("begin of the comparisons", journal.spent_seconds)
    kept: Mapping[str, ComparedRun | None] = dict.fromkeys(runs)
    number, ranked = 0, list[ComparedRun]()
    while True:
        if number < len(journal.record.rounds):
            done = journal.record.rounds[number]
        else:
            length = budget.length(f"round {number + 1}", first * 2**number)
            done = train_round(budget, {name: runs[name] for name in kept}, length, kept)
            if done.runs:
                journal.write(rounds=(*journal.record.rounds, done))
                _tell(budget, number + 1, done)
        ranked = sorted((each for each in done.runs if each.kept), key=lambda each: -each.dice)
        kept = {each.name: each for each in ranked}
        number += 1
        goes_on = number < rounds and journal.spent_seconds - begun < whole
        if len(kept) <= 1 or not (goes_on or _is_worth_another_round(budget, runs, ranked, number)):
            return ranked


def _is_worth_another_round(
    budget: Budget, runs: Mapping[str, WantedRun], ranked: Sequence[ComparedRun], number: int
) -> bool:
    """Whether those that no round has told apart are trained twice as long once more.

    What is ahead after a short training need not be so after a long one: of an hour for cardiac MR, `stack` was ahead
    of `2d` after 152 s (0.403 and 0.347, p = 0.1), and `2d` alone had 0.718 after 579 s, `stack` 0.553 after 327 s.
    """
    if f"round {number + 1}" in budget.executor.journal.record.lengths:
        return True
    following = 2 * max(each.seconds for each in ranked)
    for each in ranked:
        usual = budget.graph.usual_seconds(runs[each.name]) or math.inf
        if following > min(usual, seconds_per_training(budget, runs[each.name], each)):
            return False
    cost = 0.0
    for each in ranked:
        passes = budget.graph.mirrored_passes(runs[each.name])
        quick = START_SECONDS + max(0.0, each.overhead_seconds - START_SECONDS) / passes
        cost += following - each.seconds + quick
    return cost / min(budget.executor.engine.places, len(ranked)) <= UNDECIDED_SHARE * budget.left


def train_round(
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
        summaries[name] = late_scores(graph.run_folder(runs[name]).fold(budget.fold))
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
                or expected_overhead(graph, runs[name], budget.fold),
                dice=dice[name],
                p_value=p_value,
                kept=not is_worse,
            )
        )
    return ComparisonRound(fold=budget.fold, num_cases=len(means[best]) if best else 0, runs=tuple(compared))


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
