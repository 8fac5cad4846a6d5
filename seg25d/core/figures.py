"""Settings of matplotlib for figures with names that users chose."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def names_as_written(style: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Make and draw a figure inside of this: `$` begins no formula, and letters that the font lacks are boxes.

    Legends need their handles and labels named: matplotlib by itself leaves out labels that begin with `_`.

    Args:
        style: Further settings of matplotlib.
    """
    from matplotlib import rc_context  # noqa: PLC0415 - slow to import

    settings: dict[Any, Any] = {"text.parse_math": False, **(style or {})}
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from", category=UserWarning)
        yield
