"""Scores of a fold: whole validation cases are predicted and compared with the truth on the files' grids."""

import logging
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.progress import track
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.labels import Labels
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.predicted_dice import CaseSums, Sums
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.evaluation.tables import summary_table
from seg25d.inference.prediction_files import probabilities_path, write_probabilities
from seg25d.inference.predictor import Predictor
from seg25d.inference.probability_maps import write_probability_map
from seg25d.inference.uncertainty import Uncertainty
from seg25d.planning.model_file import ModelHeader, load_header
from seg25d.preprocessing.store import CaseRecord, Store

logger = logging.getLogger(__name__)
KEPT_BYTES = 1 << 28
"""Probabilities of a case, in float32, that are kept at the most. Those of three cases may be in memory at a time:
together they stay below what a task's process is reckoned with (`PROCESS_BYTES`, orchestration/training_graph.py)."""


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

    def keeps(self, record: CaseRecord) -> bool:
        """Whether the probabilities of a case are kept."""
        num_bytes = 4 * self.labels.num_outputs * math.prod(record.geometry.canonical_shape)
        return self.maps is not None and num_bytes <= KEPT_BYTES


class _Predicted(NamedTuple):
    """What a model says of a case."""

    indices: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    sums: dict[str, Sums]


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
            `find_best_configuration` does, up to `KEPT_BYTES` a case.

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
            predicted, probabilities, uncertainty = None, None, Uncertainty(predictor.labels)
            if not output.has(case) and (save_probabilities or output.keeps(record)):
                predicted, probabilities = predictor.predict_probabilities(store.open_image(case), record.grid)
                uncertainty.add_whole(probabilities, predicted)
            elif not output.has(case):
                predicted = predictor.predict_preprocessed(store.open_image(case), record.grid, uncertainty)
            if len(pending) > 1:
                pending[-2].result()
            result = None if predicted is None else _Predicted(predicted, probabilities, uncertainty.sums)
            pending.append(pool.submit(_finish_case, store, record, result, output))
            del probabilities, result
        summary = summarize([each.result() for each in pending])
    write_record(path, summary)
    logger.info("%s", summary_table(summary, predictor.labels))
    return summary


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
        if result.probabilities is not None and output.save_probabilities:
            write_probabilities(path, result.probabilities, record.geometry)
        if result.probabilities is not None and output.maps is not None and output.keeps(record):
            write_probability_map(output.maps / f"{record.case}.b2nd", result.probabilities)
        write_record(output.sums(record.case), CaseSums(structures=result.sums))
        if ending is not None:
            from seg25d.data.image_io import write_labels  # noqa: PLC0415 - SimpleITK may be missing

            write_labels(path, labels.decode(indices), record.geometry)
    metrics = case_metrics(
        store.read_reference(record.case), indices, labels.foreground, record.geometry.canonical_spacing_mm
    )
    return CaseSummary(case=record.case, metrics=metrics)
