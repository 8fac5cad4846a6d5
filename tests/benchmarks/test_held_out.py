"""Data sets with cases that are kept back: what is in them, and that results are kept by their file alone.

benchmarks/held_out.py, few_slices_labelled.py, thick_slices.py. Commands stand aside; what they would be asked is seen.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import few_slices_labelled
import held_out
import numpy as np
import pytest
import thick_slices
from held_out import Source, Volume, check_seeds, coarser_in_plane, find_source, succeeds
from machines import this_machine
from result_tables import Row
from thick_slices import between, compare, fewest_left_out, from_thick, repeated_slices, share_same, thick, thin

from seg25d.cli.common import INTERRUPTED
from seg25d.data.dataset import read_dataset
from seg25d.data.image_io import read_geometry, read_image, read_labels
from seg25d.data.verify import verify_dataset
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.positions import linear_positions, nearest_voxels

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

    def train(workspace: Path, identifier: str, configuration: str, iterations: int, seed: int) -> Row:
        commands.append(("train", identifier, configuration, str(iterations), str(seed)))
        return {"window": [8, 8, 8], "batch_size": 2}

    def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
        commands.append(("predict", identifier, configuration))
        out.mkdir(parents=True, exist_ok=True)
        for path in (images.parent / "labelsTs").iterdir():
            (out / path.name).write_bytes(path.read_bytes())

    def score(workspace: Path, truth: Path, out: Path) -> Row:
        cases = [path.name.removesuffix(".nii.gz") for path in sorted(out.iterdir())]
        return {"cases": cases, "scores": {"dice": [0.5] * len(cases), "hd95_mm": [3.0] * len(cases)}}

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
    assert (first["cases"], first["scores"]) == (["case_0", "case_1"], {"dice": [0.5, 0.5], "hd95_mm": [3.0, 3.0]})
    assert first["machine"] == this_machine(None)
    assert (first["window"], first["batch_size"]) == ([8, 8, 8], 2)
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
    monkeypatch.setattr(held_out, "seg25d", lambda words: INTERRUPTED)
    with pytest.raises(KeyboardInterrupt):
        held_out.run(tmp_path, "train", "900")


@pytest.mark.parametrize("every", [2, 3])
def test_thick_slices_are_real_ones_and_those_that_preprocessing_takes(source: Source, every: int) -> None:
    volume = source.read("case_4")
    finer, coarser = thin(volume, every), thick(volume, every)
    number = 7 // every
    assert finer.image.shape == (1, every * number, 8, 6)
    assert (finer.spacing_mm, coarser.spacing_mm) == ((10.0, 1.5, 1.5), (10.0 * every, 1.5, 1.5))
    np.testing.assert_array_equal(finer.labels, volume.labels[: every * number])
    taken = nearest_voxels(every * number, number)
    np.testing.assert_array_equal(coarser.image, volume.image[:, taken])
    np.testing.assert_array_equal(coarser.labels, volume.labels[taken])


@pytest.mark.parametrize(
    ("spacing_mm", "every"),
    [((1.0, 1.0, 1.0), 4), ((3.27, 1.95, 1.95), 2), ((10.0, 1.5, 1.5), 2), ((1.0, 2.0, 0.5), 2)],
)
def test_slices_that_are_kept_are_more_than_three_times_as_thick_as_pixels(
    spacing_mm: tuple[float, float, float], every: int
) -> None:
    assert fewest_left_out(spacing_mm) == every


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
    nearest, middles, taken = (
        compare(truth, from_thick(truth, factor, rule), (1.0, 1.0, 1.0)) for rule in thick_slices.RULES.values()
    )
    assert nearest[0] < taken[0] <= 1
    assert middles[0] <= taken[0] + 1e-3
    assert nearest[1] >= taken[1], "HD95"
    assert nearest[2] == pytest.approx((16 - 16 // factor) / 15)
    assert taken[2] < nearest[2]


def test_slices_that_are_the_same_are_counted(tmp_path: Path, source: Source) -> None:
    labels = np.zeros((6, 4, 4), np.uint8)
    labels[1:3, 1, 1] = 1
    labels[3, 1:3, 1] = 1
    # Pairs with a structure: 0 and 1, 1 and 2 (the same), 2 and 3, 3 and 4.
    volume = Volume(np.zeros((1, 6, 4, 4), np.float32), labels, (1.0, 1.0, 1.0))
    source.write(tmp_path / "found", "Ts", "a", volume)
    assert share_same(tmp_path / "found" / "labelsTs") == 0.25
    assert share_same(tmp_path / "none") == 0


def test_repeated_slices_are_those_of_nnunet() -> None:
    grid = Grid.plan((12, 9, 9), (10 / 3, 1.0, 1.0), ((0, 12), (0, 9), (0, 9)), (10.0, 1.0, 1.0))
    found = repeated_slices(grid, 0)
    assert found is not None
    assert found.low.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert repeated_slices(grid, 1) is None


def thick_trials(source: Source, tmp_path: Path, place: str, *words: str) -> int:
    where = ["--data", str(source.folder.parent), "--workspace", str(tmp_path / place), "-o", str(tmp_path / "t.json")]
    return thick_slices.main([*where, "--train", "27", "--iterations", "5", "--seeds", "0", "1", *words])


def test_models_of_both_kinds_see_images_of_both(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert thick_trials(source, tmp_path, "workspace") == 0
    assert "Dataset027_Tiny, every 2: 10 of 10 cases serve\n" in capsys.readouterr().out
    assert [words[1:] for words in asked if words[0] == "train"] == [
        (number, "2d", "5", seed) for number, seed in (("900", "0"), ("901", "0"), ("902", "1"), ("903", "1"))
    ]
    assert len([words for words in asked if words[0] == "predict"]) == 2 * 5
    root = tmp_path / "workspace" / "Dataset027_Tiny_2_1_5_updates"
    trained = [root / f"raw/Dataset{number}_Tiny/labelsTr/case_2.nii.gz" for number in (900, 901)]
    assert [read_geometry(path).canonical_shape[0] for path in trained] == [3, 6]
    tests = [root / "tests" / kind / "imagesTs" / "case_0_0000.nii.gz" for kind in ("thick", "thin")]
    assert [read_geometry(path).canonical_shape[0] for path in tests] == [3, 6]
    # The truth of thin images are the labels of the data set, not something between those of thick ones.
    truth, _ = read_labels(root / "tests/thin/labelsTs/case_0.nii.gz")
    np.testing.assert_array_equal(truth, source.read("case_0").labels[:6])
    kept = json.loads((tmp_path / "t.json").read_text(encoding="utf-8"))
    settings = {"dataset": "Dataset027_Tiny", "every": "2", "in_plane": "1", "iterations": "5", "seeds": "0"}
    assert kept["trainings"][0]["settings"] == settings
    assert kept["trainings"][0]["same"] == kept["trainings"][0]["same_in_truth"]
    asked.clear()
    assert thick_trials(source, tmp_path, "elsewhere") == 0
    assert not asked
    assert not (tmp_path / "elsewhere").exists()
    last = capsys.readouterr().out.splitlines()[-6:]
    assert last[0].startswith("model  images  between")
    assert [line.split()[:3] for line in last[1:]] == [list(trial) for trial in thick_slices.TRIALS]
    assert "dice +0.000" in last[2]
    assert "hd95_mm +0.000" in last[2]


def test_only_what_is_to_be_repeated_is(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    ways: list[tuple[str, bool]] = []
    usual: Callable[..., object] = thick_slices.export.separate_positions

    def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
        out.mkdir(parents=True)
        ways.append((out.name, thick_slices.export.separate_positions is usual))

    monkeypatch.setattr(thick_slices, "predict", predict)
    thick_trials(source, tmp_path, "workspace")
    assert all(is_usual != name.endswith("repeated") for name, is_usual in ways)
    assert len(ways) == 10


def test_cases_whose_structures_show_in_one_slice_do_not_serve(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    volume = source.read("case_7")
    hidden = np.where(np.arange(7)[:, None, None] == 3, volume.labels, 0).astype(np.uint8)
    source.write(source.folder, "Tr", "case_7", volume._replace(labels=hidden))
    assert thick_trials(source, tmp_path, "workspace") == 0
    assert "every 2: 9 of 10 cases serve, but not case_7\n" in capsys.readouterr().out
    trained = (tmp_path / "workspace/Dataset027_Tiny_2_1_5_updates/raw/Dataset900_Tiny/labelsTr").iterdir()
    assert sorted(path.name for path in trained) == [f"case_{number}.nii.gz" for number in (2, 3, 4, 5, 6, 8, 9)]


def test_slices_that_would_be_interpolated_anyway_are_refused(source: Source, tmp_path: Path) -> None:
    for case in (*source.trained, *source.kept):
        source.write(source.folder, "Tr", case, source.read(case)._replace(spacing_mm=(1.0, 1.0, 1.0)))
    with pytest.raises(SystemExit, match=r"case_2 .* voxels of 1 x 1 x 1 mm; expected --every 4 or more, got 3"):
        thick_trials(source, tmp_path, "workspace", "--every", "3")
    with pytest.raises(SystemExit, match="expected cases to train on and some kept back, got 0 and 0"):
        thick_trials(source, tmp_path, "workspace", "--every", "4")


def test_a_failed_training_does_not_stop_the_others(
    source: Source,
    tmp_path: Path,
    asked: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    usual: Callable[..., Row] = thick_slices.train

    def train(workspace: Path, identifier: str, configuration: str, iterations: int, seed: int) -> Row:
        if identifier == "901":
            raise RuntimeError("seg25d train 901 ended with 2")
        return usual(workspace, identifier, configuration, iterations, seed)

    monkeypatch.setattr(thick_slices, "train", train)
    monkeypatch.setattr(few_slices_labelled, "train", train)
    assert thick_trials(source, tmp_path, "workspace") == 1
    assert [words[1] for words in asked if words[0] == "train"] == ["900", "902", "903"]
    told = "failed: a model of thin slices, seed 0: seg25d train 901 ended with 2"
    assert told in capsys.readouterr().err
    asked.clear()
    assert few(source, tmp_path) == 1
    assert [words[1] for words in asked if words[0] == "train"] == ["900", "902", "903", "904", "905"]
    assert "failed: Dataset027_Tiny, 2d, one slice in 5, seed 0: " in capsys.readouterr().err
    assert succeeds("nothing", lambda: None)


def test_what_would_end_hours_later_is_refused_at_once(
    source: Source, tmp_path: Path, asked: list[tuple[str, ...]], capsys: pytest.CaptureFixture[str]
) -> None:
    data = source.folder.parent
    with pytest.raises(SystemExit, match=r"one folder Dataset004_NAME in .*, got none"):
        find_source(data, 4)
    with pytest.raises(SystemExit, match="expected seeds from 0 to 32, got 33"):
        check_seeds([0, 33], 3)
    check_seeds([0, 32], 3)
    with pytest.raises(SystemExit, match="got none"):
        few(source, tmp_path, "--datasets", "27", "4")
    with pytest.raises(SystemExit):
        few(source, tmp_path, "--configurations", "2d", "sj")
    assert "there is no configuration 'sj'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="expected seeds from 0 to 49, got -1"):
        thick_trials(source, tmp_path, "workspace", "--seeds", "-1")
    (tmp_path / "file").touch()
    for benchmark in (few, thick_trials):
        words = ("-o", str(tmp_path / "file" / "results.json"))
        with pytest.raises(SystemExit):
            benchmark(source, tmp_path, *(words if benchmark is few else ("workspace", *words)))
        assert "is a file, not a folder" in capsys.readouterr().err
    assert not asked


def test_a_place_for_hours_of_results_is_needed(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--workspace", "workspace"], ["-o", "file.json"]):
        with pytest.raises(SystemExit):
            thick_slices.main(["--data", str(source.folder.parent), "--train", "27", *words])
        assert "--train needs --workspace and --output" in capsys.readouterr().err


def test_labels_alone_are_compared(source: Source, capsys: pytest.CaptureFixture[str]) -> None:
    assert thick_slices.main(["--data", str(source.folder.parent)]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["data", "set", "factor"]
    assert [line.split()[1] for line in lines] == ["1.25", "2", "3", "3.33", "4", "5"]
    for line in lines:
        dice, hd95, same = (line.split(name)[1].split()[:3] for name in ("Dice:", "HD95 mm:", "same:"))
        assert all(0 < float(each) <= 1 for each in dice)
        assert all(0 <= float(each) < 100 for each in hd95)
        assert all(0 <= float(each) <= 1 for each in same)
