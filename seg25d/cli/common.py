"""Shared parts of all commands: options, messages, logging and exit statuses."""

import argparse
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, TypeVar

from seg25d.cli.argument_types import device_names, natural_number
from seg25d.cli.known_options import check_options
from seg25d.cli.nnunet_parsing import add_spellings, add_words, other_names, read_words
from seg25d.core.errors import InputError, Seg25dError
from seg25d.core.printing import harmless
from seg25d.core.process import leave, open_closed_streams
from seg25d.core.progress import hide_bars
from seg25d.core.system_errors import refusal, refusal_at_limit

if TYPE_CHECKING:
    from seg25d.core.records import Record
    from seg25d.core.workspace import Workspace

Options = TypeVar("Options", bound="Record")

logger = logging.getLogger(__name__)
INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 + SIGINT, as in shells."""


class Parser(argparse.ArgumentParser):
    """A parser that formats errors like all other errors of the project."""

    def error(self, message: str) -> NoReturn:
        """Print the error and exit with status 2."""
        self.exit(2, f"error: {harmless(message)}\n{self.format_usage()}")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        """Exit, also if the reader of standard output has closed it."""
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
        summary: Description in one sentence.
        add_arguments: Function that declares its own arguments.
        run: Function that runs the command; heavy imports are made only then.
        ignored: Shared options that it accepts, like every command, but that have no effect on it.
        home: The command's name where it is called by another one of nnU-Net's.
        leading: Words before those of the user, by which that name is distinguished.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]
    ignored: tuple[str, ...] = ()
    home: str | None = None
    leading: tuple[str, ...] = ()

    @property
    def usual_name(self) -> str:
        """The name of the home, which is its own except for aliases."""
        return self.home or self.name

    def alias(self, name: str, leading: tuple[str, ...] = ()) -> "Command":
        """The same command by another name, with words before those of the user."""
        same = " ".join(("seg25d", self.name, *leading))
        return replace(self, name=name, summary=f"Another name of `{same}`.", home=self.name, leading=leading)

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        """Parse the arguments (those of the process by default), run the command, and return the exit status."""
        set_wait_policy()
        parser, words = self.parser(), [*self.leading, *(sys.argv[1:] if arguments is None else arguments)]
        check_options(parser, words)
        parsed = parser.parse_args(words)
        configure_logging(quiet=parsed.quiet, debug=parsed.debug)
        for option in self.ignored:
            if getattr(parsed, option) is not None:
                logger.warning("--%s has no effect on %s", option.replace("_", "-"), self.name)
        again = "restart" if getattr(parsed, "restart", False) else None
        return run_guarded(lambda: self._run(parsed), debug=parsed.debug, starts_over_with=again)

    def _run(self, arguments: argparse.Namespace) -> None:
        read_words(arguments, self.usual_name)
        if getattr(arguments, "no_progress_bar", False):
            hide_bars()
        self.run(arguments)

    def script(self) -> NoReturn:
        """Entry point of the program `seg25d_VERB`: run the command, then end the process."""
        open_closed_streams()
        leave(self())

    def parser(self) -> Parser:
        """Make the parser of this command."""
        parser = Parser(
            prog=f"seg25d {self.name}",
            description=self.summary,
            epilog=None if self.home else other_names(self.name),
            allow_abbrev=False,
        )
        self.add_arguments(parser)
        add_words(parser, self.usual_name)
        add_shared_arguments(parser, self.ignored)
        add_spellings(parser, self.usual_name)
        return parser


def set_wait_policy() -> None:
    """Set how OpenMP threads wait, unless the user has set it: a short spin, then sleep. Read when torch is loaded.

    On few cores, threads that spin for long compete with the data loader and other programs: an update of `stack` on
    two threads took 11.6 s in each of two processes on two cores, but 0.73 s if threads sleep immediately. A single
    process is slower if threads sleep immediately: 220 ms per update, 153 ms with much spinning, 160 ms (0.80 s in each
    of two processes) with this short spin (documentation/concepts/choices.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def add_shared_arguments(parser: argparse.ArgumentParser, ignored: Sequence[str] = ()) -> None:
    """Declare the options that every command accepts; the help marks those that are ignored."""
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
    where = "device to compute on, such as cuda or cuda:1 (default: the best one available)"
    group.add_argument(
        "--device",
        "-device",
        type=device_names,
        metavar="{cuda,cpu,mps}",
        help=no_effect if "device" in ignored else where,
    )
    workers = "number of worker processes; 0 uses this process (default: by cores and free memory)"
    # nnU-Net's -np takes several numbers where it plans.
    own = ["-np"] if "-np" in parser._option_string_actions else []
    group.add_argument(
        *[name for name in ("--num-processes", "-np") if name not in own],
        type=natural_number,
        metavar="N",
        help=no_effect if "num_processes" in ignored else workers,
    )


def find_workspace(arguments: argparse.Namespace) -> "Workspace":
    """Find the workspace from the arguments and the environment."""
    from seg25d.core.workspace import Workspace

    return Workspace.resolve(arguments.workspace)


def options_of(record: type[Options], arguments: argparse.Namespace, **others: Any) -> Options:
    """Make a record of options from arguments.

    Args:
        record: Class of the record.
        arguments: Values for fields of the same names; None leaves the default of the field.
        others: Values of fields that differ from the arguments; they take precedence.
    """
    named = {name: getattr(arguments, name, None) for name in record.model_fields if name not in others}
    return record(**others, **{name: value for name, value in named.items() if value is not None})


def configure_logging(*, quiet: bool, debug: bool) -> None:
    """Send messages to standard error, with time stamps if it is not a terminal."""
    level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    handler = _Handler()
    style = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s"
    handler.setFormatter(_Formatter(style, datefmt="%Y-%m-%d %H:%M:%S"))
    root = logging.getLogger("seg25d")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
    if not debug:
        # These warnings are meant for developers of the libraries' users.
        warnings.filterwarnings("ignore", category=FutureWarning)


class _Handler(logging.StreamHandler[TextIO]):
    """Writes to the current standard error, which a progress bar replaces to print messages above itself."""

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


class _Formatter(logging.Formatter):
    """Adds the level to warnings and errors."""

    def format(self, record: logging.LogRecord) -> str:
        text = harmless(super().format(record))
        return f"{record.levelname.lower()}: {text}" if record.levelno >= logging.WARNING else text


def run_guarded(action: Callable[[], None], *, debug: bool, starts_over_with: str | None = None) -> int:
    """Run a command and convert all exceptions to a message and an exit status.

    Args:
        action: The command.
        debug: Whether to show tracebacks.
        starts_over_with: The option with which the same command starts over instead of continuing.

    Returns:
        0 on success; 2 for an error of the input, or if the system refused something; 1 for a bug of seg25d; 130 if
        interrupted.
    """
    try:
        action()
        _flush_stdout()
    except Seg25dError as error:
        if debug:
            complain(traceback.format_exc().rstrip())
        complain(f"error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        without = f" without --{starts_over_with}" if starts_over_with else ""
        complain(f"interrupted; the same command{without} continues where it stopped")
        return INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except Exception as error:
        if reason := refusal(error) or refusal_at_limit(error) or _lack_of_torch(error):
            if debug:
                complain(traceback.format_exc().rstrip())
            complain(f"error: {reason}")
            return reason.exit_status
        complain(traceback.format_exc().rstrip())
        complain(
            f"error: {type(error).__name__}: {error}; this is a bug of seg25d, please report it with the lines above"
        )
        return 1
    return 0


def _lack_of_torch(error: Exception) -> InputError | None:
    """What to do where torch is not installed, as with requirements-light.txt, if that is the error."""
    if not isinstance(error, ModuleNotFoundError) or (error.name or "").partition(".")[0] != "torch":
        return None
    return InputError(
        "torch is not installed, without which only `seg25d predict -m FILE.onnx.zip` works (with models of `seg25d "
        "export_model --format onnx`), and ensemble, evaluate and statistics; `pip install seg25d` brings it"
    )


def say(text: object = "") -> None:
    """Print a result on standard output, at once, with harmful letters as escapes."""
    print(harmless(str(text)), flush=True)


def complain(text: str) -> None:
    """Print a message on standard error, with harmful letters as escapes."""
    with suppress(OSError):  # standard error may be a file on a full disk: the status says it
        print(harmless(text), file=sys.stderr)


def _flush_stdout() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise refusal(error, Path("standard output")) or error from None


def _silence_stdout() -> None:
    """Redirect standard output, so that Python can flush it at exit although its reader has closed it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
