"""Recommendation of a configuration with its reasons, as text and as rows of a table."""

from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary
from seg25d.report.charts import Point
from seg25d.report.results import Results
from seg25d.selection.compared_runs import training_command
from seg25d.selection.cost import Cost
from seg25d.selection.ranking import case_means, paired_p_value

SIGNIFICANT = 0.05
"""Differences with a larger p are reported as possibly due to chance."""
MOST_PROMISING = 3
"""Maximum number of runs whose further training is recommended; the table has all runs."""


class Row(NamedTuple):
    """A row of the table: a run or an ensemble."""

    name: str
    folds: str
    num_cases: int
    scores: Scores
    """Means over classes of the class means over cases."""
    dice_std: float | None
    """Standard deviation of Dice over cases."""
    gain: float | None
    """Mean difference of Dice to the best over common cases; None for the best, or without such cases."""
    p_value: float | None
    """Result of Wilcoxon's signed-rank test over these cases."""
    cost: Cost | None
    num_parameters: int | None
    """Parameters of one fold."""
    training_minutes: float | None
    """Mean training time of a fold."""
    num_seen: int
    """Cases among them that a model which predicted them was trained on."""
    on_front: bool
    """Whether `find_best_configuration` found nothing that is both as good and as fast."""


class Advice(NamedTuple):
    """The recommendation."""

    choice: str | None
    """Name of the recommended run or ensemble; None if nothing is trained."""
    sentences: tuple[str, ...]
    commands: tuple[str, ...]


def comparison_rows(results: Results) -> list[Row]:
    """Compare all runs and ensembles with the best of them, which comes first."""
    contestants = results.contestants
    if not contestants:
        return []
    chosen = None if results.best is None else results.best.name
    best = next((contestant for contestant in contestants if contestant.name == chosen), contestants[0])
    runs = {run.name: run for run in results.runs}
    rows = []
    for contestant in contestants:
        run = runs.get(contestant.name)
        means = case_means(contestant.summary)
        known = [value for value in means.values() if value is not None]
        gain, p_value = (None, None) if contestant is best else _compare_paired(contestant.summary, best.summary)
        rows.append(
            Row(
                name=contestant.name,
                folds="all members'" if run is None else _format_folds(run.validated.folds, run.is_complete),
                num_cases=len(contestant.summary.per_case),
                scores=contestant.summary.foreground_mean,
                dice_std=stdev(known) if len(known) > 1 else None,
                gain=gain,
                p_value=p_value,
                cost=contestant.cost,
                num_parameters=None if run is None else run.num_parameters,
                training_minutes=None if run is None else run.training_minutes,
                num_seen=len(_seen_cases(results, contestant.name)),
                on_front=contestant.on_front,
            )
        )
    return sorted(rows, key=lambda row: row.name != best.name)


def cost_points(results: Results) -> list[Point]:
    """All candidates with known cost and Dice, including ensembles that were not chosen."""
    if results.best is None:
        return []
    return [
        Point(row.name, row.cost.seconds_per_case, row.dice, row.on_pareto_front, len(row.runs) == 1)
        for row in results.best.candidates
        if row.cost is not None and row.dice is not None and row.weights is None
    ]


def advise(results: Results, rows: Sequence[Row]) -> Advice:
    """Recommend a run or an ensemble, with reasons."""
    identifier = results.dataset_name
    if not rows:
        configuration = next(iter(results.plans[0].configurations)) if results.plans else "2d"
        sentence = "No fold has been trained and scored yet. The planner's decisions and their reasons follow below."
        return Advice(None, (sentence,), (f"seg25d train {identifier} {configuration} 0",))
    best, others = rows[0], rows[1:]
    complete = [row for row in others if row.gain is not None and row.num_cases >= best.num_cases]
    sentences = [
        f"Mean Dice {_format_number(best.scores.dice)}{_plus_minus(best.dice_std)} over {_describe_cases(best)}.",
        *(_compare_with(other) for other in complete[:1]),
        *_describe_choice(results, best.name),
        *_describe_costs(best, others),
        *_recommend_training(results, others),
        *_list_missing_steps(results, best),
    ]
    return Advice(best.name, tuple(sentences), _commands(results, best.name))


def describe_models(rows: Sequence[Row]) -> str:
    """Which models the scores of the table are of: whether they were trained on the cases, in words."""
    seen = [row for row in rows if row.num_seen]
    if not seen:
        return "of models that were not trained on the case"
    if all(row.num_seen == row.num_cases for row in rows):
        return "of models that were trained on these very cases, so that they say little about new ones"
    listed = ", ".join(f"{row.name} ({row.num_seen} of {row.num_cases})" for row in seen)
    return f"of models that were not trained on the case, but for {listed}, which were trained on some of theirs"


def _seen_cases(results: Results, name: str) -> frozenset[str]:
    """Validation cases of a run or of the chosen ensemble that a model which predicted them was trained on."""
    best = results.best
    names = {name} if best is None or best.name != name else {member.run for member in best.members}
    return frozenset().union(*(run.validated.seen for run in results.runs if run.name in names))


def _describe_cases(row: Row) -> str:
    """The number of cases, and whether the models were trained on them."""
    cases = "1 case" if row.num_cases == 1 else f"{row.num_cases} cases"
    if not row.num_seen:
        return f"{cases} that its models were not trained on"
    which = "" if row.num_seen == row.num_cases else f"{row.num_seen} of "
    return f"{cases}; its models were trained on {which}these very cases, so that this says little about new ones"


