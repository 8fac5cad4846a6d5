"""Cases that wait to be written: how many there are depends on their size."""

import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seg25d.data.cases import Case
from seg25d.data.labels import Labels
from seg25d.inference import cases as cases_module
from seg25d.inference.cases import CaseOptions, Done, Work, outcomes_here

LABELS = Labels(names={"background": 0, "organ": 1})
SHAPE = (4, 4, 4)


class Model:
    """Counts what it predicts."""

    def __init__(self) -> None:
        self.num_predicted = 0

    def segment(self, prepared, uncertainty, folder):
        self.num_predicted += 1
        return np.zeros(SHAPE, np.uint8)

    def segment_with_probabilities(self, prepared, folder, uncertainty):
        return nullcontext((self.segment(prepared, uncertainty, folder), np.zeros((2, *SHAPE), np.float32)))


@pytest.mark.parametrize(
    ("most_bytes", "probabilities", "ahead"),
    [(1 << 20, True, 3), (1 << 10, True, 2), (1 << 10, False, 3), (1, False, 2)],
)
def test_as_many_wait_as_their_bytes_allow(
    monkeypatch: pytest.MonkeyPatch, most_bytes: int, probabilities: bool, ahead: int
) -> None:
    """The probabilities of a case have 512 bytes, its labels 64."""
    model, seen = Model(), []
    monkeypatch.setattr(cases_module, "WAITING_BYTES", most_bytes)
    read = SimpleNamespace(prepared=None, geometry=None, seconds=0.0)
    monkeypatch.setattr(cases_module, "_read", lambda *_: read)

    def write(*_: object) -> Done:
        deadline = time.monotonic() + 5
        while model.num_predicted < min(6, len(seen) + ahead) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # in which more would be predicted
        seen.append(model.num_predicted - len(seen))
        return Done(0.0)

    monkeypatch.setattr(cases_module, "_write", write)
    cases = [Case(name=str(number), images=(Path(f"{number}.nii.gz"),)) for number in range(6)]
    targets = {case.name: Path(f"{case.name}.nii.gz") for case in cases}
    options = CaseOptions(save_probabilities=probabilities)
    done = list(outcomes_here(model, Work(cases, targets, options, LABELS), lambda: None))
    assert [case.name for case, _ in done] == [case.name for case in cases]
    assert max(seen) == ahead, "with the one that is being written"
