"""Post-processing of the chosen candidate: thresholds if outputs are independent, then components."""

import logging
from collections.abc import Sequence
from functools import partial

from seg25d.data.labels import IGNORE_INDEX, is_any_of
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.inference.postprocessing import PostProcessing, threshold_values
from seg25d.selection.candidates import Ensemble
from seg25d.selection.choose_postprocessing import (
    LEAST_GAIN,
    CaseComponents,
    Histograms,
    choose_components,
    choose_threshold,
    count_above_thresholds,
    find_components,
)
from seg25d.selection.scoring import CaseToScore, Validation, fused_labels, fused_parts, score_case

logger = logging.getLogger(__name__)
DEFAULT_THRESHOLD = 0.5


def fit_postprocessing(validation: Validation, ensemble: Ensemble, before: Summary) -> tuple[PostProcessing, Summary]:
    """Choose post-processing for a candidate, and check whether it helps.

    Args:
        validation: The cases.
        ensemble: The candidate.
        before: Its scores without post-processing.

    Returns:
        The post-processing and the scores with it; no steps and `before` if the mean Dice does not rise.
    """
    items = [validation.item(ensemble, case) for case in validation.cases]
    thresholds = _choose_thresholds(validation, items)
    # Thresholds are chosen separately per region; if they are harmful together, components alone may still help.
    for start in (thresholds,) if thresholds.does_nothing else (thresholds, PostProcessing()):
        steps = _choose_components(validation, items, start)
        if steps.does_nothing:
            continue
        # Regions may overlap, so all steps have to be scored together.
        scored = validation.over_cases(
            partial(score_case, postprocessing=steps),
            items,
            "scoring post-processing",
            CaseSummary,
            steps.model_dump(mode="json"),
        )
        after = summarize([case for _, case in scored])
        gain = (after.foreground_mean.dice or 0.0) - (before.foreground_mean.dice or 0.0)
        listed = "; ".join(steps.describe())
        if gain >= LEAST_GAIN:
            logger.info("post-processing raises the mean Dice by %.4f: %s", gain, listed)
            return steps, after
        logger.info("post-processing (%s) changes the mean Dice by %+.4f; it is not used", listed, gain)
    logger.info("no post-processing helps; none is used")
    return PostProcessing(), before


def _choose_components(
    validation: Validation, items: Sequence[CaseToScore], thresholds: PostProcessing
) -> PostProcessing:
    """Choose which components above the thresholds to keep; return this together with the thresholds."""
    function = partial(_find_case_components, postprocessing=thresholds)
    options = thresholds.model_dump(mode="json")
    done = validation.over_cases(function, items, "finding components", CaseComponents, options)
    found = {item.case: each for item, each in done}
    steps = choose_components([found[case] for case in validation.cases])
    return steps.model_copy(update={"thresholds": thresholds.thresholds})


def _choose_thresholds(validation: Validation, items: Sequence[CaseToScore]) -> PostProcessing:
    """Choose thresholds per region, or of a single class with a threshold; none if the most probable class wins."""
    labels, current = validation.labels, items[0].threshold
    if not labels.has_regions and current is None:
        return PostProcessing()
    done = validation.over_cases(_count_case, items, "trying thresholds", dict[str, Histograms])
    counted = {item.case: each for item, each in done}
    start = DEFAULT_THRESHOLD if current is None else current
    chosen = {
        name: choose_threshold([counted[case][name] for case in validation.cases], start) for name in labels.foreground
    }
    # Unchanged thresholds are not stored.
    return PostProcessing(thresholds={} if set(chosen.values()) == {start} else chosen)


def _count_case(validation: Validation, item: CaseToScore) -> dict[str, Histograms]:
    labels, truth = validation.labels, validation.truth(item.case)
    sums: dict[str, Histograms] = {}
    for part, mean in fused_parts(item):
        true_part = truth[part]
        counts = (true_part != IGNORE_INDEX).ravel()
        channels = mean if labels.has_regions else mean[1:]
        for (name, members), channel in zip(labels.foreground.items(), channels, strict=True):
            inside = is_any_of(true_part, members).ravel()
            each = count_above_thresholds(channel.ravel(), inside, counts)
            sums[name] = sums[name].plus(each) if name in sums else each
    return sums


def _find_case_components(validation: Validation, item: CaseToScore, postprocessing: PostProcessing) -> CaseComponents:
    labels = validation.labels
    indices = fused_labels(item, labels, threshold_values(postprocessing, labels))
    spacing_mm = validation.store.record(item.case).geometry.canonical_spacing_mm
    return find_components(indices, validation.truth(item.case), labels, spacing_mm)
