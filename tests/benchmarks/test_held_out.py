"""Data sets with cases that are kept back: what is in them, and that results are kept by their file alone.

benchmarks/held_out.py, few_slices_labelled.py, thick_slices.py. Commands stand aside; what they would be asked is seen.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import few_slices_labelled
import held_out
import numpy as np
import pytest
import thick_slices
from held_out import Source, Volume, coarser_in_plane, find_source
from machines import this_machine
from result_tables import Row
from thick_slices import between, repeated_slices, share_identical, thinner

from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_geometry, read_image, read_labels
from seg25d.data.verify import verify_dataset
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.positions import linear_positions

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
SHAPE = (7, 8, 6)
LABELS = {"background": 0, "a": 1, "b": 2}


@pytest.fixture
def source(tmp_path: Path, rng: np.random.Generator) -> Source:
    """Ten cases of five patients, of whom the first is kept back."""
    folder = tmp_path / "raw" / "Dataset027_Tiny"
    description = {"channel_names": {"0": "MRI"}, "labels": LABELS, "numTraining": 10, "file_ending": ".nii.gz"}
    cases = [f"case_{number}" for number in range(10)]
    made = Source(folder, description, cases, [])
    for case in cases:
        labels = np.zeros(SHAPE, np.uint8)
        labels[1:6, 2:6, 1:5] = 1
        labels[:, 3:5, 2:4] = 2
        image = (labels + rng.normal(0, 0.1, SHAPE)).astype(np.float32)[None]
        made.write(folder, "Tr", case, Volume(image, labels, (10.0, 1.5, 1.5)))
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    patients = {case: f"patient_{number // 2}" for number, case in enumerate(cases)}
    (folder / "patients.json").write_text(json.dumps(patients), encoding="utf-8")
    return find_source(tmp_path / "raw", 27)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The commands that a benchmark asks for, which stand aside: what is predicted is the truth."""
    commands: list[tuple[str, ...]] = []

    def train(workspace: Path, identifier: str, configuration: str, iterations: int, seed: int) -> None:
        commands.append(("train", identifier, configuration, str(iterations), str(seed)))

    def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
        commands.append(("predict", identifier, configuration))
        out.mkdir(parents=True, exist_ok=True)
        for path in (images.parent / "labelsTs").iterdir():
            (out / path.name).write_bytes(path.read_bytes())

    def score(workspace: Path, truth: Path, out: Path) -> Row:
        cases = [path.name.removesuffix(".nii.gz") for path in sorted(out.iterdir())]
        return {"cases": cases, "scores": {"dice": [0.5] * len(cases)}}

    for module in (few_slices_labelled, thick_slices):
        for function in (train, predict, score):
            monkeypatch.setattr(module, function.__name__, function)
    return commands


def test_whole_patients_are_kept_back(source: Source) -> None:
    assert source.kept == ["case_0", "case_1"]
    assert source.trained == [f"case_{number}" for number in range(2, 10)]


def test_without_patients_every_fifth_case_is_kept_back(source: Source, tmp_path: Path) -> None:
    (source.folder / "patients.json").unlink()
    assert find_source(tmp_path / "raw", 27).kept == ["case_0", "case_5"]


def test_a_case_is_written_as_it_was_read(source: Source, tmp_path: Path) -> None:
    volume = source.read("case_3")
    source.write(tmp_path / "again", "Ts", "case_3", volume)
    image, geometry = read_image([tmp_path / "again" / "imagesTs" / "case_3_0000.nii.gz"])
    labels, _ = read_labels(tmp_path / "again" / "labelsTs" / "case_3.nii.gz")
    np.testing.assert_array_equal(image, volume.image)
    np.testing.assert_array_equal(labels, volume.labels)
    assert geometry.canonical_spacing_mm == volume.spacing_mm == (10.0, 1.5, 1.5)


