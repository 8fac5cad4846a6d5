"""Upper bounds of the scores of configurations whose views lose information, measured on training cases."""

import logging
import math
from collections.abc import Collection
from functools import partial

from seg25d.core.grids import sampled_shape
from seg25d.core.parallel import choose_num_workers, map_cases
from seg25d.core.progress import track
from seg25d.data.dataset import Dataset
from seg25d.planning.case_fingerprint import CaseFingerprint
from seg25d.planning.ceiling import ceiling_key, choose_cases, lacks_ceiling, with_ceiling
from seg25d.planning.configurations import split_name
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.workflows.case_ceiling import measure_case

logger = logging.getLogger(__name__)
_FILE_BYTES, _CHANNEL_BYTES, _GRID_BYTES = 8, 12, 14
"""Per voxel of the file: labels as read and in canonical order; a channel of an image that has to be read. Per voxel of
the plan's grid: labels with their scores (as in `preprocess_dataset`)."""


def with_ceilings(
    plans: Plans, dataset: Dataset, fingerprint: Fingerprint, asked_for: Collection[str], num_workers: int | None = None
) -> Plans:
    """Add the ceilings of new or edited configurations that have one to the plans.

    Args:
        plans: Plans of the data set.
        dataset: The data set.
        fingerprint: Its fingerprint, which determines the cases to measure on.
        asked_for: Configurations, without networks, whose ceiling may be measured; that of others stays unknown.
        num_workers: Worker processes; 0 works in this process, None chooses.
    """
    configurations = dict(plans.configurations)
    measured: dict[str, dict[str, float | None] | None] = {}
    for name, plan in plans.configurations.items():
        if lacks_ceiling(plan):
            configuration, key = split_name(name)[0], ceiling_key(plan.representation)
            if key not in measured and configuration in asked_for:
                measured[key] = _measure(plan, dataset, fingerprint, num_workers)
            if warning := plan.representation.window_warning(plan.window):
                logger.warning("%s: %s", configuration, warning)
            configurations[name] = with_ceiling(plan, measured.get(key), dataset.description.labels)
            logger.info("%s, %s: %s", plans.dataset_name, name, configurations[name].reasons["ceiling"])
    return plans.model_copy(update={"configurations": configurations})


def _measure(
    plan: ConfigurationPlan, dataset: Dataset, fingerprint: Fingerprint, num_workers: int | None
) -> dict[str, float | None]:
    """Measure the mean ceiling of a plan on some cases, per class or region."""
    labels, names = dataset.description.labels, choose_cases(fingerprint)
    cases = [case for case in dataset.cases if case.name in names]
    known = [case for case in fingerprint.cases if case.case in names]
    measure = partial(
        measure_case,
        meter=plan.representation.ceiling_meter(),
        labels=labels,
        spacing_mm=plan.spacing_mm,
        common_shape=plan.common_shape,
        uncropped=frozenset(case.case for case in known if case.shape == case.cropped_shape),
    )
    needed = max((_estimate_bytes(case, plan, fingerprint.num_channels) for case in known), default=0)
    workers = choose_num_workers(num_workers, needed, len(cases))
    results = map_cases(measure, cases, name=lambda case: case.name, num_workers=workers)
    found = {case.name: dice for case, dice in track(results, len(cases), "ceiling of projections")}
    # In the order of the cases, whichever was done first: sums of rounded numbers depend on it.
    return {
        name: _mean([found[case.name][name] for case in cases if name in found[case.name]])
        for name in labels.foreground
    }


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _estimate_bytes(case: CaseFingerprint, plan: ConfigurationPlan, num_channels: int) -> int:
    """Estimate the peak memory of a worker on a case."""
    per_voxel = _FILE_BYTES + (0 if case.shape == case.cropped_shape else _CHANNEL_BYTES * num_channels)
    grid = math.prod(sampled_shape(case.cropped_shape, case.spacing_mm, plan.spacing_mm, plan.common_shape))
    return math.prod(case.shape) * per_voxel + grid * _GRID_BYTES + (200 << 20)
