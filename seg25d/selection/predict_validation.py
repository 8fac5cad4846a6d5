"""Prediction of missing probabilities of validation cases."""

import logging
from pathlib import Path

from seg25d.core.backend import num_threads
from seg25d.core.device import Execution
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.progress import track
from seg25d.ensembling.load import load_predictor
from seg25d.inference.probability_maps import probability_map_writer
from seg25d.preprocessing.store import Store
from seg25d.selection.candidates import ValidatedRun

logger = logging.getLogger(__name__)


def predict_validation(run: ValidatedRun, stores: Path, execution: Execution) -> None:
    """Predict every case of a run with the fold that was not trained on it; results of the same models are kept.

    Args:
        run: The run; imported ones of other programs are skipped.
        stores: The data set's preprocessed folder, which holds the run's store.
        execution: Device and precision.

    Raises:
        RecordError: If preprocessed arrays are missing or damaged.
        InputError: If the disk is full or not writable.
    """
    if run.store is None:
        return
    store = Store(stores / run.store)
    for fold in run.folds:
        folder = run.run.fold(fold)
        made = folder.model_final.stat().st_mtime_ns
        paths = {case: run.probability_map(case) for case, number in run.case_folds.items() if number == fold}
        missing = [
            case
            for case, path in paths.items()
            if not (path.exists() and path.stat().st_mtime_ns >= max(made, store.written_ns(case)))
        ]
        remove_leftovers(folder.probabilities)
        if not missing:
            continue
        predictor = load_predictor([folder.model_final], execution)
        for case in track(missing, len(missing), f"predicting cases of {run.name}, fold {fold}"):
            with probability_map_writer(paths[case], num_threads()) as writer:
                predictor.predict_probabilities(store.open_image(case), store.record(case).grid, [writer])
