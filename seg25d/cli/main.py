"""`seg25d VERB ...`: find the command and run it with the rest of the arguments."""

import difflib
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import seg25d
from seg25d.cli import (
    convert,
    demo,
    ensemble,
    evaluate,
    export_model,
    find_best_configuration,
    info,
    install_model,
    plan_and_preprocess,
    predict,
    pretrain,
    report,
    run,
    statistics,
    train,
)
from seg25d.cli.common import Command, run_guarded, say
from seg25d.cli.nnunet_parsing import ALIASES
from seg25d.cli.nnunet_tools import TOOLS
from seg25d.core.errors import InputError
from seg25d.core.process import leave, open_closed_streams

HOMES: Mapping[str, Command] = {
    command.name: command
    for command in (
        run.main,
        plan_and_preprocess.main,
        pretrain.main,
        train.main,
        find_best_configuration.main,
        predict.main,
        ensemble.main,
        evaluate.main,
        statistics.main,
        report.main,
        convert.main,
        info.main,
        export_model.main,
        install_model.main,
        demo.main,
    )
}
NNUNET: Mapping[str, Command] = {
    **{command.name: command for command in TOOLS},
    **{name: HOMES[alias.home].alias(name, alias.leading) for name, alias in ALIASES.items()},
}
"""Those of nnU-Net's commands that have a name of their own: what only its users know, and aliases."""
COMMANDS: Mapping[str, Command] = {**HOMES, **NNUNET}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `seg25d VERB ...` and return the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    verb = words[0] if words else "--help"
    if verb in ("-h", "--help", "help"):
        return run_guarded(lambda: say(_format_overview()), debug=False)
    if verb == "--version":
        return run_guarded(lambda: say(f"seg25d {seg25d.__version__}"), debug=False)
    if verb not in COMMANDS:
        return run_guarded(lambda: _refuse(verb), debug=False)
    return COMMANDS[verb](words[1:])


def _refuse(verb: str) -> NoReturn:
    raise InputError(f"{_unknown(verb)}known: {', '.join(HOMES)}; and nnU-Net's names: {', '.join(NNUNET)}")


def _unknown(verb: str) -> str:
    """What is wrong with the first word, as the beginning of a sentence that lists the commands."""
    if verb.startswith("-"):
        return f"unknown option {verb} of seg25d itself; options follow the command, as in seg25d COMMAND {verb}; "
    near = difflib.get_close_matches(verb, COMMANDS, 1)
    return f"unknown command {verb!r}; " + (f"the nearest one is {near[0]}; " if near else "")


def script() -> NoReturn:
    """Entry point of the program `seg25d`: run `main`, then end the process."""
    open_closed_streams()
    leave(main())


def _format_overview() -> str:
    def listed(commands: Mapping[str, Command]) -> str:
        width = max(map(len, commands))
        return "\n".join(f"  {name:<{width}}  {command.summary}" for name, command in commands.items())

    return (
        f"seg25d {seg25d.__version__}: segmentation of 3D medical images with 2.5D methods\n\n"
        "usage: seg25d COMMAND [arguments], or seg25d_COMMAND [arguments]\n\n"
        f"{listed(HOMES)}\n\n"
        "names of nnU-Net's commands, with its options:\n\n"
        f"{listed(NNUNET)}\n\n"
        "`seg25d COMMAND --help` shows the arguments of a command."
    )
