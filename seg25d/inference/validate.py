"""Scores of a fold: whole validation cases are predicted and compared with the truth on the files' grids."""

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seg25d.core.progress import track
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.evaluation.tables import summary_table
from seg25d.inference.predictor import Predictor
from seg25d.planning.model_file import ModelHeader, load_header
from seg25d.preprocessing.store import CaseRecord, Store

logger = logging.getLogger(__name__)


def validate_fold(folder: FoldFolder, store: Store, cases: Sequence[str], predictor: Predictor) -> Summary:
    """Predict cases from their preprocessed arrays and score them; results of the same model are kept.

    Writes `validation/CASE.ENDING` (if SimpleITK is installed) and `validation/summary.json`.

    Args:
        folder: The fold's folder, with its final model.
        store: Preprocessed arrays, including the truth on the files' grids.
        cases: Validation cases.
        predictor: Predictor of the final model.

    Returns:
        The scores.
    """
    path = folder.validation / "summary.json"
    if is_validated(folder, cases):
        return read_record(path, Summary)
    path.unlink(missing_ok=True)
    ending = _ending(predictor.header)
    if ending is None:
        logger.warning("SimpleITK is not installed: validation segmentations are scored but not written")
    with ThreadPoolExecutor(1) as pool:
        pending: list[Future[CaseSummary]] = []
        for case in track(cases, len(cases), f"validating {folder.root.parent.name}, {folder.root.name}"):
            record = store.record(case)
            predicted = None
            if ending is None or not _is_current(folder.validation / f"{case}{ending}", folder):
                predicted = predictor.predict_preprocessed(store.open_image(case), record.grid)
            if len(pending) > 1:
                pending[-2].result()
            pending.append(pool.submit(_finish_case, folder, store, record, predicted, (predictor.labels, ending)))
        summary = summarize([each.result() for each in pending])
    write_record(path, summary)
    logger.info("%s", summary_table(summary, predictor.labels))
    return summary


def is_validated(folder: FoldFolder, cases: Sequence[str]) -> bool:
    """Whether all that `validate_fold` writes is there, by the final model that is there."""
    ending = _ending(load_header(folder.model_final))
    written = [] if ending is None else [folder.validation / f"{case}{ending}" for case in cases]
    return all(_is_current(path, folder) for path in (folder.validation / "summary.json", *written))


def _ending(header: ModelHeader) -> str | None:
    """The ending of segmentations; None if none can be written."""
    return header.description.label_ending if find_spec("SimpleITK") else None


def _is_current(path: Path, folder: FoldFolder) -> bool:
    """Whether a file is newer than the model."""
    return path.exists() and path.stat().st_mtime_ns >= folder.model_final.stat().st_mtime_ns


def _finish_case(
    folder: FoldFolder,
    store: Store,
    record: CaseRecord,
    predicted: NDArray[np.uint8] | None,
    output: tuple[Labels, str | None],
) -> CaseSummary:
    """Write and score a case; without `predicted`, its existing file is read."""
    labels, ending = output
    path = folder.validation / f"{record.case}{ending}"
    if predicted is None:
        from seg25d.data.image_io import read_labels  # noqa: PLC0415 - SimpleITK may be missing

        predicted = labels.encode(read_labels(path)[0], str(path))
    elif ending is not None:
        from seg25d.data.image_io import write_labels  # noqa: PLC0415 - SimpleITK may be missing

        write_labels(path, labels.decode(predicted), record.geometry)
    metrics = case_metrics(
        store.read_reference(record.case), predicted, labels.foreground, record.geometry.canonical_spacing_mm
    )
    return CaseSummary(case=record.case, metrics=metrics)
