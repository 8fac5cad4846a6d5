"""Exported models predict the same elsewhere, and nothing else goes with them."""

import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_labels
from seg25d.sharing.choice import models_to_export
from seg25d.sharing.manifest import Manifest, is_allowed
from seg25d.sharing.unpack import open_archive, opened_archive

NAME = "Dataset007_Tiny"
RUNS = ("3d", "axial__fine", "mv")


def run(workspace: Workspace, *words: object, status: int = 0) -> None:
    assert main([*map(str, words), "--workspace", str(workspace.results.parent)]) == status


def predict(workspace: Workspace, images: Path, out: Path, *words: object) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities."""
    run(workspace, "predict", "-i", images, "-o", out, "--save-probabilities", "--device", "cpu", *words)
    return read_labels(out / "case.nii.gz")[0], np.load(out / "case.npz")["probabilities"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Workspace:
    """A workspace that never saw the data."""
    return Workspace.resolve(tmp_path / "elsewhere", {})


@pytest.fixture
def changed(trained: Workspace, tmp_path: Path) -> Workspace:
    """A copy of the trained models, to be changed."""
    shutil.copytree(trained.results, tmp_path / "changed" / "results")
    return Workspace.resolve(tmp_path / "changed", {})


@pytest.mark.parametrize("name", RUNS)
def test_predictions_elsewhere_are_the_same(trained, elsewhere, images, tmp_path, capsys, name):
    before = predict(trained, images, tmp_path / "before", "-d", 7, "-c", name)
    archive = tmp_path / "new" / "model.zip"
    run(trained, "export_model", 7, "-o", archive, "-c", name)
    capsys.readouterr()
    run(elsewhere, "install_model", archive)
    assert f"seg25d predict -i IN -o OUT -d {NAME} -c {name}" in capsys.readouterr().out
    assert not elsewhere.raw.exists()
    assert not elsewhere.preprocessed.exists()
    installed = predict(elsewhere, images, tmp_path / "installed", "-d", 7, "-c", name)
    direct = predict(elsewhere, images, tmp_path / "direct", "-m", archive)
    for after in (installed, direct):
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    # The same command goes on, as its model is the same.
    (tmp_path / "direct" / "case.nii.gz").unlink()
    predict(elsewhere, images, tmp_path / "direct", "-m", archive)
    assert {path.suffix for path in (tmp_path / "direct").iterdir()} == {".gz", ".npz", ".pkl", ".json"}


def test_an_archive_holds_what_prediction_needs_and_nothing_else(trained, tmp_path):
    manifest = api.export_model(trained, NAME, tmp_path / "all.zip", api.ExportOptions(configurations=(*RUNS, "3d")))
    with zipfile.ZipFile(tmp_path / "all.zip") as archive:
        names = archive.namelist()
        contents = [archive.read(name) for name in names]
        assert json.loads(archive.read("manifest.json")) == manifest.model_dump(mode="json")
        kinds = {Path(entry.filename).suffix: entry.compress_type for entry in archive.infolist()}
    records = ("plans.json", "dataset.json", "fingerprint.json", "crossval/summary.json")
    views = [f"mv/fold_all/views/{kind}{name}" for kind in ("", "coarse/") for name in ("axial", "coronal", "sagittal")]
    models = ["3d/fold_0/model_final", "3d/fold_1/model_final", "axial__fine/fold_0/model_final"]
    models += ["axial__fine/fold_0/coarse", "mv/fold_all/model_final", *views]
    expected = [f"{name}/{record}" for name in RUNS for record in records] + [f"{name}.safetensors" for name in models]
    assert names == [*sorted(expected), "manifest.json"]
    assert kinds == {".json": zipfile.ZIP_DEFLATED, ".safetensors": zipfile.ZIP_STORED}
    assert manifest.channel_names == ("MRI",)
    assert manifest.labels.names == {"background": 0, "organ": 1, "lesion": 7}
    assert manifest.usage[0] == "seg25d install_model FILE.zip"
    assert len(manifest.usage) == 4
    for place in (str(trained.results.parent), str(Path.home()), str(Path.cwd())):
        assert not any(place.encode() in content for content in contents)


def test_the_same_models_give_the_same_bytes(trained, changed, tmp_path):
    for number, workspace in enumerate((trained, changed)):
        options = api.ExportOptions(configurations=("3d",), folds=("1",))
        api.export_model(workspace, "7", tmp_path / f"{number}.zip", options)
    assert (tmp_path / "0.zip").read_bytes() == (tmp_path / "1.zip").read_bytes()


def test_the_best_models_go_with_the_file_that_names_them(changed, elsewhere, images, tmp_path, capsys, choose):
    run(changed, "export_model", 7, "-o", tmp_path / "a.zip", status=2)
    assert "choose one with -c: 3d, axial__fine, mv" in capsys.readouterr().err
    choose(changed, **{"3d": ("1",), "mv": ("all",)})
    run(changed, "export_model", 7, "-o", tmp_path / "a.zip", "-f", 0, status=2)
    assert "leave -f out" in capsys.readouterr().err
    run(changed, "export_model", 7, "-o", tmp_path / "a.zip")
    run(elsewhere, "install_model", tmp_path / "a.zip")
    assert elsewhere.best(NAME).read_bytes() == changed.best(NAME).read_bytes()
    assert elsewhere.run(NAME, "3d").trained_folds() == ["1"]
    assert f"-d {NAME}\n" in capsys.readouterr().out
    before = predict(changed, images, tmp_path / "before", "-d", 7)
    for number, words in enumerate((("-d", 7), ("-m", tmp_path / "a.zip"))):
        after = predict(elsewhere, images, tmp_path / f"{number}", *words)
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    model = json.loads((tmp_path / "1" / "prediction.json").read_text())["model"]
    assert [(each["configuration"], each["folds"]) for each in model["ensemble"]] == [("3d", ["1"]), ("mv", ["all"])]
    assert model["postprocessing"]["largest"] == ["1"]
    # Configurations by name go without it.
    run(changed, "export_model", 7, "-o", tmp_path / "b.zip", "-c", "3d", "-f", 0)
    with open_archive(tmp_path / "b.zip") as archive:
        assert "best.json" not in archive.manifest.paths
        assert "3d/fold_1/model_final.safetensors" not in archive.manifest.paths


def test_one_of_several_runs_in_an_archive_is_chosen_with_c(trained, elsewhere, images, tmp_path, capsys):
    run(trained, "export_model", 7, "-o", tmp_path / "a.zip", "-c", "3d", "mv")
    words = ["predict", "-i", images, "-o", tmp_path / "out", "-m", tmp_path / "a.zip"]
    for more, message in (
        ((), "choose one with -c: 3d, mv"),
        (("-c", "si"), "trained: 3d, mv"),
        (("-d", 7), "leave -d, -p and --recipe out"),
        (("-c", "3d", "-f", 4), f"{tmp_path / 'a.zip'}: 3d: fold 4 is not trained"),
    ):
        run(elsewhere, *words, *more, status=2)
        told = capsys.readouterr().err
        assert message in told
        assert ".tmp-" not in told  # where the archive is unpacked
        assert not (tmp_path / "out").exists()
    predict(elsewhere, images, tmp_path / "out", "-m", tmp_path / "a.zip", "-c", "3d", "-f", 1)
    model = json.loads((tmp_path / "out" / "prediction.json").read_text())["model"]
    assert (model["dataset"], model["configuration"], model["folds"]) == (NAME, "3d", ["1"])
    with opened_archive(tmp_path / "a.zip") as results:
        assert sorted(path.name for path in (results / NAME).iterdir()) == ["3d", "mv"]
    assert not results.exists()


def test_a_model_in_an_archive_can_be_kept_loaded(trained, elsewhere, tmp_path):
    api.export_model(trained, "7", tmp_path / "a.zip", api.ExportOptions(configurations=("3d",)))
    loaded = [
        api.load_model(workspace, api.PredictionOptions(device="cpu", **meant))
        for workspace, meant in (
            (trained, {"dataset": "7", "configuration": "3d"}),
            (elsewhere, {"model": tmp_path / "a.zip"}),
        )
    ]
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 8))
    first, second = (model.predict_array(image, (1.0, 1.0, 1.0)) for model in loaded)
    np.testing.assert_array_equal(first, second)


def test_the_licence_goes_with_the_models(trained, elsewhere, tmp_path, capsys):
    licence = tmp_path / "LICENCE"
    words = ["export_model", 7, "-o", tmp_path / "a.zip", "-c", "3d", "--licence-file", licence]
    run(trained, *words, status=2)
    assert "LICENCE is missing" in capsys.readouterr().err
    assert not (tmp_path / "a.zip").exists()
    licence.write_text("CC BY 4.0 \u00e9\n", encoding="utf-8")
    run(trained, *words)
    with open_archive(tmp_path / "a.zip") as archive:
        assert archive.manifest.licence == "CC BY 4.0 \u00e9\n"
    run(elsewhere, "install_model", tmp_path / "a.zip")
    assert "licence" in capsys.readouterr().out


def test_archives_are_not_replaced_unless_that_is_wanted(trained, tmp_path, capsys):
    archive = tmp_path / "a.zip"
    archive.write_text("mine")
    words = ["export_model", 7, "-c", "3d", "-o"]
    run(trained, *words, archive, status=2)
    assert "a.zip exists already; choose another name or --overwrite" in capsys.readouterr().err
    assert archive.read_text() == "mine"
    run(trained, *words, tmp_path, "--overwrite", status=2)
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        run(trained, *words, tmp_path / "pipe", "--overwrite", status=2)
    run(trained, *words, archive, "--overwrite")
    assert zipfile.is_zipfile(archive)


def test_results_of_another_program_are_no_models(changed, tmp_path, capsys, choose):
    other = changed.run(NAME, "nnunet")
    other.root.mkdir()
    other.imported.write_text("{}")
    run(changed, "export_model", 7, "-o", tmp_path / "a.zip", "-c", "nnunet", status=2)
    assert "results of another program (named in imported.json" in capsys.readouterr().err
    choose(changed, nnunet=("0",))
    with pytest.raises(InputError, match="results of another program"):
        models_to_export(changed, NAME, api.ExportOptions())


def test_where_the_data_are_stays_at_home(changed, tmp_path, caplog):
    path = changed.run(NAME, "3d").dataset
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"dataset": {"a": {"label": "/data/a.nii.gz"}}, "source": "/data/raw"}))
    api.export_model(changed, "7", tmp_path / "a.zip", api.ExportOptions(configurations=("3d",)))
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert json.loads(archive.read("3d/dataset.json")) == content | {"source": "/data/raw"}
    assert "what looks like a path of this machine: /data/raw" in caplog.text


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("3d/plans.json", "plans.json does not exist"),
        ("3d/fold_0/model_final.safetensors", "is damaged or not a model file"),
        ("mv/fold_all/views/coronal.safetensors", "coronal.safetensors does not exist"),
        ("axial__fine/fold_0/coarse.safetensors", "coarse.safetensors does not exist"),
    ],
)
def test_incomplete_models_are_not_exported(changed, tmp_path, path, error):
    whole = changed.results / NAME / path
    whole.unlink()
    if path.startswith("3d/fold"):
        whole.write_bytes(b"half")
    options = api.ExportOptions(configurations=RUNS)
    with pytest.raises(InputError, match=error):
        api.export_model(changed, "7", tmp_path / "a.zip", options)
    assert not (tmp_path / "a.zip").exists()


def test_models_with_other_labels_are_not_put_together(changed, tmp_path):
    path = changed.run(NAME, "3d").dataset
    path.write_text(path.read_text().replace("organ", "liver"))
    with pytest.raises(InputError, match="other channels or labels than the models"):
        api.export_model(changed, "7", tmp_path / "a.zip", api.ExportOptions(configurations=("3d",)))


def test_a_run_with_an_odd_name_is_not_exported(changed, tmp_path):
    root = changed.run(NAME, "3d").root
    root.rename(root.with_name("3d (copy)"))
    with pytest.raises(InputError, match="letters, digits, - and _"):
        api.export_model(changed, "7", tmp_path / "a.zip", api.ExportOptions(configurations=("3d (copy)",)))


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("best.json", True),
        ("mv__holdout/fold_12/views/coarse/axial.safetensors", True),
        ("3d/fold_all/coarse.safetensors", True),
        ("manifest.json", False),
        ("3d/fold_x/model_final.safetensors", False),
        ("3d/fold_0/model_final.safetensors\n", False),
        ("3d/plansXjson", False),
        ("3d/../plans.json", False),
        ("a/b/plans.json", False),
        ("3d/fold_0/views/../axial.safetensors", False),
        ("3d/fold_0/checkpoint_last.pt", False),
        ("best.json/plans.json", False),
        ("", False),
    ],
)
def test_only_known_files_are_allowed(path, allowed):
    assert is_allowed(path) == allowed


@pytest.mark.parametrize(
    "name", ["Dataset007_a/b", "Dataset007_..\\b", "Dataset007_a:b", "Dataset007_a\x1b", "Tiny", ".."]
)
def test_names_of_data_sets_are_names_of_folders(name):
    content = {"channel_names": ["MRI"], "labels": {"names": {"background": 0, "a": 1}}, "usage": [], "files": []}
    assert Manifest.model_validate({"dataset_name": "Dataset007_Ti ny.é", **content})
    with pytest.raises(ValueError, match="without path separators"):
        Manifest.model_validate({"dataset_name": name, **content})


def test_a_model_of_another_data_set_is_told(changed, tmp_path):
    root = changed.results / NAME
    root.rename(root.with_name("Dataset008_Other"))
    options = api.ExportOptions(configurations=("3d",))
    assert api.export_model(changed, "8", tmp_path / "a.zip", options).dataset_name == NAME
    plans = root.with_name("Dataset008_Other") / "3d" / "plans.json"
    plans.write_text(plans.read_text().replace(NAME, "Dataset008_Other"))
    with pytest.raises(InputError, match="another data set"):
        api.export_model(changed, "8", tmp_path / "b.zip", options)


def test_an_archive_that_is_there_already_is_said_to_be(trained, tmp_path, caplog):
    archive, words = tmp_path / "a.zip", ["export_model", 7, "-c", "3d", "-o"]
    run(trained, *words, archive)
    os.utime(archive, (5, 5))
    (tmp_path / f".tmp-{10**30}-a.zip").touch()
    with caplog.at_level("INFO"):
        run(trained, *words, archive)
    assert archive.stat().st_mtime == 5
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.zip"]
    before = archive.read_bytes()
    run(trained, "export_model", 7, "-c", "axial__fine", "-o", archive, status=2)
    assert archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.zip"]
