"""A demo from raw images to a table of scores on held-out cases and two pictures."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from seg25d import api
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.demo.budgets import TIME_BUDGETS_S
from seg25d.demo.kind import DemoKind, Outcome
from seg25d.demo.phantom import PHANTOM
from seg25d.demo.vessels import VESSELS
from seg25d.evaluation.summary import Summary
from seg25d.planning.configurations import configuration_name

logger = logging.getLogger(__name__)
KINDS: Mapping[str, DemoKind] = {"phantom": PHANTOM, "vessels": VESSELS}
"""Kinds of demo by name; `budgets.TIME_BUDGETS_S` has the same names."""


class DemoResult(NamedTuple):
    """Results of a demo."""

    table: str
    """Table of scores of each configuration on the held-out cases."""
    pictures: tuple[Path, ...]
    summaries: dict[str, Summary]
    """Scores on the held-out cases by configuration."""
    report: Path
    """The report as an HTML file."""


def run_demo(
    workspace: Workspace,
    kind: str = "phantom",
    *,
    time_budget_s: float | None = None,
    restart: bool = False,
    device: str | None = None,
    num_processes: int | None = None,
) -> DemoResult:
    """Make a data set, then plan, preprocess, train, predict, evaluate and report; existing results are kept.

    Args:
        workspace: The workspace, also for the data set.
        kind: A name in `KINDS`.
        time_budget_s: Training time per configuration; None: that of the kind in `TIME_BUDGETS_S`.
        restart: Whether to train anew what was trained, for instance for a shorter time than before.
        device: Device; None: the best one available.
        num_processes: Worker processes; None: by cores and memory.

    Raises:
        InputError: If there is no such kind; lists the available ones.
    """
    if kind not in KINDS:
        raise InputError(f"there is no demo {kind!r}; known: {', '.join(KINDS)}")
    demo = KINDS[kind]
    raw = workspace.raw_dataset(demo.dataset_name)
    logger.info("making the data set %s", raw)
    demo.write(raw)
    planning = api.PlanningOptions(configurations=demo.configurations, recipe=demo.recipe, num_processes=num_processes)
    plans = api.plan_and_preprocess(workspace, [demo.dataset_name], planning)[demo.dataset_name]
    training = api.TrainingOptions(
        recipe=demo.recipe,
        time_budget_s=TIME_BUDGETS_S[kind] if time_budget_s is None else time_budget_s,
        restart=restart,
        device=device,
        num_processes=num_processes,
    )
    outcomes = {}
    for name in demo.configurations:
        settings = dict(demo.settings.get(name, {}))
        api.train(workspace, demo.dataset_name, name, ["0"], training.model_copy(update={"settings": settings}))
        run = workspace.run(demo.dataset_name, plans.run_name(configuration_name(name, plans.slice_axis)))
        predicted = workspace.results / demo.dataset_name / "demo" / name
        # Without mirroring, which takes eight times as long; overwriting, as the model may have changed.
        prediction = api.PredictionOptions(model=run.root, mirroring=False, overwrite=True, device=device)
        api.predict(workspace, raw / "imagesTs", predicted, prediction)
        summary = api.evaluate(raw / "labelsTs", predicted, num_processes=num_processes)
        outcomes[name] = Outcome(run.fold(0), predicted, summary)
    pictures = demo.draw(raw, {name: outcome.predicted for name, outcome in outcomes.items()})
    summaries = {name: outcome.summary for name, outcome in outcomes.items()}
    report = api.report(workspace, demo.dataset_name, num_processes=num_processes)
    return DemoResult(demo.table(outcomes), pictures, summaries, report)
