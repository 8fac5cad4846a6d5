"""Lifted modules that work differently from epoch to epoch."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class EpochAware(Protocol):
    """A lifted module that works differently from epoch to epoch (angles drawn anew, weights of its outputs).

    The trainer calls `start_epoch` before the first update of each epoch, and after resuming in the middle of one.
    """

    def start_epoch(self, epoch: int, seed: int, progress: float) -> None:
        """Prepare for an epoch; depends on the arguments only, so that a resumed run gives the same result.

        Args:
            epoch: From 1 on.
            seed: Of the run.
            progress: Share of the run that is over when the epoch begins, 0 to 1.
        """
