import os
from pathlib import Path

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
