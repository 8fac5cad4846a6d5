"""Every archive that is damaged or malicious: status 2, a message that says what is wrong, nothing written."""

import hashlib
import json
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from seg25d import api
from seg25d.cli.main import main
from seg25d.core.workspace import Workspace
from seg25d.inference.predictor import PredictorOptions
from seg25d.runs.trained import ModelChoice
from seg25d.selection.chosen_model import choose_model
from seg25d.sharing import unpack
from seg25d.sharing.install import install

NAME = "Dataset007_Tiny"
MODEL = "3d/fold_0/model_final.safetensors"


class Draft:
    """An archive to be damaged: its files, its manifest, and how each file is put into the zip."""

    def __init__(self, archive: Path) -> None:
        with zipfile.ZipFile(archive) as file:
            self.files = {name: file.read(name) for name in file.namelist()}
        self.manifest: Any = json.loads(self.files.pop("manifest.json"))
        self.entries: dict[str, dict[str, Any]] = {}
        self.added: list[tuple[str, bytes]] = []
        """Files that the manifest does not know, or not again."""
        self.best: dict[str, Any] = {}
        """A `best.json` that chose what is not there."""
        self.finish: Callable[[bytes], bytes] = lambda content: content

    def put(self, name: str, content: bytes, **entry: Any) -> None:
        """Add or replace a file, in the manifest too; `entry` sets attributes of its entry in the zip."""
        self.files[name] = content
        self.entries[name] = entry
        listed = {file["path"]: file for file in self.manifest["files"]}
        listed[name] = {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.manifest["files"] = list(listed.values())

    def write(self, path: Path) -> None:
        manifest = [] if self.manifest is None else [("manifest.json", json.dumps(self.manifest).encode())]
        with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
            warnings.simplefilter("ignore", UserWarning)  # of names that are there twice
            for name, content in [*self.files.items(), *self.added, *manifest]:
                attributes = {"compress_type": zipfile.ZIP_STORED} | self.entries.get(name, {})
                late = {key: attributes.pop(key) for key in ("flag_bits", "file_size") if key in attributes}
                info = zipfile.ZipInfo(name)
                for key, value in attributes.items():
                    setattr(info, key, value)
                file.writestr(info, content)
                for key, value in late.items():
                    setattr(info, key, value)  # reaches the list at the end of the file
        path.write_bytes(self.finish(path.read_bytes()))


def without_manifest(draft: Draft) -> None:
    draft.manifest = None


def of_the_future(draft: Draft) -> None:
    draft.manifest |= {"schema_version": 2, "news": "what we do not know"}


def other_content(draft: Draft) -> None:
    draft.files[MODEL] = draft.files[MODEL][:-1] + b"?"


def other_size(draft: Draft) -> None:
    draft.files[MODEL] += b"?"


def lying_size(draft: Draft) -> None:
    draft.put("3d/plans.json", draft.files["3d/plans.json"], file_size=10)
    next(file for file in draft.manifest["files"] if file["path"] == "3d/plans.json")["bytes"] = 10


def missing_file(draft: Draft) -> None:
    del draft.files[MODEL]


def missing_plans(draft: Draft) -> None:
    del draft.files["3d/plans.json"]
    draft.manifest["files"] = [file for file in draft.manifest["files"] if file["path"] != "3d/plans.json"]


def other_header(**changes: object) -> Callable[[Draft], None]:
    """The model says something else about itself."""

    def damage(draft: Draft) -> None:
        content = draft.files[MODEL]
        size = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["seg25d"])
        draft.put(MODEL, save({"a": torch.zeros(1)}, {"seg25d": json.dumps(header | changes)}))

    return damage


def with_manifest(**changes: object) -> Callable[[Draft], None]:
    def damage(draft: Draft) -> None:
        draft.manifest |= changes

    return damage


