"""Batches from processes: what went wrong, and that nothing stays behind."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from seg25d.core.errors import InputError, ResourceError, Seg25dError
from seg25d.training import loading
from seg25d.training.loading import make_loader, next_batch


class Batches(Iterator[Seg25dError]):
    """Stands for the loader, whose processes live as long as it does."""

    def __init__(self, *, lost: bool) -> None:
        self.lost = lost

    def __next__(self) -> Seg25dError:
        if self.lost:
            raise RuntimeError("DataLoader worker exited unexpectedly")
        return InputError("a case is damaged")


@pytest.mark.parametrize(("lost", "message"), [(True, "a process that prepares batches"), (False, "case is damaged")])
def test_an_error_lets_go_of_the_loader(lost: bool, message: str) -> None:
    """Python waits in the end for processes of a loader that still lives; they do not hear of SIGTERM."""
    batches = Batches(lost=lost)
    alive = weakref.ref(batches)
    gc.disable()
    try:
        with pytest.raises(ResourceError if lost else InputError, match=message):
            next_batch(batches)
        del batches
        assert alive() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("num_workers", [0, 2])
def test_processes_have_sockets_of_short_names(monkeypatch: pytest.MonkeyPatch, num_workers: int) -> None:
    def stop(*_: Any) -> None:
        raise InputError("that is enough")

    told: list[bool] = []
    monkeypatch.setattr(loading, "shorten_sockets", lambda: told.append(True))
    monkeypatch.setattr(loading, "batch_keys", stop)
    source: Any = SimpleNamespace(config=SimpleNamespace(iterations_per_epoch=1))
    with pytest.raises(InputError, match="that is enough"):
        make_loader(source, 0, num_workers, torch.device("cpu"), validate=False)
    assert told == [True] * (num_workers > 0)