def _compare_paired(summary: Summary, best: Summary) -> tuple[float | None, float | None]:
    """Mean difference of Dice to the best and the p-value, over common cases; None if there are none."""
    mine, others = case_means(summary), case_means(best)
    shared = {case: value for case, value in mine.items() if value is not None and others.get(case) is not None}
    if not shared:
        return None, None
    gain = fmean(value - (others[case] or 0.0) for case, value in shared.items())
    return gain, paired_p_value(shared, others)


def _compare_with(other: Row) -> str:
    """Describe the difference between the best and the next one, and whether it may be chance."""
    assert other.gain is not None, "chosen with common cases"
    test = "" if other.p_value is None else f" (Wilcoxon's signed-rank test: p = {other.p_value:.2g})"
    word = "is more than chance" if _is_certain(other) else "may be chance"
    direction = "better" if other.gain <= 0 else "worse"
    return f"On the same cases it is {abs(other.gain):.3f} {direction} than {other.name}, which {word}{test}."


def _is_certain(row: Row) -> bool:
    return row.p_value is not None and row.p_value <= SIGNIFICANT


def _describe_choice(results: Results, choice: str) -> list[str]:
    """Describe post-processing and limits of `find_best_configuration`."""
    best = results.best
    if best is None or best.name != choice:
        return []
    sentences = [f"It has {best.reasons['choice']}."] if "choice" in best.reasons else []
    if steps := best.postprocessing.describe(results.description.labels):
        sentences.append(f"With post-processing ({'; '.join(steps)}): {_format_number(best.dice)}.")
    if best.limits:
        limits = ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in best.limits.items())
        sentences.append(f"It was chosen among the candidates within the requested limits ({limits}).")
    return sentences


def _describe_costs(best: Row, others: Sequence[Row]) -> list[str]:
    """Describe the cost of the best, and a faster alternative."""
    if best.cost is None:
        return []
    seconds = best.cost.seconds_per_case
    sentences = [
        f"A case takes {seconds:.2g} s and {best.cost.peak_memory_gb:.2g} GB on the machine of the measurement (all "
        "folds, mirrored)."
    ]
    faster = [(row.cost.seconds_per_case, row) for row in others if row.on_front and row.cost is not None]
    if faster:
        fastest, row = min(faster, key=lambda pair: pair[0])
        if fastest < seconds:
            sentences.append(
                f"If time matters more, {row.name} is {seconds / fastest:.1f} times as fast, with a Dice of "
                f"{_format_number(row.scores.dice)}."
            )
    return sentences


def _recommend_training(results: Results, others: Sequence[Row]) -> list[str]:
    """Recommend training of runs that are better on the few cases they have predicted, the most promising first."""
    missing = {run.name: run.validated.missing_folds for run in results.runs}
    better = sorted((row for row in others if (row.gain or 0) > 0), key=lambda row: -(row.gain or 0))
    sentences = [
        f"{row.name} is {row.gain:.3f} better on the {row.num_cases} common cases: train its folds "
        f"{', '.join(map(str, missing[row.name]))} and choose again."
        for row in better
        if missing.get(row.name) and _is_certain(row)
    ]
    return sentences[:MOST_PROMISING]


def _list_missing_folds(results: Results, best: Row) -> list[str]:
    """Name the runs that lack folds, and say whether their means can be compared with that of the best."""
    cases = {contestant.name: set(case_means(contestant.summary)) for contestant in results.contestants}
    partial = [run.name for run in results.runs if not run.is_complete]
    if not partial:
        return []
    others = [name for name in partial if cases[name] != cases[best.name]]
    if not others:
        same = ": their means are over the same cases" if len(cases) > 1 else ""
        return [f"Not all folds of {', '.join(partial)} are trained and scored{same}."]
    counts = ", ".join(f"{name} {len(cases[name])}" for name in others)
    return [
        f"Not all folds of {', '.join(partial)} are trained and scored. Means are not over the same cases ({counts}, "
        f"{best.name} {len(cases[best.name])}); compare the gains, which are over common cases."
    ]


def _list_missing_steps(results: Results, best: Row) -> list[str]:
    """List the steps that have not been done yet."""
    sentences = _list_missing_folds(results, best)
    if results.best is None:
        sentences.append("Costs and ensembles have not been evaluated yet: find_best_configuration does both.")
        return sentences
    compared = {row.name for row in results.best.candidates}
    if new := [run.name for run in results.runs if run.is_complete and run.name not in compared]:
        sentences.append(f"find_best_configuration has not compared {', '.join(new)} yet: run it again.")
    if results.best.name not in {contestant.name for contestant in results.contestants}:
        sentences.append(f"The scores of {results.best.name}, which it chose, no longer exist: run it again.")
    return sentences


def _commands(results: Results, choice: str) -> tuple[str, ...]:
    if results.best is not None and results.best.name == choice:
        return results.best.commands
    run = next(run for run in results.runs if run.name == choice).validated
    train = [training_command(run, run.missing_folds)] if run.missing_folds else []
    return (
        *train,
        f"seg25d find_best_configuration {results.dataset_name}",
        f"seg25d predict -d {results.dataset_name} -c {choice} -i IN -o OUT",
    )


def _format_folds(folds: Sequence[int], complete: bool) -> str:
    return f"all {len(folds)}" if complete else ", ".join(map(str, folds))


def _format_number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _plus_minus(std: float | None) -> str:
    return "" if std is None else f" ± {std:.3f}"
