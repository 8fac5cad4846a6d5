"""Loading of batches by separate processes, in order, with errors that say what to do."""

import errno
import os
import re
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.queues import Queue
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from seg25d.core.device import Execution
from seg25d.core.errors import InputError, ResourceError, Seg25dError, WorkerError
from seg25d.core.locks import drop_inherited_locks
from seg25d.core.parallel import (
    WORKER_BYTES,
    available_cores,
    available_memory_bytes,
    check_num_processes,
    shorten_sockets,
    torchrun_processes,
)
from seg25d.core.system_errors import check_open_files, refusal, system_number
from seg25d.training.sampling import Batch, Regions, WindowSource, batch_keys

FIRST_LOADERS = 8
"""Processes that prepare batches for a GPU, to begin with, where there are cores for more: each takes memory for its
batches and its cases, and many GPUs need no more of them. A training that waits for them gets more, see `more_loaders`.
"""
BATCHES_AHEAD = 3
"""Number of batches that each process prepares in advance, where `QUEUE_BYTES` have room for them."""
QUEUE_BYTES = 4 << 30
"""What all batches that wait on a machine may take, whatever their size: half of the shared memory that is advised for
containers (8 GB, documentation/get_started/installation.md)."""
QUEUE_SHARE = 1 / 4
"""Share of the free memory that they may take where that is less: other programs, and caches, need some as well."""
SHARED_MEMORY = Path("/dev/shm")
"""Where Linux has the memory through which batches come from other processes."""
OPEN_FILES = 16
"""Open files that a process which prepares batches takes in this process: with one, `seg25d train` ran to its end under
`ulimit -n 24` and hung under 16, with four it ran under 64 and ended with an error under 40 (10 are open before)."""
REFUSED = 100
"""What a process that prepares batches adds to the system's number of an error to make it its exit status."""


def make_loader(
    source: WindowSource,
    first_iteration: int,
    num_workers: int,
    device: torch.device,
    *,
    validate: bool,
    ahead: int = BATCHES_AHEAD,
) -> Iterator[Batch | Regions | Seg25dError]:
    """The endless sequence of batches from an iteration on, see `batch_keys`.

    Args:
        source: Makes the batches.
        first_iteration: The iteration to begin with.
        num_workers: Processes that make them; 0 makes them in this process.
        device: Device to which the batches are moved.
        validate: Whether the validation batches come after every epoch.
        ahead: Batches that each process prepares in advance, see `batches_ahead`.
    """
    if num_workers:
        shorten_sockets()
        _check_open_files(num_workers)
    num_validation_batches = source.num_validation_batches() if validate else 0
    keys = batch_keys(first_iteration, source.config.iterations_per_epoch, num_validation_batches)
    loader = DataLoader(
        source,
        batch_size=None,
        sampler=keys,
        num_workers=num_workers,
        prefetch_factor=ahead if num_workers else None,
        pin_memory=device.type == "cuda",
        worker_init_fn=_begin_worker,
    )
    return iter(loader)


def choose_num_loaders(requested: int | None, execution: Execution) -> int:
    """Choose how many processes begin to prepare batches: one for a CPU, several for a GPU, limited by the cores.

    Raises:
        InputError: If the system cannot hold as many as were requested.
    """
    if requested is not None:
        check_num_processes(requested)
        return requested
    return max(0, min(_spare_cores(), 1 if execution.device.type == "cpu" else FIRST_LOADERS))


def _spare_cores() -> int:
    return available_cores() // torchrun_processes("LOCAL_WORLD_SIZE") - 1


def queue_bytes() -> int:
    """What the batches that wait for this process may take: its share of those that train together on a machine."""
    free = available_memory_bytes()
    if SHARED_MEMORY.is_dir():
        free = min(free, shutil.disk_usage(SHARED_MEMORY).free)
    return min(QUEUE_BYTES, int(QUEUE_SHARE * free)) // torchrun_processes("LOCAL_WORLD_SIZE")


def fitting_loaders(number: int, batch_bytes: int) -> int:
    """At most so many processes that prepare batches as can have one ready each, and at least one if any are wanted.

    Args:
        number: How many are wanted.
        batch_bytes: Memory of a batch.
    """
    return min(number, max(1, queue_bytes() // max(1, batch_bytes)))


def batches_ahead(number: int, batch_bytes: int) -> int:
    """How many batches each process has ready, at least one.

    Args:
        number: Of processes that prepare batches.
        batch_bytes: Memory of a batch.
    """
    return max(1, min(BATCHES_AHEAD, queue_bytes() // max(1, number * batch_bytes)))


def more_loaders(number: int, batch_bytes: int) -> int:
    """Twice as many processes that prepare batches, if each gets a core and the system can hold them, else as many.

    Args:
        number: How many there are.
        batch_bytes: Memory of a batch, of which each has at least one ready, see `queue_bytes`.
    """
    wanted = min(2 * number, _spare_cores())
    needed = wanted * WORKER_BYTES * torchrun_processes("LOCAL_WORLD_SIZE")
    fits = needed <= QUEUE_SHARE * available_memory_bytes() and fitting_loaders(wanted, batch_bytes) == wanted
    if wanted <= number or not fits:
        return number
    try:
        check_num_processes(wanted)
        _check_open_files(wanted)
    except InputError:
        return number
    return wanted


def _check_open_files(num_workers: int) -> None:
    check_open_files(OPEN_FILES * (num_workers + 1), f"{num_workers} process(es) that prepare batches")


def next_batch(batches: Iterator[Batch | Regions | Seg25dError]) -> Batch | Regions:
    """Return the next batch; raises the error that occurred while it was made."""
    with loaders_named():
        batch = next(batches)
    if isinstance(batch, Seg25dError):
        try:
            raise batch
        finally:
            # The error and this frame would refer to each other: the loaders would live until the interpreter ends,
            # which would then wait for them forever, as SIGTERM does not end them.
            del batch
    return batch


@contextmanager
def loaders_named() -> Iterator[None]:
    """Name what ended a process that prepares batches; torch's own error may come anywhere in this block.

    Raises:
        ResourceError: If the system killed it or refused it something.
        WorkerError: If it ended otherwise.
    """
    try:
        yield
    except RuntimeError as error:
        message = str(error).splitlines()[0]
        status = re.search(r"exit code (\d+)", message)
        refused = int(status[1]) - REFUSED if status else system_number(error)
        if refused == errno.EMFILE:
            raise refusal(OSError(errno.EMFILE, "")) or error from None
        if "DataLoader" not in message:
            raise
        never_begun = status is None and "exited unexpectedly" in message
        is_refused = refused > 0 or never_begun or any(sign in message for sign in ("Killed", "Bus error"))
        raise (ResourceError if is_refused else WorkerError)(
            f"a process that prepares batches ended ({message}). The system probably killed it for "
            "lack of memory, or shared memory is short (Docker: --ipc=host or --shm-size=8g); --num-processes 0 does "
            "without such processes; the same command goes on"
        ) from None


def _begin_worker(worker: int) -> None:
    """Ignore Ctrl-C and a scheduler's SIGTERM, which reach all processes: loaders live until the state is saved.

    They also release the fold's lock, which they would hold for some seconds after a `kill -9` of their parent.
    """
    del worker
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    drop_inherited_locks()
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]


def _end_worker(error: Exception, batch: object) -> None:
    """End this process when a batch cannot be sent: by default Python prints why and waits, as does who awaits it."""
    del batch
    os._exit(REFUSED + number if (number := system_number(error)) else 1)
