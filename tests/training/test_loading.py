"""Batches from processes: what went wrong, and that nothing stays behind."""

import gc
import weakref
from collections.abc import Iterator

import pytest

from seg25d.core.errors import InputError, ResourceError, Seg25dError
from seg25d.training.loading import next_batch


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
