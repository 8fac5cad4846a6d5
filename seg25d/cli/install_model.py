"""`seg25d install_model`: install the models of a zip file for prediction."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, say
from seg25d.core.errors import InputError
from seg25d.core.process import loading


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "archive",
        metavar="FILE.zip",
        help="archive that `seg25d export_model` wrote, or its https address, with --sha256 or #sha256=DIGEST",
    )
    parser.add_argument("--sha256", metavar="DIGEST", help="address: SHA-256 of the archive, which is checked first")
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace configurations of the same name, with all of their folds, and an existing best.json",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    with loading():
        from seg25d import api
    from seg25d.sharing.download import check_address, downloaded, is_address
    from seg25d.sharing.manifest import prediction_commands

    workspace, overwrite = find_workspace(arguments), arguments.overwrite
    if is_address(arguments.archive):
        address, digest = check_address(arguments.archive, arguments.sha256)
        with downloaded(address, digest, workspace.results) as archive:
            manifest = api.install_model(workspace, archive, overwrite=overwrite)
    elif arguments.sha256 is not None:
        raise InputError(f"--sha256 is for addresses, got the file {arguments.archive}; leave it out")
    else:
        manifest = api.install_model(workspace, Path(arguments.archive), overwrite=overwrite)
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
