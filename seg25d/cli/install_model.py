"""`seg25d install_model`: install the models of a zip file for prediction."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, say
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("archive", type=Path, metavar="FILE.zip", help="archive that `seg25d export_model` wrote")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace configurations of the same name, with all of their folds, and an existing best.json",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api
    from seg25d.sharing.manifest import prediction_commands

    manifest = api.install_model(find_workspace(arguments), arguments.archive, overwrite=arguments.overwrite)
    say(f"{manifest.dataset_name} is installed; predict with")
    for command in prediction_commands(manifest.dataset_name, manifest.paths):
        say(f"  {command}")
    if manifest.licence is not None:
        say(f"The licence of the models is `licence` in the manifest.json of {arguments.archive}.")


main = Command(
    name="install_model",
    summary="Install the models of a zip file for prediction; everything is checked before anything is written.",
    add_arguments=add_arguments,
    run=run,
    ignored=("device", "num_processes"),
)
