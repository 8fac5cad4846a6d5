"""A tiny trained model of every file that seg25d reads, made without training."""

import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
import torch

from seg25d.core.device import Execution
from seg25d.core.records import write_record
from seg25d.core.workspace import FoldFolder, RunFolder, Workspace
from seg25d.data.description import read_description
from seg25d.data.image_geometry import Geometry
from seg25d.data.splits import Split
from seg25d.evaluation.metrics import Scores
from seg25d.evaluation.summary import Summary
from seg25d.inference.postprocessing import PostProcessing
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.case_fingerprint import CaseFingerprint, ChannelIntensities
from seg25d.planning.channel_rules import store_name
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.representations.volume import Volume
from seg25d.selection.best import Best, Member
from seg25d.sharing.choice import ChosenModels
from seg25d.sharing.pack import write_archive
from seg25d.training.checkpoint import save_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.state import TrainingState, new_state

NAME = "Dataset007_Tiny"
RUN = "3d"
MODEL = f"{RUN}/fold_0/model_final.safetensors"
CASE = "case_1"
SHAPE = (10, 12, 9)
MM = (1.0, 1.0, 1.0)
CONFIG = TrainingConfig(epochs=2, iterations_per_epoch=2, optimizer="adamw", precision="float32")
NORMALIZATION = (ChannelNormalization(channel="MRI", scheme="zscore"),)
PLAN = ConfigurationPlan(
    spacing_mm=MM, normalization=NORMALIZATION, store=store_name(MM, NORMALIZATION), window=(8, 8, 8), batch_size=1,
    representation=Volume(), network=UNetSpec(widths=(2, 4), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3),) * 2),
    mirror_axes=(0,), estimated_memory_gb=0.1, num_parameters=1, reasons={},
)  # fmt: skip
DESCRIPTION = {
    "channel_names": {"0": "MRI"}, "labels": {"background": 0, "organ": 1, "lesion": 7}, "numTraining": 1,
    "file_ending": ".nii.gz",
}  # fmt: skip
LINE = {
    "epoch": 1, "iteration": 2, "progress": 0.5, "train_loss": 1.0, "validation_loss": 1.0, "validation_dice": 0.5,
    "validation_dice_per_label": {"1": 0.5, "7": None}, "learning_rate": 0.001, "seconds": 1.0, "total_seconds": 1.0,
}  # fmt: skip


def header_of(run: RunFolder) -> ModelHeader:
    """The header of the model."""
    description = read_description(run.dataset)
    return ModelHeader(dataset_name=NAME, configuration=RUN, fold=0, plan=PLAN, description=description)


def state_of(run: RunFolder) -> TrainingState:
    """The state of a training of the model that has not begun."""
    return new_state(header_of(run).build_model(), CONFIG, Execution(torch.device("cpu"), torch.float32))


def make(folder: Path) -> Workspace:
    """Write the model with all files of its run into `folder/workspace`, `folder/images` and `folder/model.zip`."""
    torch.manual_seed(0)
    workspace = Workspace.resolve(folder / "workspace", {})
    run = workspace.run(NAME, RUN)
    run.crossval.parent.mkdir(parents=True)
    _write_records(workspace, run)
    _write_fold(run, run.fold(0))
    _write_case(folder)
    write_archive(folder / "model.zip", run.root.parent, ChosenModels({RUN: ["0"]}, best=True))
    return workspace


def _write_records(workspace: Workspace, run: RunFolder) -> None:
    plans = Plans(dataset_name=NAME, gpu_memory_gb=8, slice_axis=0, reasons={}, configurations={RUN: PLAN})
    write_record(run.plans, plans)
    run.dataset.write_text(json.dumps(DESCRIPTION))
    intensities = ChannelIntensities(
        mean=1, std=1, median=1, minimum=0, maximum=2, percentile_00_5=0, percentile_99_5=2
    )
    case = CaseFingerprint(
        case=CASE, shape=SHAPE, cropped_shape=SHAPE, spacing_mm=MM, orientation="LPS", intensities=(intensities,),
        voxels={"1": 9, "7": 0}, components={"1": 1, "7": 0}, extent_voxels=(3, 3, 3), extent_mm=MM,
        foreground_fraction=0.1,
    )  # fmt: skip
    fingerprint = Fingerprint(
        dataset_name=NAME, channel_names=("MRI",), cases=(case,), intensities=(intensities,), sparsity=0.1,
        median_relative_size_after_cropping=1,
    )  # fmt: skip
    write_record(run.fingerprint, fingerprint)
    write_record(run.crossval, Summary(foreground_mean=Scores(), mean={}, per_case=()))
    run.splits.write_text(json.dumps([Split(train=("a", "b"), val=(CASE,)).model_dump()]))
    best = Best(
        dataset_name=NAME, name=RUN, members=(Member(run=RUN, folds=("0",), weight=1),),
        postprocessing=PostProcessing(largest=("1",)), dice=0.5, dice_without_postprocessing=0.5, hd95_mm=None,
        cost=None, num_cases=1, folds=(0,), limits={}, commands=("seg25d predict",), candidates=(),
    )  # fmt: skip
    write_record(workspace.best(NAME), best)


def _write_fold(run: RunFolder, fold: FoldFolder) -> None:
    header, state = header_of(run), state_of(run)
    loss = torch.stack([parameter.square().sum() for parameter in state.model.parameters()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    state.optimizer.step()
    state.log, state.iteration, state.seconds = [dict(LINE)], 2, 1.0
    save_model(fold.model_final, state.averaged.state_dict(), header)
    save_checkpoint(fold.checkpoint, state.to_checkpoint())
    write_record(fold.config, CONFIG)
    fold.log.write_text(json.dumps(LINE) + "\n")


def _write_case(folder: Path) -> None:
    """An image to predict, and the case of a store."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=SHAPE).astype(np.float32)
    values[2:7, 3:9, 2:6] += 3
    (folder / "images").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / "images" / f"{CASE}_0000.nii.gz"))
    grid = Grid.plan(SHAPE, MM, ((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2])), MM)
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape=SHAPE, spacing_mm=MM, origin_mm=(0.0, 0.0, 0.0), direction=direction)
    labels = (values > 2).astype(np.uint8)
    record = CaseRecord(case=CASE, geometry=geometry, grid=grid, voxels={"1": 9}, source_key="key")
    locations = {1: np.argwhere(labels).astype(np.int32)}
    Store(folder / "store").write(record, CaseArrays(values[None], labels, labels, locations))
