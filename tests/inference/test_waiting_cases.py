"""Cases that wait, read ahead or to be written: how many there are depends on their size."""

import gc
import time
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from seg25d.data.cases import Case
from seg25d.data.labels import Labels
from seg25d.inference import cases as cases_module
from seg25d.inference.cases import CaseModel, CaseOptions, Done, Work, outcomes_here

LABELS = Labels(names={"background": 0, "organ": 1})
SHAPE = (4, 4, 4)


class Model:
    """Counts what it predicts."""

    def __init__(self, *, on_cpu: bool = True) -> None:
        self.num_predicted = 0
        self.on_cpu = on_cpu

    def segment(self, prepared, uncertainty, folder):
        self.num_predicted += 1
        return np.zeros(SHAPE, np.uint8)

    def segment_with_probabilities(self, prepared, folder, uncertainty):
        return nullcontext((self.segment(prepared, uncertainty, folder), np.zeros((2, *SHAPE), np.float32)))


def work_of(num_cases: int, options: CaseOptions | None = None) -> Work:
    cases = [Case(name=str(number), images=(Path(f"{number}.nii.gz"),)) for number in range(num_cases)]
    targets = {case.name: Path(f"{case.name}.nii.gz") for case in cases}
    return Work(cases, targets, options or CaseOptions(), LABELS)


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
    read = SimpleNamespace(prepared=None, geometry=None, seconds=0.0, num_bytes=0)
    monkeypatch.setattr(cases_module, "_read", lambda *_: read)

    def write(*_: object) -> Done:
        deadline = time.monotonic() + 5
        while model.num_predicted < min(6, len(seen) + ahead) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)  # in which more would be predicted
        seen.append(model.num_predicted - len(seen))
        return Done(0.0)

    monkeypatch.setattr(cases_module, "_write", write)
    work = work_of(6, CaseOptions(save_probabilities=probabilities))
    done = list(outcomes_here(model, work, lambda: None))
    assert [case.name for case, _ in done] == [case.name for case in work.cases]
    assert max(seen) == ahead, "with the one that is being written"


class Reader:
    """Reads images, and notes how many others are there when it begins."""

    def __init__(self, sizes: list[int], broken: int | None = None) -> None:
        self.sizes, self.broken = sizes, broken
        self.images: list[weakref.ref[np.ndarray]] = []
        self.others: list[int] = []

    def read(self, model: CaseModel, case: Case) -> SimpleNamespace:
        gc.collect()
        self.others.append(sum(image() is not None for image in self.images))
        if int(case.name) == self.broken:
            raise ValueError("broken")
        prepared = np.zeros(self.sizes[int(case.name)], np.uint8)
        self.images.append(weakref.ref(prepared))
        return SimpleNamespace(prepared=prepared, geometry=None, seconds=0.0, num_bytes=prepared.nbytes)


class WatchingModel(Model):
    """Notes how many images were begun to be read while it computes; waits for as many as are expected."""

    def __init__(self, reader: Reader, expected: list[int], *, on_cpu: bool) -> None:
        super().__init__(on_cpu=on_cpu)
        self.reader, self.expected, self.seen = reader, expected, []

    def segment(self, prepared, uncertainty, folder):
        deadline = time.monotonic() + 5
        while len(self.reader.others) < self.expected[len(self.seen)] and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)  # in which more would be read
        self.seen.append(len(self.reader.others))
        return super().segment(prepared, uncertainty, folder)


@pytest.mark.parametrize(
    ("sizes", "broken", "on_cpu", "begun"),
    [
        ([100, 100, 100, 100], None, True, [2, 3, 4, 4]),
        ([101, 101, 101, 101], None, True, [1, 2, 3, 4]),
        ([101, 101, 101, 101], None, False, [2, 3, 4, 4]),
        ([100, 101, 100, 100], None, True, [2, 2, 4, 4]),
        ([101, 101, 101, 101], 1, True, [1, 3, 4]),
    ],
)
def test_images_are_read_ahead_where_there_is_room(
    monkeypatch: pytest.MonkeyPatch, sizes: list[int], broken: int | None, on_cpu: bool, begun: list[int]
) -> None:
    reader = Reader(sizes, broken)
    model = WatchingModel(reader, begun, on_cpu=on_cpu)
    monkeypatch.setattr(cases_module, "SMALL_BYTES", 100)
    monkeypatch.setattr(cases_module, "_read", reader.read)
    monkeypatch.setattr(cases_module, "_write", lambda *_: Done(0.0))
    done = list(outcomes_here(model, work_of(len(sizes)), lambda: None))
    assert [case.name for case, _ in done] == [str(number) for number in range(len(sizes))]
    assert [isinstance(outcome, ValueError) for _, outcome in done] == [number == broken for number in range(4)]
    assert model.seen == begun
    if on_cpu and min(sizes) > 100:
        assert reader.others == [0] * len(sizes), "one is gone before the next is read"


def test_the_size_is_that_of_the_larger_image(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((1, 1, 2, 4), np.float32)
    geometry = SimpleNamespace(shape=(1, 2, 4), canonical_spacing_mm=(1, 1, 1))
    monkeypatch.setattr("seg25d.data.image_io.read_image", lambda _: (image, geometry))
    monkeypatch.setattr(cases_module, "form_conflict", lambda _: None)
    monkeypatch.setattr(cases_module, "spacing_note", lambda *_: None)
    for factor, expected in ((3, 96), (0, 32)):
        model = SimpleNamespace(prepare=lambda image, *_, overwrite, factor=factor: np.repeat(image, factor, 1))
        assert cases_module._read(model, work_of(1).cases[0]).num_bytes == expected
