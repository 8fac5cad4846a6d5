"""What a task gets of a Ray cluster; worked out by hand."""

import pytest

from seg25d.orchestration.ray_shares import Machine, Share, machines_of, refusal_of, share_out


def machine(cpus: float, gpus: int = 0, memory_gb: float = 8.0) -> Machine:
    return Machine("a", "0", cpus, gpus, memory_gb * 1e9)


@pytest.mark.parametrize(
    ("machines", "num_tasks", "share"),
    [
        pytest.param([machine(1), machine(1)], None, Share(1, 0, 2), id="one per machine"),
        pytest.param([machine(4), machine(16)], None, Share(4, 0, 5), id="as large as the smallest"),
        pytest.param([machine(8), machine(8)], 1, Share(8, 0, 1), id="one of two machines"),
        pytest.param([machine(8), machine(8)], 3, Share(4, 0, 3), id="two on a machine, at most"),
        pytest.param([machine(2)], 4, Share(0.5, 0, 4), id="parts of a CPU"),
        pytest.param([machine(1)], 3, Share(0.3333, 0, 3), id="thirds as Ray counts them"),
        pytest.param([machine(16, 2), machine(32)], None, Share(8, 1, 2), id="one per GPU"),
        pytest.param([machine(16, 2)], 1, Share(8, 1, 1), id="one of two GPUs"),
        pytest.param([machine(16, 2)], 4, Share(4, 0.5, 4), id="two on a GPU"),
    ],
)
def test_machines_are_shared_out(machines: list[Machine], num_tasks: int | None, share: Share) -> None:
    assert share_out(machines, num_tasks) == share


def test_gpus_are_left_alone_where_tasks_do_without_them():
    assert share_out([machine(16, 2)], uses_gpus=False) == Share(16, 0, 1)


def test_threads_are_whole_cpus():
    assert [Share(cpus, 0, 1).threads for cpus in (0.25, 1, 6)] == [1, 1, 6]


def test_only_living_machines_with_cpus_do_tasks():
    def node(name: str, alive: bool, **resources: float) -> dict[str, object]:
        return {"NodeManagerHostname": name, "NodeID": name * 2, "Alive": alive, "Resources": resources}

    nodes = [node("a", True, CPU=4.0, GPU=1.0, memory=9.0), node("b", False, CPU=4.0), node("head", True, memory=9.0)]
    assert machines_of([*nodes, node("c", True, CPU=2.0)]) == [
        Machine("a", "aa", 4.0, 1, 9.0),
        Machine("c", "cc", 2.0, 0, 0.0),
    ]


def test_a_task_that_fits_nowhere_is_refused_with_both_figures():
    machines = [machine(8, memory_gb=64), machine(8, 1, memory_gb=16)]
    assert refusal_of("fold", 20 * 10**9, 0.0, machines) == ""
    refusal = refusal_of("fold", 20 * 10**9, 1.0, machines)
    assert "fold needs 20.0 GB" in refusal
    assert "the largest machine with a GPU of the Ray cluster has 16.0 GB" in refusal
    assert "needs a machine with a GPU" in refusal_of("fold", 0, 1.0, machines[:1])
