"""Progress: a bar that messages do not disturb, or lines; both say rate and time left."""

import logging
import re
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from seg25d.cli.common import configure_logging
from seg25d.core import progress
from seg25d.core.progress import format_rate, format_seconds, keep_now_and_then, seconds_left, track


@pytest.fixture(autouse=True)
def _say_every_item(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_UPDATES", 0)


def test_a_terminal_gets_a_bar_with_count_rate_and_time_left(open_terminal: Callable[[], Any]) -> None:
    terminal = open_terminal()
    assert list(track("abc", 3, "counting [x]")) == ["a", "b", "c"]
    assert re.search(r"counting \[x\] [━╸╺]+ *2 of 3, [\d.]+ items/s, about 0\.0 s left", terminal.text)
    assert re.search(r"counting \[x\]: 3 of 3 done in 0\.0 s, [\d.]+ items/s\n$", terminal.text)


def test_a_long_name_leaves_room_for_the_words(
    open_terminal: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = open_terminal()
    monkeypatch.setenv("COLUMNS", "80")
    list(track("abc", 3, "predictions of the views for mv__holdout, fold 0"))
    assert re.search(r"predictions of the views for mv… .*2 of 3, [\d.]+ items/s, about 0\.0 s left", terminal.text)


def test_messages_stand_above_the_bar(open_terminal: Callable[[], Any]) -> None:
    terminal = open_terminal()
    for _ in track("ab", 2, "counting"):
        logging.getLogger("seg25d.some.part").info("hello")
    # The bar's line is erased first.
    assert terminal.getvalue().count("\x1b[2Khello\n") == 2


def test_an_error_removes_the_bar(open_terminal: Callable[[], Any]) -> None:
    terminal = open_terminal()

    def fail() -> None:
        for _ in track("ab", 2, "counting"):
            assert sys.stderr is not terminal
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert sys.stderr is terminal
    assert "done" not in terminal.text


@pytest.mark.parametrize("kind", ["dumb terminal", "file"])
def test_what_cannot_draw_gets_lines(
    kind: str, open_terminal: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever colours the environment asks for."""
    terminal = open_terminal()
    monkeypatch.setenv("FORCE_COLOR", "1")
    if kind == "file":
        monkeypatch.setattr(type(terminal), "isatty", lambda _: False)
    else:
        monkeypatch.setenv("TERM", "dumb")
    list(track("abc", 3, "counting"))
    assert "\x1b" not in terminal.getvalue()
    assert "counting: 3 to do\n" in terminal.getvalue()


def test_lines_say_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Items of 20 s each."""
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    now = next(clock)
    with caplog.at_level(logging.INFO, "seg25d"):
        for _ in track("abc", 3, "counting"):
            now = next(clock)
    assert caplog.messages == [
        "counting: 3 to do",
        "counting: 1 of 3, 20.0 s per item, about 40.0 s left",
        "counting: 2 of 3, 20.0 s per item, about 20.0 s left",
        "counting: 3 of 3 done in 1 min 0 s, 20.0 s per item",
    ]


def test_nothing_is_said_of_nothing_or_where_it_is_not_wanted(open_terminal: Callable[[], Any]) -> None:
    terminal = open_terminal()
    assert list(track("", 0, "counting")) == []
    configure_logging(quiet=True, debug=False)
    assert list(track("ab", 2, "counting")) == ["a", "b"]
    assert not terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.25, "4.0 cases/s"), (1, "1.0 cases/s"), (1.5, "1.5 s per case"), (60, "1 min 0 s per case")],
)
def test_rates_below_one_per_second_are_times(seconds: float, text: str) -> None:
    assert format_rate(seconds, "case") == text


def test_times() -> None:
    assert [format_seconds(each) for each in (8.31, 250, 7500)] == ["8.3 s", "4 min 10 s", "2 h 5 min"]
    assert seconds_left(0.25, 10) == 30


@pytest.mark.parametrize(("seconds", "expected"), [(2, [3, 6, 9]), (10, [3])])
def test_what_was_made_is_kept_about_every_minute(
    seconds: float, expected: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An item takes 25 seconds; writing takes a twentieth of the time at most."""
    now = [0.0]
    taken: list[int] = []
    kept: list[int] = []

    def items() -> Iterator[int]:
        for number in range(10):
            now[0] += 25
            yield number

    def keep() -> None:
        kept.append(len(taken))
        now[0] += seconds

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    for item in keep_now_and_then(items(), keep):
        taken.append(item)
    assert taken == list(range(10))
    assert kept == expected
