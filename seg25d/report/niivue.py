"""NiiVue, the 3D viewer of the report, from the package ipyniivue: its code and its licence."""

import base64
import gzip
import logging
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from seg25d.core.errors import InputError

logger = logging.getLogger(__name__)
PACKAGE = "ipyniivue"
_CODE = "ipyniivue/static/widget.js"


class NiiVue(NamedTuple):
    """Code and licence of NiiVue for a page."""

    code: str
    """The JavaScript module, compressed by gzip, as base64."""
    licence: str
    version: str
    """Version of the package."""


def find_niivue() -> NiiVue | None:
    """Read NiiVue from the package, an extra, which is not imported; None if it is not installed, which a line says.

    Raises:
        InputError: If the package has other files.
    """
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        logger.warning(
            "the report has no 3D viewer, which needs %s: run `pip install 'seg25d[report]'` and write it again",
            PACKAGE,
        )
        return None
    licence = next((path for path in package.files or () if path.name == "LICENSE"), None)
    code = Path(str(package.locate_file(_CODE)))
    if licence is None or not code.is_file():
        raise InputError(f"{PACKAGE} {package.version} lacks {_CODE} or its licence; run `pip install -U {PACKAGE}`")
    return NiiVue(
        code=base64.b64encode(gzip.compress(code.read_bytes(), 9, mtime=0)).decode(),
        licence=Path(str(package.locate_file(licence))).read_text(encoding="utf-8"),
        version=package.version,
    )
