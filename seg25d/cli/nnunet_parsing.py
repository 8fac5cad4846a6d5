"""nnU-Net's words become options of our commands, and what they say becomes ours: plans, configurations, trainers."""

import argparse
import logging
from collections.abc import Iterator, Sequence

from seg25d.cli.nnunet_table import NNUNET_COMMANDS
from seg25d.cli.nnunet_word import Word
from seg25d.core.errors import InputError

logger = logging.getLogger(__name__)
ALIASES = {each.name: each for each in NNUNET_COMMANDS if each.name != each.home}
"""Commands whose home has another name."""
NAMED = {each.name for each in NNUNET_COMMANDS}
PLANS, OUR_PLANS = "nnUNetPlans", "plans"
TRAINER = "nnUNetTrainer"
CONFIGURATIONS = {"3d_fullres": "3d"}
CASCADE = ("3d_lowres", "3d_cascade_fullres")
NO_CASCADE = (
    "there is no cascade over a lower resolution here; take 3d_fullres, which is `3d`, or train coarse-to-fine models: "
    "--set fine=true"
)
CHECKPOINTS = {"final": "final", "checkpoint_final.pth": "final", "best": "best", "checkpoint_best.pth": "best"}


def words_of(home: str) -> Iterator[Word]:
    """The words of all of nnU-Net's commands that a command is the home of, each once."""
    yield from dict.fromkeys(word for each in NNUNET_COMMANDS if each.home == home for word in each.words)


def other_names(home: str) -> str | None:
    """What the help of a command says of nnU-Net's names for it; None if there are none."""
    names = [f"{name} is {' '.join((home, *each.leading))}" for name, each in ALIASES.items() if each.home == home]
    return f"Names of nnU-Net's: {', '.join(names)}." if names else None


def add_words(parser: argparse.ArgumentParser, home: str) -> None:
    """Declare nnU-Net's options that have no counterpart among a command's own ones."""
    words = [word for word in words_of(home) if word.kind != "same"]
    group = parser.add_argument_group("options of nnU-Net's commands") if words else parser
    for word in words:
        how = dict(word.how)
        if word.kind == "own":
            help_text = word.meaning
        elif word.kind == "idle":
            how["dest"], help_text = _place(word), f"no effect: {word.meaning}"
        else:
            how, help_text = {"dest": _place(word), "metavar": "NAME"}, f"{word.value} alone: {word.meaning}"
        group.add_argument(*word.spellings, **how, help=help_text)


def add_spellings(parser: argparse.ArgumentParser, home: str) -> None:
    """Add nnU-Net's spellings to a command's own options, which have all been declared."""
    actions = parser._option_string_actions
    for word in words_of(home):
        if word.kind == "same" and word.home.startswith("-"):
            for spelling in word.spellings:
                if spelling not in actions:
                    actions[spelling] = actions[word.home]
                    actions[word.home].option_strings = [*actions[word.home].option_strings, spelling]


def read_words(arguments: argparse.Namespace, home: str) -> None:
    """Say what has no effect, refuse what is not here, and replace nnU-Net's names of plans and configurations.

    Args:
        arguments: What the parser found; changed in place, as argparse's own actions do.
        home: The command.

    Raises:
        InputError: If a value or a configuration has no counterpart; says what to use instead.
    """
    for word in words_of(home):
        value = getattr(arguments, _place(word), None)
        if word.kind == "only" and value not in (None, word.value):
            raise InputError(f"{word.spellings[0]}: expected {word.value}, got {value}; {word.meaning}")
        if word.kind == "idle" and value not in (None, False):
            logger.info("%s has no effect: %s", word.spellings[0], word.meaning)
    for key, value in list(vars(arguments).items()):
        if key in ("configuration", "configurations") and value is not None:
            arguments.num_configurations = 1 if isinstance(value, str) else len(value)
            setattr(arguments, key, own_configuration(value) if isinstance(value, str) else _own_configurations(value))
        elif key in ("plans_name", "source_plans", "target_plans") and value == PLANS:
            setattr(arguments, key, OUR_PLANS)


def own_configuration(name: str) -> str:
    """Our name of a configuration of nnU-Net, with or without a network; other names stay as they are.

    Raises:
        InputError: If there is none.
    """
    base, separator, rest = name.partition("__")
    if base in CASCADE:
        raise InputError(f"configuration {name}: {NO_CASCADE}")
    return CONFIGURATIONS.get(base, base) + separator + rest


def run_names(
    configurations: Sequence[str] | None, trainers: Sequence[str] | None, plans_names: Sequence[str] | None = None
) -> list[str] | None:
    """Names of the runs of configurations that nnU-Net's trainers trained with plans.

    Args:
        configurations: Ours, or names of runs; None or nothing: whatever is trained.
        trainers: nnU-Net's; None: its default one, which adds nothing to the name.
        plans_names: Names of plans; None: the default ones.

    Raises:
        InputError: If trainers or plans are named, and no configuration.
    """
    of_trainers = [f"__{name}" if name != TRAINER else "" for name in trainers or (TRAINER,)]
    of_plans = [f"__{name}" if name not in (PLANS, OUR_PLANS) else "" for name in plans_names or (PLANS,)]
    if not configurations:
        if any(of_trainers) or any(of_plans):
            raise InputError("-tr and -p name the runs of configurations: name these too, with -c")
        return None
    return [f"{each}{trainer}{plans}" for each in configurations for trainer in of_trainers for plans in of_plans]


def own_checkpoint(name: str | None) -> str:
    """`final` or `best` for the file that nnU-Net's -chk names; the final one by default.

    Raises:
        InputError: If it is another one.
    """
    if name is None:
        return "final"
    if name not in CHECKPOINTS:
        raise InputError(
            f"-chk: expected checkpoint_final.pth or checkpoint_best.pth, got {name}; the state that a training goes "
            "on from (checkpoint_latest.pth there) is no model here"
        )
    return CHECKPOINTS[name]


def _own_configurations(names: Sequence[str]) -> list[str]:
    """Our names of configurations; those without a counterpart are left out, as nnU-Net does what was not planned."""
    kept = [name for name in names if name.partition("__")[0] not in CASCADE]
    left_out = [name for name in names if name not in kept]
    if names and not kept:
        raise InputError(f"configuration {', '.join(left_out)}: {NO_CASCADE}")
    if left_out:
        logger.info("left out: %s; %s", ", ".join(left_out), NO_CASCADE)
    return [own_configuration(name) for name in kept]


def _place(word: Word) -> str:
    return "nnunet_" + word.spellings[0].strip("-").replace("-", "_")
