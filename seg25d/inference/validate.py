"""Scores of a fold: whole validation cases are predicted and compared with the truth on the files' grids."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import Windows
from seg25d.core.backend import num_threads
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.progress import track
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.predicted_dice import CaseSums, Sums
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.evaluation.tables import summary_table
from seg25d.inference.predictor import Predictor
from seg25d.inference.probability_files import probabilities_path, write_probabilities
from seg25d.inference.probability_maps import passing_map_writer, probability_map_writer
from seg25d.inference.uncertainty import Uncertainty
from seg25d.planning.model_file import ModelHeader, load_header
from seg25d.preprocessing.store import CaseRecord, Store

logger = logging.getLogger(__name__)


class _Output(NamedTuple):
    """Where the results of a model go, and what they are."""

    folder: Path
    labels: Labels
    ending: str | None
    made: int
    """When the model was written, in ns: older files are of an earlier one."""
    save_probabilities: bool
    maps: Path | None
    """Folder for the probabilities that are kept."""

    def segmentation(self, case: str) -> Path:
        return self.folder / f"{case}{self.ending}"

    def sums(self, case: str) -> Path:
        return sums_path(self.folder, case)

    def has(self, case: str) -> bool:
        """Whether all files of a case are there."""
        if self.ending is None:
            return False
        files = [self.segmentation(case), self.sums(case)]
        files += [probabilities_path(self.segmentation(case))] if self.save_probabilities else []
        return all(_is_current(path, self.made) for path in files)


class _Predicted(NamedTuple):
    """What a model says of a case."""

    indices: NDArray[np.uint8]
    sums: dict[str, Sums]
    probabilities: Windows | None
    """To write them, if they are wanted."""
    opened: ExitStack
    """What has to be closed when they are written."""


def sums_path(results: Path, case: str) -> Path:
    """Where the sums of a case's probabilities are, in a folder of validation results."""
    return results / "uncertainty" / f"{case}.json"


def validate_fold(
    folder: FoldFolder,
    store: Store,
    cases: Sequence[str],
    predictor: Predictor,
    *,
    kind: Literal["final", "best", "quick"] = "final",
    save_probabilities: bool = False,
    keep_probabilities: bool = False,
) -> Summary:
    """Predict cases from their preprocessed arrays and score them; results of the same model are kept.

    Writes `validation/CASE.ENDING` (if SimpleITK is installed), `validation/uncertainty/CASE.json` (see
    `evaluation/predicted_dice.py`) and `validation/summary.json`.

    Args:
        folder: The fold's folder, with its final model.
        store: Preprocessed arrays, including the truth on the files' grids.
        cases: Validation cases.
        predictor: Predictor of the final model.
        kind: `best`: the predictor is that of the best model instead, and results are in `validation_best/`; `quick`:
            it does not mirror, and results are in `validation_quick/`.
        save_probabilities: Also write `CASE.npz`, see `write_probabilities`; needs SimpleITK.
        keep_probabilities: Also keep those of cases that are predicted now in `probabilities/CASE.b2nd`, as
            `find_best_configuration` does.

    Returns:
        The scores.
    """
    model = folder.model_best if kind == "best" else folder.model_final
    results = {"final": folder.validation, "best": folder.validation_best, "quick": folder.validation_quick}[kind]
    ending = _ending(predictor.header)
    maps = folder.probabilities if keep_probabilities and kind == "final" else None
    output = _Output(results, predictor.labels, ending, model.stat().st_mtime_ns, save_probabilities, maps)
    path = results / "summary.json"
    if _is_current(path, output.made) and all(output.has(case) for case in cases if ending is not None):
        return read_record(path, Summary)
    path.unlink(missing_ok=True)
    if ending is None:
        logger.warning("SimpleITK is not installed: validation segmentations are scored but not written")
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[CaseSummary]] = []
        for case in track(cases, len(cases), f"validating {folder.root.parent.name}, {folder.root.name}"):
            record = store.record(case)
            result = None if output.has(case) else _predict(predictor, store, record, output)
            if len(pending) > 1:
                pending[-2].result()
            pending.append(pool.submit(_finish_case, store, record, result, output))
            del result
        summary = summarize([each.result() for each in pending])
    write_record(path, summary)
    logger.info("%s", summary_table(summary, predictor.labels))
    return summary


def _predict(predictor: Predictor, store: Store, record: CaseRecord, output: _Output) -> _Predicted:
    """Predict a case, and keep its probabilities where they are wanted."""
    uncertainty, image, probabilities = Uncertainty(predictor.labels), store.open_image(record.case), None
    with ExitStack() as stack:
        if output.maps is None and not output.save_probabilities:
            indices = predictor.predict_preprocessed(image, record.grid, uncertainty)
        else:
            with ExitStack() as kept:
                writers = []
                if output.maps is not None:
                    path = output.maps / f"{record.case}.b2nd"
                    writers.append(kept.enter_context(probability_map_writer(path, num_threads())))
                if output.save_probabilities:
                    remove_leftovers(output.folder)
                    writers.append(stack.enter_context(passing_map_writer(output.folder, num_threads())))
                indices = predictor.predict_probabilities(image, record.grid, writers, None, uncertainty)
            probabilities = writers[-1].array if output.save_probabilities else None
        return _Predicted(indices, uncertainty.sums, probabilities, stack.pop_all())


def is_validated(folder: FoldFolder, cases: Sequence[str]) -> bool:
    """Whether segmentations and scores of `validate_fold` are there, by the final model that is there."""
    ending, made = _ending(load_header(folder.model_final)), folder.model_final.stat().st_mtime_ns
    written = [] if ending is None else [folder.validation / f"{case}{ending}" for case in cases]
    return all(_is_current(path, made) for path in (folder.validation / "summary.json", *written))


def _ending(header: ModelHeader) -> str | None:
    """The ending of segmentations; None if none can be written."""
    return header.description.label_ending if find_spec("SimpleITK") else None


def _is_current(path: Path, made: int) -> bool:
    """Whether a file is newer than the model."""
    return path.exists() and path.stat().st_mtime_ns >= made


def _finish_case(store: Store, record: CaseRecord, result: _Predicted | None, output: _Output) -> CaseSummary:
    """Write and score a case; without `result`, its existing file is read."""
    labels, ending, path = output.labels, output.ending, output.segmentation(record.case)
    if result is None:
        from seg25d.data.image_io import read_labels  # noqa: PLC0415 - SimpleITK may be missing

        indices = labels.encode(read_labels(path)[0], str(path))
    else:
        indices = result.indices
        with result.opened:
            if result.probabilities is not None:
                write_probabilities(path, result.probabilities, record.geometry, num_threads())
        write_record(output.sums(record.case), CaseSums(structures=result.sums))
        if ending is not None:
            from seg25d.data.image_io import write_labels  # noqa: PLC0415 - SimpleITK may be missing

            write_labels(path, labels.decode(indices), record.geometry)
    metrics = case_metrics(
        store.read_reference(record.case), indices, labels.foreground, record.geometry.canonical_spacing_mm
    )
    return CaseSummary(case=record.case, metrics=metrics)
