"""What processes agree on, between two real ones."""

import os
import socket
import subprocess
import sys

import pytest
import torch

from seg25d.core.errors import InputError
from seg25d.training.processes import local_device, sum_over_processes

# Process r has the values r + 1 and the loss (r + 1) * sum: the sum is 3, the gradient of both losses 1 + 2.
TWO_PROCESSES = """
import warnings
import torch
from seg25d.training.processes import join_processes, leave_processes, sum_over_processes
warnings.simplefilter("error")
rank, _ = join_processes(torch.device("cpu"))
values = torch.full((2,), rank + 1.0, requires_grad=True)
total = sum_over_processes(values)
((rank + 1) * total.sum()).backward()
print(total.tolist(), values.grad.tolist(), values.tolist())
leave_processes()
"""


@pytest.mark.slow
def test_sums_have_the_gradient_of_the_sum_of_all_losses() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TWO_PROCESSES],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert said == ["[3.0, 3.0] [3.0, 3.0] [1.0, 1.0]\n", "[3.0, 3.0] [3.0, 3.0] [2.0, 2.0]\n"]


def test_each_process_has_a_gpu_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_device("cuda:1") == "cuda:1"
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert [local_device(name) for name in ("cuda", "cpu", "mps")] == ["cuda:1", "cpu", "mps"]
    with pytest.raises(InputError, match=r"cannot train on cuda:0 alone: with --device cuda each"):
        local_device("cuda:0")


def test_one_process_has_its_own_values() -> None:
    values = torch.ones(2)
    assert sum_over_processes(values) is values
