"""Slices that are nearly empty are learnt from with the recipe of the paper that has them."""

import json
from pathlib import Path

import pytest

from seg25d.api import plan_and_preprocess, train
from seg25d.core.workspace import Workspace
from seg25d.data.vessels import DATASET_NAME, write_vessels_dataset
from seg25d.workflows.options import PlanningOptions, TrainingOptions

RECIPE = "angermann2022"


@pytest.mark.slow
def test_slices_of_sparse_vessels_do_not_teach_to_find_nothing(tmp_path: Path) -> None:
    """The trainer refuses to go on without a gradient, as it did after 67 updates of eight neighbouring slices."""
    workspace = Workspace.resolve(tmp_path, {})
    write_vessels_dataset(workspace.raw_dataset(DATASET_NAME), num_training=14, num_test=0, shape=(48, 40, 32))
    plan_and_preprocess(
        workspace, ["901"], PlanningOptions(configurations=("2d",), recipe=RECIPE, gpu_memory_gb=8.0, num_processes=0)
    )
    options = TrainingOptions(
        recipe=RECIPE, iterations=80, device="cpu", settings={"precision": "float32", "validation_windows": "48"}
    )
    train(workspace, "901", "2d", ["0"], options)
    fold = workspace.run(DATASET_NAME, f"sagittal__{RECIPE}").fold(0)
    (epoch,) = [json.loads(line) for line in fold.log.read_text(encoding="utf-8").splitlines()]
    assert epoch["validation_dice"] > 0.2
