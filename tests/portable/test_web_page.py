"""Folders for browsers: what `page.json` says, what is kept for use without a network, and what is refused."""

import base64
import hashlib
import json
import shutil
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.records import read_record, write_record
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.labels import Labels
from seg25d.inference.postprocessing import PostProcessing
from seg25d.networks.fusion_net import FusionNetSpec
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import save_model
from seg25d.planning.portable_model import Graph, PortableModel, Windows
from seg25d.portable import web_page
from seg25d.portable.export import PACKAGES
from seg25d.portable.page_model import MODEL, TrainedOn
from seg25d.portable.web_page import describe_page, write_page
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.selection.best import Best, Member
from seg25d.sharing.choice import ChosenModels, ExportOptions
from tests.portable.stand_in import EXPORT, write_stand_in
from tests.portable.test_export import LABELS, REGIONS, SIZES, UNET, UNET_3D, make_header

NAME = "3d/fold_0/model_final.onnx"
DIGEST = base64.b64encode(hashlib.sha256(b"graph").digest()).decode()


def address(name: str) -> str:
    """Where the page loads a graph from, written by `write_record`."""
    return f"model/{name}?sha256-" + DIGEST.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")


def write_graph(folder: Path, header, name: str = NAME, free_axes=(0, 1, 2)) -> None:
    """A graph's record beside a file that stands for the graph."""
    graph = folder / MODEL / name
    graph.parent.mkdir(parents=True, exist_ok=True)
    graph.write_bytes(b"graph")
    graph_record = Graph.of(header, free_axes, "float32", 20)
    model = PortableModel(header=header, graph=graph_record, windows=Windows.of(header.plan, 2), **SIZES)
    graph.with_suffix(".json").write_text(model.model_dump_json())


def described(tmp_path: Path, labels: Labels = LABELS, representation=None, names=(NAME,), **settings) -> dict:
    network = UNET_3D if isinstance(representation, Stack) else UNET
    header = make_header(representation or Slices(axis=0, context=1), network, (4, 12, 16), labels, **settings)
    (tmp_path / web_page.SERVICE_WORKER).write_text(f"const VERSION = '{web_page.VERSION}';")
    (tmp_path / "index.html").write_text("page")
    (tmp_path / "ort" / "1.0").mkdir(parents=True)
    for name in ("ort.wasm.min.mjs", "ort.webgpu.min.mjs"):
        (tmp_path / "ort" / "1.0" / name).write_text("runtime")
    for name in names:
        write_graph(tmp_path, header, name)
    describe_page(tmp_path, names, "free")
    return json.loads((tmp_path / web_page.PAGE).read_text())


def test_the_page_knows_what_its_windows_need(tmp_path):
    page = described(tmp_path)
    assert page["windows"] == {
        "window": [4, 12, 16],
        "outputs": 3,
        "divisors": [1, 2, 2],
        "resizable_axes": [0, 1, 2],
        "convolved_axes": [1, 2],
        "mirror_axes": [0],
        "step_size": [0.5, 0.5, 0.5],
        "free_axis": 0,
        "context": 1,
        "regular": None,
        "padded_with_lowest": False,
        "repeated_axis": None,
        "batch_size": 2,
        "grid": None,
    }
    assert page["graphs"] == [{"file": f"model/{NAME}", "bytes": 5, "integrity": f"sha256-{DIGEST}"}]
    assert (page["input"], page["output"], page["folds"], page["licence"]) == ("volume", "scores", ["0"], "free")
    assert [channel["scheme"] for channel in page["channels"]] == ["zscore", "zscore"]


def test_stacks_are_regular(tmp_path):
    page = described(tmp_path, representation=Stack(stack_size=4, predicted_overlap=1))
    assert page["windows"]["regular"] == {"axis": 0, "step": 3, "flush": True}
    assert page["windows"]["padded_with_lowest"] is True


def test_super_images_have_a_grid(tmp_path):
    page = described(tmp_path, representation=SuperImage(grid=(2, 3)))
    assert page["windows"]["grid"] == {"input": "grid", "rows": 2, "columns": 3, "axis": 0}
    assert page["windows"]["free_axis"] is None


def test_classes_have_the_values_of_label_files_and_the_colours_of_the_report(tmp_path):
    labels = Labels(names={"background": 0, "organ": 5, "lesion": 2})
    page = described(tmp_path, labels)
    assert page["meaning"] == {"values": [0, 2, 5], "paint": None, "score_thresholds": None}
    assert page["structures"] == [
        {"name": "lesion", "members": [1], "index": 1, "colour": "#e6550d"},
        {"name": "organ", "members": [2], "index": 2, "colour": "#31a354"},
    ]


