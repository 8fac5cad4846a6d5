"""`seg25d demo`: all steps on a small synthetic data set."""

import argparse

from seg25d.cli.argument_types import duration
from seg25d.cli.common import Command, find_workspace, say
from seg25d.demo.budgets import TIME_BUDGETS_S


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--kind",
        choices=tuple(TIME_BUDGETS_S),
        default="phantom",
        help="phantom: organs in CT and MR, by `2d`, `si` and `3d`, under six minutes on two cores (default). "
        "vessels: a sparse vessel tree in MR angiography, by `mip` and `2d` with the recipe angermann2022, with the "
        "paper's figures in the table; 15 minutes of training for each",
    )
    defaults = ", ".join(f"{seconds:g}s for {kind}" for kind, seconds in TIME_BUDGETS_S.items())
    parser.add_argument(
        "--time-budget",
        type=duration,
        metavar="TIME",
        help=f"training time per configuration (default: {defaults})",
    )
    parser.add_argument(
        "--restart", action="store_true", help="remove earlier trainings of the demo, as for a shorter time than before"
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from seg25d.demo.run import run_demo

    result = run_demo(
        find_workspace(arguments),
        arguments.kind,
        time_budget_s=arguments.time_budget,
        restart=arguments.restart,
        device=arguments.device,
        num_processes=arguments.num_processes,
    )
    say(result.table)
    say("\npictures: " + ", ".join(map(str, result.pictures)))
    say(f"report: {result.report}")


main = Command(
    name="demo",
    summary="Run all steps on a small synthetic data set, from raw images to a table of scores and a report.",
    add_arguments=add_arguments,
    run=run,
)
