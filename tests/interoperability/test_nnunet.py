"""nnU-Net's own code reads what we write, and we read what it writes.

Needs nnunetv2, in an environment of its own: see CONTRIBUTING.md.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name

from seg25d.core.records import write_record
from seg25d.core.workspace import Workspace
from seg25d.data.image_io import read_geometry, read_labels, write_labels
from seg25d.data.labels import Labels
from seg25d.ensembling.ensemble import ensemble_folders
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.prediction_files import PredictionRecord
from seg25d.inference.probability_files import read_probabilities, write_probabilities
from seg25d.inference.probability_maps import open_probability_map
from seg25d.selection.nnunet_results import import_nnunet_results

nnunet = pytest.importorskip("nnunetv2.ensembling.ensemble", reason="nnunetv2 is not installed")
export = pytest.importorskip("nnunetv2.inference.export_prediction")
handler = pytest.importorskip("nnunetv2.utilities.plans_handling.plans_handler")

pytestmark = pytest.mark.slow
NAME = "Dataset003_Some"
SHAPE = (6, 7, 8)
DIRECTION = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
READERS = ("SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient")
CLASSES = {"labels": {"background": 0, "organ": 1, "lesion": 2}}
REGIONS = {"labels": {"background": 0, "all": [1, 2], "lesion": [2]}, "regions_class_order": [1, 2]}
OPTIONS = EnsembleOptions(save_probabilities=True, num_processes=0)


def labels_of(description: dict[str, Any]) -> Labels:
    names = {key: tuple(value) if isinstance(value, list) else value for key, value in description["labels"].items()}
    return Labels(names=names, regions_class_order=description.get("regions_class_order"))


def describe(meaning: dict[str, Any]) -> dict[str, Any]:
    return {"channel_names": {"0": "MRI"}, "numTraining": 2, "file_ending": ".nii.gz", **meaning}


def make_plans(reader: str = "SimpleITKIO") -> dict[str, Any]:
    """What nnU-Net looks up in its plans to write a prediction."""
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "architecture": {},
        "spacing": [2.1, 0.8, 0.7],
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling,
    }
    return {
        "dataset_name": NAME,
        "plans_name": "nnUNetPlans",
        "image_reader_writer": reader,
        "label_manager": "LabelManager",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
    }


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
    image.SetSpacing((0.7, 0.8, 2.1))
    image.SetOrigin((10.3, -20.7, 30.1))
    image.SetDirection(DIRECTION)
    sitk.WriteImage(image, str(path))
    return path


def write_ours(folder: Path, meaning: dict[str, Any], seed: int) -> Path:
    """Cases a and b as `predict --save-probabilities` writes them."""
    labels, rng = labels_of(meaning), np.random.default_rng(seed)
    for case in "ab":
        geometry = read_geometry(write_image(folder.parent / "images" / f"{case}_0000.nii.gz"))
        probabilities = rng.random((labels.num_outputs, *geometry.canonical_shape)).astype(np.float32)
        if not labels.has_regions:
            probabilities /= probabilities.sum(0)
        target = folder / f"{case}.nii.gz"
        write_probabilities(target, probabilities, geometry)
        write_labels(target, labels.decode(labels.from_probabilities(probabilities)), geometry)
    write_record(folder / "prediction.json", PredictionRecord(model={"seed": seed}, labels=labels))
    return folder


def write_theirs(folder: Path, meaning: dict[str, Any], seed: int, reader: str = "SimpleITKIO") -> Path:
    """Cases a and b as nnU-Net predicts them with `--save_probabilities`: cropped, by its own functions."""
    folder.mkdir(parents=True)
    plans = make_plans(reader)
    manager = handler.PlansManager(plans)
    num_outputs = labels_of(meaning).num_outputs
    for case in "ab":
        image = write_image(folder.parent / "images" / f"{case}_0000.nii.gz")
        array, properties = manager.image_reader_writer_class().read_images([str(image)])
        shape = array.shape[1:]
        cropped = (shape[0] - 2, *shape[1:])
        properties |= {
            "shape_before_cropping": shape,
            "bbox_used_for_cropping": [[1, shape[0] - 1], [0, shape[1]], [0, shape[2]]],
            "shape_after_cropping_and_before_resampling": cropped,
        }
        logits = np.random.default_rng((seed, ord(case))).normal(size=(num_outputs, *cropped)).astype(np.float32)
        configuration, target = manager.get_configuration("3d_fullres"), str(folder / case)
        export.export_prediction_from_logits(
            logits, properties, configuration, manager, describe(meaning), target, save_probabilities=True
        )
    (folder / "dataset.json").write_text(json.dumps(describe(meaning)))
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "predict_from_raw_data_args.json").write_text(json.dumps({"save_probabilities": True}))
    return folder


def fuse_theirs(folders: list[Path], out: Path, meaning: dict[str, Any] | None = None) -> None:
    """Let nnU-Net fuse folders; without a meaning it takes what is in the first."""
    nnunet.ensemble_folders(
        [str(folder) for folder in folders],
        str(out),
        save_merged_probabilities=True,
        num_processes=1,
        dataset_json_file_or_dict=describe(meaning) if meaning else None,
        plans_json_file_or_dict=make_plans() if meaning else None,
    )


def check_same(ours: Path, theirs: Path) -> None:
    for case in "ab":
        labels, geometry = read_labels(ours / f"{case}.nii.gz")
        others, other = read_labels(theirs / f"{case}.nii.gz")
        assert geometry.difference(other) is None
        assert np.array_equal(labels, others)
        assert len(np.unique(labels)) > 1
        probabilities = read_probabilities(ours / f"{case}.npz")
        assert np.allclose(probabilities, read_probabilities(theirs / f"{case}.npz"), atol=1e-6)


@pytest.mark.parametrize("meaning", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_nnunet_fuses_our_predictions_as_we_do(tmp_path: Path, meaning: dict[str, Any]) -> None:
    folders = [write_ours(tmp_path / name, meaning, seed) for seed, name in enumerate(("one", "two"))]
    fuse_theirs(folders, tmp_path / "theirs", meaning)
    ensemble_folders(folders, tmp_path / "ours", OPTIONS)
    check_same(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("meaning", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_we_fuse_predictions_of_nnunet_as_it_does(tmp_path: Path, meaning: dict[str, Any]) -> None:
    folders = [write_theirs(tmp_path / name, meaning, seed) for seed, name in enumerate(("one", "two"))]
    fuse_theirs(folders, tmp_path / "theirs")
    ensemble_folders(folders, tmp_path / "ours", OPTIONS)
    check_same(tmp_path / "ours", tmp_path / "theirs")


def test_both_fuse_a_prediction_of_each(tmp_path: Path) -> None:
    folders = [write_theirs(tmp_path / "one", CLASSES, 0), write_ours(tmp_path / "two", CLASSES, 1)]
    fuse_theirs(folders, tmp_path / "theirs")
    ensemble_folders(folders, tmp_path / "ours", OPTIONS)
    check_same(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("meaning", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_validation_cases_of_nnunet_are_imported(tmp_path: Path, meaning: dict[str, Any], reader: str) -> None:
    workspace = Workspace.resolve(tmp_path / "workspace", {})
    raw = workspace.raw_dataset(NAME)
    source = tmp_path / "nnUNet_results" / NAME / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    folder = write_theirs(source / "fold_0" / "validation", meaning, 0, reader)
    for name in ("dataset.json", "plans.json"):
        (folder / name).rename(source / name)
    for case in "ab":
        image = write_image(raw / "imagesTr" / f"{case}_0000.nii.gz")
        geometry = read_geometry(image)
        write_labels(raw / "labelsTr" / f"{case}.nii.gz", np.zeros(geometry.canonical_shape, np.uint8), geometry)
    (raw / "dataset.json").write_text(json.dumps(describe(meaning)))
    run = import_nnunet_results(workspace, source, "3", num_processes=0)
    labels = labels_of(meaning)
    for case in "ab":
        stored = open_probability_map(run.fold(0).probabilities / f"{case}.b2nd")[...]
        segmentation = labels.encode(read_labels(folder / f"{case}.nii.gz")[0], case)
        assert np.mean(labels.from_probabilities(stored.astype(np.float32)) == segmentation) > 0.99
