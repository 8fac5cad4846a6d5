"""Comparison of a folder of segmentations with a folder of true ones."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError
from seg25d.core.files import check_writable, check_writable_file, write_text
from seg25d.core.locks import file_lock, folder_lock, reading_lock
from seg25d.core.records import write_record
from seg25d.core.unfinished import Unfinished, forget_unfinished, map_and_keep
from seg25d.data.labels import Labels
from seg25d.data.sizes import choose_workers
from seg25d.evaluation.area_plot import FILES, AreaPlotOptions, measure_areas, write_area_plots
from seg25d.evaluation.lesions import LesionCounts
from seg25d.evaluation.metrics import Counts, Metrics, case_metrics, overlap_metrics
from seg25d.evaluation.nnunet_summary import nnunet_summary
from seg25d.evaluation.pairs import BYTES_PER_VOXEL, LabelValues, Pair, find_labels, find_pairs, read_pair
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.evaluation.surfaces import SURFACE_TOLERANCE_MM


class _Scored(NamedTuple):
    """A case with the metrics of all values in either file, and the data to complete those of other values."""

    summary: CaseSummary
    num_voxels: int
    reference_values: tuple[str, ...]


def evaluate(  # noqa: PLR0913 - all by keyword; the command has the same options
    reference: Path,
    prediction: Path,
    *,
    output: Path | None = None,
    csv: Path | None = None,
    num_processes: int | None = None,
    surface_tolerance_mm: float = SURFACE_TOLERANCE_MM,
    areas: AreaPlotOptions | None = None,
    common: bool = False,
    labels: Labels | LabelValues | None = None,
    nnunet_keys: bool = False,
) -> Summary:
    """Compare a folder of segmentations with the truth and write the summary.

    Cases that are scored are kept beside the summary until it is written: the same call goes on after a kill.

    Args:
        reference: Folder of true segmentations.
        prediction: Folder of predicted ones, with the same names.
        output: File of the summary; None: `summary.json` in the folder of predictions.
        csv: File of a table with one row per case and label; None: none.
        num_processes: Worker processes.
        surface_tolerance_mm: Distance between surfaces that is tolerated in `surface_dice`.
        areas: Output of area plots; None: none.
        common: Whether to leave out cases that only one of the folders has.
        labels: Meaning of the values, or those to score; None: that of the `dataset.json` that `find_labels` finds.
        nnunet_keys: Whether the summary is written under nnU-Net's keys, see `nnunet_summary`.

    Raises:
        InputError: If cases are missing or do not fit, or an output file cannot be written or is named twice; no
            output is written then.
        BusyError: If another process writes one of the files, or into the folder of predictions.
    """
    output = output or prediction / "summary.json"
    with ExitStack() as held:
        with reading_lock(prediction, "evaluating"):
            pairs = find_pairs(reference, prediction, common=common)
            labels = labels or find_labels(reference, prediction)
            _check_outputs(output, csv, areas)
            if areas is not None:
                _check_nothing_overwritten(areas.folder, pairs)
            held.enter_context(file_lock(output, "evaluating"))
            summary = _evaluate_pairs(pairs, labels, num_processes, surface_tolerance_mm, output)
            plots = None
            if areas is not None:
                known = labels if isinstance(labels, Labels) else None
                plots = measure_areas({"prediction": pairs}, {"prediction": known}, areas.axis, num_processes, output)
        if areas is not None and plots is not None:
            with folder_lock(areas.folder, "drawing area plots"):
                write_area_plots(plots, areas.folder)
        if nnunet_keys:
            write_text(output, json.dumps(nnunet_summary(summary, pairs, labels), indent=4) + "\n")
        else:
            write_record(output, summary)
        if csv is not None:
            with file_lock(csv, "evaluating"):
                write_csv(summary, csv)
        forget_unfinished(output)
    return summary


def evaluate_folders(
    reference_dir: Path,
    prediction_dir: Path,
    num_workers: int | None = None,
    surface_tolerance_mm: float = SURFACE_TOLERANCE_MM,
) -> Summary:
    """Compare every segmentation of a folder of true ones with the prediction of the same name.

    The labels, regions and the ignored value are those of a `dataset.json` in the predictions' folder, in the
    references' folder or in its parent (in that order); without one, every value above 0 in any reference is a class.

    Args:
        reference_dir: True segmentations, `CASE.ENDING`.
        prediction_dir: Predicted ones; the endings may differ, and further cases are left out.
        num_workers: Worker processes; 0 works in this process, None chooses.
        surface_tolerance_mm: Distance between surfaces that is tolerated in `surface_dice`.

    Returns:
        The summary, cases sorted by name.

    Raises:
        InputError: If there is nothing to compare, predictions are missing, a grid differs, or the
            tolerance is not above 0.
        ImageError: If a file cannot be read.
        DatasetError: If a file has a value that `dataset.json` does not declare.
    """
    pairs, labels = find_pairs(reference_dir, prediction_dir), find_labels(reference_dir, prediction_dir)
    return _evaluate_pairs(pairs, labels, num_workers, surface_tolerance_mm)


def _evaluate_pairs(
    pairs: Sequence[Pair],
    labels: Labels | LabelValues | None,
    num_workers: int | None,
    surface_tolerance_mm: float,
    output: Path | None = None,
) -> Summary:
    if not 0 < surface_tolerance_mm < math.inf:
        raise InputError(f"the tolerance between surfaces is {surface_tolerance_mm} mm; it must be a number above 0")
    workers = choose_workers(num_workers, [pair.reference for pair in pairs], BYTES_PER_VOXEL)
    score = partial(_score, labels, surface_tolerance_mm)
    meaning = labels.model_dump_json() if isinstance(labels, Labels) else labels  # with the order of names
    options = {"labels": meaning, "surface_tolerance_mm": surface_tolerance_mm}
    unfinished = None if output is None else Unfinished(output, _Scored, attrgetter("stamp"), options)
    done = map_and_keep(score, pairs, "evaluating", unfinished, name=lambda pair: pair.case, num_workers=workers)
    scored = [result for _, result in done]
    if labels is not None:
        return summarize([each.summary for each in scored], surface_tolerance_mm)
    values = sorted({value for each in scored for value in each.reference_values}, key=int)
    return summarize([_complete(each, values) for each in scored], surface_tolerance_mm)


def write_csv(summary: Summary, path: Path) -> None:
    """Write a table with one row per case and label; missing scores are empty cells."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = list(Metrics.model_fields)
    writer.writerow(["case", "label", *columns])
    for case in summary.per_case:
        for label, metrics in case.metrics.items():
            writer.writerow([case.case, label, *(getattr(metrics, column) for column in columns)])
    write_text(path, text.getvalue())


