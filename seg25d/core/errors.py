"""The exceptions that seg25d raises on purpose, and the exit status that each gives on the command line.

The second column is the exit status:

    Seg25dError                 any exception that seg25d raises on purpose
    |-- InputError        2     the input, the data or the arguments are at fault: the message says what to do
    |   |-- DatasetError  2     one or more problems of a data set, reported together
    |   |-- ImageError    2     an image file that cannot be read
    |   |-- RecordError   2     a JSON record (plans, configuration ...) that is missing, damaged or wrongly edited
    |   |-- ModelError    2     a trained model that is missing, damaged or does not fit
    |   |-- BusyError     2     another process works on the same folder
    |   `-- ResourceError 2     the system refuses whatever comes next: disk full, read-only, too many open files
    |-- WorkerError       1     a worker process failed or died; names the case and carries the traceback
    |-- CaseFailures      1     some cases failed, all others were done
    `-- TaskFailures      1     some tasks of a run failed, all that do not need them were done
"""

from collections.abc import Mapping


class Seg25dError(Exception):
    """Base of all exceptions that seg25d raises on purpose."""

    exit_status = 1


class InputError(Seg25dError):
    """The input, the data or the arguments are at fault."""

    exit_status = 2


class DatasetError(InputError):
    """A data set has problems; the message lists all of them."""


class ImageError(InputError):
    """An image file cannot be read."""


class RecordError(InputError):
    """A stored record is missing, damaged or was edited wrongly; the message names the place."""


class ModelError(InputError):
    """A trained model is missing, damaged or does not fit the input."""


class BusyError(InputError):
    """Another process works on the same folder."""


class ResourceError(InputError):
    """The system refuses whatever comes next: the disk is full or read-only, too many files are open."""


class WorkerError(Seg25dError):
    """A worker process failed or died while it worked on a case."""


class _FailuresError(Seg25dError):
    """Some parts of the work failed while others were done.

    Args:
        failures: Message per failed part.
    """

    summary = ""
    """What became of the others, behind the number of failures."""
    cure = ""

    def __init__(self, failures: Mapping[str, str]) -> None:
        self.failures = dict(failures)
        lines = "".join(f"\n  {name}: {message}" for name, message in self.failures.items())
        super().__init__(f"{len(self.failures)} {self.summary}:{lines}{self.cure}")


class CaseFailures(_FailuresError):  # noqa: N818 - it stands for several failures
    """Some cases failed while all others were done."""

    summary = "case(s) failed, all others were done"


class TaskFailures(_FailuresError):  # noqa: N818 - the same
    """Some tasks of a run failed while all that do not need them were done."""

    summary = "task(s) failed, all that do not need them were done"
    cure = "\nMend the cause and give the same command again: it goes on with these"