def with_file(name: str, content: bytes = b"{}", **entry: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.put(name, content, **entry)


def with_best(**changes: object) -> Callable[[Draft], None]:
    def damage(draft: Draft) -> None:
        draft.put("best.json", json.dumps(draft.best | changes).encode())

    return damage


def twice(draft: Draft) -> None:
    draft.added = [(MODEL, draft.files[MODEL])]


def listed_twice(draft: Draft) -> None:
    draft.manifest["files"] *= 2


def hidden_end(draft: Draft) -> None:
    draft.added = [("si/plans.json#.pt", b"{}")]
    draft.finish = lambda content: content.replace(b"si/plans.json#.pt", b"si/plans.json\0.pt")


def truncated(draft: Draft) -> None:
    draft.finish = lambda content: content[: len(content) // 2]


def rotten(draft: Draft) -> None:
    """Bytes within a file changed on the way; the checksum of the zip tells."""
    model = draft.files[MODEL]
    draft.finish = lambda content: content.replace(model[-40:], b"?" * 40)


def outside(draft: Draft) -> None:
    """The end of the file says that everything else begins far away, which the entries then do not."""
    draft.finish = lambda content: content[:-6] + b"\xff\xff\xff\x7f" + content[-2:]


def nonsense(draft: Draft) -> None:
    draft.finish = lambda _: b"<html>404</html>"


def incomplete_fusion(draft: Draft) -> None:
    name = "mv/fold_all/views/coronal.safetensors"
    del draft.files[name]
    draft.manifest["files"] = [file for file in draft.manifest["files"] if file["path"] != name]


DEFLATED = {"compress_type": zipfile.ZIP_DEFLATED}
FAULTS: dict[str, tuple[Callable[[Draft], None], str]] = {
    "truncated": (truncated, "is not a zip file, or only a part of one"),
    "not a zip": (nonsense, "is not a zip file"),
    "list of entries outside": (outside, "manifest.json is damaged"),
    "rotten": (rotten, "model_final.safetensors is damaged"),
    "no manifest": (without_manifest, "manifest.json is missing"),
    "manifest is a list": (lambda draft: setattr(draft, "manifest", []), "manifest.json is not valid"),
    "manifest of the future": (of_the_future, "newer seg25d (schema 2, this one reads 1); update seg25d"),
    "unknown key": (with_manifest(surprise=1), "surprise: Extra inputs are not permitted"),
    "hash": (other_content, f"{MODEL} is not the file of the manifest, size or SHA-256 differ"),
    "hash in the manifest": (with_manifest(files=[{"path": MODEL, "bytes": 1, "sha256": "x"}]), "files.0.sha256"),
    "size": (other_size, "bytes, and its manifest says"),
    "size in the list of the zip": (lying_size, "3d/plans.json is damaged"),
    "extra file": (lambda draft: draft.added.append(("best.json", b"{}")), "'best.json' is not in its manifest"),
    "missing file": (missing_file, f"'{MODEL}' is missing"),
    "missing plans": (missing_plans, "3d is incomplete: plans.json is missing"),
    "missing view": (incomplete_fusion, "mv/fold_all/views/coronal.safetensors is missing"),
    "model of nothing": (
        lambda draft: draft.put("3d/fold_0/coarse.safetensors", draft.files[MODEL]),
        "3d/fold_0/coarse.safetensors belongs to no model",
    ),
    "absolute path": (with_file("/tmp/plans.json"), "'/tmp/plans.json' is an absolute path"),
    "parent": (with_file("../plans.json"), "'../plans.json' leads out of its folder"),
    "hidden parent": (with_file("3d/../../plans.json"), "leads out of its folder"),
    "backslash": (with_file("3d\\..\\plans.json"), "has a backslash in its name"),
    "drive": (with_file("C:/plans.json"), "'C:/plans.json' names a drive"),
    "symbolic link": (
        with_file("si/plans.json", b"/etc/passwd", external_attr=(stat.S_IFLNK | 0o777) << 16),
        "'si/plans.json' is a link or a special file",
    ),
    "pipe": (with_file("si/plans.json", external_attr=(stat.S_IFIFO | 0o777) << 16), "is a link or a special file"),
    "folder": (with_file("si/", b""), "'si/' is a folder"),
    "twice": (twice, f"'{MODEL}' occurs 2 times"),
    "listed twice": (listed_twice, "occurs 2 times"),
    "twice but for capitals": (
        with_file("3D/plans.json"),
        "'3D' and '3d' differ in capital letters only",
    ),
    "bomb": (with_file("si/plans.json", b" " * 1_000_000, **DEFLATED), "unpacks to more than 200 times its size"),
    "long record": (with_file("si/plans.json", b" ", file_size=1 << 27), "unpacks to more than"),
    "unusual compression": (
        with_file("si/plans.json", compress_type=zipfile.ZIP_LZMA),
        "is compressed in an unusual way",
    ),
    "pickle": (with_file("3d/fold_0/checkpoint_last.pt", pickle.dumps({})), "does not belong in an archive"),
    "pickle under another name": (with_file(MODEL, pickle.dumps({"a": 1})), f"{MODEL} is damaged or not a model"),
    "program": (with_file("3d/plans.py"), "does not belong in an archive of models"),
    "hidden end of a name": (hidden_end, "does not belong in an archive of models"),
    "wrong JSON": (with_file("3d/plans.json", b"{]"), "3d/plans.json is not valid JSON"),
    "JSON of another kind": (with_file("3d/plans.json", b"{}"), "3d/plans.json is not valid"),
    "deep JSON": (with_file("3d/fingerprint.json", b"[" * 50_000), "fingerprint.json is not valid JSON"),
    "long number": (with_file("3d/fingerprint.json", b"9" * 5000), "fingerprint.json is not valid JSON"),
    "best.json of nothing": (with_file("best.json", b'{"members": []}'), "best.json is not valid"),
    "best.json of others": (with_best(), "best.json chose fold 0 of 'si', which is missing"),
    "best.json of another data set": (
        with_best(dataset_name="Dataset008_Other"),
        "best.json is of another data set, 'Dataset008_Other'",
    ),
    "best.json of other labels": (
        with_best(postprocessing={"largest": ["2"]}),
        "best.json has post-processing for other labels",
    ),
    "best.json without a threshold": (
        with_best(postprocessing={"thresholds": {"1": 0.5}}),
        "best.json has post-processing for other labels",
    ),
    "no header": (with_file(MODEL, save({"a": torch.zeros(1)})), f"{MODEL} was not written by seg25d"),
    "another data set": (other_header(dataset_name="Dataset008_Other"), f"{MODEL} is of another data set"),
    "slash in the name of the data set": (with_manifest(dataset_name="Dataset007_a/b"), "DatasetNNN_Name, without"),
    "odd name of the data set": (with_manifest(dataset_name="../Dataset007_a"), "DatasetNNN_Name, without"),
    "other labels": (with_manifest(labels={"names": {"background": 0, "liver": 1}}), "other channels or labels"),
    "wrong labels": (with_manifest(labels={"names": {"liver": 1}}), "labels"),
    "encrypted": (with_file(MODEL, b"secret", flag_bits=1), f"'{MODEL}' is encrypted"),
}


@pytest.fixture(scope="module")
def sound(trained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with nothing wrong."""
    path = tmp_path_factory.mktemp("sound") / "sound.zip"
    api.export_model(trained, "7", path, api.ExportOptions(configurations=("3d", "mv")))
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """A workspace with results of another run of the same data set."""
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    (workspace.results / NAME / "other").mkdir(parents=True)
    (workspace.results / NAME / "other" / "plans.json").write_text("mine")
    return workspace


def tree(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


@pytest.mark.parametrize("fault", FAULTS)
def test_it_is_refused_and_nothing_is_written(sound, workspace, tmp_path, capsys, monkeypatch, choose, fault):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    damage, message = FAULTS[fault]
    draft = Draft(sound)
    choose(workspace, si=("0",))
    draft.best = json.loads(workspace.best(NAME).read_text())
    workspace.best(NAME).unlink()
    damage(draft)
    draft.write(tmp_path / "bad.zip")
    before = tree(tmp_path)
    place = ["--workspace", str(workspace.results.parent)]
    commands = (
        ["install_model", str(tmp_path / "bad.zip"), *place],
        ["predict", "-m", str(tmp_path / "bad.zip"), "-i", "absent", "-o", str(tmp_path / "out"), *place],
    )
    for command in commands:
        assert main(command) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("error: ") == 1
        assert "Traceback" not in said
        assert tree(tmp_path) == before


def test_the_sound_one_is_taken(sound, workspace, tmp_path):
    Draft(sound).write(tmp_path / "good.zip")
    install(workspace, tmp_path / "good.zip")
    assert workspace.run(NAME, "3d").trained_folds() == ["0", "1"]


def test_one_that_predicts_the_dice_from_another_figure_is_taken_without_that(sound, workspace, tmp_path, caplog):
    draft = Draft(sound)
    draft.put("3d/crossval/predicted_dice.json", json.dumps({"schema_version": 1, "lines": {}}).encode())
    draft.write(tmp_path / "older.zip")
    install(workspace, tmp_path / "older.zip")
    assert "predicted_dice.json is not used" in caplog.text
    caplog.clear()
    model = choose_model(workspace, ModelChoice(dataset="7", configuration="3d"))
    assert model.calibration_for(PredictorOptions()) is None
    assert "predicted_dice.json is not used" in caplog.text


def test_archives_that_are_not_there(workspace, tmp_path, capsys):
    for name in ("absent.zip", "workspace"):
        assert main(["install_model", str(tmp_path / name), "--workspace", str(tmp_path / "new")]) == 2
        assert f"{name} does not exist or is a folder" in capsys.readouterr().err
    words = ["-i", "absent", "-o", str(tmp_path / "out"), "--workspace", str(tmp_path / "new")]
    assert main(["predict", "-m", str(tmp_path / "absent.zip"), *words]) == 2
    assert "absent.zip does not exist" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_there_must_be_room(sound, workspace, monkeypatch, capsys):
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage)
    before = tree(workspace.results)
    assert main(["install_model", str(sound), "--workspace", str(workspace.results.parent)]) == 2
    assert "0.00 GB are free; make room" in capsys.readouterr().err
    assert tree(workspace.results) == before


def test_a_new_workspace_is_not_made_for_a_bad_archive(sound, tmp_path):
    draft = Draft(sound)
    other_content(draft)
    draft.write(tmp_path / "bad.zip")
    assert main(["install_model", str(tmp_path / "bad.zip"), "--workspace", str(tmp_path / "new" / "one")]) == 2
    assert not (tmp_path / "new").exists()
