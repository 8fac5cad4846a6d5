"""The arguments that `train` and `pretrain` share."""

import argparse

from seg25d.cli.common import duration, natural_number, plans_name, positive_number, setting
from seg25d.networks import REQUESTABLE
from seg25d.planning.recipe_names import PLACES as RECIPES


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is trained, for how long and how."""
    parser.add_argument(
        "--network",
        metavar="N",
        help=f"another network than the planned one: {', '.join(REQUESTABLE)}; its results go to CONFIG__N",
    )
    parser.add_argument(
        "--recipe",
        default="default",
        metavar="R",
        help=f"how to train: {', '.join(RECIPES)}, all but the first as in papers; plan with the same recipe "
        "before (default: default)",
    )
    parser.add_argument("--epochs", type=positive_number, metavar="N", help="number of epochs")
    parser.add_argument(
        "--iterations", type=positive_number, metavar="N", help="training steps in all, instead of epochs"
    )
    parser.add_argument(
        "--time-budget",
        dest="time_budget_s",
        type=duration,
        metavar="TIME",
        help="train every model for this long, such as 90s, 15min or 2h, with the look at validation windows after each "
        "epoch; what comes after training, the scores of whole validation cases, is on top",
    )
    parser.add_argument("--seed", type=natural_number, metavar="N", help="seed of all randomness")
    parser.add_argument(
        "--set",
        dest="settings",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of config.json; repeatable",
    )
    parser.add_argument("--restart", action="store_true", help="forget what was trained before and start over")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="also write the numbers of log.jsonl for TensorBoard (pip install 'seg25d[tensorboard]')",
    )
    parser.add_argument(
        "--plans-name",
        "-p",
        type=plans_name,
        default="plans",
        metavar="NAME",
        help="name of the plans to train (default: plans)",
    )
    parser.add_argument("--c", action="store_true", help=argparse.SUPPRESS)