def test_regions_are_painted_in_their_order(tmp_path):
    page = described(tmp_path, REGIONS, threshold=0.75)
    assert page["meaning"]["paint"] == [1, 2]
    assert_allclose(page["meaning"]["score_thresholds"], [1.0986123] * 2)
    assert [(each["name"], each["members"], each["index"]) for each in page["structures"]] == [
        ("whole", [1, 2], 1),
        ("core", [2], 2),
    ]


def test_post_processing_is_that_of_the_choice(tmp_path, chosen_once):
    steps = PostProcessing(
        thresholds={"whole": 0.25, "core": 0.75}, largest_foreground=True, largest=("core",), smallest_mm3={"whole": 9}
    )
    write_choice(chosen_once, tmp_path / MODEL / "best.json", postprocessing=steps)
    fine = FineConfig(margin=7, max_rounds=4, stop_dice=0.9)
    page = described(tmp_path, REGIONS, names=("3d/fold_0/coarse.onnx", NAME), threshold=0.5, fine=fine)
    assert_allclose(page["meaning"]["score_thresholds"], [-1.0986123, 1.0986123])
    assert page["fine"]["score_thresholds"] == [0, 0]
    assert page["postprocessing"]["largest_foreground"]
    assert page["postprocessing"]["components"] == [
        {"members": [1, 2], "beneath": 0, "largest": False, "smallest_mm3": 9},
        {"members": [2], "beneath": 1, "largest": True, "smallest_mm3": 0},
    ]
    assert page["postprocessing"]["steps"] == steps.describe()


def test_without_a_choice_there_is_no_post_processing(tmp_path):
    assert described(tmp_path)["postprocessing"] is None


def write_choice(workspace: Path, path: Path, **changes) -> None:
    """Write the choice of a workspace, changed, to another place."""
    best = read_record(next((workspace / "results").glob("*/best.json")), Best)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, best.model_copy(update=changes))


def test_fine_models_have_their_coarse_ones(tmp_path):
    coarse = "3d/fold_0/coarse.onnx"
    settings = FineConfig(margin=7, max_rounds=4, stop_dice=0.9, large_components=True)
    page = described(tmp_path, names=(coarse, NAME), fine=settings)
    assert page["graphs"] == [{"file": f"model/{NAME}", "bytes": 5, "integrity": f"sha256-{DIGEST}"}]
    fine = page["fine"]
    assert fine["graphs"] == [{"file": f"model/{coarse}", "bytes": 5, "integrity": f"sha256-{DIGEST}"}]
    assert (fine["margin"], fine["max_rounds"], fine["stop_dice"]) == ([7, 7, 7], 4, 0.9)
    assert fine["large_components"] is True
    assert fine["windows"] == page["windows"]
    assert address(coarse) in json.loads((tmp_path / web_page.FILES).read_text())


def test_models_that_the_page_does_not_know_are_refused(tmp_path):
    header = make_header(FusedViews(maps_per_view=2), FusionNetSpec(width=2), (8, 8, 16))
    model = RunFolder(root=tmp_path / "results" / "any").fold("0").model_final
    save_model(model, {}, header)
    with pytest.raises(InputError, match=r"any fuses views.*-c any --format onnx"):
        write_page(tmp_path / "out", tmp_path / "results", ChosenModels({"any": ["0"]}, best=False), ExportOptions())
    assert not (tmp_path / "out").exists()


def test_all_that_any_browser_needs_is_kept_and_another_model_is_another_version(tmp_path):
    versions = set()
    for threshold in (None, 0.5):
        folder = tmp_path / str(threshold)
        folder.mkdir()
        described(folder, REGIONS, threshold=threshold)
        kept = json.loads((folder / web_page.FILES).read_text())
        assert kept == ["index.html", "ort/1.0/ort.wasm.min.mjs", "page.json", address(NAME)]
        versions.add((folder / web_page.SERVICE_WORKER).read_text())
    assert len(versions) == 2
    assert not any(web_page.VERSION in text for text in versions)


