"""The arguments that `train` and `pretrain` share."""

import argparse

from seg25d.cli.argument_types import duration, natural_number, plans_name, positive_number, setting
from seg25d.networks import MIXINGS, REQUESTABLE
from seg25d.planning.recipe_names import PLACES as RECIPES
from seg25d.representations import ALIAS
from seg25d.representations import PLACES as CONFIGURATIONS
from seg25d.training.logger_names import LOGGER_NAMES
from seg25d.training.usual_lengths import ITERATIONS_PER_EPOCH


def configuration_help() -> str:
    """Describe the names of configurations; made anew each time, as methods may have been added."""
    return (
        f"one of {', '.join((ALIAS, *CONFIGURATIONS))}, or with a network, such as si__se_unet, or a way of mixing "
        f"slices ({', '.join(MIXINGS)}), such as si__shift, or both: si__se_unet__shift"
    )


def add_training_arguments(parser: argparse.ArgumentParser, usual_epochs: int) -> None:
    """Declare the arguments of training: network, recipe, length and settings.

    Args:
        parser: Gets the arguments.
        usual_epochs: Number of epochs without arguments for the length.
    """
    parser.add_argument(
        "--network",
        metavar="N",
        help=f"another network than the planned one: {', '.join(REQUESTABLE)}; its results are written to CONFIG__N",
    )
    parser.add_argument(
        "--recipe",
        default="default",
        metavar="R",
        help=f"training recipe: {', '.join(RECIPES)}, all but the first as in papers; plan with the same recipe "
        "first (default: default)",
    )
    parser.add_argument("--epochs", type=positive_number, metavar="N", help=_epochs_help(usual_epochs))
    parser.add_argument(
        "--iterations",
        type=positive_number,
        metavar="N",
        help="length of the training in updates; with --epochs, split into that number of epochs",
    )
    parser.add_argument(
        "--time-budget",
        dest="time_budget_s",
        type=duration,
        metavar="TIME",
        help="length of each training, instead of epochs, such as 90s, 15min or 2h; includes the look at the "
        "validation windows after each epoch, not the scoring of whole validation cases at the end",
    )
    parser.add_argument("--seed", type=natural_number, metavar="N", help="seed of all randomness")
    parser.add_argument(
        "--set",
        dest="settings",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of config.json; can be repeated",
    )
    parser.add_argument("--restart", action="store_true", help="remove earlier trainings of these folds and start over")
    for name, words in LOGGER_NAMES.items():
        parser.add_argument(
            f"--{name}",
            dest="loggers",
            action="append_const",
            const=name,
            default=[],
            help=f"also log to {words.title}, in {words.place} (pip install 'seg25d[{name}]')",
        )
    parser.add_argument(
        "--plans-name",
        "-p",
        type=plans_name,
        default="plans",
        metavar="NAME",
        help="name of the plans to train (default: plans)",
    )


def _epochs_help(usual: int) -> str:
    return (
        f"length of the training in epochs of {ITERATIONS_PER_EPOCH} updates (default: {usual}, "
        f"{usual * ITERATIONS_PER_EPOCH:,} updates; recipes of papers, and fusions of views, have their own). What is "
        "there already goes on to a longer length, which is said; a shorter one is an error without --restart"
    )
