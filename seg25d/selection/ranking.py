"""Ranking of candidates: scores, paired tests against the best, cost, and the Pareto front; also as a table."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean, stdev

from seg25d.data.labels import Labels
from seg25d.evaluation.summary import CaseSummary, Summary
from seg25d.evaluation.tables import format_score, text_table
from seg25d.selection.best import Best, Scored
from seg25d.selection.candidates import Ensemble
from seg25d.selection.cost import Cost

COLUMNS = ("Dice", "std", "HD95 mm", "p", "t-test p", "parameters", "GFLOPs", "s/case", "memory GB")
MOST_CLASSES = 6
"""Maximum number of columns for single classes in the table; `best.json` has all of them."""


def rank(
    summaries: Mapping[Ensemble, Summary],
    costs: Mapping[Ensemble, Cost | None],
    best: Ensemble,
    allow: Callable[[Cost | None], bool],
) -> tuple[Scored, ...]:
    """Rank all candidates: the chosen one first, then by their mean Dice.

    Args:
        summaries: Scores on the same cases.
        costs: Costs of the same candidates.
        best: The chosen one.
        allow: Function that tells whether a cost is within the limits.
    """
    of_best = case_means(summaries[best])
    rows = []
    for ensemble, summary in summaries.items():
        means = case_means(summary)
        known = [value for value in means.values() if value is not None]
        rows.append(
            Scored(
                name=ensemble.name,
                runs=ensemble.runs,
                weights=ensemble.weights,
                dice=summary.foreground_mean.dice,
                dice_std=stdev(known) if len(known) > 1 else None,
                hd95_mm=summary.foreground_mean.hd95_mm,
                dice_per_class={name: scores.dice for name, scores in summary.mean.items()},
                p_value=None if ensemble == best else paired_p_value(means, of_best),
                t_test_p_value=None if ensemble == best else t_test_p_value(means, of_best),
                cost=costs[ensemble],
                on_pareto_front=_on_front(ensemble, summaries, costs),
                within_limits=allow(costs[ensemble]),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.name != best.name, -(row.dice or 0.0))))


def case_means(summary: Summary) -> dict[str, float | None]:
    """The mean Dice of each case over the classes that have one."""
    return {case.case: _mean_dice(case) for case in summary.per_case}


def paired_p_value(scores: Mapping[str, float | None], others: Mapping[str, float | None]) -> float | None:
    """Wilcoxon's signed-rank test over the cases that both have a score for; None if they do not differ in any."""
    from scipy.stats import wilcoxon  # noqa: PLC0415 - heavy

    differences = _differences(scores, others)
    return float(wilcoxon(differences).pvalue) if any(differences) else None


def t_test_p_value(scores: Mapping[str, float | None], others: Mapping[str, float | None]) -> float | None:
    """The paired t-test over the same cases; None if the differences are all the same."""
    from scipy.stats import ttest_1samp  # noqa: PLC0415 - heavy

    differences = _differences(scores, others)
    return float(ttest_1samp(differences, 0).pvalue) if len(set(differences)) > 1 else None


def _differences(scores: Mapping[str, float | None], others: Mapping[str, float | None]) -> list[float]:
    """Differences of the cases that both have a score for."""
    pairs = [(mine, other) for case, mine in scores.items() if mine is not None and (other := others[case]) is not None]
    return [mine - other for mine, other in pairs]


def describe_best(best: Best, labels: Labels | None = None) -> str:
    """Text about the choice: all candidates, the reasons, and the commands to use it; `labels` give the names."""
    steps = best.postprocessing.describe(labels) or ["none"]
    why = f"; {best.reasons['postprocessing']}" if "postprocessing" in best.reasons else ""
    lines = [
        candidates_table(best, labels),
        "",
        "*: no other candidate is both as good and as fast. In brackets: beyond the limits.",
        f"p: Wilcoxon's signed-rank test and the paired t-test of these models against the best, over "
        f"{best.num_cases} cases.",
        f"best: {best.name}",
        *(f"{key}: {reason}" for key, reason in best.reasons.items() if key != "postprocessing"),
        f"post-processing: {'; '.join(steps)}"
        f" (Dice {format_score(best.dice_without_postprocessing)} -> {format_score(best.dice)}){why}",
        "use it:",
        *(f"  {command}" for command in best.commands),
    ]
    return "\n".join(lines)


def candidates_table(best: Best, labels: Labels | None = None) -> str:
    """The candidates as a plain-text table; a star marks the Pareto front, brackets those beyond the limits."""
    classes = list(best.candidates[0].dice_per_class)[:MOST_CLASSES]
    classes = classes if len(best.candidates[0].dice_per_class) > 1 else []
    names = classes if labels is None else [labels.name_of(each) for each in classes]
    header = ["candidate", *COLUMNS[:2], *names, *COLUMNS[2:]]
    return text_table(header, [_row(row, classes) for row in best.candidates])


def _row(row: Scored, classes: Sequence[str]) -> list[str]:
    name = row.name if row.within_limits else f"({row.name})"
    scores = [format_score(row.dice), format_score(row.dice_std)]
    scores += [format_score(row.dice_per_class[each]) for each in classes]
    scores += [
        "-" if row.hd95_mm is None else f"{row.hd95_mm:.2f}",
        *("-" if p is None else f"{p:.2g}" for p in (row.p_value, row.t_test_p_value)),
    ]
    cost = row.cost
    spent = ["-"] * 4
    if cost is not None:
        spent = [f"{cost.num_parameters / 1e6:.2f} M", f"{cost.flops_per_case / 1e9:.1f}"]
        spent += [f"{cost.seconds_per_case:.3f}", f"{cost.peak_memory_gb:.2f}"]
    return [f"{name} *" if row.on_pareto_front else name, *scores, *spent]


def _on_front(ensemble: Ensemble, summaries: Mapping[Ensemble, Summary], costs: Mapping[Ensemble, Cost | None]) -> bool:
    """Whether no other candidate is at least as good and as fast, and better in one of the two."""
    own_cost, own_dice = costs[ensemble], summaries[ensemble].foreground_mean.dice
    if own_cost is None or own_dice is None:
        return False
    for other, cost in costs.items():
        dice = summaries[other].foreground_mean.dice
        if other == ensemble or cost is None or dice is None:
            continue
        no_worse = dice >= own_dice and cost.seconds_per_case <= own_cost.seconds_per_case
        if no_worse and (dice, -cost.seconds_per_case) != (own_dice, -own_cost.seconds_per_case):
            return False
    return True


def _mean_dice(case: CaseSummary) -> float | None:
    values = [metrics.dice for metrics in case.metrics.values() if metrics.dice is not None]
    return mean(values) if values else None
