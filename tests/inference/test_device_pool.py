"""What a process that predicts on one of several devices does, in this process."""

from multiprocessing import get_context

import pytest
import torch

from seg25d.core.errors import InputError, WorkerError
from seg25d.data.labels import Labels
from seg25d.inference import device_pool
from seg25d.inference.cases import CaseOptions, Work

LABELS = Labels(names={"background": 0, "organ": 1})


@pytest.fixture
def work(monkeypatch):
    """Runs the work of one of three processes on 12 cores; gives what it reports of a model that cannot be loaded."""
    monkeypatch.setattr(device_pool, "watch_parent", lambda: None)
    monkeypatch.setattr(device_pool, "available_cores", lambda: 12)
    context = get_context("spawn")
    threads = torch.get_num_threads()

    def run(load, device="cuda:1", num_devices=3):
        cases, reports = context.Queue(), context.Queue()
        cases.put(None)
        todo = Work((), {}, CaseOptions(), LABELS)
        device_pool._work(load, (device, num_devices), (cases, reports), todo, lambda: None)
        cases.close()
        return reports

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("device", ["cpu", "cuda:1"])
@pytest.mark.parametrize(("allowed", "num_devices", "expected"), [(12, 3, 4), (2, 3, 2), (12, 20, 1)])
def test_processes_share_the_cores_whatever_they_compute_on(work, device, allowed, num_devices, expected):
    """No more threads than the process had before, as with OMP_NUM_THREADS=2."""
    torch.set_num_threads(allowed)
    seen = []
    work(lambda name: seen.append((name, torch.get_num_threads())), device, num_devices)
    assert seen == [(device, expected)]


@pytest.mark.parametrize(
    ("error", "kind"), [(InputError("too small"), InputError), (torch.OutOfMemoryError("out of memory"), WorkerError)]
)
def test_what_a_device_refuses_comes_back_with_its_name(work, error, kind):
    def load(_device):
        raise error

    report = work(load).get(timeout=10)
    assert report.case is None
    assert type(report.error()) is kind
    assert str(report.error()) == f"cuda:1: {error}"
