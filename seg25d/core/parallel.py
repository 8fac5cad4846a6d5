"""Work on many cases with worker processes, or with none: failures name the case."""

import os
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import TypeVar

from seg25d.core.errors import Seg25dError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")


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
        WorkerError: If the function raised anything else, or its process died: names the item, with the traceback.
    """
    if num_workers == 0 or len(items) <= 1:
        for item in items:
            yield item, _call(function, item, name(item))
        return
    num_workers = min(num_workers, len(items))
    with ProcessPoolExecutor(num_workers, mp_context=worker_context(), initializer=_end_with_parent) as pool:
        futures: dict[Future[Result], Item] = {pool.submit(_call, function, item, name(item)): item for item in items}
        try:
            for future in as_completed(futures):
                item = futures[future]
                try:
                    result = future.result()
                except BrokenProcessPool:
                    raise WorkerError(
                        _death_message([name(items) for f, items in futures.items() if not f.done() or f.exception()])
                    ) from None
                yield item, result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _end_with_parent() -> None:
    """Let this worker end when the process that started it is gone, even if that was killed."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _call(function: Callable[[Item], Result], item: Item, item_name: str) -> Result:
    try:
        return function(item)
    except Seg25dError:
        raise
    except Exception as error:
        raise WorkerError(f"{item_name}: {error!r}\n{traceback.format_exc()}") from None


def _death_message(names: list[str]) -> str:
    return (
        f"a worker process died while it worked on one of {', '.join(names[:8])}. The system probably killed it for "
        "lack of memory: use a smaller --num-processes (0: in this process); the same command goes on where it stopped"
    )


def worker_context() -> BaseContext:
    """How worker processes start: a fork server where there is one (safe with threads, quick), else spawn."""
    if "forkserver" in get_all_start_methods():
        context = get_context("forkserver")
        context.set_forkserver_preload(["numpy"])
        return context
    return get_context("spawn")


def available_cores() -> int:
    """Cores that this process may use: affinity and the cgroup's CPU quota are respected."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _read_words(Path("/sys/fs/cgroup/cpu.max"))
    if len(quota) == 2 and quota[0] != "max":
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def available_memory_bytes() -> int:
    """Memory that this process may still take: the smaller of the system's and the cgroup's free memory.

    Where neither can be read (not Linux), 4 GiB is assumed.
    """
    free = [4 << 30]
    meminfo = dict(line.split(":", 1) for line in _read_text(Path("/proc/meminfo")).splitlines() if ":" in line)
    if "MemAvailable" in meminfo:
        free = [int(meminfo["MemAvailable"].split()[0]) << 10]
    limit = _read_words(Path("/sys/fs/cgroup/memory.max"))
    used = _read_words(Path("/sys/fs/cgroup/memory.current"))
    if limit and used and limit[0] != "max":
        free.append(max(0, int(limit[0]) - int(used[0])))
    return min(free)


def choose_num_workers(requested: int | None, bytes_per_worker: int) -> int:
    """How many worker processes to start.

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


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


def _read_words(path: Path) -> list[str]:
    return _read_text(path).split()
