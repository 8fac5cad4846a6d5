"""Writing of the report of a data set."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path

from seg25d.core.errors import InputError, Seg25dError
from seg25d.core.files import check_writable_file, write_text
from seg25d.core.progress import track
from seg25d.core.workspace import Workspace
from seg25d.data.cases import Case
from seg25d.data.dataset import scan_dataset
from seg25d.evaluation.area_plot import AreaNumbers, measure_areas
from seg25d.evaluation.pairs import Pair
from seg25d.report.niivue import find_niivue
from seg25d.report.page import render_page
from seg25d.report.results import Results, TrainedRun, gather_results
from seg25d.report.shown_cases import ShownCase, choose_cases, show_case

logger = logging.getLogger(__name__)
IN_VIEWER = ("worst", "median", "best")


def write_report(workspace: Workspace, dataset_name: str, out: Path, num_processes: int | None = None) -> None:
    """Write the report of a data set.

    Args:
        workspace: The workspace.
        dataset_name: Full name of a data set.
        out: The HTML file; complete or absent afterwards.
        num_processes: Worker processes; None: by cores and memory.

    Raises:
        InputError: If there is nothing to report, or the package of the viewer lacks files.
    """
    results = gather_results(workspace, dataset_name)
    check_writable_file(out)
    raw = _raw_cases(workspace, dataset_name)
    runs = [run for run in results.runs if run.validated.store is not None and raw]
    niivue = find_niivue() if runs else None
    areas = _measure_areas(runs, raw, results, num_processes)
    cases = _show_cases(runs, raw, results, in_viewer=IN_VIEWER if niivue is not None else ())
    write_text(out, render_page(results, cases, areas, niivue))


def _raw_cases(workspace: Workspace, dataset_name: str) -> dict[str, Case]:
    folder = workspace.raw_dataset(dataset_name)
    dataset, problems = scan_dataset(folder) if folder.is_dir() else (None, [])
    if dataset is None:
        logger.warning(
            "%s cannot be read: the report shows no images%s",
            folder,
            f" ({len(problems)} problems)" if problems else "",
        )
        return {}
    return {case.name: case for case in dataset.cases if case.label is not None}


def _show_cases(
    runs: list[TrainedRun], raw: Mapping[str, Case], results: Results, *, in_viewer: Collection[str]
) -> list[ShownCase]:
    """Draw cases of the best single run; cases that cannot be read are left out with a warning."""
    if not runs:
        return []
    chosen = {name: why for name, why in choose_cases(runs[0]).items() if name in raw}
    shown = []
    for name, why in track(chosen.items(), len(chosen), "drawing cases"):
        predicted = [run for run in runs if name in run.validated.case_folds]
        try:
            shown.append(show_case(raw[name], why, predicted, results.description, in_viewer=why in in_viewer))
        except Seg25dError as error:
            logger.warning("%s is not shown: %s", name, error)
    return shown


def _measure_areas(
    runs: list[TrainedRun], raw: Mapping[str, Case], results: Results, num_processes: int | None
) -> dict[str, AreaNumbers]:
    """Mean measures of area plots, of the truth and of every run, each over its own validation cases."""
    found: dict[str, AreaNumbers] = {}
    for run in runs:
        pairs = [
            Pair(name, raw[name].label or Path(), run.prediction(name))
            for name in sorted(run.validated.case_folds)
            if name in raw and run.prediction(name).exists()
        ]
        if not pairs:
            continue
        try:
            plots = measure_areas({run.name: pairs}, {run.name: results.description.labels}, num_workers=num_processes)
        except InputError as error:
            logger.warning("no area plots of %s: %s", run.name, error)
            continue
        found.setdefault("truth", plots.mean["reference"])
        found[run.name] = plots.mean[run.name]
    return found
