"""The option `--slurm` of the commands that SLURM can run."""

import argparse

from seg25d.core.errors import InputError
from seg25d.orchestration.slurm_parameters import slurm_parameters


def add_slurm_argument(parser: argparse.ArgumentParser) -> None:
    """Declare it."""
    parser.add_argument(
        "--slurm",
        action="append",
        type=_key_and_value,
        default=[],
        metavar="KEY=VALUE",
        help="what the jobs ask SLURM for, such as partition=gpu, gpus_per_node=1, cpus_per_task=8 or time=720, in "
        "minutes; can be given several times; an unknown key lists the known ones",
    )


def slurm_options(arguments: argparse.Namespace) -> dict[str, str]:
    """What the jobs ask SLURM for.

    Raises:
        InputError: If SLURM is not asked, or a key is not known or given twice.
    """
    options = dict(arguments.slurm)
    if options and arguments.on != "slurm":
        on = f"--on {arguments.on}" if arguments.on else "no --on"
        raise InputError(f"--slurm is for --on slurm: drop it, got {on}")
    if len(options) < len(arguments.slurm):
        raise InputError(f"--slurm: expected each key once, got {', '.join(key for key, _ in arguments.slurm)}")
    slurm_parameters(options)
    return options


def _key_and_value(word: str) -> tuple[str, str]:
    """A word of the form KEY=VALUE."""
    key, equals, value = word.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"expected KEY=VALUE, such as partition=gpu, got {word!r}")
    return key, value
