"""Archives of graphs predict where torch cannot be imported, and what they predict is what torch does.

`SEG25D_LIGHT_PYTHON` names the Python of an environment that has no torch (`make test-light`); else it is this one, in
which the import of torch fails.
"""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
import torch

from seg25d.cli.main import main
from seg25d.core import device
from seg25d.core.execution import HostExecution
from seg25d.core.workspace import Workspace
from seg25d.data.description import read_description
from seg25d.data.image_io import read_labels
from seg25d.ensembling.fused_predictor import view_model
from seg25d.ensembling.load import load_predictor
from seg25d.networks.specs.mixing import Shift
from seg25d.planning.model_file import load_model, save_model
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.portable_model import read_portable
from seg25d.representations import ANATOMICAL
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.sharing.choice import is_portable
from seg25d.sharing.unpack import opened_archive
from tests.sharing.conftest import DESCRIPTION, FLAT, NAME, PLANS, make_plan, make_run, save
from tests.without_torch import WITHOUT_TORCH

LIGHT = os.environ.get("SEG25D_LIGHT_PYTHON")
COMMAND = f"{WITHOUT_TORCH}\nfrom seg25d.cli.main import main\nsys.exit(main(sys.argv[1:]))"
RUNS = {"3d": (10, 12, 9), "axial__fine": (10, 12, 9), "si": (10, 12, 9), "stack": (19, 12, 9), "mv": (10, 12, 9)}
"""Shapes of images; those that are a little larger than the window of 8 x 8 x 8 are predicted at once along it."""
RUNS |= {"coronal": (10, 30, 9), "mip": (10, 8, 7)}
LABELS = {
    "3d__regions": {"background": 0, "whole": [1, 7], "core": [7]},
    "axial__ignore": {**DESCRIPTION["labels"], "ignore": 9},
}
"""Of runs whose labels are not those of the others."""
CHANNELS = {"stack__channels": ("MRI", "CT")}
"""Of runs that take more than one."""
MIXING = {"si__shift": SuperImage(grid=(3, 3)), "axial__shift": Slices(axis=0)}
"""Runs whose slices get features of their neighbours."""
RUNS |= dict.fromkeys((*LABELS, *CHANNELS, *MIXING), (10, 12, 9))


def light(*words: object, status: int = 0) -> str:
    """Run a command without torch; gives what it says."""
    start = [LIGHT, "-m", "seg25d"] if LIGHT else [sys.executable, "-c", COMMAND]
    found = subprocess.run([*start, *map(str, words)], capture_output=True, text=True, check=False)
    assert found.returncode == status, found.stderr
    return found.stderr


def description_of(name: str) -> dict[str, Any]:
    changes: dict[str, Any] = {"channel_names": dict(enumerate(CHANNELS.get(name, ("MRI",))))}
    if name in LABELS:
        changes["labels"] = LABELS[name]
    if name == "3d__regions":
        changes["regions_class_order"] = [1, 7]
    return DESCRIPTION | changes