def test_pixels_are_averaged_in_the_plane() -> None:
    image = np.arange(2 * 5 * 4, dtype=np.float32).reshape(1, 2, 5, 4)
    labels = np.zeros((2, 5, 4), np.uint8)
    labels[0, :2, :2] = [[1, 1], [1, 0]]
    labels[1, 2:4, 2:] = 2
    volume = coarser_in_plane(Volume(image, labels, (3.0, 1.0, 0.5)), 2)
    assert volume.spacing_mm == (3.0, 2.0, 1.0)
    assert volume.image[0, 0].tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert volume.labels.tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 2]]]


def few(source: Source, tmp_path: Path, *words: str) -> int:
    place = ["--data", str(source.folder.parent), "--workspace", str(tmp_path / "workspace")]
    return few_slices_labelled.main(
        [*place, "--datasets", "27", "--iterations", "7", "--seeds", "0", "1", "-o", str(tmp_path / "few.json"), *words]
    )


def test_arms_differ_in_what_is_labelled(source: Source, tmp_path: Path, asked: list[tuple[str, ...]]) -> None:
    few(source, tmp_path, "--slices-labelled", "3")
    raw = tmp_path / "workspace" / "Dataset027_Tiny_3_1_7_updates" / "raw"
    data = {arm: read_dataset(raw / f"Dataset90{number}_Tiny") for number, arm in enumerate("asc")}
    assert [len(data[arm].cases) for arm in "asc"] == [8, 8, 2]
    assert [verify_dataset(each.root, 0) for each in data.values()] == [[], [], []]
    assert data["s"].description.labels.ignore_value == 3
    assert data["a"].description.labels.ignore_value is None
    phases = set()
    for case in data["s"].cases:
        assert case.label is not None
        labels, _ = read_labels(case.label)
        shown = np.flatnonzero((labels != 3).all((1, 2)))
        assert (np.diff(shown) == 3).all()
        assert ((labels == 3).all((1, 2)) | (labels != 3).all((1, 2))).all()
        phases.add(int(shown[0]))
    assert len(phases) > 1, "other slices in other cases"
    for each in data.values():
        kept = sorted(path.name for path in (each.root / "labelsTs").iterdir())
        assert kept == ["case_0.nii.gz", "case_1.nii.gz"]
        assert (read_labels(each.root / "labelsTs" / "case_0.nii.gz")[0] != 3).all()


def test_trainings_are_kept_by_the_file_alone(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert few(source, tmp_path, "--configurations", "2d", "si") == 0
    trained = [words for words in asked if words[0] == "train"]
    assert len(trained) == 2 * 3 * 2
    assert ("train", "904", "si", "7", "1") in trained
    kept = json.loads((tmp_path / "few.json").read_text(encoding="utf-8"))
    first = kept["trainings"][0]
    settings = {"slices_labelled": "5", "in_plane": "1", "iterations": "7", "seeds": "0"}
    assert first["settings"] == {"dataset": "Dataset027_Tiny", "configuration": "2d", **settings}
    assert (first["name"], first["dataset"]) == ("2d, all labels", "Dataset027_Tiny")
    assert (first["cases"], first["scores"]) == (["case_0", "case_1"], {"dice": [0.5, 0.5]})
    assert first["machine"] == this_machine(None)
    asked.clear()
    # On another machine: with the file, and an empty workspace; one training is missing.
    kept["trainings"].pop(4)
    (tmp_path / "few.json").write_text(json.dumps(kept), encoding="utf-8")
    other = tmp_path / "other"
    place = ["--data", str(source.folder.parent), "--workspace", str(other), "-o", str(tmp_path / "few.json")]
    same = ["--datasets", "27", "--iterations", "7", "--seeds", "0", "1", "--configurations", "2d", "si"]
    assert few_slices_labelled.main([*place, *same]) == 0
    assert [words for words in asked if words[0] == "train"] == [("train", "901", "si", "7", "0")]
    last = capsys.readouterr().out.splitlines()[-6:]
    assert [line.split()[:2] for line in last] == [["Dataset027_Tiny", name] for name in ("2d",) * 3 + ("si",) * 3]
    assert "one slice in 5" in last[1]


def test_results_of_other_settings_are_not_mixed_in(source: Source, tmp_path: Path, asked: list[Any]) -> None:
    few(source, tmp_path)
    asked.clear()
    few(source, tmp_path)
    assert not asked
    for words in (["--slices-labelled", "4"], ["--iterations", "8"], ["--in-plane", "2"]):
        asked.clear()
        few(source, tmp_path, *words)
        assert len([each for each in asked if each[0] == "train"]) == 2 * 3, words
    trainings = json.loads((tmp_path / "few.json").read_text(encoding="utf-8"))["trainings"]
    assert len(trainings) == 4 * 2 * 3


def test_scores_are_those_of_the_command(tmp_path: Path) -> None:
    labels = np.zeros((3, 4, 4), np.uint8)
    labels[1, 1:3, 1:3] = 1
    volume = Volume(np.zeros((1, 3, 4, 4), np.float32), labels, (1.0, 1.0, 1.0))
    for folder in ("truth", "found"):
        Source(tmp_path, {"file_ending": ".nii.gz"}, [], []).write(tmp_path / folder, "Ts", "a", volume)
    description = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "a": 1}, "file_ending": ".nii.gz"}
    (tmp_path / "truth" / "dataset.json").write_text(json.dumps(description | {"numTraining": 1}), encoding="utf-8")
    found = held_out.score(tmp_path, tmp_path / "truth" / "labelsTs", tmp_path / "found" / "labelsTs")
    assert found["cases"] == ["a"]
    assert (found["scores"]["dice"], found["scores"]["hd95_mm"]) == ([1.0], [0.0])


