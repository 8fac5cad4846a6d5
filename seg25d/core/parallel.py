"""Work on many cases with worker processes, or with none: failures name the case."""

import errno
import logging
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TypeVar

from seg25d.core.cgroups import SYSTEM_ROOT, cpu_quota, free_memory_bytes, read_text, read_words
from seg25d.core.errors import InputError, Seg25dError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)
_PRELOADED: list[str] = []
_EXPENDABLE: set[int] = set()
"""This process, if its death costs nothing."""
_DISK_CURES = {
    errno.ENOSPC: "the disk is full; make room, then run the same command again: it goes on where it stopped",
    errno.EACCES: "you have no right to read or write it; give yourself the right or choose another folder",
    errno.EROFS: "the file system is read-only; choose another workspace",
}


def map_cases(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    name: Callable[[Item], str] = str,
    num_workers: int = 0,
) -> Iterator[tuple[Item, Result]]:
    """Apply a function to every item and give pairs (item, result) as they are done, in any order.

    Args:
        function: A picklable function (module level, or `functools.partial` of one) of one item.
        items: Picklable items.
        name: The name of an item, for messages.
        num_workers: Worker processes; 0 works in this process.

    Raises:
        Seg25dError: As raised by the function, unchanged.
        InputError: If a file may not be read or written, or the disk is full: names the item, the file and the cure.
        WorkerError: If the function raised anything else, or its process died: names the item, with the traceback.
    """
    if num_workers == 0 or len(items) <= 1:
        for item in items:
            yield item, call_for(function, item, name(item))
        return
    waiting = dict(enumerate(items))
    attempts = (expendable, watch_parent)
    for begin in attempts:
        try:
            for index, result in _map_in_workers(function, waiting, name, num_workers, begin):
                yield waiting.pop(index), result
            return
        except BrokenProcessPool:
            names = [name(item) for item in waiting.values()]
            if begin == attempts[-1]:
                raise WorkerError(_death_message(names)) from None
            logger.warning("a worker process died; new ones do again what is left, and tell if a file was the cause")


def _map_in_workers(
    function: Callable[[Item], Result],
    items: Mapping[int, Item],
    name: Callable[[Item], str],
    num_workers: int,
    begin: Callable[[], None],
) -> Iterator[tuple[int, Result]]:
    """The indices of items and their results as worker processes make them; each begins with a call of `begin`.

    Raises:
        BrokenProcessPool: If one died.
    """
    others = set(active_children())
    with ProcessPoolExecutor(min(num_workers, len(items)), mp_context=worker_context(), initializer=begin) as pool:
        try:
            futures: dict[Future[Result], int] = {
                pool.submit(call_for, function, item, name(item)): index for index, item in items.items()
            }
            for future in as_completed(futures):
                yield futures[future], future.result()
        except (KeyboardInterrupt, GeneratorExit):
            # Nobody waits for the results: do not let cases run to their end, which may take minutes.
            for process in set(active_children()) - others:
                process.kill()  # a library's handler may outlive SIGTERM; files are complete or absent anyway
            raise
        finally:
            # Waits for the pool's own thread: one that is still ending when the interpreter ends breaks or blocks that.
            pool.shutdown(cancel_futures=True)


def expendable() -> None:
    """Begin a worker process whose death costs nothing, as others do its case again; see `is_expendable`."""
    _EXPENDABLE.add(os.getpid())
    watch_parent()


def is_expendable() -> bool:
    """Whether native code that may crash needs no process of its own here."""
    return os.getpid() in _EXPENDABLE


def watch_parent() -> None:
    """Let this worker process end when the process that started it is gone, even if that was killed.

    Ctrl-C reaches every process of the terminal: only the first is to report it, and it ends the workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def call_for(function: Callable[[Item], Result], item: Item, item_name: str) -> Result:
    """Apply a function to an item; what it raises names the item, see `map_cases`."""
    try:
        return function(item)
    except Seg25dError:
        raise
    except OSError as error:
        if cure := _DISK_CURES.get(error.errno or 0):
            raise InputError(f"{item_name}: {error.filename or 'a file'}: {cure}") from None
        raise WorkerError(f"{item_name}: {error!r}\n{traceback.format_exc()}") from None
    except Exception as error:
        raise WorkerError(f"{item_name}: {error!r}\n{traceback.format_exc()}") from None


def _death_message(names: list[str]) -> str:
    return (
        f"a worker process died while it worked on one of {', '.join(names[:8])}. The system probably killed it for "
        "lack of memory: use a smaller --num-processes (0: in this process); the same command goes on where it stopped"
    )


def worker_context() -> BaseContext:
    """Start method of worker processes: a fork server where there is one (safe with threads, quick), else spawn."""
    if "forkserver" in get_all_start_methods():
        context = get_context("forkserver")
        context.set_forkserver_preload(["numpy", *_PRELOADED])
        return context
    return get_context("spawn")


def start_worker_server(modules: Sequence[str]) -> None:
    """Start the process that worker processes come from, which loads modules while this process goes on.

    Args:
        modules: What workers need, and no torch: its threads do not survive that workers are copies of the server.
    """
    if "forkserver" not in get_all_start_methods():
        return
    from multiprocessing import forkserver, resource_tracker  # noqa: PLC0415 - where there are such processes

    _PRELOADED[:] = modules
    worker_context()
    # The server inherits it: Ctrl-C is for this process, which ends the workers. The other process that Python starts
    # for it comes first, as its start lets Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def available_cores(root: Path = SYSTEM_ROOT) -> int:
    """Cores that this process may use: affinity and the quotas of its control groups are respected.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = cpu_quota(root)
    return cores if quota is None else min(cores, max(1, round(quota)))


def available_memory_bytes(root: Path = SYSTEM_ROOT) -> int:
    """Memory that this process may still take: the smallest of what the system, its control groups and limits allow.

    Where neither can be read (not Linux), 4 GiB is assumed.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    lines = read_text(root / "proc" / "meminfo").splitlines()
    meminfo = dict(line.split(":", 1) for line in lines if ":" in line)
    system = int(meminfo["MemAvailable"].split()[0]) << 10 if "MemAvailable" in meminfo else None
    bounds = (system, free_memory_bytes(root), _free_address_space(root))
    return min((free for free in bounds if free is not None), default=4 << 30)


def _free_address_space(root: Path) -> int | None:
    """What `ulimit -v` leaves to this process, or None without such a limit."""
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = read_words(root / "proc" / "self" / "statm")
    return max(0, limit - int(taken[0]) * resource.getpagesize()) if limit != resource.RLIM_INFINITY and taken else None


def choose_num_workers(requested: int | None, bytes_per_worker: int) -> int:
    """Choose the number of worker processes.

    Args:
        requested: What the user asked for; None leaves the choice to us: one per core.
        bytes_per_worker: Peak memory of one worker, estimated from the largest case.

    Returns:
        The requested number; or the number of cores, cut so that all workers together fit into the memory that is
        free, and 0 (this process) when only one would run.
    """
    if requested is not None:
        return requested
    fitting = int(available_memory_bytes() * 0.8 // max(1, bytes_per_worker))
    workers = min(available_cores(), fitting)
    return workers if workers > 1 else 0
