"""What the process that workers are copies of loads first: where the system refuses it something, it ends silently.

The process that asked it for a worker then says so, in one sentence with the cure (`system_errors`). The server itself
would print a traceback beside it, as where no descriptors of files are left for one more worker.

It acts when it is imported, in that server alone: Python's server imports what it is to load, and calls nothing.
"""

import os
import sys
from types import TracebackType

_SERVER = os.getpid()


def _without_refusals(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """Stand in for `sys.excepthook`; the workers, which are copies of the server, report as ever."""
    if os.getpid() != _SERVER or not isinstance(error, (OSError, EOFError, MemoryError)):
        sys.__excepthook__(kind, error, where)


if any("multiprocessing.forkserver" in word for word in sys.orig_argv):
    sys.excepthook = _without_refusals
