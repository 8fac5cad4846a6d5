"""Types of arguments for argparse: what a word must look like, checked before anything heavy is loaded."""

import argparse
import math
import re

from seg25d.planning.plans_name import check_plans_name
from seg25d.representations import ANATOMICAL

DURATION = re.compile(r"(?:([\d.]+)h)?(?:([\d.]+)(?:min|m))?(?:([\d.]+)(?:sec|s))?")
DEVICE = re.compile(r"cuda(:\d+)?|cpu|mps")


def natural_number(text: str) -> int:
    """An integer of at least 0, for argparse."""
    return _at_least(text, 0)


def positive_number(text: str) -> int:
    """An integer of at least 1, for argparse."""
    return _at_least(text, 1)


def positive_amount(text: str) -> float:
    """A number above 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def auto_or_amount(text: str) -> float | str:
    """`auto`, or a number above 0, for argparse."""
    return text if text == "auto" else positive_amount(text)


def auto_or_weight(text: str) -> float | str:
    """`auto`, or a number of at least 0, for argparse."""
    return text if text == "auto" else weight(text)


def weight(text: str) -> float:
    """A number of at least 0, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return value


def share(text: str) -> float:
    """A number above 0 and at most 1, for argparse."""
    value = positive_amount(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"expected a number above 0 and at most 1, got {text!r}")
    return value


def duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `15min`, `2h` or `1h30min`, for argparse."""
    match = DURATION.fullmatch(text.replace(" ", ""))
    if match is None or not text.strip():
        raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 15min, 2h or 1h30min, got {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return positive_amount(str(hours * 3600 + minutes * 60 + seconds))


def duration_or_none(text: str) -> float:
    """Seconds of a duration, or 0 for none, for argparse."""
    return 0.0 if text == "0" else duration(text)


def setting(text: str) -> tuple[str, str]:
    """Key and value of `key=value`, for argparse."""
    key, separator, value = text.partition("=")
    if not (key and separator):
        raise argparse.ArgumentTypeError(f"expected key=value, got {text!r}")
    return key, value


def device_names(text: str) -> str:
    """The name of a device, or several separated by commas, for argparse; availability is checked later."""
    for name in text.split(","):
        if DEVICE.fullmatch(name) is None:
            raise argparse.ArgumentTypeError(f"expected cuda, cuda:NUMBER, cpu or mps, got {name!r}")
    return text


def plans_name(text: str) -> str:
    """A valid name of plans, for argparse."""
    try:
        return check_plans_name(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def labelled_slices(text: str) -> tuple[int, int | None]:
    """Axis of `axial`, `coronal` or `sagittal`, and N of `axial:N`, at least 2, or None, for argparse."""
    name, separator, number = text.partition(":")
    if name not in ANATOMICAL:
        raise argparse.ArgumentTypeError(f"expected {', '.join(ANATOMICAL)}, or axial:5, got {text!r}")
    return ANATOMICAL.index(name), _at_least(number, 2) if separator else None


def _at_least(text: str, minimum: int) -> int:
    if not text.isdigit() or int(text) < minimum:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {minimum}, got {text!r}")
    return int(text)