def test_failed_commands_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(held_out, "seg25d", lambda words: 2)
    with pytest.raises(RuntimeError, match="seg25d train 900 2d all --iterations 3 --seed 1 ended with 2"):
        held_out.run(tmp_path, "train", "900", "2d", "all", "--iterations", "3", "--seed", "1")


def test_thinner_slices_keep_the_slices_that_there_are(source: Source) -> None:
    volume = source.read("case_4")
    thin = thinner(volume)
    assert thin.image.shape == (1, 21, 8, 6)
    assert thin.spacing_mm == (10 / 3, 1.5, 1.5)
    np.testing.assert_allclose(thin.image[:, 1::3], volume.image, atol=1e-6)
    np.testing.assert_array_equal(thin.labels[1::3], volume.labels)
    np.testing.assert_allclose(thin.image[:, 2], (2 * volume.image[:, 0] + volume.image[:, 1]) / 3, atol=1e-6)


def test_labels_between_slices_lie_between_them() -> None:
    labels = np.zeros((2, 9, 9), np.uint8)
    labels[0, 4, 4], labels[1, 1:8, 1:8] = 3, 3
    found = between(labels, linear_positions(2, 6))
    sizes = np.count_nonzero(found, axis=(1, 2)).tolist()
    assert sizes[:2] == [1, 1]
    assert sizes[4:] == [49, 49]
    assert 1 < sizes[2] < sizes[3] < 49
    assert set(np.unique(found)) == {0, 3}


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_a_cone_is_best_between_the_slices_that_were_taken(factor: int) -> None:
    rows, columns = np.mgrid[-30:31, -30:31]
    radius = np.linspace(28, 4, 16)[:, None, None]
    truth = (np.hypot(rows, columns) <= radius).astype(np.uint8)
    nearest, middles, taken = (thick_slices.dice(truth, factor, rule) for rule in thick_slices.RULES)
    assert nearest < taken <= 1
    assert middles <= taken + 1e-3


def test_what_is_repeated_is_counted(tmp_path: Path, source: Source) -> None:
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[1:3, 1, 1] = 1
    labels[3, 1:3, 1] = 1
    # Pairs with a structure: 0 and 1, 1 and 2 (the same), 2 and 3, 3 and 4.
    volume = Volume(np.zeros((1, 6, 4, 4), np.float32), labels, (1.0, 1.0, 1.0))
    source.write(tmp_path / "found", "Ts", "a", volume)
    assert share_identical(tmp_path / "found" / "labelsTs") == 0.25
    assert share_identical(tmp_path / "none") == 0


