"""Measured cost of prediction with a run: parameters, operations, seconds and memory for one case."""

import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from seg25d.core.errors import WorkerError
from seg25d.core.parallel import call_for, watch_parent, worker_context
from seg25d.core.records import Record

LONG_PREDICTION_S = 60.0
"""From so many seconds on the first prediction of a case is timed itself: what is done once takes a few of them."""


class Cost(Record):
    """Cost of predicting one case with all folds and mirrored windows, without reading, resampling and writing."""

    num_parameters: int = Field(ge=0)
    """Parameters of all folds and, for fused views, of all views."""
    flops_per_case: float = Field(ge=0)
    """Additions and multiplications of convolutions and matrix products, counted by `torch.utils.flop_counter`."""
    seconds_per_case: float = Field(ge=0)
    peak_memory_gb: float = Field(ge=0)
    """GiB, on the GPU if there is one, else of the whole process including Python and its libraries."""


class CaseToPredict(NamedTuple):
    """A preprocessed case and the models that predict it."""

    models: tuple[Path, ...]
    store: Path
    case: str
    device: str | None
    mirroring: bool = True


def measure_cost(task: CaseToPredict) -> Cost:
    """Predict a case in a separate process, so that only its memory is measured.

    Raises:
        InputError: If models or arrays cannot be used.
        WorkerError: If it fails otherwise, or the process dies.
    """
    with ProcessPoolExecutor(1, mp_context=worker_context(), initializer=watch_parent) as pool:
        try:
            return pool.submit(call_for, _measure, task, task.case).result()
        except BrokenProcessPool:
            raise WorkerError(
                f"the process that measured the cost of {task.models[0].parent.parent.name} on {task.case} died; the "
                "system may have killed it for lack of memory. The same command continues where it stopped"
            ) from None


def joint_cost(costs: Sequence[Cost]) -> Cost:
    """The cost of several runs in sequence: the sums, and the largest memory."""
    return Cost(
        num_parameters=sum(cost.num_parameters for cost in costs),
        flops_per_case=sum(cost.flops_per_case for cost in costs),
        seconds_per_case=round(sum(cost.seconds_per_case for cost in costs), 4),
        peak_memory_gb=max(cost.peak_memory_gb for cost in costs),
    )


def _measure(task: CaseToPredict) -> Cost:
    from seg25d.core.device import choose_execution, flop_counter, peak_memory_gb  # noqa: PLC0415 - loads torch
    from seg25d.ensembling.load import load_predictor  # noqa: PLC0415 - loads torch
    from seg25d.inference.predictor import PredictorOptions  # noqa: PLC0415 - loads torch
    from seg25d.preprocessing.store import Store  # noqa: PLC0415 - heavy

    execution = choose_execution(task.device)
    predictor = load_predictor(task.models, execution, PredictorOptions(mirroring=task.mirroring))
    store = Store(task.store)
    grid = store.record(task.case).grid

    def predict() -> float:
        started = time.perf_counter()
        predictor.predict_preprocessed(store.open_image(task.case), grid)
        return time.perf_counter() - started

    # The first prediction, which also selects algorithms and allocates memory, counts operations; the second is timed.
    with flop_counter() as counter:
        seconds = predict()
    if seconds < LONG_PREDICTION_S:
        seconds = predict()
    return Cost(
        num_parameters=predictor.num_parameters,
        flops_per_case=float(counter.get_total_flops()),
        seconds_per_case=round(seconds, 4),
        peak_memory_gb=round(peak_memory_gb(execution.device), 3),
    )
