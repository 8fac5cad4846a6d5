"""How the Dice is predicted with the best model: lines fitted to the cases that it was chosen on."""

from functools import partial

from seg25d.evaluation.predicted_dice import Calibration, KnownCase, Sums, calibrate
from seg25d.evaluation.summary import Summary
from seg25d.inference.postprocessing import PostProcessing, threshold_values
from seg25d.inference.uncertainty import Uncertainty
from seg25d.selection.candidates import Ensemble
from seg25d.selection.scoring import CaseToScore, Validation, fused_parts


def calibrate_best(
    validation: Validation, chosen: Ensemble, postprocessing: PostProcessing, summary: Summary
) -> Calibration | None:
    """Fit lines from the probabilities of a candidate to its scores.

    Args:
        validation: The cases, with the probabilities of all runs.
        chosen: The candidate.
        postprocessing: Its post-processing, whose thresholds count for the sums, too.
        summary: Its scores with post-processing.

    Returns:
        None if no case has a structure, or models were trained on all of them.
    """
    items = [validation.item(chosen, case) for case in validation.cases]
    done = validation.over_cases(
        partial(_sums_of_case, postprocessing),
        items,
        "calibrating the predicted Dice",
        dict[str, Sums],
        postprocessing.model_dump(mode="json"),
    )
    found = {item.case: sums for item, sums in done}
    scores = {case.case: case for case in summary.per_case}
    folds = validation.runs[chosen.runs[0]].case_folds
    return calibrate(
        [
            KnownCase.of(scores[case], folds[case], found[case])
            for case in validation.cases
            if not any(case in run.seen for run in (validation.runs[name] for name in chosen.runs))
        ]
    )


def _sums_of_case(postprocessing: PostProcessing, validation: Validation, item: CaseToScore) -> dict[str, Sums]:
    labels = validation.labels
    thresholds = threshold_values(postprocessing, labels)
    uncertainty = Uncertainty(labels)
    for _, mean in fused_parts(item):
        indices = labels.from_probabilities(mean, item.threshold if thresholds is None else thresholds)
        uncertainty.add(mean, indices)
    return uncertainty.sums
