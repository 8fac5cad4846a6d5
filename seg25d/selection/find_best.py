"""Choice of the best configuration or ensemble: every run, every pair, and an ensemble extended run by run."""

import logging
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median_low
from typing import Literal, NamedTuple

from pydantic import Field

from seg25d.core.device import choose_execution, device_name
from seg25d.core.errors import InputError, RecordError
from seg25d.core.locks import file_lock, folder_lock, reading_lock
from seg25d.core.records import Record, read_record, write_record
from seg25d.core.unfinished import forget_unfinished
from seg25d.core.workspace import PreprocessedFolder
from seg25d.ensembling.weights import OverlapSums, fit_weights, overlap_sums
from seg25d.evaluation.summary import Summary
from seg25d.inference.postprocessing import PostProcessing
from seg25d.inference.probability_maps import open_probability_map
from seg25d.preprocessing.store import Store
from seg25d.selection.best import Best, Member
from seg25d.selection.calibrate import calibrate_best
from seg25d.selection.candidates import Ensemble, ValidatedRun, pairs, shared_cases
from seg25d.selection.cost import CaseToPredict, Cost, joint_cost, measure_cost
from seg25d.selection.fit_postprocessing import fit_postprocessing
from seg25d.selection.predict_validation import predict_validation
from seg25d.selection.ranking import rank
from seg25d.selection.scoring import CaseToScore, Validation, passes_of, score_ensembles

logger = logging.getLogger(__name__)
LEAST_CASES = 6
"""Cases from which on ensembles and post-processing may be chosen. With fewer no gain can be told from chance: if it is
seen in all of five cases, the p-value of Wilcoxon's two-sided signed-rank test is 2 / 2^5 = 0.06."""


class FindOptions(Record):
    """Options of the search for the best model, and limits of its cost."""

    ensembles: bool = True
    postprocessing: bool = True
    fit_weights: bool = False
    """Whether to try the best ensemble also with weights fitted on the same cases."""
    max_seconds_per_case: float | None = Field(default=None, gt=0)
    max_parameters: int | None = Field(default=None, gt=0)
    device: str | None = None
    num_processes: int | None = None

    @property
    def limits(self) -> dict[str, float]:
        """The limits that are set, by name."""
        limits = {"max_seconds_per_case": self.max_seconds_per_case, "max_parameters": self.max_parameters}
        return {name: value for name, value in limits.items() if value is not None}

    def allow(self, cost: Cost | None) -> bool:
        """Whether a cost is within the limits; an unknown cost is allowed only without limits."""
        if cost is None:
            return not self.limits
        seconds, parameters = self.max_seconds_per_case, self.max_parameters
        return (seconds is None or cost.seconds_per_case <= seconds) and (
            parameters is None or cost.num_parameters <= parameters
        )


class Candidates(NamedTuple):
    """All candidates that were tried, with scores and costs."""

    summaries: dict[Ensemble, Summary]
    costs: dict[Ensemble, Cost | None]


class _CostFile(Record):
    schema_version: Literal[1] = 1
    models: str
    case: str
    place: str
    """Machine and device that it was measured on."""
    cost: Cost


@contextmanager
def held(runs: Sequence[ValidatedRun], folder: PreprocessedFolder, scores: Path, best: Path) -> Iterator[None]:
    """Hold what `find_best` writes, and keep what it reads from changing; passes over cases are forgotten at the end.

    Args:
        runs: The runs to compare.
        folder: The preprocessed data set.
        scores: Folder for the scores of candidates.
        best: File of the choice.

    Raises:
        BusyError: If another process compares runs, trains one of the folds or changes their arrays.
    """
    stores = {folder.store(run.store) for run in runs if run.store is not None}
    folds = [place for run in runs for place in (run.run.root, *(run.run.fold(fold).root for fold in run.folds))]
    purpose = "find_best_configuration"
    with folder_lock(scores, purpose), file_lock(best, purpose), ExitStack() as locks:
        for place in (*sorted(stores), *folds):
            locks.enter_context(reading_lock(place, purpose))
        yield
        forget_unfinished(passes_of(scores))