def test_repeated_slices_are_those_of_nnunet() -> None:
    grid = Grid.plan((12, 9, 9), (10 / 3, 1.0, 1.0), ((0, 12), (0, 9), (0, 9)), (10.0, 1.0, 1.0))
    found = repeated_slices(grid, 0)
    assert found is not None
    assert found.low.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert repeated_slices(grid, 1) is None


def thick(source: Source, tmp_path: Path, place: str) -> int:
    where = ["--data", str(source.folder.parent), "--workspace", str(tmp_path / place), "-o", str(tmp_path / "t.json")]
    return thick_slices.main([*where, "--train", "27", "--iterations", "5", "--seeds", "0", "1"])


def test_models_of_both_kinds_see_images_of_both(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert thick(source, tmp_path, "workspace") == 0
    assert [words[1:] for words in asked if words[0] == "train"] == [
        (number, "2d", "5", seed) for number, seed in (("900", "0"), ("901", "0"), ("902", "1"), ("903", "1"))
    ]
    assert len([words for words in asked if words[0] == "predict"]) == 2 * 5
    root = tmp_path / "workspace" / "Dataset027_Tiny_1_5_updates"
    depths = {
        path: read_geometry(root / path / "case_2.nii.gz").canonical_shape[0]
        for path in ("raw/Dataset900_Tiny/labelsTr", "raw/Dataset901_Tiny/labelsTr")
    }
    assert [*depths.values()] == [7, 21]
    tests = [root / "tests" / kind / "imagesTs" / "case_0_0000.nii.gz" for kind in ("thick", "thin")]
    assert [read_geometry(path).canonical_shape[0] for path in tests] == [7, 21]
    asked.clear()
    assert thick(source, tmp_path, "elsewhere") == 0
    assert not asked
    assert not (tmp_path / "elsewhere").exists()
    last = capsys.readouterr().out.splitlines()[-6:]
    assert last[0].startswith("model  images  between")
    assert [line.split()[:3] for line in last[1:]] == [list(trial) for trial in thick_slices.TRIALS]


def test_the_results_of_the_repository_are_continued(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    source.folder.rename(source.folder.with_name("Dataset027_ACDC"))
    shutil.copyfile(RESULTS / "thick_slices.json", tmp_path / "t.json")
    place = ["--data", str(source.folder.parent), "--workspace", str(tmp_path / "w"), "-o", str(tmp_path / "t.json")]
    thick_slices.main([*place, "--train", "27", "--in-plane", "2", "--iterations", "150", "--seeds", "0"])
    assert [words for words in asked if words[0] == "train"] == [("train", "901", "2d", "150", "0")]
    lines = [line.split()[:5] for line in capsys.readouterr().out.splitlines() if line.startswith("thick")]
    assert lines[2] == ["thick", "thin", "repeated", "0.641", "0.692"]


def test_only_what_is_to_be_repeated_is(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[tuple[str, bool]] = []
    usual: Callable[..., object] = thick_slices.export.separate_positions

    def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
        out.mkdir(parents=True)
        ways.append((out.name, thick_slices.export.separate_positions is usual))

    monkeypatch.setattr(thick_slices, "predict", predict)
    thick(source, tmp_path, "workspace")
    assert all(is_usual != name.endswith("repeated") for name, is_usual in ways)
    assert len(ways) == 10


def test_a_workspace_is_needed(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        thick_slices.main(["--data", str(source.folder.parent), "--train", "27"])
    assert "--train needs --workspace and --output" in capsys.readouterr().err


def test_labels_alone_are_compared(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    assert thick_slices.main(["--data", str(source.folder.parent)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["data", "set", "factor"]
    assert [line.split()[1] for line in lines] == ["1.25", "2", "3", "3.33", "4", "5"]