def test_ranges_of_the_training_cases(chosen_once):
    fingerprint = next((chosen_once / "preprocessed").glob("*/fingerprint.json"))
    found = TrainedOn.of(read_record(fingerprint, Fingerprint))
    cases = json.loads(fingerprint.read_text())["cases"]
    assert found.cases == len(cases)
    for axis in range(3):
        steps = [case["spacing_mm"][axis] for case in cases]
        extents = [case["spacing_mm"][axis] * case["shape"][axis] for case in cases]
        assert found.spacing_mm[axis] == (min(steps), max(steps))
        assert_allclose(found.extent_mm[axis], (min(extents), max(extents)))


@pytest.fixture
def stand_in(tmp_path, monkeypatch) -> Path:
    """A built page of one file, in the place of the package's."""
    for package in PACKAGES:
        pytest.importorskip(package, reason="needs ONNX: pip install 'seg25d[onnx]'")
    package = tmp_path / "package"
    (package / "page").mkdir(parents=True)
    (package / "page" / "index.html").write_text("page")
    (package / "page" / web_page.SERVICE_WORKER).write_text(web_page.VERSION)
    monkeypatch.setattr(web_page, "files", lambda _: package)
    return package


def export(workspace: Path, out: Path, *words: str, status: int = 0) -> None:
    arguments = ["900", "--format", "web", "-o", str(out), *words, "--workspace", str(workspace)]
    assert main(["export_model", *arguments]) == status


@pytest.mark.parametrize("traced", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_folder_is_written_whole_and_replaced_only_when_asked_to(
    trained_once, stand_in, tmp_path, capsys, monkeypatch, traced
):
    if not traced:
        monkeypatch.setattr(EXPORT, write_stand_in)
    out = tmp_path / "out"
    export(trained_once, out, "-c", "2d", "-f", "0", "1")
    page = json.loads((out / "page.json").read_text())
    run = Workspace.resolve(trained_once, {}).dataset_name("900")
    assert page["dataset_name"] == run
    assert page["folds"] == ["0", "1"]
    assert page["trained_on"]["cases"] == 3
    assert (out / "model" / "manifest.json").is_file()
    assert all((out / graph["file"]).stat().st_size == graph["bytes"] for graph in page["graphs"])
    export(trained_once, out, "-c", "2d", status=2)
    assert "out exists already; choose another folder or --overwrite" in capsys.readouterr().err
    export(trained_once, out, "-c", "3d", "--overwrite")
    assert json.loads((out / "page.json").read_text())["folds"] == ["1"]
    (tmp_path / "other").mkdir()
    export(trained_once, tmp_path / "other", "-c", "3d", "--overwrite", status=2)
    assert not any((tmp_path / "other").iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out", "package"]


def test_the_choice_of_one_run_is_exported_with_its_post_processing(chosen_once, stand_in, tmp_path):
    shutil.copytree(chosen_once, tmp_path / "workspace")
    best = next((tmp_path / "workspace" / "results").glob("*/best.json"))
    member = Member(run="axial", folds=("1",), weight=1)
    write_choice(chosen_once, best, members=(member,), postprocessing=PostProcessing(largest_foreground=True))
    export(tmp_path / "workspace", tmp_path / "out")
    page = json.loads((tmp_path / "out" / "page.json").read_text())
    assert (page["configuration"], page["folds"]) == ("axial", ["1"])
    assert page["postprocessing"]["steps"] == ["only the largest component of all foreground"]
    export(tmp_path / "workspace", tmp_path / "out", "-c", "2d", "-f", "1", "--overwrite")
    assert json.loads((tmp_path / "out" / "page.json").read_text())["postprocessing"] is None


def test_what_the_page_cannot_do_is_refused_before_anything_is_written(chosen_once, stand_in, tmp_path, capsys):
    out, workspace = tmp_path / "out", tmp_path / "workspace"
    export(chosen_once, out, "-c", "2d", "si", status=2)
    assert "takes the folds of one configuration, got axial, si; name one with -c" in capsys.readouterr().err
    shutil.copytree(chosen_once, workspace)
    members = [Member(run=run, folds=("0", "1"), weight=0.5) for run in ("axial", "si")]
    write_choice(chosen_once, next((workspace / "results").glob("*/best.json")), members=tuple(members))
    export(workspace, out, status=2)
    told = capsys.readouterr().err
    assert "name one with -c" in told
    assert "`seg25d export_model Dataset900_Phantom --format onnx -o Dataset900_Phantom.onnx.zip`" in told
    (stand_in / "page" / "index.html").unlink()
    export(chosen_once, out, "-c", "2d", status=2)
    assert "the page is not built" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["package", "workspace"]
