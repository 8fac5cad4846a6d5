"""Limits of this process by the control groups of Linux, with which containers and batch systems work.

A process is in one group per hierarchy and under the limits of all groups above it. `/proc/self/cgroup` names the
groups (man 7 cgroups); version 2 has one hierarchy, version 1 one per controller, and both may be there together.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

SYSTEM_ROOT = Path("/")


def cpu_quota(root: Path = SYSTEM_ROOT) -> float | None:
    """Processors that the groups allow, as a fraction, or None without a limit.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    quotas = []
    for folder in _groups(root, "cpu"):
        quota = read_words(folder / "cpu.max") or [
            *read_words(folder / "cpu.cfs_quota_us"),
            *read_words(folder / "cpu.cfs_period_us"),
        ]
        if len(quota) == 2 and quota[0] not in ("max", "-1"):
            quotas.append(int(quota[0]) / int(quota[1]))
    return min(quotas, default=None)


def free_memory_bytes(root: Path = SYSTEM_ROOT) -> int | None:
    """Memory that the groups still allow, or None without a limit.

    Cached files that have not been used lately do not count: the kernel drops them when memory is needed.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    free = []
    for folder in _groups(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = read_words(folder / limit_name), read_words(folder / used_name)
            if limit and used and limit[0] != "max":
                cache = _statistics(folder / "memory.stat").get(cache_name, 0)
                free.append(max(0, int(limit[0]) - max(0, int(used[0]) - cache)))
    return min(free, default=None)


def memory_limit_bytes(root: Path = SYSTEM_ROOT) -> int | None:
    """Memory that the groups allow in all, or None without a limit.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    names = ("memory.max", "memory.limit_in_bytes")
    limits = [read_words(folder / name) for folder in _groups(root, "memory") for name in names]
    return min((int(words[0]) for words in limits if words and words[0] != "max"), default=None)


def free_group_processes(root: Path = SYSTEM_ROOT) -> int | None:
    """Processes and threads that the groups still allow, or None without a limit.

    Args:
        root: The folder that holds `proc` and `sys`.
    """
    free = []
    for folder in _groups(root, "pids"):
        limit, used = read_words(folder / "pids.max"), read_words(folder / "pids.current")
        if limit and used and limit[0] != "max":
            free.append(max(0, int(limit[0]) - int(used[0])))
    return min(free, default=None)


def read_text(path: Path) -> str:
    """The text of a file, empty where it cannot be read."""
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def read_words(path: Path) -> list[str]:
    """The words of a file, none where it cannot be read."""
    return read_text(path).split()


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of the groups that this process is in for a controller, from the innermost to the root."""
    mounts = root / "sys" / "fs" / "cgroup"
    for line in read_text(root / "proc" / "self" / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0" and not names:
            # Beside version 1, version 2 is mounted in a folder of its own.
            mount = mounts / "unified" if (mounts / "unified").is_dir() else mounts
        elif controller in names.split(","):
            mount = next((mounts / name for name in (names, controller) if (mounts / name).is_dir()), mounts)
        else:
            continue
        # In a container the path may be the host's, of which only the root is there, or lead out of it ("/../x").
        inside = PurePosixPath(*(part for part in PurePosixPath(path).parts if part not in ("/", "..")))
        for group in (inside, *inside.parents):
            yield mount / group


def _statistics(path: Path) -> dict[str, int]:
    lines = (line.split() for line in read_text(path).splitlines())
    return {words[0]: int(words[1]) for words in lines if len(words) == 2 and words[1].isdigit()}
