"""Archives of graphs: the rules of all archives, and what is different."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.portable.archive import write_folder
from seg25d.portable.export import PACKAGES
from seg25d.sharing.choice import models_to_export
from seg25d.sharing.content import check_content
from seg25d.sharing.manifest import Manifest, is_allowed
from seg25d.sharing.unpack import opened_archive
from tests.portable.stand_in import EXPORT, write_stand_in

NAME = "Dataset007_Tiny"
RUNS = ("3d", "axial__fine", "mv")


def options(*runs: str, **others) -> api.ExportOptions:
    return api.ExportOptions(configurations=runs, format="onnx", **others)


def run(workspace: Workspace, *words: object, status: int = 0) -> None:
    assert main([*map(str, words), "--workspace", str(workspace.results.parent)]) == status


slow = pytest.mark.slow
"""Every model is traced, which takes seconds."""


@pytest.fixture(scope="module")
def needed() -> None:
    for package in PACKAGES:
        pytest.importorskip(package, reason="needs ONNX: pip install 'seg25d[onnx]'")


@pytest.fixture(scope="module")
def archive(trained, needed, tmp_path_factory) -> Path:
    """Graphs of every kind of model."""
    path = tmp_path_factory.mktemp("archive") / "all.onnx.zip"
    run(trained, "export_model", 7, "-c", *RUNS, "--format", "onnx", "-o", path)
    return path


@pytest.fixture
def unpacked(archive, tmp_path) -> tuple[Path, Manifest]:
    with zipfile.ZipFile(archive) as file:
        file.extractall(tmp_path / NAME)
        return tmp_path / NAME, Manifest.model_validate_json(file.read("manifest.json"))


@slow
def test_an_archive_of_graphs_has_them_in_the_place_of_models(trained, archive, tmp_path):
    api.export_model(trained, NAME, tmp_path / "all.zip", api.ExportOptions(configurations=RUNS))
    with zipfile.ZipFile(tmp_path / "all.zip") as usual, zipfile.ZipFile(archive) as file:
        names, manifest = file.namelist(), Manifest.model_validate_json(file.read("manifest.json"))
        contents = [file.read(name) for name in names]
        wanted = [name for name in usual.namelist() if name != "manifest.json"]
        assert not Manifest.model_validate_json(usual.read("manifest.json")).is_portable
    graphs = [name.replace(".safetensors", kind) for name in wanted for kind in (".onnx", ".json")]
    assert names == [*sorted(set(graphs)), "manifest.json"]
    assert "mv/fold_all/views/coarse/axial.onnx" in names
    assert manifest.is_portable
    assert manifest.usage == tuple(f"seg25d predict -i IN -o OUT -m FILE.onnx.zip -c {name}" for name in RUNS)
    for place in (str(trained.results.parent), str(Path.home()), str(Path.cwd())):
        assert not any(place.encode() in content for content in contents)
    with opened_archive(archive) as results:
        assert (results / NAME / "3d" / "fold_0" / "model_final.onnx").is_file()


@pytest.mark.parametrize("traced", [False, pytest.param(True, marks=slow)])
def test_the_same_models_give_the_same_bytes(trained, needed, tmp_path, capsys, monkeypatch, traced):
    if not traced:
        monkeypatch.setattr(EXPORT, write_stand_in)
    path = tmp_path / "one.onnx.zip"
    words = ["export_model", 7, "-c", "3d", "--format", "onnx", "-o", path, "-f"]
    run(trained, *words, 0)
    before = path.read_bytes()
    run(trained, *words, 0)
    assert "is there already, with the same content" in capsys.readouterr().err
    run(trained, *words, 1, status=2)
    assert "exists already; choose another name or --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    chosen = models_to_export(trained, NAME, options("3d", folds=("0",)))
    manifest = write_folder(tmp_path / "page" / "model", trained.results / NAME, chosen, options("3d"))
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            assert (tmp_path / "page" / "model" / name).read_bytes() == file.read(name)
        assert Manifest.model_validate_json(file.read("manifest.json")) == manifest
    assert [each.name for each in (tmp_path / "page").iterdir()] == ["model"]
    with pytest.raises(InputError, match="model exists already"):
        write_folder(tmp_path / "page" / "model", trained.results / NAME, chosen, options("3d"))


@slow
def test_graphs_are_not_installed(archive, tmp_path, capsys):
    workspace = Workspace.resolve(tmp_path, {})
    run(workspace, "install_model", archive, status=2)
    assert f"seg25d predict -i IN -o OUT -m {archive}" in capsys.readouterr().err
    assert not workspace.results.exists() or not list(workspace.results.rglob("*.onnx"))


@slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda place: (place / "mv/fold_all/views/axial.json").unlink(), "views/axial.onnx"),
        (lambda place: (place / "axial__fine/fold_0/coarse.onnx").unlink(), "coarse.onnx"),
        (lambda place: edit(place / "3d/fold_0/model_final.json", ("graph", "outputs"), 2), "graph.outputs"),
        (lambda place: edit(place / "3d/fold_1/model_final.json", ("header", "dataset_name"), "Other"), "another data"),
        (lambda place: (place / "3d/fold_1/model_final.json").write_text("[]"), "model_final.json"),
    ],
)
def test_content_that_does_not_fit_is_refused(unpacked, change, message):
    folder, manifest = unpacked
    check_content(folder, manifest.paths, manifest.subject)
    change(folder)
    with pytest.raises(InputError, match=message):
        check_content(folder, manifest.paths, manifest.subject)


def edit(path: Path, key: tuple[str, str], value: object) -> None:
    content = json.loads(path.read_text())
    content[key[0]][key[1]] = value
    path.write_text(json.dumps(content))


@slow
def test_a_file_more_or_less_or_of_the_other_kind_is_refused(unpacked, trained):
    folder, manifest = unpacked
    paths = manifest.paths
    with pytest.raises(InputError, match="the models of axial__fine are not complete"):
        check_content(folder, [path for path in paths if not path.endswith("coarse.json")], manifest.subject)
    extra = "3d/fold_0/coarse.json"
    (folder / extra).write_text("{}")
    with pytest.raises(InputError, match=r"coarse\.json belongs to no model"):
        check_content(folder, [*paths, extra], manifest.subject)
    other = "3d/fold_0/model_final.safetensors"
    shutil.copy(trained.results / NAME / other, folder / other)
    with pytest.raises(InputError, match=r"expected models of one kind, got \.onnx and \.safetensors"):
        check_content(folder, [*paths, other], manifest.subject)


def test_only_graphs_have_records_in_folds():
    assert all(is_allowed(f"3d/fold_0/{name}") for name in ("model_final.onnx", "model_final.json", "views/axial.json"))
    assert not any(is_allowed(f"3d/{name}") for name in ("fold_0/other.onnx", "model_final.onnx", "fold_0/x.onnx.data"))


def test_weights_are_for_graphs(trained, tmp_path, capsys):
    run(trained, "export_model", 7, "-c", "3d", "--weights", "int8", "-o", tmp_path / "a.zip", status=2)
    assert "--weights int8 is for --format onnx" in capsys.readouterr().err


def test_a_missing_package_is_named_before_anything_is_done(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("seg25d.portable.export.find_spec", lambda name: None if name == "onnxscript" else name)
    run(trained, "export_model", 7, "-c", "3d", "--format", "onnx", "-o", tmp_path / "new" / "a.zip", status=2)
    told = capsys.readouterr().err
    assert "--format onnx needs onnxscript, which is not installed; run `pip install 'seg25d[onnx]'`" in told
    assert not (tmp_path / "new").exists()