def find_best(
    dataset_name: str, runs: Sequence[ValidatedRun], folder: PreprocessedFolder, scores: Path, options: FindOptions
) -> Best:
    """Choose the candidate with the best mean Dice over the validation cases that all runs have in common.

    With fewer than `LEAST_CASES` of them only single configurations are chosen, without post-processing.

    Missing probabilities of validation cases, scores and costs are computed. All of them are kept, so that the same
    command continues after an interruption.

    Args:
        dataset_name: Name of the data set.
        runs: The runs, with the folds to compare.
        folder: The preprocessed data set, with images and true labels.
        scores: Folder for the scores of candidates.
        options: Options of the search.

    Returns:
        The choice, for `best.json`.

    Raises:
        InputError: If the runs do not fit together, there is nothing to compare, or no candidate is within the limits.
    """
    validation = _prepare_validation(runs, folder, scores, options)
    for run in runs:
        predict_validation(run, folder.root, choose_execution(options.device))
    costs = {Ensemble((run.name,)): _find_cost(run, folder, validation, options) for run in runs}
    candidates = Candidates(score_ensembles(validation, list(costs)), costs)
    few = len(validation.cases) < LEAST_CASES
    if options.ensembles:
        _add_ensembles(validation, candidates, options)
    within = [each for each in candidates.summaries if options.allow(candidates.costs[each])]
    allowed = [each for each in within if not few or len(each.runs) == 1]
    if not allowed:
        raise InputError(
            f"no configuration is within the limits ({_format_limits(options.limits)}); the cheapest takes "
            + ", ".join(
                f"{each.name}: {cost.seconds_per_case:.3g} s, {cost.num_parameters:,} parameters"
                for each, cost in candidates.costs.items()
                if cost is not None and len(each.runs) == 1
            )
        )
    chosen = max(allowed, key=lambda each: _dice(candidates.summaries[each]))
    summary = candidates.summaries[chosen]
    steps, after = PostProcessing(), summary
    members = _members(validation, chosen)
    reasons = _explain(validation, options, few)
    foreign = any(member.imported for member in members)
    if options.postprocessing and foreign:
        reasons["postprocessing"] = "no post-processing is fitted: another program predicts and could not apply it"
        logger.warning(reasons["postprocessing"])
    elif options.postprocessing and not few:
        steps, after = fit_postprocessing(validation, chosen, summary)
        gain = (after.foreground_mean.dice or 0.0) - (summary.foreground_mean.dice or 0.0)
        helps = f"raises the mean Dice by {gain:.4f} over the same cases that it was fitted on"
        reasons["postprocessing"] = "no step raises the mean Dice" if steps.does_nothing else helps
    return Best(
        dataset_name=dataset_name,
        name=chosen.name,
        members=members,
        postprocessing=steps,
        dice=after.foreground_mean.dice,
        dice_without_postprocessing=summary.foreground_mean.dice,
        hd95_mm=after.foreground_mean.hd95_mm,
        cost=candidates.costs[chosen],
        num_cases=len(validation.cases),
        folds=tuple(sorted({fold for run in runs for fold in run.folds})),
        limits=options.limits,
        commands=use_commands(dataset_name, members),
        reasons=reasons,
        candidates=rank(candidates.summaries, candidates.costs, chosen, options.allow),
        predicted_dice=None if foreign else calibrate_best(validation, chosen, steps, after),
    )


