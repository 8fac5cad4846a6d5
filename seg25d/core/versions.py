"""The versions that results depend on."""

import platform
from importlib.metadata import PackageNotFoundError, version

from seg25d import __version__

_PACKAGES = ("torch", "numpy", "monai", "SimpleITK")


def library_versions() -> dict[str, str]:
    """The versions of Python, of this project and of what decides about its results."""
    versions = {"seg25d": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
