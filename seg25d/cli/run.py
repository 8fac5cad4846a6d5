"""`seg25d run`: from a data set to the best model and its page, in one command."""

import argparse

from seg25d.cli.argument_types import auto_or_amount, duration, natural_number, positive_number
from seg25d.cli.common import Command, find_workspace, options_of, say
from seg25d.cli.slurm_argument import add_slurm_argument, slurm_options
from seg25d.core.errors import InputError
from seg25d.core.parallel import start_worker_server
from seg25d.core.process import loading
from seg25d.orchestration.engine_names import ENGINE_NAMES, PROCESSES_LOAD
from seg25d.training.usual_lengths import EPOCHS, ITERATIONS_PER_EPOCH


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument(
        "-c",
        "--configurations",
        nargs="+",
        metavar="CONFIG",
        help="configurations to train, also with a network (si__se_unet), a way of mixing slices (si__shift) or "
        "coarse-to-fine (2d__fine) (default: all that the plans do not advise against)",
    )
    parser.add_argument(
        "-f",
        "--folds",
        nargs="+",
        default=["cv"],
        metavar="FOLD",
        help="numbers of folds; `cv`: all folds (the default); `all`: one model on all cases",
    )
    parser.add_argument(
        "--epochs",
        type=positive_number,
        metavar="N",
        help=f"length of each training in epochs of {ITERATIONS_PER_EPOCH} updates (default: {EPOCHS})",
    )
    parser.add_argument("--iterations", type=positive_number, metavar="N", help="length of each training in updates")
    parser.add_argument(
        "--time-budget",
        dest="time_budget_s",
        type=duration,
        metavar="TIME",
        help="time for everything together, such as 45min or 8h: configurations begin small on fold 0, those that are "
        "worse are dropped, and the rest of the time is for the folds of the best; a data set that is not planned "
        "yet is planned for what each training gets then, where CPUs of this machine train (see plan_and_preprocess "
        "--time-budget)",
    )
    parser.add_argument("--seed", type=natural_number, metavar="N", help="seed of all randomness")
    parser.add_argument(
        "--pretrain",
        dest="pretext",
        choices=("inpainting", "jigsaw"),
        help="first pretrain the network of each configuration by this task",
    )
    parser.add_argument(
        "--gpu-memory-gb",
        type=auto_or_amount,
        metavar="GB|auto",
        help="memory that one training step may take, in GiB (default: auto, which is as planned before, else what the "
        "GPU here has, else 8 or, of a machine with less than about twice that, 4 or 2; without a GPU updates are then "
        "planned to take 2 s at most, see plan_and_preprocess --cpu-gflops)",
    )
    parser.add_argument(
        "--on",
        choices=ENGINE_NAMES,
        default="local",
        help="what runs the tasks: this machine, the Ray cluster that there is (else one of this machine), or SLURM; "
        "the workspace has to be a folder that all of its machines see (default: local)",
    )
    parser.add_argument(
        "--tasks",
        dest="num_tasks",
        type=positive_number,
        metavar="N",
        help="tasks at a time (default: one per GPU, or one on CPUs; on a cluster what it has room for); on "
        "SLURM of each job array",
    )
    add_slurm_argument(parser)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.time_budget_s is not None and (arguments.epochs or arguments.iterations):
        raise InputError("--time-budget is for everything together: drop it, or --epochs and --iterations")
    slurm = slurm_options(arguments)
    start_worker_server(PROCESSES_LOAD)
    with loading():
        from seg25d import api

    options = options_of(api.RunOptions, arguments, slurm=slurm)
    record = api.run(find_workspace(arguments), arguments.dataset, options)
    if record.predict:
        say(f"predict with: {record.predict}")
    if record.report:
        say(f"report: {record.report}")


main = Command(
    name="run",
    summary="From a data set to the best model and its page: plan, preprocess, train, choose and report.",
    add_arguments=add_arguments,
    run=run,
)
