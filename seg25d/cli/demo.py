"""`seg25d demo`: every step on a small made-up data set."""

import argparse

from seg25d.cli.common import Command, duration, find_workspace


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--time-budget",
        type=duration,
        default=80.0,
        metavar="TIME",
        help="training time per configuration (default: 80s)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    from seg25d import demo

    result = demo.run_demo(
        find_workspace(arguments),
        time_budget_s=arguments.time_budget,
        device=arguments.device,
        num_processes=arguments.num_processes,
    )
    print(result.table)
    print("\npictures: " + ", ".join(map(str, result.pictures)))


main = Command(
    name="demo",
    summary="Every step on a small made-up data set, from raw images to a table of Dice.",
    add_arguments=add_arguments,
    run=run,
)
