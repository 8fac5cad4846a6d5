"""Those of nnU-Net's commands that no other command here does: their options are those of the table."""

import argparse
from pathlib import Path

from seg25d.cli.common import Command, find_workspace, options_of, say
from seg25d.cli.nnunet_parsing import run_names
from seg25d.core.process import loading


def _accumulate(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.selection.crossval_folder import accumulate_crossval_results

    trainers, plans = ([each] if each else None for each in (arguments.trainer, arguments.plans_name))
    (run,) = run_names([arguments.configuration], trainers, plans) or [arguments.configuration]
    output = None if arguments.output is None else Path(arguments.output)
    workspace = find_workspace(arguments)
    say(accumulate_crossval_results(workspace, arguments.dataset, run, arguments.folds, output))


def _determine(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.selection.folder_postprocessing import determine_postprocessing

    rule = determine_postprocessing(
        Path(arguments.input),
        Path(arguments.reference),
        dataset_json=_path(arguments.dataset_json),
        num_processes=arguments.num_processes,
        write_results=not arguments.remove_postprocessed,
    )
    steps = rule.postprocessing.describe(rule.labels)
    say("\n".join(steps) or "nothing: no post-processing raises the Dice")


def _apply(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.selection.folder_postprocessing import apply_postprocessing

    apply_postprocessing(
        Path(arguments.input),
        Path(arguments.output),
        Path(arguments.rule),
        dataset_json=_path(arguments.dataset_json),
        num_processes=arguments.num_processes,
    )


def _plot(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.workflows.overlays import OverlayOptions, plot_overlays

    options = options_of(OverlayOptions, arguments)
    plot_overlays(find_workspace(arguments), arguments.dataset, Path(arguments.output), options)


def _convert_old(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.data.convert_nnunet_v1 import convert_nnunet_v1

    say(convert_nnunet_v1(find_workspace(arguments), arguments.input, arguments.dataset_name))


def _add_old(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="FOLDER", help="data set of nnU-Net v1, TaskNNN_Name")
    parser.add_argument("dataset_name", metavar="NAME", help="name of the new data set, DatasetNNN_Name")


def _move_plans(arguments: argparse.Namespace) -> None:
    with loading():
        from seg25d.workflows.moved_plans import move_plans

    names = arguments.source_plans, arguments.target_plans or arguments.source_plans
    say(move_plans(find_workspace(arguments), arguments.source, arguments.target, *names))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="ID", help="data set: 1, 001 or Dataset001_Name")


def _add_nothing(parser: argparse.ArgumentParser) -> None:
    del parser  # all of its options are those of the table


TOOLS = (
    Command(
        "accumulate_crossval_results",
        "Collect the predictions of all validation cases of a configuration in one folder, and score them.",
        _add_dataset,
        _accumulate,
        ignored=("device", "num_processes"),
    ),
    Command(
        "determine_postprocessing",
        "Find the post-processing that raises the Dice of a folder of predictions.",
        _add_nothing,
        _determine,
        ignored=("device",),
    ),
    Command(
        "apply_postprocessing",
        "Apply a post-processing to a folder of predictions.",
        _add_nothing,
        _apply,
        ignored=("device",),
    ),
    Command(
        "plot_overlay_pngs",
        "Draw the labels of each training case over the slice that has most of them.",
        _add_nothing,
        _plot,
        ignored=("device",),
    ),
    Command(
        "convert_old_nnUNet_dataset",
        "Make a data set of one of nnU-Net v1.",
        _add_old,
        _convert_old,
        ignored=("device", "num_processes"),
    ),
    Command(
        "move_plans_between_datasets",
        "Give a data set the plans of another one, to pretrain on one and train on the other.",
        _add_nothing,
        _move_plans,
        ignored=("device", "num_processes"),
    ),
)
