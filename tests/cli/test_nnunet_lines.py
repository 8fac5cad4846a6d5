"""Command lines of nnU-Net's documentation, translated by nothing but their prefix, one after the other.

Once with small models that are written instead of trained, and without the line that plans everything; once as they
are, on the hippocampus where it is here, else on the phantom.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from seg25d.cli.main import main
from seg25d.data.phantom import write_phantom_dataset

# ID is the number of the data set, TR a trainer; cases to predict are in `ts`, their truth in `tsl`.
PLANS_EVERYTHING = "nnUNetv2_plan_experiment -d ID -pl ExperimentPlanner -gpu_memory_target 1"
LINES = f"""
nnUNetv2_convert_MSD_dataset -i Task09_Spleen -overwrite_id 9 -np 1
nnUNetv2_convert_old_nnUNet_dataset Task008_Old Dataset008_Old
nnUNetv2_extract_fingerprint -d ID --verify_dataset_integrity -np 1
{PLANS_EVERYTHING}
nnUNetv2_plan_and_preprocess -d ID --verify_dataset_integrity -c 2d 3d_fullres --no_pbar -gpu_memory_target 1 --no_pp
nnUNetv2_preprocess -d ID -c 2d 3d_fullres 3d_lowres -np 1 1 1
nnUNetv2_plan_and_preprocess -d ID -overwrite_target_spacing 2 2 2 -overwrite_plans_name iso -c 3d_fullres -npfp 1
nnUNetv2_train ID 3d_fullres 0 -tr TR --npz -device cpu
nnUNetv2_train ID 2d 0 -tr TR -p nnUNetPlans -num_gpus 1 -device cpu
nnUNetv2_train ID 2d 0 -tr TR --val --npz -device cpu
nnUNetv2_train ID 3d_fullres 0 -tr TR --val --val_best -device cpu
nnUNetv2_train ID 2d 0 -tr TR --c -device cpu
nnUNetv2_find_best_configuration ID -c 2d 3d_fullres 3d_lowres 3d_cascade_fullres -tr TR -f 0 -np 1
nnUNetv2_accumulate_crossval_results ID -c 3d_fullres -tr TR -f 0 -o cv
nnUNetv2_predict -i ts -o pred3d -d ID -c 3d_fullres -tr TR -f 0 --save_probabilities -device cpu --disable_progress_bar
nnUNetv2_predict -i ts -o pred2d -d ID -c 2d -tr TR -p nnUNetPlans -f 0 --save_probabilities --disable_tta \
-step_size 0.6 -chk checkpoint_best.pth -npp 1 -nps 1 -device cpu
nnUNetv2_predict -i ts -o parts -d ID -c 2d -tr TR -f 0 -num_parts 2 -part_id 0 -device cpu --continue_prediction
nnUNetv2_predict -i ts -o parts -d ID -c 2d -tr TR -f 0 -num_parts 2 -part_id 1 -device cpu --verbose
nnUNetv2_predict_from_modelfolder -i ts -o folder -m results/NAME/3d__TR -f 0 -device cpu
nnUNetv2_ensemble -i pred3d pred2d -o ens -np 1 --save_npz
nnUNetv2_determine_postprocessing -i cv -ref raw/NAME/labelsTr -plans_json cv/plans.json \
-dataset_json cv/dataset.json -np 1
nnUNetv2_apply_postprocessing -i ens -o ens_pp -pp_pkl_file cv/postprocessing.json -np 1 -plans_json cv/plans.json
nnUNetv2_evaluate_folder tsl ens_pp -djfile cv/dataset.json -pfile cv/plans.json -np 1
nnUNetv2_evaluate_simple tsl ens -l 1 2 --chill -o simple.json -np 1
nnUNetv2_plot_overlay_pngs -d ID -o png --use_raw -np 1
nnUNetv2_plot_overlay_pngs -d ID -o png2 -np 1 -c 3d_fullres -channel_idx 0 -overlay_intensity 0.4
nnUNetv2_export_model_to_zip -d ID -o model.zip -c 3d_fullres -tr TR -f 0
nnUNetv2_install_pretrained_model_from_zip model.zip
nnUNetv2_move_plans_between_datasets -s ID -t 8 -sp nnUNetPlans -tp moved
nnUNetv2_preprocess -d 8 -plans_name moved -c 3d_fullres -np 1
"""
SCORES = {"Dice", "IoU", "FN", "FP", "TN", "TP", "n_pred", "n_ref"}


def words_of(line: str, dataset: str, trainer: str) -> list[str]:
    names = {"ID": str(int(dataset[7:10])), "TR": trainer}
    words = [names.get(word, word) for word in line.removeprefix("nnUNetv2_").split()]
    return [word.replace("NAME", dataset).replace("__TR", f"__{trainer}") for word in words]


def add_other_layouts(folder: Path, raw: Path) -> None:
    """A task of the Decathlon and one of nnU-Net v1, with the cases of a data set."""
    description = json.loads((raw / "dataset.json").read_text())
    names = {str(value): name for name, value in description["labels"].items()}
    old = {"name": "a", "tensorImageSize": "3D", "modality": description["channel_names"], "labels": names}
    cases = [path.name for path in sorted((raw / "labelsTr").iterdir())[:6]]
    entries = [{"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"} for case in cases]
    old |= {"training": entries, "test": [], "numTest": 0, "numTraining": len(cases)}
    for task in ("Task09_Spleen", "Task008_Old"):
        (folder / task / "imagesTr").mkdir(parents=True)
        (folder / task / "labelsTr").mkdir()
        (folder / task / "dataset.json").write_text(json.dumps(old))
        for case in cases:
            images = sorted((raw / "imagesTr").glob(case.replace(".nii.gz", "_*.nii.gz")))
            if task == "Task008_Old":
                for image in images:
                    shutil.copy(image, folder / task / "imagesTr" / image.name)
            else:
                channels = [SimpleITK.ReadImage(str(image)) for image in images]
                joined = SimpleITK.JoinSeries(channels) if len(channels) > 1 else channels[0]
                SimpleITK.WriteImage(joined, str(folder / task / "imagesTr" / case))
            shutil.copy(raw / "labelsTr" / case, folder / task / "labelsTr" / case)


def prepare(folder: Path, dataset: str) -> None:
    """Cases to predict, their truth, and further data sets, beside `raw/`."""
    raw = folder / "raw" / dataset
    for name in ("ts", "tsl"):
        (folder / name).mkdir()
    for path in sorted((raw / "labelsTr").iterdir())[:3]:
        shutil.copy(path, folder / "tsl")
        for image in (raw / "imagesTr").glob(path.name.replace(".nii.gz", "_*.nii.gz")):
            shutil.copy(image, folder / "ts")
    add_other_layouts(folder, raw)


def run_lines(dataset: str, trainer: str, capsys: pytest.CaptureFixture[str], without: str = "") -> str:
    """Run all lines but one; what they said on standard error."""
    said = ""
    for line in LINES.strip().splitlines():
        if line == without:
            continue
        status = main([*words_of(line, dataset, trainer)])
        error = capsys.readouterr().err
        assert status == 0, f"{line}\n{error[-2000:]}"
        said += error
    return said


@pytest.fixture
def nnunet_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to work in, with nnU-Net's three variables alone."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.lower().startswith("seg25d_")]:
        monkeypatch.delenv(name)
    for kind in ("raw", "preprocessed", "results"):
        monkeypatch.setenv(f"nnUNet_{kind}", str(tmp_path / kind))
    return tmp_path


@pytest.mark.slow
@pytest.mark.usefixtures("written_models")
def test_lines_of_nnunet_run_as_they_are(
    nnunet_folder: Path, shrink_networks: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    dataset, trainer = "Dataset004_Phantom", "nnUNetTrainer_1epoch"
    write_phantom_dataset(nnunet_folder / "raw" / dataset, num_training=5, num_test=1, shape=(8, 32, 32))
    prepare(nnunet_folder, dataset)
    assert main(["plan_and_preprocess", "-d", "4", "-c", "2d", "3d_fullres", "-gpu_memory_target", "1", "--no_pp"]) == 0
    shrink_networks(nnunet_folder)
    said = run_lines(dataset, trainer, capsys, without=PLANS_EVERYTHING)
    for told in ("left out: 3d_lowres", "-npp has no effect", "--c has no effect", "-pfile has no effect"):
        assert told in said
    assert not list(nnunet_folder.glob("seg25d_workspace"))
    run = nnunet_folder / "results" / dataset / f"3d__{trainer}"
    config = json.loads((run / "fold_0" / "config.json").read_text())
    assert (config["epochs"], config["iterations_per_epoch"]) == (1, 250)
    summary = json.loads((nnunet_folder / "ens_pp" / "summary.json").read_text())
    assert set(summary) == {"foreground_mean", "mean", "metric_per_case"}
    assert set(summary["foreground_mean"]) == set(summary["metric_per_case"][0]["metrics"]["1"]) == SCORES
    assert summary["metric_per_case"][0]["prediction_file"].startswith("ens_pp")
    assert (run / "fold_0" / "validation_best" / "summary.json").exists()
    (npz,) = (nnunet_folder / "results" / dataset / f"axial__{trainer}" / "fold_0" / "validation").glob("*.npz")
    assert np.load(npz)["probabilities"].ndim == 4
    record = json.loads((nnunet_folder / "parts" / "prediction.json").read_text())
    assert len(record["seconds"]) == len(list((nnunet_folder / "ts").iterdir())) // 2
    assert (nnunet_folder / "png" / "phantom_000.png").exists()
    iso = json.loads((nnunet_folder / "preprocessed" / dataset / "iso.json").read_text())
    assert iso["configurations"]["3d"]["spacing_mm"] == [2, 2, 2]
    moved = json.loads((nnunet_folder / "preprocessed" / "Dataset008_Old" / "moved.json").read_text())
    plans = json.loads((nnunet_folder / "preprocessed" / dataset / "plans.json").read_text())
    assert moved["configurations"]["3d"]["window"] == plans["configurations"]["3d"]["window"]


@pytest.mark.slow
@pytest.mark.campaign
def test_lines_of_nnunet_train_and_predict(
    nnunet_folder: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """With real trainings, of an epoch of nnU-Net: 20 cases of the hippocampus where it is here."""
    dataset = "Dataset004_Hippocampus"
    try:
        source = request.getfixturevalue("shared_data") / dataset
    except pytest.skip.Exception:
        write_phantom_dataset(nnunet_folder / "raw" / dataset, num_training=10, num_test=1, shape=(8, 32, 32))
    else:
        for folder in ("imagesTr", "labelsTr"):
            (nnunet_folder / "raw" / dataset / folder).mkdir(parents=True)
            for path in sorted((source / folder).iterdir())[:20]:
                shutil.copy(path, nnunet_folder / "raw" / dataset / folder)
        description = json.loads((source / "dataset.json").read_text()) | {"numTraining": 20}
        (nnunet_folder / "raw" / dataset / "dataset.json").write_text(json.dumps(description))
    prepare(nnunet_folder, dataset)
    run_lines(dataset, "nnUNetTrainer_1epoch", capsys)
    summary = json.loads((nnunet_folder / "ens_pp" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] > 0.3
