"""Where things are, and how data sets are called."""

from pathlib import Path

import pytest

from seg25d.core.errors import InputError
from seg25d.core.workspace import PreprocessedFolder, RunFolder, Workspace


def test_the_folder_holds_everything() -> None:
    workspace = Workspace.resolve(Path("w"), {"SEG25D_WORKSPACE": "v", "nnUNet_raw": "n"})
    assert (workspace.raw, workspace.preprocessed, workspace.results) == (
        Path("w/raw"),
        Path("w/preprocessed"),
        Path("w/results"),
    )


@pytest.mark.parametrize(
    ("environment", "raw", "results"),
    [
        ({}, "seg25d_workspace/raw", "seg25d_workspace/results"),
        ({"SEG25D_WORKSPACE": "v"}, "v/raw", "v/results"),
        ({"nnUNet_raw": "n"}, "n", "seg25d_workspace/results"),
        ({"nnUNet_results": "s"}, "seg25d_workspace/raw", "s"),
        ({"nnUNet_raw": "n", "nnUNet_results": "s"}, "n", "s"),
        ({"seg25d_raw": "r", "nnUNet_raw": "n", "nnUNet_results": "s"}, "r", "seg25d_workspace/results"),
        ({"SEG25D_WORKSPACE": "v", "nnUNet_raw": "n", "nnUNet_results": "s"}, "v/raw", "v/results"),
        ({"nnUNet_raw": "n", "SEG25D_WORKSPACE": "v"}, "v/raw", "v/results"),
        ({"nnUNet_raw": "n", "seg25d_raw": "r", "seg25d_results": "s"}, "r", "s"),
    ],
)
def test_variables(environment: dict[str, str], raw: str, results: str) -> None:
    workspace = Workspace.resolve(None, environment)
    assert (workspace.raw, workspace.results) == (Path(raw), Path(results))


@pytest.mark.parametrize(
    ("folder", "environment", "expected"),
    [
        (None, {"nnUNet_raw": "n", "nnUNet_preprocessed": "p"}, ["p/D"]),
        (None, {"nnUNet_raw": "n", "nnUNet_preprocessed": "p", "seg25d_preprocessed": "q"}, ["q/D", "p/D"]),
        (None, {"nnUNet_raw": "n"}, ["seg25d_workspace/preprocessed/D"]),
        (None, {"nnUNet_preprocessed": "p"}, ["p/D"]),
        # The raw data are not nnU-Net's: a data set of the same name there may be another one.
        (None, {"seg25d_raw": "r", "nnUNet_preprocessed": "p"}, ["seg25d_workspace/preprocessed/D"]),
        (Path("w"), {"nnUNet_raw": "n", "nnUNet_preprocessed": "p"}, ["w/preprocessed/D"]),
        (None, {"nnUNet_raw": "n", "nnUNet_preprocessed": "p", "seg25d_raw": "r", "seg25d_preprocessed": "q"}, ["q/D"]),
    ],
)
def test_folds_of_nnunet_lie_in_its_folder_if_the_raw_data_are_its(
    folder: Path | None, environment: dict[str, str], expected: list[str]
) -> None:
    assert Workspace.resolve(folder, environment).splits_folders("D") == [Path(path) for path in expected]


def test_data_sets_are_found_by_number_and_name(tmp_path: Path) -> None:
    for name in ("raw/Dataset001_A", "raw/Dataset002_B", "preprocessed/Dataset002_C", "raw/other"):
        (tmp_path / name).mkdir(parents=True)
    workspace = Workspace.resolve(tmp_path, {})
    assert [workspace.dataset_name(text) for text in ("1", "001", "Dataset001_A")] == ["Dataset001_A"] * 3
    with pytest.raises(InputError, match="ambiguous: Dataset002_B, Dataset002_C"):
        workspace.dataset_name("2")
    for unknown in ("3", "Dataset003_X", "A", "²"):
        with pytest.raises(InputError, match="known: Dataset001_A, Dataset002_B"):
            workspace.dataset_name(unknown)


@pytest.mark.parametrize(
    ("folder", "environment", "told"),
    [
        (None, {"SEG25D_WORKSPACE": "v", "nnUNet_raw": "n"}, "nnUNet_raw (n) does not count, SEG25D_WORKSPACE does"),
        (Path("w"), {"nnUNet_results": "n"}, "nnUNet_results (n) does not count, --workspace does"),
        (None, {"seg25d_raw": "r", "nnUNet_raw": "n"}, "nnUNet_raw (n) does not count, seg25d_raw does"),
        (None, {"nnUNet_raw": "n"}, ""),
    ],
)
def test_an_error_says_which_variable_counts(folder: Path | None, environment: dict[str, str], told: str) -> None:
    workspace = Workspace.resolve(folder, environment)
    assert workspace.not_counted == told
    with pytest.raises(InputError, match="--workspace says where to look") as refused:
        workspace.dataset_name("77")
    assert str(refused.value).endswith(f". {told}" if told else "where to look")


def test_trained_folds_are_those_with_a_final_model(tmp_path: Path) -> None:
    run = RunFolder(root=tmp_path)
    for fold in (0, 1, "all"):
        run.fold(fold).root.mkdir()
    run.fold(1).model_final.touch()
    run.fold("all").model_final.touch()
    assert run.trained_folds() == ["1", "all"]


def test_plans_and_folds_of_recipes_lie_beside_those_of_the_default() -> None:
    folder = PreprocessedFolder(root=Path("p"))
    assert folder.plans() == Path("p/plans.json")
    assert folder.plans("big", "sobirov2022") == Path("p/big__sobirov2022.json")
    assert folder.recipe_splits("default") == folder.splits
    assert folder.recipe_splits("angermann2022") == Path("p/splits__angermann2022.json")
