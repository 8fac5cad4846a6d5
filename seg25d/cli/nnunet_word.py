"""The lines of the table of nnU-Net's commands: what an option of nnU-Net can be here."""

from typing import Any, Literal, NamedTuple


class Word(NamedTuple):
    """An option of one of nnU-Net's commands, or an argument without dashes."""

    spellings: tuple[str, ...]
    kind: Literal["same", "own", "idle", "only"]
    """same: another spelling of the home's option `home`. own: an option that was made for it. idle: accepted, with a
    line that says why it has no effect. only: one value is accepted, others are an error."""
    meaning: str
    """What it does here, as help and page say it."""
    home: str = ""
    how: tuple[tuple[str, Any], ...] = ()
    """Keywords of `add_argument`."""
    value: str = ""
    """The one value that is accepted."""


class NnunetCommand(NamedTuple):
    """One of nnU-Net's commands."""

    name: str
    """Without `nnUNetv2_`."""
    home: str
    """The command that does it here; its own name where it is no alias."""
    leading: tuple[str, ...]
    """Words before those of the user that make the home do it."""
    words: tuple[Word, ...]


def same(spellings: str, home: str) -> Word:
    """Another spelling of an option of the home."""
    return Word(tuple(spellings.split()), "same", f"the same as `{home}`", home)


def own(spellings: str, meaning: str, **how: Any) -> Word:
    """An option that was made for nnU-Net's word."""
    return Word(tuple(spellings.split()), "own", meaning, how=tuple(how.items()))


def flag(spellings: str, meaning: str, **how: Any) -> Word:
    """An option without a value that was made for nnU-Net's word."""
    return own(spellings, meaning, action="store_true", **how)


def idle(spellings: str, why: str, **how: Any) -> Word:
    """A word without effect here, and why; without `how` it takes no value."""
    return Word(tuple(spellings.split()), "idle", why, how=tuple((how or {"action": "store_true"}).items()))


def only(spellings: str, value: str, otherwise: str) -> Word:
    """An option with one accepted value, and what to do instead of others."""
    return Word(tuple(spellings.split()), "only", otherwise, value=value)


def given(*names: str) -> tuple[Word, ...]:
    """Arguments without dashes, which stand at the same place in both."""
    return tuple(Word((name,), "same", "the same argument", name) for name in names)