def _explain(validation: Validation, options: FindOptions, few: bool) -> dict[str, str]:
    """Reasons for `best.json`; what speaks against trusting the choice is a warning, too."""
    count = len(validation.cases)
    cases = "1 case" if count == 1 else f"{count} cases"
    among = "configurations and ensembles" if options.ensembles and not few else "configurations"
    limits = f" within the limits ({_format_limits(options.limits)})" if options.limits else ""
    reasons = {"choice": f"the best mean Dice of all {among}{limits} over {cases}"}
    if few:
        reasons["choice"] += (
            f"; this may be chance, as with fewer than {LEAST_CASES} cases Wilcoxon's signed-rank test tells no "
            "difference from chance (p > 0.05 whatever the scores), so that no ensemble, no weights and no "
            "post-processing are chosen; more folds have more cases"
        )
        reasons["postprocessing"] = f"none with fewer than {LEAST_CASES} cases: it would be fitted to chance"
        logger.warning("the choice is %s", reasons["choice"])
    seen = [case for case in validation.cases if any(case in run.seen for run in validation.runs.values())]
    if seen:
        reasons["cases"] = (
            f"models were trained on {len(seen)} of the {cases} that they are compared on, as the same cases are in "
            "training and validation of a fold: these scores say little about new cases"
        )
        logger.warning(reasons["cases"])
    return reasons


def use_commands(dataset_name: str, members: Sequence[Member]) -> tuple[str, ...]:
    """The commands that predict with a choice."""
    if not any(member.imported for member in members):
        return (f"seg25d predict -d {dataset_name} -i IN -o OUT",)
    lines = []
    for number, member in enumerate(members):
        own = f"seg25d predict -d {dataset_name} -c {member.run} -f {' '.join(member.folds)}"
        by = f"nnUNetv2_predict (the model of {member.run})" if member.imported else own
        save = "--save_probabilities" if member.imported else "--save-probabilities"
        lines.append(f"{by} -i IN -o OUT_{number} {save}")
    folders = " ".join(f"OUT_{number}" for number in range(len(members)))
    weights = " ".join(f"{member.weight:g}" for member in members)
    if len(members) > 1:
        lines.append(f"seg25d ensemble -i {folders} -o OUT --method mean --weights {weights}")
    return tuple(lines)


def _prepare_validation(
    runs: Sequence[ValidatedRun], folder: PreprocessedFolder, scores: Path, options: FindOptions
) -> Validation:
    first = runs[0]
    for run in runs[1:]:
        if not run.description.labels.agrees_with(first.description.labels):
            raise InputError(
                f"{run.name} and {first.name} were trained with different labels; choose runs that fit together with -c"
            )
    trained = [run for run in runs if run.store is not None]
    for run in trained[1:]:
        if run.description.channel_names != trained[0].description.channel_names:
            raise InputError(
                f"{run.name} and {trained[0].name} were trained with different channels; choose runs that fit together "
                "with -c"
            )
    cases = shared_cases(runs)
    if not cases:
        raise InputError(
            f"{', '.join(run.name for run in runs)} have no validation case in common; train the same folds of all"
        )
    fewer = {run.name: len(run.case_folds) for run in runs if len(run.case_folds) > len(cases)}
    if fewer:
        listed = ", ".join(f"{name} has {count}" for name, count in fewer.items())
        logger.warning("compared on the %d cases that all runs share; %s", len(cases), listed)
    if not trained or trained[0].store is None:
        raise InputError(
            f"{', '.join(run.name for run in runs)}: only results of another program; train a configuration first"
        )
    by_name = {run.name: run for run in runs}
    labels = first.description.labels
    return Validation(by_name, cases, labels, Store(folder.store(trained[0].store)), scores, options.num_processes)


def _find_cost(
    run: ValidatedRun, folder: PreprocessedFolder, validation: Validation, options: FindOptions
) -> Cost | None:
    """The cost of the case of median size; measured once for these models on this machine and device."""
    if run.store is None:
        return None
    path = validation.scores / f"{run.name}.cost.json"
    case = _middle_case(validation)
    place = f"{device_name(choose_execution(options.device).device)} of {platform.node()}"
    try:
        earlier = read_record(path, _CostFile) if path.exists() else None
    except RecordError as error:
        logger.warning("%s; measuring again", error)
        earlier = None
    if earlier is not None and (earlier.models, earlier.case, earlier.place) == (run.stamp, case, place):
        return earlier.cost
    logger.info("measuring the cost of %s on %s", run.name, case)
    models = tuple(run.run.fold(fold).model_final for fold in run.folds)
    cost = measure_cost(CaseToPredict(models, folder.store(run.store), case, options.device))
    write_record(path, _CostFile(models=run.stamp, case=case, place=place, cost=cost))
    return cost


