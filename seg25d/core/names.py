"""Names that a file gives and that become parts of paths: the one check that all of them pass; and how they are shown.

Letters that command a terminal or change the order of what it shows are harmful in both.
"""

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

MAX_NAME_BYTES = 180
"""File systems take 255 bytes (`NAME_MAX` of Linux); what our own files add to a name (a process id, `_locations.npz`)
has room beside it."""
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))}
"""Devices of Windows, with any ending (learn.microsoft.com, "Naming Files, Paths, and Namespaces")."""

_HARMFUL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Control characters (ECMA-48), separators of lines, marks that turn the direction of text (unicode.org/reports/tr9,
table 4), and what stands for bytes that are no text in a file name (PEP 383)."""
_KEPT = frozenset("\n\t")
"""Of our own messages."""


def harmless(text: str) -> str:
    """The text with harmful letters as escapes (such as x1b), so that a terminal shows them; lines and tabs stay."""
    return _HARMFUL.sub(lambda match: match[0] if match[0] in _KEPT else ascii(match[0])[1:-1], text)


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


def check_case_name(name: str) -> str:
    """Give the name of a case back when files of this machine can be called so, in a folder and nowhere else.

    Raises:
        ValueError: If not; says what is wrong.
    """
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        raise ValueError(f"{name[:20]!r}... is too long for the name of a file; at most {MAX_NAME_BYTES} bytes")
    if not name or name.startswith(".") or set(name) & set("/\\") or _HARMFUL.search(name):
        raise ValueError(
            f"{name!r} cannot be the name of a file: it is empty, begins with a dot, or has a slash, a backslash or a "
            "control character"
        )
    return name


FileName: TypeAlias = Annotated[str, AfterValidator(check_name)]
"""The name of a data set, run, configuration, store or view, which may come from another machine."""
CaseName: TypeAlias = Annotated[str, AfterValidator(check_case_name)]
"""The name of a case, which is that of a file of this machine."""
