"""NiiVue, the 3D viewer of the report, from the package ipyniivue: its code and its licence."""

import base64
import gzip
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError

PACKAGE = "ipyniivue"
_CODE = "ipyniivue/static/widget.js"


class NiiVue(NamedTuple):
    """Code and licence of NiiVue for a page."""

    code: str
    """The JavaScript module, compressed by gzip, as base64."""
    licence: str
    version: str
    """Version of the package."""


def find_niivue() -> NiiVue:
    """Read NiiVue from the installed package, which is not imported.

    Raises:
        InputError: If the package is missing or has other files; says how to install it.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        raise InputError(f"the viewer of the report needs {PACKAGE}; run `pip install {PACKAGE}`") from None
    licence = next((path for path in package.files or () if path.name == "LICENSE"), None)
    code = Path(str(package.locate_file(_CODE)))
    if licence is None or not code.is_file():
        raise InputError(f"{PACKAGE} {package.version} lacks {_CODE} or its licence; run `pip install -U {PACKAGE}`")
    return NiiVue(
        code=base64.b64encode(gzip.compress(code.read_bytes(), 9, mtime=0)).decode(),
        licence=Path(str(package.locate_file(licence))).read_text(encoding="utf-8"),
        version=package.version,
    )
