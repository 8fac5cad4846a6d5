"""A tiny data set with trained models of every kind, made without training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch

from seg25d.core.records import write_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.description import DatasetDescription, read_description
from seg25d.ensembling.fused_predictor import coarse_view_model, view_model
from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary
from seg25d.inference.postprocessing import PostProcessing
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.channel_rules import store_name
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.representations import ANATOMICAL
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume
from seg25d.selection.best import Best, Member

NAME = "Dataset007_Tiny"
MM = (1.0, 1.0, 1.0)
SHAPE = (10, 12, 9)
DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1, "lesion": 7},
    "numTraining": 1,
    "file_ending": ".nii.gz",
}


def make_plan(representation, network, channels: tuple[str, ...] = ("MRI",)) -> ConfigurationPlan:
    normalization = tuple(ChannelNormalization(channel=name, scheme="zscore") for name in channels)
    return ConfigurationPlan(
        spacing_mm=MM,
        normalization=normalization,
        store=store_name(MM, normalization),
        window=(8, 8, 8),
        batch_size=1,
        representation=representation,
        network=network,
        mirror_axes=(0,),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )


FLAT = UNetSpec(widths=(2, 4), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))
SOLID = UNetSpec(widths=(2, 4), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3)))
PLANS = {
    "3d": make_plan(Volume(), SOLID),
    **{name: make_plan(Slices(axis=axis), FLAT) for axis, name in enumerate(ANATOMICAL)},
    "mv": make_plan(FusedViews(maps_per_view=2), FusionNetSpec(width=2)),
    "si": make_plan(SuperImage(grid=(3, 3)), FLAT),
    "stack": make_plan(Stack(stack_size=8, overlap=2), SOLID),
    "mip": make_plan(Projections(axis=0, spacing_mm=MM, num_training_views=2, num_views=4, num_classes=2), FLAT),
}
FINE = FineConfig(margin=2, max_rounds=1)


def save(
    path: Path,
    configuration: str,
    description: DatasetDescription,
    *,
    fine: bool = False,
    plan: ConfigurationPlan | None = None,
) -> None:
    header = ModelHeader(
        dataset_name=NAME,
        configuration=configuration,
        fold=0,
        plan=plan or PLANS[configuration],
        description=description,
        fine=FINE if fine else None,
    )
    save_model(path, header.build_model().state_dict(), header)


def make_run(
    workspace: Workspace,
    name: str,
    description: dict[str, Any] = DESCRIPTION,
    plan: ConfigurationPlan | None = None,
) -> RunFolder:
    """A run with all files beside its folds."""
    run, configuration = workspace.run(NAME, name), name.split("__", maxsplit=1)[0]
    run.crossval.parent.mkdir(parents=True)
    plans = Plans(
        dataset_name=NAME,
        gpu_memory_gb=8,
        slice_axis=0,
        reasons={},
        configurations={configuration: plan or PLANS[configuration]},
    )
    fingerprint = Fingerprint(
        dataset_name=NAME,
        channel_names=tuple(description["channel_names"].values()),
        cases=(),
        intensities=(),
        sparsity=0.1,
        median_relative_size_after_cropping=1,
    )
    write_record(run.plans, plans)
    run.dataset.write_text(json.dumps(description))
    write_record(run.fingerprint, fingerprint)
    write_record(run.crossval, Summary(foreground_mean=Scores(), mean={}, per_case=()))
    return run


def make_best(**folds: tuple[str, ...]) -> Best:
    """A choice of runs, all of one weight."""
    members = tuple(Member(run=run, folds=chosen, weight=1 / len(folds)) for run, chosen in folds.items())
    return Best(
        dataset_name=NAME,
        name=" + ".join(folds),
        members=members,
        postprocessing=PostProcessing(largest=("1",)),
        dice=0.5,
        dice_without_postprocessing=0.5,
        hd95_mm=None,
        cost=None,
        num_cases=1,
        folds=(0,),
        limits={},
        commands=("seg25d predict",),
        candidates=(),
    )


@pytest.fixture(scope="session")
def choose() -> Callable[..., None]:
    """A function that writes the `best.json` of a workspace: `choose(workspace, si=("0",))`."""

    def write(workspace: Workspace, **folds: tuple[str, ...]) -> None:
        write_record(workspace.best(NAME), make_best(**folds))

    return write


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """`3d` with two folds, a coarse-to-fine model, and `mv` of coarse-to-fine views. Not to be changed."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("trained")
    workspace = Workspace.resolve(root, {})
    volume = make_run(workspace, "3d")
    description = read_description(volume.dataset)
    for fold in range(2):
        save(volume.fold(fold).model_final, "3d", description)
        (volume.fold(fold).checkpoint).write_bytes(b"resume from here")
    fine = make_run(workspace, "axial__fine").fold(0)
    save(fine.model_final, "axial", description, fine=True)
    save(fine.coarse, "axial", description)
    fusion = make_run(workspace, "mv").fold("all")
    save(fusion.model_final, "mv", description)
    for view in ANATOMICAL:
        save(view_model(fusion.root, view), view, description, fine=True)
        save(coarse_view_model(fusion.root, view), view, description)
    return workspace


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image."""
    folder = tmp_path_factory.mktemp("images")
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    values[2:7, 3:9, 2:6] += 3
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "case_0000.nii.gz"))
    return folder
