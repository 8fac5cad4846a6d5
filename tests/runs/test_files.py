import json
from pathlib import Path

import pytest

from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.planning.plan import Plans
from seg25d.runs.files import check_run, write_run_files

DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path, {})


def write_plans(path: Path, plans_name: str = "plans", recipe: str = "default") -> Plans:
    plans = Plans(
        dataset_name="Dataset001_A",
        plans_name=plans_name,
        recipe=recipe,
        gpu_memory_gb=8,
        slice_axis=1,
        reasons={},
        configurations={},
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(plans.model_dump_json())
    return plans


@pytest.fixture
def begun(workspace):
    """A data set, and a run of it whose folds 0 and 1 have begun."""
    folder, run = workspace.preprocessed_dataset("Dataset001_A"), workspace.run("Dataset001_A", "si")
    plans = write_plans(folder.plans()).model_copy(update={"configurations": {"si": None}})
    folder.splits.write_text(json.dumps([{"train": ["a"], "val": ["b"]}, {"train": ["b"], "val": ["a"]}]))
    folder.dataset.write_text(json.dumps(DESCRIPTION))
    write_run_files(run, folder, plans.model_copy(update={"configurations": {}}))
    run.plans.unlink()
    for fold in range(2):
        run.fold(fold).root.mkdir()
        run.fold(fold).checkpoint.touch()
    return run, folder, plans, "si"


def test_an_unchanged_run_goes_on(begun):
    check_run(*begun, [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("splits.json", [{"train": ["b"], "val": ["a"]}] * 2, "the folds"),
        ("dataset.json", DESCRIPTION | {"labels": {"background": 0, "liver": 1}}, "the labels"),
        ("dataset.json", DESCRIPTION | {"channel_names": {"0": "CT"}}, "the channels"),
    ],
)
def test_folds_of_one_run_were_trained_with_the_same(begun, name, content, message):
    (begun[1].root / name).write_text(json.dumps(content))
    for restarted in ([], [0], [1, "all"]):
        with pytest.raises(InputError, match=f"{message}.* changed since fold_.*--restart"):
            check_run(*begun, restarted)
    check_run(*begun, [0, 1])
