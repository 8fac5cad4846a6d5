"""`seg25d pretrain`: pretrain the network of a configuration on images without labels."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, duration, find_workspace, natural_number, plans_name, positive_number, setting


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")
    parser.add_argument("configuration", metavar="CONFIG", help="configuration, such as si, 2d or 3d")
    parser.add_argument(
        "--task",
        choices=("inpainting", "jigsaw"),
        required=True,
        help="what the network learns: to fill in hidden pieces, or to put exchanged ones back",
    )
    parser.add_argument(
        "--images",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="folders of further images, named as for prediction; no labels are needed",
    )
    parser.add_argument("--network", metavar="N", help="another network than the planned one, as for train")
    parser.add_argument("--recipe", default="default", metavar="R", help="recipe that it was planned with")
    parser.add_argument("--epochs", type=positive_number, metavar="N", help="number of epochs (default: 300)")
    parser.add_argument(
        "--iterations", type=positive_number, metavar="N", help="training steps in all, instead of epochs"
    )
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="train for this long: 90s, 15min or 2h")
    parser.add_argument("--seed", type=natural_number, metavar="N", help="seed of all randomness")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any setting of config.json, such as pretext.hidden_share=0.6; repeatable",
    )
    parser.add_argument("--restart", action="store_true", help="forget what was trained before and begin anew")
    parser.add_argument(
        "--plans-name",
        "-p",
        type=plans_name,
        default="plans",
        metavar="NAME",
        help="name of the plans (default: plans)",
    )


def run(arguments: argparse.Namespace) -> None:
    """Do it."""
    from seg25d import pipeline

    options = pipeline.PretrainingOptions(
        task=arguments.task,
        images=tuple(arguments.images),
        recipe=arguments.recipe,
        network=arguments.network,
        plans_name=arguments.plans_name,
        settings=dict(arguments.set),
        epochs=arguments.epochs,
        iterations=arguments.iterations,
        time_budget_s=arguments.time_budget,
        seed=arguments.seed,
        restart=arguments.restart,
        device=arguments.device,
        num_processes=arguments.num_processes,
    )
    path = pipeline.pretrain(find_workspace(arguments), arguments.dataset, arguments.configuration, options)
    print(f"seg25d train {arguments.dataset} {arguments.configuration} FOLD --pretrained {path}")


main = Command(
    name="pretrain",
    summary="Pretrain the network of a configuration on images without labels.",
    add_arguments=add_arguments,
    run=run,
)
