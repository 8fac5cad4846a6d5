"""benchmarks/gpu_check.py on a CPU: all of it in little time, without SimpleITK, and its parts by themselves."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from seg25d.core.files import write_json
from seg25d.core.records import write_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import Split
from seg25d.data.image_geometry import Geometry
from seg25d.machine.names import LAYERS
from seg25d.networks.blocks import InstanceNorm
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.channel_rules import store_name
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.representations.base import AnyRepresentation
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAME, SHAPE = "Dataset001_Tiny", (8, 12, 12)
# Neither is on the machine with a GPU, and none of them may be needed.
ABSENT = ("SimpleITK", "monai", "cc3d", "jinja2", "ipyniivue")
VARIANTS = ("float32", "channels-last", "contiguous", "norm kept")
WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT!r}))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name=RUN_NAME)
"""


@pytest.fixture
def module() -> ModuleType:
    return importlib.import_module("gpu_variants")


def run_without(run_name: str, *words: str) -> subprocess.CompletedProcess[str]:
    """The script in a process that cannot import what a machine with a GPU lacks."""
    program = WITHOUT.replace("RUN_NAME", repr(run_name))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(BENCHMARKS.parent), str(BENCHMARKS)])}
    command = [sys.executable, "-c", program, str(BENCHMARKS / "gpu_check.py"), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_it_is_imported_without_what_gpu_machines_lack() -> None:
    run_without("imported")


NORMALIZATION = (ChannelNormalization(channel="MRI", scheme="none"),)
STORE = store_name((1.0, 1.0, 1.0), NORMALIZATION)


def plan_of(representation: AnyRepresentation, network: UNetSpec | FusionNetSpec, depth: int = 8) -> ConfigurationPlan:
    return ConfigurationPlan(
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=NORMALIZATION,
        store=STORE,
        window=(depth, 8, 8),
        batch_size=2,
        representation=representation,
        network=network,
        mirror_axes=(),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A preprocessed data set of one bright cube per case, planned for four configurations."""
    workspace = Workspace(raw=tmp_path / "raw", preprocessed=tmp_path / "preprocessed", results=tmp_path / "results")
    folder = workspace.preprocessed_dataset(NAME)
    store, rng = Store(folder.store(STORE)), np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros(SHAPE, np.uint8)
        corner = rng.integers(0, 3, 3)
        labels[tuple(slice(low, low + 4) for low in corner)] = 1
        image = (labels + rng.normal(0, 0.2, SHAPE))[None].astype(np.float32)
        grid = Grid.plan(SHAPE, (1.0, 1.0, 1.0), tuple((0, size) for size in SHAPE), (1.0, 1.0, 1.0))
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=direction)
        locations = {1: np.argwhere(labels == 1).astype(np.int32)}
        record = CaseRecord(case=f"case_{number}", geometry=geometry, grid=grid, voxels={}, source_key="test")
        store.write(record, CaseArrays(image, labels, labels, locations))
    flat = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))
    deep = UNetSpec(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3)))
    configurations = {
        "si": plan_of(SuperImage(grid=(2, 2)), flat, depth=4),
        "2d": plan_of(Slices(axis=0, context=0), flat),
        "3d": plan_of(Volume(), deep),
        "mv": plan_of(FusedViews(maps_per_view=1), FusionNetSpec(width=4)),
    }
    plans = Plans(dataset_name=NAME, configurations=configurations, reasons={}, gpu_memory_gb=8, slice_axis=0)
    write_record(folder.plans(), plans)
    description = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "organ": 1},
        "file_ending": ".nii.gz",
        "numTraining": 6,
    }
    write_json(folder.dataset, description)
    split = Split(train=tuple(f"case_{n}" for n in range(4)), val=("case_4", "case_5"))
    write_json(folder.splits, [split.model_dump()])
    return workspace


@pytest.mark.slow
def test_all_of_it_is_done(workspace: Workspace, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    words = ("--dataset", "1", "--workspace", str(tmp_path), "--minutes", "9", "--device", "cpu")
    words = (*words, "--seconds", "0.2", "--training-seconds", "5", "--variants", *VARIANTS)
    run_without("__main__", *words, "--precision", "float32", "--output", str(output))
    found = json.loads(output.read_text())
    assert "problems" not in found, found["problems"]
    assert {each["status"] for each in found["self_test"]["float32"]} == {"right"}
    assert len(found["self_test"]["float32"]) == len(LAYERS)
    rows = {row["name"]: row for row in found["rows"]}
    assert set(rows) == {"si", "2d", "3d", "mv"}
    for name, row in rows.items():
        assert row["share_of_matrix_rate"] > 0, name
        assert row["memory_gb"]["tensors"] > 0, name
        assert row["train"]["data_wait_share"] >= 0, name
        assert row["predict"]["voxels_per_second"] > 0, name
    trained = {name: row["together"] for name, row in rows.items() if "together" in row}
    assert set(trained) == {"2d", "3d", "si"}
    assert all(each["exit_status"] == 0 and each["validation_dice"] > 0 for each in trained.values())
    assert found["skipped"] == []
    assert all(row["update_s"][wanted] > 0 for row in rows.values() for wanted in ("fast", *VARIANTS))
    text = output.with_suffix(".md").read_text()
    assert "| mv |" in text
    assert "Not done for lack of time" in text


@pytest.mark.slow
def test_what_does_not_fit_is_left_out_and_named(workspace: Workspace, tmp_path: Path) -> None:
    output = tmp_path / "found.json"
    words = ("--dataset", "1", "--workspace", str(tmp_path), "--minutes", "0.1", "--device", "cpu")
    run_without("__main__", *words, "--precision", "float32", "--output", str(output))
    found = json.loads(output.read_text())
    assert {"3d: update", "together"} <= set(found["skipped"])
    assert len(set(found["skipped"])) == len(found["skipped"])
    assert found["rows"] == []


@pytest.mark.parametrize("shape", [(3, 4, 6, 5), (2, 4, 3, 6, 5)])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_norm_that_keeps_the_layout_is_instance_norm(
    module: ModuleType, shape: tuple[int, ...], channels_last: bool
) -> None:
    torch.manual_seed(0)
    norm = InstanceNorm(4)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    images = torch.randn(shape)
    results = []
    for kind in (InstanceNorm, module.KeptNorm):
        norm.__class__ = kind
        here = images.clone()
        if channels_last:
            here = here.contiguous(memory_format=module.LAYOUTS[len(shape)])
        here.requires_grad_()
        result = norm(here)
        signs = torch.linspace(-1, 1, result.numel()).reshape(result.shape)
        gradients = torch.autograd.grad(result, [here, norm.weight, norm.bias], signs)
        results.append((result, *gradients))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    if channels_last:
        assert results[1][0].is_contiguous(memory_format=module.LAYOUTS[len(shape)])