def _check_outputs(output: Path, csv: Path | None, areas: AreaPlotOptions | None) -> None:
    """Check that each output can be written, into a file of its own."""
    files = [output] if csv is None else [output, csv]
    for file in files:
        check_writable_file(file)
    if areas is not None:
        check_writable(areas.folder)
        files += [areas.folder / name for name in FILES]
    twice = [path for path, count in Counter(file.resolve() for file in files).items() if count > 1]
    if twice:
        raise InputError(f"{twice[0]} would hold two outputs, expected a file for each; name another one")


def _check_nothing_overwritten(plots: Path, pairs: Sequence[Pair]) -> None:
    """Check that plots, `CASE.png`, do not get the names of segmentations.

    Raises:
        InputError: If they do.
    """
    for path in (path for pair in pairs for path in (pair.reference, pair.prediction)):
        if path.suffix == ".png" and path.parent.resolve() == plots.resolve():
            raise InputError(f"area plots would overwrite the segmentations (.png) in {plots}; name another folder")


def _score(labels: Labels | LabelValues | None, surface_tolerance_mm: float, pair: Pair) -> _Scored:
    truth, guess, foreground, spacing_mm = read_pair(labels, pair)
    metrics = case_metrics(truth, guess, foreground, spacing_mm, surface_tolerance_mm)
    present = tuple(name for name, each in metrics.items() if each.tp + each.fn > 0)
    return _Scored(CaseSummary(case=pair.case, metrics=metrics), truth.size, present)


def _complete(scored: _Scored, values: list[str]) -> CaseSummary:
    """Restrict and extend the metrics of a case to these values; values in neither file have null scores."""
    metrics = scored.summary.metrics
    absent = overlap_metrics(Counts(0, 0, 0, scored.num_voxels), lesions=LesionCounts(0, 0, 0))
    return CaseSummary(case=scored.summary.case, metrics={value: metrics.get(value, absent) for value in values})
