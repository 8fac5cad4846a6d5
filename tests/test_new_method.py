"""A method is one file and one line: one that is thrown away goes through every step without another file touched."""

import json
from pathlib import Path

import pytest

from seg25d.cli.main import main
from seg25d.data.phantom import DATASET_NAME
from seg25d.representations import PLACES

METHOD = '''
"""Slices with their local mean and maximum as channels."""

from typing import ClassVar, Literal

from pydantic import Field
from torch import cat, nn
from torch.nn import functional

from seg25d.representations.base import Representation, map_scores
from seg25d.representations.context import slices_back, slices_first


class LocalStatistics(Representation):
    network_dims: ClassVar[int] = 2
    can_be_fine: ClassVar[bool] = True
    name: Literal["local_statistics"] = "local_statistics"
    axis: int = Field(ge=0, le=2)
    size: int = Field(default=3, ge=1)

    @property
    def network_axes(self):
        return tuple(axis for axis in range(3) if axis != self.axis)

    @property
    def piece_axes(self):
        return self.network_axes

    @property
    def free_axis(self):
        return self.axis

    def network_channels(self, num_channels):
        return 3 * num_channels

    def lift(self, network):
        return Lifted(network, self)

    @classmethod
    def candidates(cls, geometry, **_):
        shape, axis = list(geometry.shape), geometry.slice_axis
        while shape[axis] >= 1:
            yield cls(axis=axis), tuple(shape)
            shape[axis] //= 2

    def reason(self, geometry, rules):
        return f"slices along axis {self.axis} with mean and maximum over {self.size} x {self.size} pixels"

    @classmethod
    def examples(cls):
        return [cls(axis=0), cls(axis=2, size=5)]


class Lifted(nn.Module):
    def __init__(self, network, representation):
        super().__init__()
        self.network = network
        self.representation = representation

    def forward(self, volume):
        axis, size = self.representation.axis, self.representation.size
        images = slices_first(volume, axis).transpose(1, 2).flatten(0, 1)
        local = [pool(images, size, 1, size // 2) for pool in (functional.avg_pool2d, functional.max_pool2d)]
        output = self.network(cat([images, *local], 1))
        return map_scores(
            output,
            lambda scores: slices_back(
                scores.reshape(len(volume), -1, *scores.shape[1:]).transpose(1, 2), axis
            ),
        )
'''


@pytest.fixture
def _local_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "thrown_away_method.py").write_text(METHOD)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PLACES, "local", "thrown_away_method:LocalStatistics")


@pytest.mark.slow
@pytest.mark.usefixtures("_local_method")
def test_a_method_goes_through_every_step(
    three_folds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace, out = tmp_path / "workspace", tmp_path / "out"
    (workspace / "raw").mkdir(parents=True)
    (workspace / "raw" / DATASET_NAME).symlink_to(three_folds / "raw" / DATASET_NAME)
    shared = ("--workspace", str(workspace), "--num-processes", "0", "--quiet")

    def run(*words: str) -> str:
        capsys.readouterr()
        assert main([*words, *shared]) == 0
        return capsys.readouterr().out

    told = run("plan_and_preprocess", "-d", "900", "-c", "local", "si", "--explain")
    assert "local statistics" in told
    assert "local: slices along axis 0 with mean and maximum over 3 x 3 pixels; windows of" in " ".join(told.split())
    assert "representation: slices along axis 0 with mean and maximum over 3 x 3 pixels" in told
    assert "the whole median volume fits" in told
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    assert "local" in capsys.readouterr().out
    short = ("--epochs", "1", "--iterations", "2", "--set", "validation_windows=1", "--device", "cpu")
    run("train", "900", "local", "0", *short)
    run("predict", "-i", str(workspace / "raw" / DATASET_NAME / "imagesTs"), "-o", str(out), "--device", "cpu")
    assert json.loads((out / "prediction.json").read_text())["model"]
    page = run("report", "900").strip()
    assert "local_statistics" in Path(page).read_text(encoding="utf-8")
    planned = json.loads(run("info", "900", "--json"))["datasets"][0]["plans"]["plans.json"]
    assert planned["configurations"]["local"]["representation"] == "local_statistics"


@pytest.mark.usefixtures("_local_method")
def test_a_method_that_can_be_more_says_so_itself(capsys: pytest.CaptureFixture[str]) -> None:
    from seg25d.planning.configurations import known_names  # noqa: PLC0415 - not what these tests are about
    from seg25d.representations.base import representations  # noqa: PLC0415

    assert "local_statistics" in representations()
    assert known_names(lambda each: each.can_be_fine) == ["2d", "axial", "coronal", "sagittal", "local"]
    with pytest.raises(SystemExit):
        main(["plan_and_preprocess", "--help"])
    assert "3d, local" in " ".join(capsys.readouterr().out.split())
