"""Configurations whose networks mix slices, from the plan to a shared model."""

import json
from pathlib import Path

import pytest

from seg25d.cli.main import main
from seg25d.data.phantom import DATASET_NAME
from seg25d.networks import MIXINGS

SHORT = ("--epochs", "1", "--iterations", "2", "--set", "validation_windows=1", "--device", "cpu")


@pytest.mark.slow
def test_mixed_configurations_go_through_every_step(
    three_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = tmp_path / "workspace"
    (workspace / "raw").mkdir(parents=True)
    (workspace / "raw" / DATASET_NAME).symlink_to(three_folds / "raw" / DATASET_NAME)
    images = str(workspace / "raw" / DATASET_NAME / "imagesTs")

    def run(*words: str, workspace: Path = workspace) -> str:
        capsys.readouterr()
        assert main([*words, "--workspace", str(workspace), "--num-processes", "0", "--quiet"]) == 0
        return capsys.readouterr().out

    names = ["si__shift", "2d__attention", "si__half_unet__conv", "coronal__acs"]
    told = run("plan_and_preprocess", "-d", "900", "-c", *names, "--explain")
    assert all(f"mixing: {mixing}: " in " ".join(told.split()) for mixing in MIXINGS)
    for name in names:
        run("train", "900", name, "0", *SHORT)
        out = tmp_path / name
        run("predict", "-i", images, "-o", str(out), "-d", "900", "-c", name, "--device", "cpu")
        assert list(out.glob("*.nii.gz"))
    own_names = {"si__shift", "axial__attention", "si__half_unet__conv", "coronal__acs"}
    listed = json.loads(run("info", "900", "--json"))["datasets"][0]
    assert {each["name"] for each in listed["runs"]} == own_names
    assert set(listed["plans"]["plans.json"]["configurations"]) == own_names
    archive, other = tmp_path / "shift.zip", tmp_path / "other"
    run("export_model", "900", "-c", "si__shift", "-f", "0", "-o", str(archive))
    run("predict", "-i", images, "-o", str(other), "-m", str(archive), "--device", "cpu")
    for path in other.glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "si__shift" / path.name).read_bytes()


def test_help_names_the_ways_of_mixing(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("plan_and_preprocess", "train", "pretrain"):
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert ", ".join(MIXINGS) in " ".join(capsys.readouterr().out.split())
