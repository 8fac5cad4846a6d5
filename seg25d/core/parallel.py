"""Work on many cases with worker processes, or with none: failures name the case."""

import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.context import BaseContext
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import TypeVar

from seg25d.core.cgroups import (
    SYSTEM_ROOT,
    cpu_quota,
    free_group_processes,
    free_memory_bytes,
    memory_limit_bytes,
    read_text,
    read_words,
)
from seg25d.core.errors import InputError, Seg25dError, WorkerError
from seg25d.core.system_errors import named, refusal

Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)
WORKER_BYTES = 57 << 20
"""Memory that a worker has for itself once numpy, SimpleITK and scipy are loaded, without a case (Private_Dirty in
/proc/self/smaps_rollup of two workers of `map_cases`, Linux, x86-64)."""
TASKS_OF_A_POOL, TASKS_OF_A_WORKER = 6, 4
"""Processes and threads that a pool takes (fork server, tracker of resources, threads that feed it), and each worker
of it, at most (with two workers, planning ended with an error of the system with 4 left and with 6 left)."""
LONGEST_TMPDIR = 70
"""Bytes of TMPDIR beside which a name such as `/pymp-abcdefgh/listener-abcdefgh` fits into that of a socket."""
_ASSUMED_BYTES = 4 << 30
_PRELOADED: list[str] = []
_SERVER_OF: list[int] = []
"""The process that has the fork server, once there may be one."""
_EXPENDABLE: set[int] = set()
"""This process, if its death costs nothing."""


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
        InputError: If the system refused something, see `system_errors`: names the item, the file and the cure.
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
    except Exception as error:
        if reason := refusal(error):
            raise named(reason, item_name) from None
        raise WorkerError(f"{item_name}: {error!r}\n{traceback.format_exc()}") from None


def _death_message(names: list[str]) -> str:
    return (
        f"a worker process died while it worked on one of {', '.join(names[:8])}. The system probably killed it for "
        "lack of memory: use a smaller --num-processes (0: in this process); the same command goes on where it stopped"
    )


def worker_context() -> BaseContext:
    """Start method of worker processes: a fork server where there is one (safe with threads, quick), else spawn."""
    if _may_use_fork_server():
        context = get_context("forkserver")
        context.set_forkserver_preload(["seg25d.core.fork_server", "numpy", *_PRELOADED])
        return context
    return get_context("spawn")


def shorten_sockets() -> None:
    """Have the sockets of processes in /tmp where TMPDIR is too long for them: call it before there are processes.

    The name of a socket has 108 bytes at most, 104 on macOS (unix(7)); later versions of Python do the same.
    """
    if os.name != "posix" or len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TMPDIR:
        return
    usual, tempfile.tempdir = tempfile.tempdir, "/tmp"
    try:
        get_temp_dir()  # which it keeps
    finally:
        tempfile.tempdir = usual


def _may_use_fork_server() -> bool:
    """Whether there is such a server, and this process is the one that has it: a fork of it has not."""
    if "forkserver" not in get_all_start_methods():
        return False
    shorten_sockets()
    if not _SERVER_OF:
        _SERVER_OF.append(os.getpid())
    return [os.getpid()] == _SERVER_OF


def start_worker_server(modules: Sequence[str]) -> None:
    """Start the process that worker processes come from, which loads modules while this process goes on.

    Args:
        modules: What workers need, and no torch: its threads do not survive that workers are copies of the server.
    """
    if not _may_use_fork_server():
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

    Where none can be read (not Linux), it is the memory of the machine.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    lines = read_text(root / "proc" / "meminfo").splitlines()
    meminfo = dict(line.split(":", 1) for line in lines if ":" in line)
    system = int(meminfo["MemAvailable"].split()[0]) << 10 if "MemAvailable" in meminfo else None
    bounds = (system, free_memory_bytes(root), _free_address_space(root))
    return min((free for free in bounds if free is not None), default=_installed_memory_bytes())


