"""Options by their whole names: one that is not known is named, with the nearest known one."""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence

NUMBER = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
"""What begins like an option and is a value."""
LIKENESS, LIKENESS_OF_SHORT = 0.6, 0.8
"""From which on a name without its dashes is called near (`difflib.SequenceMatcher.ratio`; 0.6 is difflib's own): short
names are alike by chance, `tr` and `set`."""
SHORT = 3
"""Letters of a short name. What has fewer is the beginning of too much."""
OF_EVERY_COMMAND = ("--help", "--quiet", "--debug")
"""What is like another word is hardly one of these."""


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
            problems[name] = f"unknown option {name}; {_nearest(name, shown) or f'{parser.prog} --help lists them'}"
        elif has_value and not name.startswith("--"):
            problems[name] = f"{name} takes its value as a word of its own: {name} {value}, got {word}"
    if problems:
        parser.error("; ".join(problems.values()))


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known option that was probably meant, as a part of a sentence; empty if none is near."""
    word = _letters(name)
    plain = {_letters(each): each for each in sorted(known, key=len, reverse=True)}
    near = [plain[word]] if word in plain else []
    if len(word) >= SHORT:
        begun = [each for each in plain if each.startswith(word)]
        begins = [each for each in plain if len(each) >= SHORT and word.startswith(each)]
        others = [each for each in plain if plain[each] not in OF_EVERY_COMMAND]
        likeness = LIKENESS if len(word) > SHORT else LIKENESS_OF_SHORT
        like = difflib.get_close_matches(word, others, 1, likeness)
        near += [plain[each] for each in (*begun[-1:], *begins[:1], *like)]
    return f"the nearest one is {near[0]}" if near else ""


def _letters(name: str) -> str:
    return name.lstrip("-").replace("_", "-")
