"""Weights of a ResNet encoder that was trained here on other images, where none of ImageNet are at hand.

    python benchmarks/encoder_weights.py --dataset 27 --iterations 100 --output resnet34_of_Dataset027.safetensors

`resnet_unet` is trained on a data set with its labels, as ImageNet's weights are of labelled photographs; its encoder
is written under torchvision's names, for `train --network resnet_unet --pretrained FILE` on another data set. The
training is kept in `benchmarks/encoder_weights/LENGTH_DIGEST` in the workspace: the same command continues.
"""

import argparse
from pathlib import Path

from contest import length, length_name, link_preprocessed
from finished import folder_name, planned_digest, settings_of
from safetensors.torch import save_file

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.files import atomic_path
from seg25d.core.workspace import Workspace
from seg25d.planning.model_file import load_model

NETWORK = "resnet_unet"
PREFIX = "network.encoder."
"""Where a slice-wise model has its encoder."""


def train_encoder(workspace: Workspace, dataset: str, options: argparse.Namespace) -> Path:
    """Train `resnet_unet` on slices of a data set's first fold; return the model file.

    Args:
        workspace: With the data set, planned for `2d`.
        dataset: Its full name.
        options: Those of the command.
    """
    plan = planned_digest(workspace.preprocessed_dataset(dataset).plans(), "2d")
    name = folder_name(length_name(options), settings_of(options), plan)
    place = workspace.preprocessed.parent / "benchmarks" / "encoder_weights" / name
    link_preprocessed(workspace, dataset, place, [])
    own = Workspace(raw=workspace.raw, preprocessed=place / "preprocessed", results=place / "results")
    training = api.TrainingOptions(
        network=NETWORK,
        seed=0,
        device=options.device,
        num_processes=options.num_processes,
        validation=api.ValidationOptions(quick_scores=True),
        **length(options),
    )
    api.train(own, dataset, "2d", ["0"], training)
    (run,) = (own.results / dataset).glob(f"*__{NETWORK}")
    return own.run(dataset, run.name).fold(0).model_final


def write_encoder(model: Path, output: Path) -> None:
    """Write the encoder of a model under torchvision's names.

    Args:
        model: Of slices through `resnet_unet`.
        output: A `.safetensors` file; it is complete or absent.
    """
    weights = load_model(model)[1]
    encoder = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    assert encoder, f"the model is of {NETWORK}"
    with atomic_path(output) as path:
        save_file(encoder, path)


def main() -> None:
    """Train, and write the encoder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="27", help="planned for 2d and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="length of the training, such as 15min")
    parser.add_argument("--iterations", type=int, help="updates, instead of a time")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.safetensors")
    options = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    model = train_encoder(workspace, workspace.dataset_name(options.dataset), options)
    write_encoder(model, options.output)


if __name__ == "__main__":
    main()