def machine_memory_bytes(root: Path = SYSTEM_ROOT) -> int:
    """Memory of the machine, or what control groups allow of it, whatever is free now.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    limit = memory_limit_bytes(root)
    return _installed_memory_bytes() if limit is None else min(limit, _installed_memory_bytes())


def _installed_memory_bytes() -> int:
    """The memory that is built in, whatever of it is free; 4 GiB if nothing tells."""
    with suppress(AttributeError, ValueError, OSError):
        if sys.platform == "win32":
            import ctypes  # noqa: PLC0415 - Windows only

            kib = ctypes.c_ulonglong()
            ctypes.windll.kernel32.GetPhysicallyInstalledSystemMemory(ctypes.byref(kib))
            return kib.value << 10 or _ASSUMED_BYTES
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _ASSUMED_BYTES


def _free_address_space(root: Path) -> int | None:
    """What `ulimit -v` leaves to this process, or None without such a limit."""
    try:
        import resource  # noqa: PLC0415 - absent on Windows
    except ImportError:
        return None
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = read_words(root / "proc" / "self" / "statm")
    return max(0, limit - int(taken[0]) * resource.getpagesize()) if limit != resource.RLIM_INFINITY and taken else None


def torchrun_processes(variable: str = "WORLD_SIZE") -> int:
    """Processes that train together, as `torchrun` says in the environment; 1 where it does not.

    Args:
        variable: `WORLD_SIZE`, or `LOCAL_WORLD_SIZE` for those of them on this machine.

    Raises:
        InputError: If the variable holds something else.
    """
    value = os.environ.get(variable, "").strip() or "1"
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise InputError(f"{variable}: expected a number of processes, as torchrun sets it, got {value!r}; unset it")
    return int(value)


def choose_num_workers(requested: int | None, bytes_per_worker: int, num_items: int) -> int:
    """Choose the number of worker processes.

    Args:
        requested: What the user asked for; None leaves the choice to us: one per core.
        bytes_per_worker: Peak memory of one worker, estimated from the largest case.
        num_items: Cases to work on: no more workers are started.

    Returns:
        The requested number; or the number of cores, cut so that all workers together fit into the memory that is
        free, and 0 (this process) when only one would run.

    Raises:
        InputError: If the system cannot hold as many as were requested, see `check_num_processes`.
    """
    if requested is not None:
        workers = min(requested, num_items)
        check_num_processes(workers, bytes_per_worker)
        return workers
    fitting = int(available_memory_bytes() * 0.8 // max(1, bytes_per_worker))
    workers = min(available_cores(), fitting, _fitting_processes())
    return workers if workers > 1 else 0


def check_num_processes(requested: int, bytes_each: int = 0) -> None:
    """Check that the system can hold as many processes as were requested, before one is started.

    Args:
        requested: How many are to be started.
        bytes_each: Peak memory of one, estimated; it counts where there are more processes than cores, as up to that
            users may know better than an estimate.

    Raises:
        InputError: If not; says what would fit.
    """
    if requested <= 1:
        return
    bytes_each = max(WORKER_BYTES, bytes_each if requested > available_cores() else 0)
    free = available_memory_bytes()
    if requested * bytes_each > free:
        raise InputError(
            f"{requested} processes need about {requested * bytes_each / 1e9:.3g} GB of memory, of which "
            f"{free / 1e9:.3g} GB are free; --num-processes {min(requested, free // bytes_each)} fits"
        )
    fitting = _fitting_processes()
    if requested > fitting:
        raise InputError(
            f"{requested} processes with their threads are more than this user may still start; --num-processes "
            f"{fitting} fits, or raise the limit (`ulimit -u`, in a container --pids-limit)"
        )


def _fitting_processes() -> int:
    """Worker processes that may still be started, with their threads and those of this process."""
    free = free_processes()
    return sys.maxsize if free is None else max(0, (free - TASKS_OF_A_POOL) // TASKS_OF_A_WORKER)


def free_processes(root: Path = SYSTEM_ROOT) -> int | None:
    """Processes and threads that may still be started by `ulimit -u` and the control groups; None without a limit.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    bounds = (free_group_processes(root), _free_user_processes(root))
    return min((free for free in bounds if free is not None), default=None)


def _free_user_processes(root: Path) -> int | None:
    """What `ulimit -u` leaves to this user, or None without such a limit; it does not hold for root."""
    if os.name != "posix" or os.geteuid() == 0:
        return None
    import resource  # noqa: PLC0415 - absent on Windows

    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY:
        return None
    mine = (status for status in map(_status, (root / "proc").glob("[0-9]*")) if status.get("Uid") == str(os.getuid()))
    return max(0, limit - sum(int(status.get("Threads", 1)) for status in mine))


def _status(process: Path) -> dict[str, str]:
    """The first word of each line in `/proc/PID/status`, by its name."""
    lines = (line.split() for line in read_text(process / "status").splitlines())
    return {words[0].rstrip(":"): words[1] for words in lines if len(words) > 1}
