import pytest

from seg25d.orchestration.task import Task, in_order


def task(name: str, *needs: str) -> Task:
    return Task(name=name, words=("touch", name), needs=needs)


def test_tasks_come_behind_what_they_need_and_keep_their_order_otherwise():
    tasks = [task("report", "best"), task("b", "arrays"), task("a", "arrays"), task("best", "a", "b"), task("arrays")]
    assert [each.name for each in in_order(tasks)] == ["arrays", "b", "a", "best", "report"]


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([task("a"), task("a")], "same name"),
        ([task("a", "b")], "not among them: b"),
        ([task("a", "b"), task("b", "a")], "need each other"),
    ],
)
def test_what_has_no_order_is_refused(tasks, words):
    with pytest.raises(ValueError, match=words):
        in_order(tasks)
