"""Reading of image files by native code: a crash there is an error that names the file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from seg25d.core.apart import Crash, call_apart
from seg25d.data.problems import FileError

Value = TypeVar("Value")
_KILLED = "SIGKILL"


def read_apart(read: Callable[..., Value], path: Path, *arguments: Any) -> Value:
    """Call a function that reads a file, or a folder of DICOM files, in a process of its own; see `call_apart`.

    Raises:
        ImageError: As the function raises it; or if the process died of the file.
    """
    try:
        return call_apart(read, path, *arguments)
    except Crash as crash:
        if str(crash) == _KILLED:
            problem = "the process that read it was killed, probably for lack of memory"
            raise FileError(path, problem, "stop other programs, or use a machine with more memory") from None
        problem = f"the process that read it crashed ({crash}), as the file is damaged or made to do harm"
        raise FileError(path, problem, "copy or export it again, or convert it to another format") from None
