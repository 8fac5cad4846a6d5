"""`seg25d plan_and_preprocess`: check data sets, plan the configurations, and prepare the arrays for training."""

import argparse
import logging
import textwrap

from seg25d.cli.argument_types import auto_or_amount, auto_or_weight, duration_or_none, plans_name
from seg25d.cli.common import Command, find_workspace, options_of, say
from seg25d.core.errors import InputError
from seg25d.core.parallel import start_worker_server
from seg25d.core.process import loading
from seg25d.networks import MIXINGS
from seg25d.planning.recipe_names import PLACES as RECIPES
from seg25d.representations import ALIAS
from seg25d.representations import PLACES as CONFIGURATIONS

logger = logging.getLogger(__name__)
WORKERS_LOAD = (
    "SimpleITK",
    "blosc2",
    "seg25d.data.verify",
    "seg25d.planning.fingerprint",
    "seg25d.preprocessing.preprocess",
    "seg25d.workflows.case_ceiling",
)
"""Modules that the processes use which read images, verify, measure and preprocess."""
STEPS = ("verify_only", "fingerprint_only", "plan_only", "preprocess_only")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "-d", "--dataset", nargs="+", required=True, metavar="ID", help="data sets: 1, 001 or Dataset001_Name"
    )
    parser.add_argument(
        "-c",
        "--configuration",
        nargs="+",
        metavar="CONFIG",
        help=f"configurations to plan: {', '.join((ALIAS, *CONFIGURATIONS))}, or one with another network: "
        f"si__se_unet, or with a way of mixing slices ({', '.join(MIXINGS)}): si__shift, or both: si__se_unet__shift "
        "(default: all without these)",
    )
    parser.add_argument(
        "--gpu-memory-gb",
        type=auto_or_amount,
        metavar="GB|auto",
        help="memory that one training step may take, in GiB (default: auto, which is as planned before, else what the "
        "GPU here has, else 8 or, of a machine with less than about twice that, 4 or 2)",
    )
    parser.add_argument(
        "--cpu-gflops",
        type=auto_or_weight,
        default="auto",
        metavar="N|auto",
        help="speed of the CPUs that will train, in GFLOP/s: an update is planned to take 2 s on them at most; 0: any "
        "time (default: auto, which is as planned before; else, without --gpu-memory-gb on a machine without a GPU or "
        "with --device cpu, as measured here; else 0)",
    )
    parser.add_argument(
        "--time-budget",
        dest="time_budget_s",
        type=duration_or_none,
        metavar="TIME|0",
        help="time that each training (one fold of one configuration) will be given, such as 15min: an update on CPUs "
        "is then planned to take a 500th of it at most, if that is less than 2 s; without a speed of CPUs "
        "(--cpu-gflops) it changes no plan, and a warning says so; 0: any time (default: as planned before, else any "
        "time)",
    )
    parser.add_argument(
        "--recipe",
        default="default",
        metavar="R",
        help=f"recipe to plan for: {', '.join(RECIPES)} (default: default)",
    )
    parser.add_argument(
        "--plans-name",
        "-p",
        type=plans_name,
        default="plans",
        metavar="NAME",
        help="name of the plans, to keep several (default: plans)",
    )
    parser.add_argument("--verify-only", action="store_true", help="check the data and stop")
    parser.add_argument("--plan-only", action="store_true", help="stop before preprocessing")
    parser.add_argument("--fingerprint-only", action="store_true", help="check and measure the data, and stop")
    parser.add_argument(
        "--preprocess-only",
        action="store_true",
        help="make the arrays of existing plans, and change nothing in these; -c names configurations among them",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="print what was chosen and why, what speaks against a method on this data set, and how long trainings "
        "take on this machine, for which a few updates of each configuration are timed, once",
    )
    parser.add_argument(
        "--clean",
        action="store_true",
        help="start over: remove the measurements of the cases, the plans of this name with all edits, and "
        "all arrays that no plans of another name use",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    steps = [name for name in STEPS if getattr(arguments, name)]
    if len(steps) > 1 or (steps and arguments.explain and steps != ["plan_only"]):
        steps += ["explain"] if arguments.explain else []
        chosen = " and ".join(f"--{name.replace('_', '-')}" for name in steps)
        raise InputError(f"{chosen}: each of them is a part of the work; give one")
    processes = _num_processes(arguments)
    spacing = _spacing(arguments.spacing_3d_mm)
    start_worker_server(WORKERS_LOAD)
    with loading():
        from seg25d import api
        from seg25d.core.device import choose_execution
        from seg25d.planning.explanation import MOST_COLUMNS
        from seg25d.views.training_times import timed_trainings

    if arguments.explain or arguments.device is not None:
        choose_execution(arguments.device)
    options = options_of(
        api.PlanningOptions,
        arguments,
        configurations=arguments.configuration or None,
        num_processes=processes,
        spacing_3d_mm=spacing,
    )
    workspace = find_workspace(arguments)
    plans = api.plan_and_preprocess(workspace, arguments.dataset, options)
    if not arguments.explain:
        return
    say("\n\n".join(api.explain(each) for each in plans.values()))
    for name, each in plans.items():
        times = timed_trainings(workspace.preprocessed_dataset(name), each, arguments.device, processes)
        say(f"\n{textwrap.fill(name, MOST_COLUMNS)}\n{api.describe_times(times, arguments.device)}")


def _num_processes(arguments: argparse.Namespace) -> int | None:
    """The number of processes: that of --num-processes, or the smallest of nnU-Net's one per configuration."""
    several: list[int] = arguments.processes_per_configuration or []
    wanted = arguments.num_configurations if arguments.configuration else 0
    if len(several) > 1 and wanted and len(several) != wanted:
        raise InputError(
            f"-np: expected one number, or one for each of the {wanted} configurations of -c, got {len(several)}"
        )
    if len(several) > 1:
        logger.info("-np: configurations share arrays, so that the smallest number counts: %d", min(several))
    return min(several) if several else arguments.num_processes


def _spacing(values: list[float] | None) -> tuple[float, float, float] | None:
    from seg25d.core.limits import MAX_SPACING_MM, MIN_SPACING_MM

    if values is None:
        return None
    if len(values) != 3 or not all(MIN_SPACING_MM <= value <= MAX_SPACING_MM for value in values):
        raise InputError(
            f"-overwrite_target_spacing: expected three numbers from {MIN_SPACING_MM:g} to {MAX_SPACING_MM:g} mm (D, "
            f"H, W), got {' '.join(map(str, values))}"
        )
    return values[0], values[1], values[2]


main = Command(
    name="plan_and_preprocess",
    summary="Check data sets, plan the configurations, and prepare the arrays for training.",
    add_arguments=add_arguments,
    run=run,
)
