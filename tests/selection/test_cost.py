import os
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from seg25d.core.errors import WorkerError
from seg25d.selection import cost
from seg25d.selection.cost import CaseToPredict, measure_cost

TASK = CaseToPredict((Path("si/fold_0/model_final.safetensors"),), Path("store"), "a", "cpu")


def die(_: CaseToPredict) -> None:
    os._exit(9)


def test_a_process_that_dies_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cost, "_measure", die)
    with pytest.raises(WorkerError, match=r"cost of si on a died.*lack of memory"):
        measure_cost(TASK)


@pytest.mark.parametrize(("seconds", "passes"), [(1.0, 2), (90.0, 1)])
def test_a_long_prediction_is_not_made_twice(monkeypatch: pytest.MonkeyPatch, seconds: float, passes: int) -> None:
    clock, predictor = [0.0], MagicMock(num_parameters=7)

    def predict(*_: object) -> None:
        clock[0] += seconds

    predictor.predict_preprocessed.side_effect = predict
    monkeypatch.setattr("seg25d.ensembling.load.load_predictor", lambda *_: predictor)
    monkeypatch.setattr("seg25d.preprocessing.store.Store", MagicMock())
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    assert cost._measure(TASK).seconds_per_case == seconds
    assert predictor.predict_preprocessed.call_count == passes
