"""The programs `seg25d_NAME` of nnU-Net's names that are no module's: each is an attribute of this module."""

from collections.abc import Callable
from typing import NoReturn

from seg25d.cli.main import NNUNET


def __getattr__(name: str) -> Callable[[], NoReturn]:
    if name not in NNUNET:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return NNUNET[name].script
