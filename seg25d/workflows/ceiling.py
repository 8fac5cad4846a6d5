"""Upper bounds of the scores of configurations whose views lose information, measured on training cases."""

import logging
from collections.abc import Collection, Sequence
from functools import partial

import torch

from seg25d.core.parallel import map_cases
from seg25d.core.progress import track
from seg25d.data.dataset import Dataset
from seg25d.planning.ceiling import ceiling_key, choose_cases, lacks_ceiling, with_ceiling
from seg25d.planning.configurations import split_name
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.preprocess import read_model_labels

logger = logging.getLogger(__name__)


def with_ceilings(plans: Plans, dataset: Dataset, fingerprint: Fingerprint, asked_for: Collection[str]) -> Plans:
    """Add the ceilings of new or edited configurations that have one to the plans.

    Args:
        plans: Plans of the data set.
        dataset: The data set.
        fingerprint: Its fingerprint, which determines the cases to measure on.
        asked_for: Configurations, without networks, whose ceiling may be measured; that of others stays unknown.
    """
    configurations = dict(plans.configurations)
    measured: dict[str, dict[str, float | None] | None] = {}
    for name, plan in plans.configurations.items():
        if lacks_ceiling(plan):
            configuration, key = split_name(name)[0], ceiling_key(plan.representation)
            if key not in measured and configuration in asked_for:
                measured[key] = _measure(plan, dataset, choose_cases(fingerprint))
            if warning := plan.representation.window_warning(plan.window):
                logger.warning("%s: %s", configuration, warning)
            configurations[name] = with_ceiling(plan, measured.get(key), dataset.description.labels)
            logger.info("%s, %s: %s", plans.dataset_name, name, configurations[name].reasons["ceiling"])
    return plans.model_copy(update={"configurations": configurations})


def _measure(plan: ConfigurationPlan, dataset: Dataset, names: Sequence[str]) -> dict[str, float | None]:
    """Measure the mean ceiling of a plan on some cases, per class or region."""
    labels = dataset.description.labels
    cases = [case for case in dataset.cases if case.name in names]
    read = partial(read_model_labels, labels=labels, spacing_mm=plan.spacing_mm)
    # Sequentially in this process: torch is loaded here, and reading takes less time than projecting.
    results = map_cases(read, cases, name=lambda case: case.name)
    volumes = (torch.from_numpy(volume) for _, volume in track(results, len(cases), "ceiling of projections"))
    return plan.representation.mean_ceilings(volumes, labels.foreground)