def _middle_case(validation: Validation) -> str:
    """The first case of median size."""
    voxels = {case: math.prod(validation.store.record(case).grid.shape) for case in validation.cases}
    middle = median_low(voxels.values())
    return next(case for case, count in voxels.items() if count == middle)


def _add_ensembles(validation: Validation, candidates: Candidates, options: FindOptions) -> None:
    """Score every pair, then add single runs to the best ensemble as long as that improves it."""
    names = [each.runs[0] for each in candidates.summaries]
    _add(validation, candidates, pairs(names), options)
    best = _best_ensemble(candidates)
    while best is not None:
        runs = set(best.runs)
        larger = [
            Ensemble(tuple(each for each in names if each in {*runs, name})) for name in names if name not in runs
        ]
        _add(validation, candidates, larger, options)
        better = _best_ensemble(candidates)
        if better is None or better == best:
            break
        best = better
    if options.fit_weights and best is not None and len(validation.cases) >= LEAST_CASES:
        weighted = _fit_weights(validation, best)
        if weighted is not None:
            _add(validation, candidates, [weighted], options)


def _add(validation: Validation, candidates: Candidates, ensembles: Sequence[Ensemble], options: FindOptions) -> None:
    costs = {each: _joint_cost(each, candidates.costs) for each in ensembles}
    affordable = [each for each in ensembles if options.allow(costs[each])]
    candidates.summaries.update(score_ensembles(validation, affordable))
    candidates.costs.update({each: costs[each] for each in affordable})


def _joint_cost(ensemble: Ensemble, costs: Mapping[Ensemble, Cost | None]) -> Cost | None:
    known = [cost for name in ensemble.runs if (cost := costs[Ensemble((name,))]) is not None]
    return joint_cost(known) if len(known) == len(ensemble.runs) else None


def _best_ensemble(candidates: Candidates) -> Ensemble | None:
    ensembles = [each for each in candidates.summaries if len(each.runs) > 1]
    return max(ensembles, key=lambda each: _dice(candidates.summaries[each]), default=None)


def _fit_weights(validation: Validation, ensemble: Ensemble) -> Ensemble | None:
    """Fit the weights of an ensemble, dropping runs with weight 0; None if the result is not a new ensemble."""
    items = [validation.item(ensemble, case) for case in validation.cases]
    done = validation.over_cases(_sums_of_case, items, "fitting weights", dict[int, OverlapSums])
    sums = {item.case: each for item, each in done}
    # In the order of the cases, not of completion: sums of floating-point numbers depend on it.
    if not any(sums.values()):
        logger.warning("no case has any foreground; weights cannot be fitted")
        return None
    weights = fit_weights([sums[case] for case in validation.cases], len(ensemble.runs))
    kept = [(name, weight) for name, weight in zip(ensemble.runs, weights, strict=True) if weight > 0]
    if len(kept) < 2 or (len({weight for _, weight in kept}) == 1 and len(kept) == len(ensemble.runs)):
        return None
    return Ensemble(tuple(name for name, _ in kept), tuple(weight for _, weight in kept))


def _sums_of_case(validation: Validation, item: CaseToScore) -> dict[int, OverlapSums]:
    return overlap_sums(
        [open_probability_map(path) for path in item.maps], validation.truth(item.case), validation.labels
    )


def _members(validation: Validation, ensemble: Ensemble) -> tuple[Member, ...]:
    weights = ensemble.weights or (1 / len(ensemble.runs),) * len(ensemble.runs)
    return tuple(
        Member(
            run=name,
            folds=tuple(str(fold) for fold in validation.runs[name].folds),
            weight=weight,
            imported=validation.runs[name].store is None,
        )
        for name, weight in zip(ensemble.runs, weights, strict=True)
    )


def _dice(summary: Summary) -> float:
    return -1.0 if summary.foreground_mean.dice is None else summary.foreground_mean.dice


def _format_limits(limits: Mapping[str, float]) -> str:
    return ", ".join(f"--{name.replace('_', '-')} {value:g}" for name, value in limits.items())
