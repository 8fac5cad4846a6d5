"""From raw images to scores in 32 and in 16 bits, by each configuration, on a tiny made-up data set."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from seg25d.cli.main import main
from seg25d.core import device
from seg25d.core.workspace import Workspace
from seg25d.data.phantom import DATASET_NAME
from seg25d.networks import convolutions
from seg25d.representations import ANATOMICAL
from seg25d.representations.base import CONFIGURATIONS

TINY = ["--epochs", "1", "--iterations", "2", "--set", "validation_windows=1", "--set", "augmentation.enabled=false"]
IN_THIS_PROCESS = ["--num-processes", "0", "--device", "cpu"]
METHODS = [name for name in CONFIGURATIONS if name not in ANATOMICAL]
STORIES = {
    "2d": ("2d", (), "2d"),
    "2d from coarse to fine": ("2d", ("--set", "fine=true"), "2d__fine"),
    "mv together": ("mv", ("--set", "fusion.joint=true"), "mv__joint"),
    **{name: (name, (), name) for name in METHODS},
}
pytestmark = pytest.mark.slow


def run(root: Path, *words: str) -> None:
    assert main([*words, "--workspace", str(root), *IN_THIS_PROCESS]) == 0


@pytest.fixture(scope="module")
def planned(three_folds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planned") / "workspace"
    shutil.copytree(three_folds, root)
    run(root, "plan_and_preprocess", "-d", "900", "-c", "2d", *METHODS)
    return root


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("configuration", "settings", "run_name"), STORIES.values(), ids=STORIES)
def test_a_whole_story(
    planned: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    configuration: str,
    settings: tuple[str, ...],
    run_name: str,
    precision: str,
) -> None:
    """`predict` has no setting of its own: it takes what is fast on the machine, which is chosen here."""
    dtype, used = getattr(torch, precision), set()
    computing_type = convolutions.computing_type

    def noted(features: torch.Tensor) -> torch.dtype:
        used.add(computing_type(features))
        return computing_type(features)

    monkeypatch.setattr(device, "_fast_dtype", lambda _: dtype)
    monkeypatch.setattr(convolutions, "computing_type", noted)
    root = tmp_path / "workspace"
    shutil.copytree(planned, root)
    run(root, "train", "900", configuration, "0", *TINY, *settings, "--set", f"precision={precision}")
    assert used == {dtype}
    used.clear()
    workspace = Workspace.resolve(root, {})
    raw, out = workspace.raw_dataset(DATASET_NAME), tmp_path / "out"
    run(root, "predict", "-i", str(raw / "imagesTs"), "-o", str(out), "-d", "900", "-c", run_name, "-f", "0")
    assert used == {dtype}
    run(root, "evaluate", str(raw / "labelsTs"), str(out))
    summary = json.loads((out / "summary.json").read_text())
    assert [case["case"] for case in summary["per_case"]] == ["phantom_003"]