def plan_of(name: str) -> ConfigurationPlan:
    plan = PLANS[name.partition("__")[0]]
    if name in MIXING:
        return make_plan(MIXING[name], FLAT.model_copy(update={"mixing": Shift(share=1)}))
    return make_plan(plan.representation, plan.network, CHANNELS.get(name, ("MRI",)))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A fold of each method; two of `3d`."""
    torch.manual_seed(1)
    workspace = Workspace.resolve(tmp_path_factory.mktemp("every"), {})
    for name in RUNS:
        configuration, plan = name.partition("__")[0], plan_of(name)
        run = make_run(workspace, name, description_of(name), plan)
        description = read_description(run.dataset)
        for fold in range(2 if name == "3d" else 1):
            folder = run.fold(fold)
            save(folder.model_final, configuration, description, fine=name == "axial__fine", plan=plan)
            if name == "mip":  # maps of random weights do not reach the shift of trained ones
                header, state = load_model(folder.model_final)
                state = {key: value * 0.5 if key.endswith("normalize.shift") else value for key, value in state.items()}
                save_model(folder.model_final, state, header)
        if name == "axial__fine":
            save(folder.coarse, configuration, description)
        for view in ANATOMICAL if name == "mv" else ():
            save(view_model(folder.root, view), view, description)
    return workspace


@pytest.fixture(scope="module")
def archives(workspace: Workspace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Graphs of all of them: an archive for those with the same labels and channels, and one for each other run."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs ONNX: pip install 'seg25d[onnx]'")
    folder = tmp_path_factory.mktemp("archives")
    alone = (*LABELS, *CHANNELS)
    made = {}
    for names in (tuple(name for name in RUNS if name not in alone), *((name,) for name in alone)):
        path = folder / f"{names[0]}.onnx.zip"
        words = ["export_model", NAME, "-c", *names, "--format", "onnx", "-o", str(path)]
        assert main([*words, "--workspace", str(workspace.results.parent)]) == 0
        made |= dict.fromkeys(names, path)
    return made


@pytest.fixture(scope="module")
def archive(archives: dict[str, Path]) -> Path:
    """That of several runs."""
    return archives["3d"]


@pytest.fixture
def with_torch(workspace: Workspace, monkeypatch: pytest.MonkeyPatch):
    """Predicts by the same models with torch, in float32, whatever the processor does best."""
    monkeypatch.setattr(device, "_fast_dtype", lambda _: torch.float32)

    def predict(images: Path, out: Path, name: str, *words: str) -> None:
        command = ["predict", "-i", images, "-o", out, "-d", NAME, "-c", name, "--device", "cpu", *words]
        assert main([*map(str, command), "--workspace", str(workspace.results.parent)]) == 0

    return predict


def image_of(shape: tuple[int, int, int], folder: Path, channels: int = 1) -> Path:
    """A folder with an image of some structure."""
    folder.mkdir()
    rng = np.random.default_rng(sum(shape))
    for channel in range(channels):
        values = rng.normal(size=shape).astype(np.float32)
        values[2:7, 3:7, 2:6] += 3 * (-1) ** channel
        sitk.WriteImage(sitk.GetImageFromArray(values), str(folder / f"case_{channel:04d}.nii.gz"))
    return folder


def labels_in(folder: Path) -> np.ndarray:
    return read_labels(folder / "case.nii.gz")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_labels_are_those_of_torch(archives, with_torch, tmp_path, name):
    images = image_of(RUNS[name], tmp_path / "in", len(CHANNELS.get(name, ("MRI",))))
    with_torch(images, tmp_path / "torch", name)
    light("predict", "-i", images, "-o", tmp_path / "light", "-m", archives[name], "-c", name)
    expected, found = labels_in(tmp_path / "torch"), labels_in(tmp_path / "light")
    assert len(np.unique(expected)) > 1, "an empty segmentation shows nothing"
    # Sums in another order: a voxel on the border between two classes may go to the other one.
    assert np.count_nonzero(expected != found) <= expected.size / 500


@pytest.mark.slow
@pytest.mark.parametrize(("weights", "least"), [("float16", 0.995), ("int8", 0.9)])
def test_smaller_weights_give_nearly_the_same_labels(workspace, with_torch, tmp_path, weights, least):
    pytest.importorskip("onnxscript", reason="needs ONNX: pip install 'seg25d[onnx]'")
    path = tmp_path / "small.onnx.zip"
    words = ["export_model", NAME, "-c", "3d", "-f", "0", "--format", "onnx", "--weights", weights, "-o", str(path)]
    assert main([*words, "--workspace", str(workspace.results.parent)]) == 0
    with opened_archive(path) as results:
        graph = read_portable(results / NAME / "3d" / "fold_0" / "model_final.onnx").graph
    assert graph.weights == weights
    images = image_of(RUNS["3d"], tmp_path / "in")
    with_torch(images, tmp_path / "torch", "3d", "-f", "0")
    light("predict", "-i", images, "-o", tmp_path / "light", "-m", path)
    expected, found = labels_in(tmp_path / "torch"), labels_in(tmp_path / "light")
    assert len(np.unique(expected)) > 1, "an empty segmentation shows nothing"
    assert (expected == found).mean() >= least


@pytest.mark.slow
def test_folds_mirroring_and_steps_are_chosen_as_with_torch(archive, with_torch, tmp_path):
    images = image_of((19, 12, 9), tmp_path / "in")
    words = ("-f", "1", "--disable_tta", "-step_size", "0.8")
    with_torch(images, tmp_path / "torch", "3d", *words)
    light("predict", "-i", images, "-o", tmp_path / "light", "-m", archive, "-c", "3d", *words)
    with_torch(images, tmp_path / "usual", "3d")
    expected = labels_in(tmp_path / "torch")
    assert np.count_nonzero(expected != labels_in(tmp_path / "light")) <= expected.size / 500
    assert np.count_nonzero(expected != labels_in(tmp_path / "usual")) > expected.size / 100


@pytest.mark.slow
def test_probabilities_maps_and_statistics_are_written(archive, with_torch, tmp_path):
    images = image_of((10, 12, 9), tmp_path / "in")
    words = ("--save-probabilities", "--uncertainty", "--statistics")
    with_torch(images, tmp_path / "torch", "3d", *words, str(tmp_path / "torch.csv"))
    words = (*words, tmp_path / "light.csv")
    light("predict", "-i", images, "-o", tmp_path / "light", "-m", archive, "-c", "3d", *words)
    expected, found = (np.load(tmp_path / way / "case.npz")["probabilities"] for way in ("torch", "light"))
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-3)
    maps = [
        sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / way / "uncertainty" / "case.nii.gz")))
        for way in ("torch", "light")
    ]
    np.testing.assert_allclose(*maps, atol=4e-3)
    header = (tmp_path / "torch.csv").read_text().splitlines()[0]
    assert (tmp_path / "light.csv").read_text().splitlines()[0] == header
    record = json.loads((tmp_path / "light" / "prediction.json").read_text())
    assert record["model"]["folds"] == ["0", "1"]


@pytest.mark.slow
def test_ensembles_of_configurations_are_those_of_torch(workspace, choose, with_torch, tmp_path):
    pytest.importorskip("onnxscript", reason="needs ONNX: pip install 'seg25d[onnx]'")
    choose(workspace, **{"3d": ("0",), "si": ("0",)})
    try:
        path, place = tmp_path / "best.onnx.zip", ["--workspace", str(workspace.results.parent)]
        assert main(["export_model", NAME, "--format", "onnx", "-o", str(path), *place]) == 0
        images = image_of((10, 12, 9), tmp_path / "in")
        command = ["predict", "-i", images, "-o", tmp_path / "torch", "-d", NAME, "--device", "cpu", *place]
        assert main([*map(str, command)]) == 0
    finally:
        workspace.best(NAME).unlink()
    light("predict", "-i", images, "-o", tmp_path / "light", "-m", path)
    expected, found = labels_in(tmp_path / "torch"), labels_in(tmp_path / "light")
    assert np.count_nonzero(expected != found) <= expected.size / 500


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_graphs_have_as_many_weights_as_models_of_torch(archives, workspace, name):
    expected = load_predictor([workspace.run(NAME, name).fold("0").model_final], device.choose_execution("cpu"))
    with opened_archive(archives[name]) as results:
        found = load_predictor([results / NAME / name / "fold_0" / "model_final.onnx"], HostExecution())
    assert found.num_parameters == expected.num_parameters > 0


@pytest.mark.slow
def test_what_needs_torch_says_so_where_it_is_not():
    for words in (["train", NAME, "3d", "0"], ["predict", "-i", "IN", "-o", "OUT", "-d", NAME]):
        assert "error: torch is not installed" in light(*words, status=2)


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """A file that is an archive of graphs by its names, as far as that."""
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("3d/fold_0/model_final.onnx", b"")
    return path


def test_archives_of_graphs_are_known_by_what_they_hold(graphs, tmp_path):
    assert is_portable(graphs)
    with zipfile.ZipFile(tmp_path / "usual.onnx.zip", "w") as file:
        file.writestr("3d/fold_0/model_final.safetensors", b"")
    (tmp_path / "damaged.zip").write_bytes(b"PK")
    others = (None, tmp_path, tmp_path / "absent.zip", tmp_path / "usual.onnx.zip", tmp_path / "damaged.zip")
    assert not any(map(is_portable, others))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--device", "cuda"), "--device cuda: graphs without torch are computed by the CPU"),
        (("--device", "cuda:0,cuda:1"), "graphs without torch are computed by the CPU"),
        (("--on", "local"), "graphs predict in calls of their own; share the cases with --num-parts N --part-id I"),
    ],
)
def test_options_that_need_torch_are_refused(graphs, tmp_path, capsys, words, message):
    out = tmp_path / "out"
    assert main(["predict", "-i", str(tmp_path), "-o", str(out), "-m", str(graphs), *words]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_fusions_that_need_torch_are_refused(archive, tmp_path):
    images = image_of((10, 12, 9), tmp_path / "in")
    words = ("-o", tmp_path / "out", "-m", archive, "-c", "mv", "--fusion", "mean")
    assert "fusion 'mean' of views needs torch" in light("predict", "-i", images, *words, status=2)
