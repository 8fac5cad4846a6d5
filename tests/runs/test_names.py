import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.planning.configurations import configuration_name
from seg25d.planning.plan import Plans
from seg25d.runs.names import (
    check_run,
    choose_run,
    find_configuration,
    parse_folds,
    run_name,
    trained_runs,
    with_network,
    write_run_files,
)


def make_plans(slice_axis: int = 0, networks: dict[str, str] | None = None, recipe: str = "default") -> Plans:
    """Plans of configurations with networks of these names."""
    configurations = {
        name: SimpleNamespace(
            network=SimpleNamespace(name=network),
            representation=SimpleNamespace(default_network="vnet" if name == "stack" else "unet"),
        )
        for name, network in (networks or {"axial": "unet", "si": "unet"}).items()
    }
    return Plans.model_construct(
        dataset_name="Dataset001_A",
        plans_name="plans",
        slice_axis=slice_axis,
        configurations=configurations,
        recipe=recipe,
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.resolve(tmp_path, {})


def train_fake(workspace: Workspace, dataset: str, run: str, fold: int = 0) -> None:
    fold_folder = workspace.run(dataset, run).fold(fold)
    fold_folder.root.mkdir(parents=True)
    fold_folder.model_final.touch()


@pytest.mark.parametrize(("axis", "name"), [(0, "axial"), (1, "coronal"), (2, "sagittal")])
def test_2d_is_the_planned_axis(axis, name):
    assert configuration_name("2d", axis) == name
    assert configuration_name("2d__se_unet", axis) == f"{name}__se_unet"
    assert configuration_name("si", axis) == "si"


def test_configurations_by_name():
    plans = make_plans()
    assert find_configuration(plans, "2d")[0] == "axial"
    with pytest.raises(InputError, match=r"'mip'.*known: axial, si"):
        find_configuration(plans, "mip")


@pytest.mark.parametrize(
    ("planned", "recipe", "configuration", "network", "name"),
    [
        ({"axial": "unet"}, "default", "2d", None, "axial"),
        ({"axial": "unet"}, "default", "2d", "unet", "axial"),
        ({"axial": "unet"}, "default", "2d", "se_unet", "axial__se_unet"),
        ({"si": "unet"}, "default", "si", "half_unet", "si__half_unet"),
        # The planner's own V-Net is smaller, or has a norm.
        ({"stack": "vnet"}, "default", "stack", "vnet", "stack__vnet"),
        ({"stack": "vnet"}, "shivdeo2021", "stack", "vnet", "stack"),
        ({"stack": "unet"}, "default", "stack", "unet", "stack"),
        ({"stack": "unet"}, "default", "stack", "half_unet", "stack__half_unet"),
        ({"stack": "vnet"}, "default", "stack", "unet", "stack__unet"),
        # The recipe's U-Net is not the default one, although both are U-Nets.
        ({"si": "unet"}, "sobirov2022", "si", "unet", "si__unet"),
        ({"si": "unet"}, "sobirov2022", "si", "super_image_unet", "si"),
        # The plan was edited: it has another network now.
        ({"si": "se_unet"}, "default", "si", "se_unet", "si"),
        ({"si": "se_unet"}, "default", "si", "unet", "si__unet"),
        # Planned by its full name, alone or beside the other.
        ({"si__se_unet": "se_unet"}, "default", "si", "se_unet", "si__se_unet"),
        ({"si__se_unet": "se_unet"}, "default", "si__se_unet", None, "si__se_unet"),
        ({"si": "unet", "si__se_unet": "se_unet"}, "default", "si__se_unet", "unet", "si__unet"),
    ],
)
def test_networks_have_configurations_of_their_own(planned, recipe, configuration, network, name):
    assert with_network(make_plans(networks=planned, recipe=recipe), configuration, network) == name


def test_networks_that_do_not_fit_are_refused():
    plans = make_plans(networks={"si": "unet", "stack": "vnet"})
    with pytest.raises(InputError, match="unknown network 'resnet'; for 2 dimensions there are unet, "):
        with_network(plans, "si", "resnet")
    with pytest.raises(InputError, match="'xception_cbam_unet' has 2 dimensions, and 3 are needed here; choose one of"):
        with_network(plans, "stack", "xception_cbam_unet")
    with pytest.raises(InputError, match="no configuration '3d'"):
        with_network(plans, "3d", "unet")


def test_run_names_say_what_is_not_the_default():
    plans = make_plans()
    assert run_name("si", plans, "default") == "si"
    assert run_name("si", plans, "sobirov2022") == "si__sobirov2022"
    assert run_name("si", plans.model_copy(update={"plans_name": "mine"}), "default") == "si__mine"


def test_folds_by_name():
    assert parse_folds(["cv"], 3) == [0, 1, 2]
    assert parse_folds(["2", "0", "2"], 5) == [2, 0]
    assert parse_folds(["all"], 5) == ["all"]


@pytest.mark.parametrize("word", ["5", "-1", "x", "", "0.5"])
def test_wrong_folds_list_the_right_ones(word):
    with pytest.raises(InputError, match="numbers from 0 to 4, `cv` or `all`"):
        parse_folds([word], 5)


def test_the_only_trained_run_is_taken(workspace):
    train_fake(workspace, "Dataset001_A", "si")
    assert choose_run(workspace, None, None, None) == workspace.run("Dataset001_A", "si")
    assert choose_run(workspace, "1", "si", None) == workspace.run("Dataset001_A", "si")
    assert trained_runs(workspace, "Dataset001_A") == ["si"]
    assert trained_runs(workspace, "Dataset002_B") == []


def test_unclear_choices_are_listed(workspace):
    with pytest.raises(InputError, match="nothing is trained"):
        choose_run(workspace, None, None, None)
    train_fake(workspace, "Dataset001_A", "si")
    train_fake(workspace, "Dataset001_A", "3d")
    with pytest.raises(InputError, match="-c: 3d, si"):
        choose_run(workspace, "1", None, None)
    with pytest.raises(InputError, match="mip is not trained on Dataset001_A; trained: 3d, si"):
        choose_run(workspace, "1", "mip", None)
    train_fake(workspace, "Dataset002_B", "si")
    with pytest.raises(InputError, match="-d: Dataset001_A, Dataset002_B"):
        choose_run(workspace, None, "si", None)
    (workspace.results / "Dataset003_C").mkdir()
    with pytest.raises(InputError, match="nothing is trained on Dataset003_C"):
        choose_run(workspace, "3", None, None)


def test_a_model_folder_stands_alone(workspace, tmp_path):
    train_fake(workspace, "Dataset001_A", "si")
    run = workspace.run("Dataset001_A", "si")
    assert choose_run(workspace, None, None, run.root) == run
    assert choose_run(workspace, None, None, run.root / "fold_0") == run
    with pytest.raises(InputError, match="has no trained model"):
        choose_run(workspace, None, None, tmp_path)


def test_a_model_folder_leaves_no_choice(workspace):
    train_fake(workspace, "Dataset001_A", "si")
    root = workspace.run("Dataset001_A", "si").root
    with pytest.raises(InputError, match="--recipe out"):
        choose_run(workspace, None, None, root, None, "default")
    for other in (("1", None), (None, "si")):
        with pytest.raises(InputError, match="-m names the model already"):
            choose_run(workspace, *other, root)
    with pytest.raises(InputError, match="-m names the model already"):
        choose_run(workspace, None, None, root, "big")


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


def test_models_of_plans_of_another_name(workspace):
    for run, plans_name in (("coronal", "plans"), ("coronal__big", "big"), ("si__big", "big")):
        train_fake(workspace, "Dataset001_A", run)
        write_plans(workspace.run("Dataset001_A", run).plans, plans_name)
    chosen = [
        choose_run(workspace, "1", configuration, None, plans_name).root.name
        for configuration, plans_name in (("2d", None), ("2d", "big"), ("si", "big"), (None, "plans"))
    ]
    assert chosen == ["coronal", "coronal__big", "si__big", "coronal"]
    with pytest.raises(InputError, match="si is not trained"):
        choose_run(workspace, "1", "si", None)
    with pytest.raises(InputError, match="with plans small"):
        choose_run(workspace, "1", "si", None, "small")


def test_models_of_recipes(workspace):
    for run, plans_name, recipe in (
        ("coronal", "plans", "default"),
        ("coronal__shivdeo2021", "plans", "shivdeo2021"),
        ("coronal__shivdeo2021__big", "big", "shivdeo2021"),
        ("si__sobirov2022", "plans", "sobirov2022"),
    ):
        train_fake(workspace, "Dataset001_A", run)
        write_plans(workspace.run("Dataset001_A", run).plans, plans_name, recipe)
    chosen = [
        choose_run(workspace, "1", configuration, None, plans_name, recipe).root.name
        for configuration, plans_name, recipe in (
            ("coronal", None, "shivdeo2021"),
            ("2d", None, "shivdeo2021"),
            ("2d", "big", "shivdeo2021"),
            ("2d", None, None),
            (None, None, "default"),
            (None, None, "sobirov2022"),
            ("si__sobirov2022", None, None),
        )
    ]
    assert chosen == [
        "coronal__shivdeo2021",
        "coronal__shivdeo2021",
        "coronal__shivdeo2021__big",
        "coronal",
        "coronal",
        "si__sobirov2022",
        "si__sobirov2022",
    ]
    with pytest.raises(InputError, match="with recipe angermann2022"):
        choose_run(workspace, "1", None, None, None, "angermann2022")
    with pytest.raises(InputError, match="si is not trained"):
        choose_run(workspace, "1", "si", None)


DESCRIPTION = {
    "channel_names": {"0": "MRI"},
    "labels": {"background": 0, "organ": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


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
