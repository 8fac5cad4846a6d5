"""What all commands share: options, messages, logging and exit statuses."""

import argparse
import logging
import math
import os
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from seg25d.cli.known_options import check_options
from seg25d.core.errors import Seg25dError
from seg25d.core.process import leave
from seg25d.planning.plans_name import check_plans_name

if TYPE_CHECKING:
    from seg25d.core.records import Record
    from seg25d.core.workspace import Workspace

Options = TypeVar("Options", bound="Record")

logger = logging.getLogger(__name__)
DURATION = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)(?:min|m))?(?:([\d.]+)(?:sec|s))?")
DEVICE = re.compile(r"cuda(:\d+)?|cpu|mps")
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as shells have it."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like all other errors of the project."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the arguments and leave with status 2."""
        self.exit(2, f"error: {message}\n{self.format_usage()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Leave, also when the reader of the help has gone."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _silence_stdout()
        super().exit(status, message)


@dataclass(frozen=True)
class Command:
    """One command, callable as `seg25d VERB` and as `seg25d_VERB`.

    Args:
        name: The verb.
        summary: What it does, one sentence.
        add_arguments: Declares its own arguments.
        run: Does it; imports what is heavy only then.
        ignored: Shared options that it accepts, as every command does, and that have no effect on it.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    ignored: tuple[str, ...] = ()

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Parse the arguments (those of the process by default), run, and give the exit status."""
        set_wait_policy()
        parser, words = self.parser(), list(sys.argv[1:] if arguments is None else arguments)
        check_options(parser, words)
        parsed = parser.parse_args(words)
        configure_logging(quiet=parsed.quiet, debug=parsed.debug)
        for option in self.ignored:
            if getattr(parsed, option) is not None:
                logger.warning("--%s has no effect on %s", option.replace("_", "-"), self.name)
        again = "restart" if getattr(parsed, "restart", False) else None
        return run_guarded(lambda: self.run(parsed), debug=parsed.debug, starts_over_with=again)

    def script(self) -> NoReturn:
        """What the program `seg25d_VERB` does: the command, and then the end of the process."""
        leave(self())

    def parser(self) -> Parser:
        """The parser of this command."""
        parser = Parser(prog=f"seg25d {self.name}", description=self.summary, allow_abbrev=False)
        self.add_arguments(parser)
        add_shared_arguments(parser, self.ignored)
        return parser


def set_wait_policy() -> None:
    """Say how OpenMP threads wait, unless the user has: for a moment awake, then asleep. Read when torch is loaded.

    Threads that spin for long fight with the data loader, and with other programs, over few cores: an update of `stack`
    on two threads took 11.6 s in each of two processes on two cores, and 0.73 s where they sleep at once. Alone, those
    that sleep at once are the slower ones: 220 ms an update, 153 ms with much spinning, 160 ms (0.80 s of each of two)
    with these few turns (documentation/concepts/choices.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def add_shared_arguments(parser: argparse.ArgumentParser, ignored: Sequence[str] = ()) -> None:
    """Declare the options that every command takes; the help says which are ignored."""
    no_effect = "accepted by all commands, no effect on this one"
    group = parser.add_argument_group("options of all commands")
    group.add_argument(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="folder that holds raw/, preprocessed/ and results/ (default: $SEG25D_WORKSPACE or ./seg25d_workspace)",
    )
    group.add_argument("--quiet", action="store_true", help="warnings and errors only")
    group.add_argument("--debug", action="store_true", help="more messages, and tracebacks with every error")
    where = "where to compute, such as cuda or cuda:1 (default: the best there is)"
    group.add_argument(
        "--device",
        "-device",
        type=device_names,
        metavar="{cuda,cpu,mps}",
        help=no_effect if "device" in ignored else where,
    )
    workers = "worker processes; 0 works in this process (default: by cores and free memory)"
    group.add_argument(
        "--num-processes",
        "-np",
        type=natural_number,
        metavar="N",
        help=no_effect if "num_processes" in ignored else workers,
    )


def natural_number(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return _at_least(text, 0)


def positive_number(text: str) -> int:
    """An integer of at least 1, for argparse."""
    return _at_least(text, 1)


def positive_amount(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"wanted a number above 0, got {text!r}")
    return value


def weight(text: str) -> float:
    """A number of at least 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"wanted a number of at least 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number above 0 and at most 1, for argparse."""
    value = positive_amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"wanted a number above 0 and at most 1, got {text!r}")
    return value


def duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `15min`, `2h` or `1h30min`, for argparse."""
    match = DURATION.fullmatch(text.replace(" ", ""))
    if match is None or not text.strip():
        raise argparse.ArgumentTypeError(f"wanted a duration such as 90s, 15min, 2h or 1h30min, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return positive_amount(str(hours * 3600 + minutes * 60 + seconds))


def setting(text: str) -> tuple[str, str]:
    """The pair of `key=value`, for argparse."""
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError(f"wanted key=value, got {text!r}")
    return key, value


def device_names(text: str) -> str:
    """The name of a device, or several with commas, for argparse; whether they are there is seen when they are used."""
    for name in text.split(","):
        if DEVICE.fullmatch(name) is None:
            raise argparse.ArgumentTypeError(f"wanted cuda, cuda:NUMBER, cpu or mps, got {name!r}")
    return text


def plans_name(text: str) -> str:
    """A name that plans may have, for argparse."""
    try:
        return check_plans_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _at_least(text: str, minimum: int) -> int:
    if not text.isdigit() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"wanted a whole number of at least {minimum}, got {text!r}")
    return int(text)


def find_workspace(arguments: argparse.Namespace) -> "Workspace":
    """The workspace that the arguments and the environment name."""
    from seg25d.core.workspace import Workspace

    return Workspace.resolve(arguments.workspace)


def options_of(record: type[Options], arguments: argparse.Namespace, **others: Any) -> Options:
    """A record of options.

    Args:
        record: Its kind.
        arguments: What stands under the name of a field is taken; None leaves the field as it is by default.
        others: Fields that the arguments have under other names, or not at all; they come first.
    """
    named = {name: getattr(arguments, name, None) for name in record.model_fields if name not in others}
    return record(**others, **{name: value for name, value in named.items() if value is not None})


def configure_logging(*, quiet: bool, debug: bool) -> None:
    """Send messages to standard error: bare on a terminal, with a time stamp elsewhere."""
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    handler = _Handler()
    style = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s"
    handler.setFormatter(_Formatter(style, datefmt="%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger("seg25d")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    if not debug:
        # Libraries speak to developers with them.
        warnings.filterwarnings("ignore", category=FutureWarning)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to what standard error is at the moment: while a bar is shown, a stand-in that puts messages above it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    """Puts the level in front of warnings and errors only."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def run_guarded(action: Callable[[], None], *, debug: bool, starts_over_with: str | None = None) -> int:
    """Run a command and turn whatever it raises into a message and an exit status.

    Args:
        action: The command.
        debug: Whether to show tracebacks.
        starts_over_with: The option with which the same command would start over instead of going on.

    Returns:
        0 done; 2 the input is at fault; 1 a fault of ours; 130 interrupted.
    """
    try:
        action()
        sys.stdout.flush()
    except Seg25dError as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        without = f" without --{starts_over_with}" if starts_over_with else ""
        _say(f"interrupted; the same command{without} goes on where it stopped")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except (PermissionError, FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        if debug:
            traceback.print_exc()
        _say(f"error: {error.filename}: {error.strerror}; choose another place or change its permissions")
        return 2
    except Exception as error:
        traceback.print_exc()
        _say(
            f"error: {type(error).__name__}: {error}; this is a fault of seg25d, please report it with the lines above"
        )
        return 1
    return 0


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _silence_stdout() -> None:
    """Let Python flush standard output at exit although its reader has gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
