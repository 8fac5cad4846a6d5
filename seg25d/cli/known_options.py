"""Options by their whole names: one that is not known is named, with the nearest known one."""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
"""What begins like an option and is a value."""
LIKENESS = 0.5
"""From which on a name is called near (`difflib.SequenceMatcher.ratio`); below difflib's own 0.6, so that the beginning
of a long name is near it. Where none is, all are listed."""


def check_options(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Make sure that every word which looks like an option is one; ends the process with status 2 if not.

    argparse itself takes `-chk x` for `-c hk`, also where abbreviations are off, and names of an unknown option before
    the last argument no more than its value.

    Args:
        parser: Whose options are meant.
        words: The command line without the name of the command; what follows `--` is left alone.
    """
    actions = parser._option_string_actions
    shown = [name for name, action in actions.items() if action.help != argparse.SUPPRESS and name != "-h"]
    problems = {}
    for word in words[: words.index("--")] if "--" in words else words:
        if len(word) < len("-c") or not word.startswith("-") or NUMBER.fullmatch(word) or " " in word:
            continue
        name, has_value, value = word.partition("=")
        if name not in actions:
            problems[name] = f"unknown option {name}{_nearest(name, shown)}"
        elif has_value and not name.startswith("--"):
            problems[name] = f"{name} takes its value as a word of its own: {name} {value}, got {word}"
    if problems:
        parser.error("; ".join(problems.values()))


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known option that was probably meant, or all of them."""
    known = sorted(known, key=len)
    as_known = name.replace("_", "-")
    longer = [each for each in known if each.startswith(as_known)] if as_known.strip("-") else []
    shorter = [each for each in reversed(known) if as_known.startswith(each)]
    near = longer or shorter or difflib.get_close_matches(as_known, known, 1, LIKENESS)
    return f"; the nearest one is {near[0]}" if near else f"; known: {', '.join(known)}"
