"""One thing that is tried, and what became of it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """What became of one attempt."""

    as_promised: bool
    outcome: str
    """In a few words, the same for all attempts that end alike: a column of the table."""
    detail: str = ""
    """What a failure needs to be understood: command, messages, differences."""


class Kind(NamedTuple):
    """A kind of faults: seed and number of an attempt say all about it, so that it can be run alone."""

    name: str
    prepare: Callable[[Path], None]
    """Writes what all attempts start from into a folder that all kinds share; what is there already stays."""
    attempt: Callable[[random.Random, Path, Path], Result]
    """Tries one fault: gets the random numbers of this attempt, what was prepared, and an empty folder to work in."""


def random_of(seed: int, kind: Kind, number: int) -> random.Random:
    """The random numbers of one attempt."""
    return random.Random(f"{seed} {kind.name} {number}")
