"""Names that a file gives and that become parts of paths: the one check that all of them pass."""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from seg25d.core.printing import HARMFUL

MAX_NAME_BYTES = 180
"""File systems take 255 bytes (`NAME_MAX` of Linux); what our own files add to a name (a process id, `_locations.npz`)
has room beside it."""
MAX_DEPTH = 16
"""Folders in a path that a file names."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""Devices of Windows, with any ending (learn.microsoft.com, "Naming Files, Paths, and Namespaces")."""


def check_name(name: str) -> str:
    """Give a name back when it can be the name of a file or folder on every system, and of nothing outside its folder.

    Raises:
        ValueError: If not; says what is wrong.
    """
    check_case_name(name)
    if set(name) & set(':*?"<>|') or name[-1] in ". " or name.partition(".")[0].lower() in _RESERVED:
        raise ValueError(
            f'{name!r} cannot be the name of a file everywhere: it has one of : * ? " < > |, ends with a dot or a '
            "blank, or is a device of Windows"
        )
    return name


def is_number(name: str) -> bool:
    """Whether a name is a whole number, of at most nine digits; `str.isdigit` takes `²`, and any length, as well."""
    return re.fullmatch(r"[0-9]{1,9}", name) is not None


def check_case_name(name: str) -> str:
    """Give the name of a case back when files of this machine can be called so, in a folder and nowhere else.

    Raises:
        ValueError: If not; says what is wrong.
    """
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:20]!r}... is too long for the name of a file; at most {MAX_NAME_BYTES} bytes")
    if not name or name.startswith(".") or set(name) & set("/\\") or HARMFUL.search(name):
        raise ValueError(
            f"{name!r} cannot be the name of a file: it is empty, begins with a dot, or has a slash, a backslash or a "
            "control character"
        )
    return name


def check_inner_path(path: str) -> str:
    """Give the path of a file back when it leads to a place inside of the folder that it starts from.

    Raises:
        ValueError: If not; says what is wrong.
    """
    parts = path.removeprefix("./").split("/")
    if len(parts) > MAX_DEPTH:
        raise ValueError(f"{path[:MAX_NAME_BYTES]!r} is too deep; at most {MAX_DEPTH} folders are possible")
    for part in parts:
        check_case_name(part)
    return path


InnerPath: TypeAlias = Annotated[str, AfterValidator(check_inner_path)]
"""The path of a file in a folder, with slashes."""
FileName: TypeAlias = Annotated[str, AfterValidator(check_name)]
"""The name of a run, configuration, store or view, which may come from another machine."""
CaseName: TypeAlias = Annotated[str, AfterValidator(check_case_name)]
"""The name of a data set or case, which is that of files of this machine."""
