"""Limits of control groups, on trees of files like those of Linux."""

import os
from pathlib import Path

import pytest

from seg25d.core.cgroups import cpu_quota, free_memory_bytes, memory_limit_bytes
from seg25d.core.parallel import available_cores, available_memory_bytes, machine_memory_bytes


def tree(root: Path, groups: str, **files: str) -> Path:
    """A root with `/proc/self/cgroup` and files below `/sys/fs/cgroup`, `__` for `/` in their names."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("memory_", "memory.").replace("cpu_", "cpu.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_no_groups_no_limits(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert free_memory_bytes(tmp_path) is None
    assert memory_limit_bytes(tmp_path) is None
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert available_memory_bytes(tmp_path) == machine_memory_bytes(tmp_path) == installed


def test_version_2_takes_the_tightest_group_and_cache_is_free(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/slice/job\n",
        slice__memory_max="1000\n",
        slice__memory_current="900\n",
        slice__memory_stat="anon 100\ninactive_file 300\n",
        slice__job__memory_max="max\n",
        slice__job__memory_current="500\n",
        slice__cpu_max="150000 100000\n",
        slice__job__cpu_max="max 100000\n",
    )
    assert free_memory_bytes(root) == 1000 - (900 - 300)
    assert memory_limit_bytes(root) == machine_memory_bytes(root) == 1000
    assert cpu_quota(root) == 1.5
    (root / "proc/meminfo").write_text("MemTotal: 8 kB\nMemAvailable: 1 kB\n")
    assert available_memory_bytes(root) == 400
    (root / "sys/fs/cgroup/slice/memory.max").write_text("999999999")
    assert available_memory_bytes(root) == 1024


def test_the_root_of_a_namespace(tmp_path: Path) -> None:
    root = tree(tmp_path, "0::/\n", memory_max="100", memory_current="10", cpu_max="50000 100000")
    assert free_memory_bytes(root) == 90
    assert cpu_quota(root) == 0.5
    assert available_cores(root) == 1


def test_version_1(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "4:memory:/batch/job\n2:cpu,cpuacct:/batch\n0::/\n",
        memory__batch__job__memory_limit_in_bytes="1000",
        memory__batch__job__memory_usage_in_bytes="800",
        memory__batch__job__memory_stat="inactive_file 1\ntotal_inactive_file 100\n",
        memory__memory_limit_in_bytes="9223372036854771712",
        memory__memory_usage_in_bytes="5000",
    )
    folder = root / "sys/fs/cgroup/cpu,cpuacct/batch"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text("200000")
    (folder / "cpu.cfs_period_us").write_text("100000")
    (folder.parent / "cpu.cfs_quota_us").write_text("-1")
    (folder.parent / "cpu.cfs_period_us").write_text("100000")
    assert free_memory_bytes(root) == 300
    assert memory_limit_bytes(root) == 1000
    assert cpu_quota(root) == 2


@pytest.mark.parametrize("path", ["/docker/0123", "/../../other"])
def test_the_path_of_the_host_in_a_container(path: str, tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        f"3:memory:{path}\n",
        memory__memory_limit_in_bytes="50",
        memory__memory_usage_in_bytes="60",
    )
    assert free_memory_bytes(root) == 0
