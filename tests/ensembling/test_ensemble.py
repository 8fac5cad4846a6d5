import json

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.cli.main import main
from seg25d.core.errors import CaseFailures, InputError
from seg25d.core.records import read_record, write_record
from seg25d.data.image_io import read_geometry
from seg25d.data.labels import Labels
from seg25d.ensembling import ensemble
from seg25d.ensembling.ensemble import ensemble_folders
from seg25d.ensembling.fuse import disputed_voxels
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings, worker_bytes
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.prediction_files import PredictionRecord
from seg25d.inference.probability_files import write_probabilities

SHAPE = (4, 5, 6)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
GAPS = Labels(names={"background": 0, "liver": 3, "spleen": 7})
TUMOUR = Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
ORGAN = Labels(names={"background": 0, "organ": 1})
HERE = {"num_processes": 0}


def write_image(path, values, spacing=(1.0, 2.0, 3.0)):
    """Values (z, y, x) in an orientation that is not the canonical one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.asarray(values))
    image.SetSpacing(spacing)
    image.SetOrigin((10.0, -20.0, 30.0))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))


def read_values(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def write_member(folder, cases, labels=None, model=None, threshold=None):
    """A folder of predictions; `cases` has values (z, y, x), or probabilities (K, z, y, x) to be written as well."""
    for name, array in cases.items():
        path = folder / f"{name}.nii.gz"
        if array.ndim == 3:
            write_image(path, array.astype(np.uint8))
            continue
        write_image(path, labels.decode(labels.from_probabilities(array, threshold)))
        geometry = read_geometry(path)
        write_probabilities(path, geometry.to_canonical(array.astype(np.float32)), geometry)
    record = PredictionRecord(model=model or {"name": folder.name}, labels=labels, threshold=threshold)
    write_record(folder / "prediction.json", record)
    return folder


def probabilities(rng, num_channels):
    return rng.dirichlet((1,) * num_channels, SHAPE).transpose(3, 0, 1, 2).astype(np.float32)


def fuse(folders, out, **options):
    ensemble_folders(folders, out, EnsembleOptions(**HERE, **options))


@pytest.fixture
def soft(tmp_path, rng):
    """Two folders with probabilities of three classes for the cases a and b, and these by folder and case."""
    arrays = [{name: probabilities(rng, 3) for name in "ab"} for _ in range(2)]
    folders = [write_member(tmp_path / f"member_{n}", each, GAPS) for n, each in enumerate(arrays)]
    return folders, arrays


@pytest.fixture
def hard(tmp_path, rng):
    """Three folders of labels for the cases a and b, and these by folder and case."""
    arrays = [{name: rng.choice([0, 3, 7], SHAPE).astype(np.uint8) for name in "ab"} for _ in range(3)]
    folders = [write_member(tmp_path / f"member_{n}", each) for n, each in enumerate(arrays)]
    return folders, arrays


@pytest.mark.parametrize("num_processes", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_mean_is_written_in_the_geometry_of_the_inputs(soft, tmp_path, num_processes):
    folders, arrays = soft
    options = EnsembleOptions(num_processes=num_processes, weights=(3, 1), save_probabilities=True)
    ensemble_folders(folders, tmp_path / "out", options)
    for name in "ab":
        mean = 0.75 * arrays[0][name] + 0.25 * arrays[1][name]
        path = tmp_path / "out" / f"{name}.nii.gz"
        np.testing.assert_array_equal(read_values(path), np.array([0, 3, 7])[mean.argmax(axis=0)])
        image = sitk.ReadImage(str(path))
        assert image.GetDirection() == DIRECTION
        assert image.GetSpacing() == (1.0, 2.0, 3.0)
        with np.load(tmp_path / "out" / f"{name}.npz") as archive:
            np.testing.assert_allclose(archive["probabilities"], mean, rtol=1e-5, atol=1e-6)
    record = read_record(tmp_path / "out" / "prediction.json", PredictionRecord)
    assert record.model["ensemble"] == "mean"
    assert record.model["weights"] == [3, 1]
    assert [each["model"]["name"] for each in record.model["folders"]] == ["member_0", "member_1"]
    assert record.labels == GAPS
    assert set(record.seconds) == {"a", "b"}


def test_an_ensemble_can_be_fused_again(soft, tmp_path):
    folders, _ = soft
    fuse(folders, tmp_path / "once", save_probabilities=True)
    fuse([*folders, tmp_path / "once"], tmp_path / "twice", weights=(1, 1, 2))
    np.testing.assert_array_equal(
        read_values(tmp_path / "once" / "a.nii.gz"), read_values(tmp_path / "twice" / "a.nii.gz")
    )


def test_regions_are_painted_from_their_mean(tmp_path, rng):
    arrays = [rng.random((2, *SHAPE)).astype(np.float32) for _ in range(2)]
    folders = [write_member(tmp_path / f"member_{n}", {"a": each}, TUMOUR) for n, each in enumerate(arrays)]
    fuse(folders, tmp_path / "out")
    whole, core = (arrays[0] + arrays[1]) / 2 > 0.5
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz"), np.where(core, 2, whole))


def test_a_threshold_of_the_models_counts(tmp_path, rng):
    arrays = [probabilities(rng, 2) for _ in range(2)]
    folders = [
        write_member(tmp_path / f"member_{n}", {"a": each}, ORGAN, threshold=0.3) for n, each in enumerate(arrays)
    ]
    fuse(folders, tmp_path / "out")
    expected = (arrays[0][1] + arrays[1][1]) / 2 >= 0.3
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz"), expected)
    write_member(tmp_path / "member_1", {"a": arrays[1]}, ORGAN)
    with pytest.raises(InputError, match=r"different thresholds \(0.3 and none\); use --method majority"):
        fuse(folders, tmp_path / "other")


def test_majority_takes_the_values_of_the_files(hard, tmp_path):
    folders, arrays = hard
    fuse(folders, tmp_path / "out", method="majority")
    stacked = np.stack([each["a"] for each in arrays])
    counts = np.stack([(stacked == value).sum(axis=0) for value in (0, 3, 7)])
    expected = np.where(counts.max(axis=0) == 1, 3, np.array([0, 3, 7])[counts.argmax(axis=0)])
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz"), expected)
    fuse(folders, tmp_path / "weighted", method="majority", weights=(1, 3, 1))
    np.testing.assert_array_equal(read_values(tmp_path / "weighted" / "a.nii.gz"), arrays[1]["a"])


def test_staple_fuses_files(hard, tmp_path):
    folders, arrays = hard
    fuse([folders[0], folders[1], folders[2]], tmp_path / "out", method="staple")
    assert set(np.unique(read_values(tmp_path / "out" / "a.nii.gz"))) <= set(np.unique(arrays[0]["a"]))


@pytest.mark.parametrize("naming", ["{}_0001.nii.gz", "{}.nii.gz"])
def test_nonlocal_staple_looks_at_the_channel_of_the_image(tmp_path, rng, make_raters, naming):
    truth = np.zeros((8, 8, 8), np.uint8)
    truth[:, :, 4:] = 1
    raters = make_raters(truth, [0.2, 0.2, 0.2])
    folders = [write_member(tmp_path / f"member_{n}", {"a": each}) for n, each in enumerate(raters)]
    image = truth + rng.normal(0, 0.01, truth.shape)
    write_image(tmp_path / "images" / naming.format("a"), image.astype(np.float32))
    options = {"channel": 1} if "_0001" in naming else {}
    fuse(folders, tmp_path / "out", method="nlstaple", images=tmp_path / "images", **options)
    disputed = disputed_voxels(raters)
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz")[disputed], truth[disputed])
    model = read_record(tmp_path / "out" / "prediction.json", PredictionRecord).model
    assert model["channel"] == options.get("channel", 0)
    assert model["settings"]["search_radius"] == 3


def test_fitted_weights_prefer_the_better_folder_and_are_written_down(tmp_path, rng):
    truth = rng.choice([0, 3, 7], SHAPE).astype(np.uint8)
    good = np.eye(3)[np.searchsorted([0, 3, 7], truth)].transpose(3, 0, 1, 2)
    bad = {name: probabilities(rng, 3) for name in "ab"}
    folders = [
        write_member(tmp_path / "good", {"a": 0.9 * good + 0.1 / 3, "b": bad["a"]}, GAPS),
        write_member(tmp_path / "bad", bad, GAPS),
    ]
    write_image(tmp_path / "truth" / "a.nii.gz", truth)
    write_image(tmp_path / "truth" / "further.nii.gz", truth)
    fuse(folders, tmp_path / "out", fit_weights=tmp_path / "truth")
    weights = read_record(tmp_path / "out" / "prediction.json", PredictionRecord).model["weights"]
    assert weights[0] > 0.8
    assert sum(weights) == pytest.approx(1)
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz"), truth)


def test_references_without_foreground_are_an_error(soft, tmp_path):
    write_image(tmp_path / "truth" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="no reference has any foreground"):
        fuse(soft[0], tmp_path / "out", fit_weights=tmp_path / "truth")
    assert not (tmp_path / "out").exists()


def test_goes_on_where_it_stopped(hard, tmp_path):
    folders, _ = hard
    out = tmp_path / "out"
    fuse(folders, out, method="majority")
    (out / "b.nii.gz").unlink()
    (out / "a.nii.gz").write_bytes(b"kept")
    fuse(folders, out, method="majority")
    assert (out / "a.nii.gz").read_bytes() == b"kept"
    assert (out / "b.nii.gz").exists()
    assert set(read_record(out / "prediction.json", PredictionRecord).seconds) == {"a", "b"}
    with pytest.raises(InputError, match="predictions of another model"):
        fuse(folders, out, method="staple")
    with pytest.raises(InputError, match="predictions of another model"):
        fuse(folders, out, method="majority", weights=(1, 2, 1))
    fuse(folders, out, method="staple", overwrite=True)
    assert (out / "a.nii.gz").read_bytes() != b"kept"
    assert read_record(out / "prediction.json", PredictionRecord).model["ensemble"] == "staple"


def test_files_of_other_programs_are_not_taken_for_done(hard, tmp_path):
    write_image(tmp_path / "out" / "a.nii.gz", np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match="holds a and no prediction"):
        fuse(hard[0], tmp_path / "out", method="majority")


def test_one_bad_case_does_not_stop_the_others(tmp_path, rng):
    # Large enough that the damage is not seen while the header is read.
    large = rng.dirichlet((1, 1, 1), (12, 14, 16)).transpose(3, 0, 1, 2).astype(np.float32)
    arrays = {"a": large, "b": probabilities(rng, 3)}
    folders = [write_member(tmp_path / name, arrays, GAPS) for name in ("member_0", "member_1")]
    path = folders[1] / "a.npz"
    content = bytearray(path.read_bytes())
    content[-2000] ^= 255
    path.write_bytes(content)
    with pytest.raises(CaseFailures, match=r"a: .*a\.npz is not a file with `probabilities`"):
        fuse(folders, tmp_path / "out")
    assert {each.name for each in (tmp_path / "out").iterdir()} == {"b.nii.gz", "prediction.json"}


def test_nothing_is_written_when_no_case_is_of_use(tmp_path):
    folders = [tmp_path / "images_0", tmp_path / "images_1"]
    for folder in folders:
        write_image(folder / "a.nii.gz", np.full(SHAPE, 0.5, np.float32))
    with pytest.raises(InputError, match=r"no case can be fused:\n.*whole numbers"):
        fuse(folders, tmp_path / "out", method="majority")
    assert not (tmp_path / "out").exists()


def test_a_fault_of_ours_is_collected(hard, tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr("seg25d.ensembling.ensemble.majority_vote", fail)
    with pytest.raises(CaseFailures, match="ours"):
        fuse(hard[0], tmp_path / "out", method="majority")


def test_the_command_and_nnunets_spellings(soft, tmp_path, capsys):
    folders, _ = soft
    words = ["ensemble", "-i", *map(str, folders), "-o", str(tmp_path / "out"), "--save_npz", "-np", "0"]
    assert main(words) == 0
    assert (tmp_path / "out" / "a.npz").exists()
    assert main([*words, "--method", "staple"]) == 2
    message = capsys.readouterr().err
    assert "error: --save-probabilities is for mean, not for staple" in message


def test_folders_of_nnunet_say_their_labels_themselves(soft, tmp_path):
    folders, arrays = soft
    content = {"channel_names": {"0": "CT"}, "labels": GAPS.names, "file_ending": ".nii.gz", "numTraining": 1}
    for folder in folders:
        (folder / "prediction.json").unlink()
        (folder / "dataset.json").write_text(json.dumps(content))
    fuse(folders, tmp_path / "out")
    mean = (arrays[0]["a"] + arrays[1]["a"]) / 2
    np.testing.assert_array_equal(read_values(tmp_path / "out" / "a.nii.gz"), np.array([0, 3, 7])[mean.argmax(axis=0)])


def test_workers_of_nonlocal_staple_have_room_for_votes(hard, tmp_path, monkeypatch):
    asked = []

    def choose(requested, bytes_per_worker, num_items):
        asked.append(bytes_per_worker)
        return 0

    monkeypatch.setattr(ensemble, "choose_num_workers", choose)
    folders, arrays = hard
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.nii.gz", arrays[0][name].astype(np.float32))
    fuse(folders, tmp_path / "majority", method="majority")
    fuse(folders, tmp_path / "nlstaple", method="nlstaple", images=tmp_path / "images")
    settings = NonlocalStapleSettings()
    assert asked[1] == worker_bytes(np.prod(SHAPE), len(folders), 256, settings) > asked[0]
