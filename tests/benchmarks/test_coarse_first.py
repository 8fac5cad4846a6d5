"""benchmarks/coarse_first.py: which windows are predicted again, what comes of it, and what the table says."""

import json
import shutil
from pathlib import Path
from typing import Any

import coarse_first
import numpy as np
import pytest
import torch
from coarse_first import Passes, find_foreground, judge, near, predict_coarse_first, predict_usually, slabs_of, table
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.core.types import Shape
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.data.phantom import DATASET_NAME
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.predictor import Predictor
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.grid import Grid
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.volume import Volume

SHAPE, MM = (8, 8, 64), (1.0, 1.0, 1.0)
LABELS = Labels(names={"background": 0, "tumour": 1})


class Bright(nn.Module):
    """Tumour where it is bright."""

    def forward(self, volume: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(volume), volume - 0.5], 1)


def make_predictor(
    representation: Representation, window: Shape = (8, 8, 8), threshold: float | None = None
) -> Predictor:
    dims = representation.network_dims
    plan = ConfigurationPlan(
        spacing_mm=MM,
        normalization=(ChannelNormalization(channel="PET", scheme="none"),),
        store="store",
        window=window,
        batch_size=1,
        representation=representation,
        network=UNetSpec(widths=(4, 4), strides=((1,) * dims, (2,) * dims), kernels=((3,) * dims,) * 2),
        mirror_axes=(0, 1),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(channel_names=("PET",), labels=LABELS, file_ending=".nii.gz", num_training=1)
    header = ModelHeader(
        dataset_name="Dataset001_Test",
        configuration="any",
        fold=0,
        plan=plan,
        description=description,
        threshold=threshold,
    )
    return Predictor([Bright()], header, Execution(torch.device("cpu"), torch.float32))


def image_with(*places: slice, along: int = 2) -> Tensor:
    """Bright blocks of a dark volume."""
    image = torch.zeros(1, *SHAPE)
    for place in places:
        image.movedim(1 + along, 0)[place] = 1
    return image


GRID = Grid.plan(SHAPE, MM, tuple((0, size) for size in SHAPE), MM)


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_what_the_quick_prediction_finds_is_segmented_as_usual_by_fewer_windows(threshold: float | None) -> None:
    predictor, image = make_predictor(Volume(), threshold=threshold), image_with(slice(20, 23))
    usual, all_passes = predict_usually(predictor, image, GRID)
    quick, passes = predict_coarse_first(predictor, image, GRID, 4, 1)
    assert usual.sum() == quick.sum() == 3 * 64
    np.testing.assert_array_equal(quick, usual)
    # Windows of 8 in steps of 4: those that reach into 16 to 26.
    assert {start[2] for start in passes.taken} == {12, 16, 20, 24}
    assert passes.offered == all_passes.taken
    assert len(all_passes.taken) == 15
    # Four mirrorings, and eight windows that do not overlap before.
    assert (all_passes.number, passes.number) == (15 * 4, 8 + 4 * 4)


def test_where_nothing_is_found_nothing_is_predicted() -> None:
    predictor = make_predictor(Volume(), threshold=0.5)
    labels, passes = predict_coarse_first(predictor, image_with(), GRID, 4, 1)
    assert not labels.any(), "scores of 0 would be a tumour, by this threshold"
    assert (len(passes.taken), passes.number) == (0, 8)


def test_what_no_window_covers_is_background() -> None:
    predictor, image = make_predictor(Volume()), image_with(slice(4, 60))
    options, passes = coarse_first.window_options(predictor, image), Passes()
    slabs = slabs_of(predictor, image, options, lambda start: start[2] < 8, passes)
    found = labels_from_slabs(slabs, GRID, LABELS)
    assert np.flatnonzero(found.any((0, 1))).tolist() == list(range(4, 12))


def test_windows_near_what_was_found_are_those_that_a_margin_around_it_reaches() -> None:
    mask = np.zeros((4, 4, 20), np.bool_)
    mask[2, 2, 9] = True
    wanted = near(mask, (4, 4, 4), (0, 0, 2))
    assert [first for first in range(17) if wanted((0, 0, first))] == list(range(4, 12))


def test_slices_may_be_found_in_one_of_several_groups() -> None:
    predictor = make_predictor(Slices(axis=2, context=1), window=(8, 8, 8))
    image = image_with(slice(0, 3), slice(30, 33), slice(33, 36))
    passes = Passes()
    options = coarse_first.window_options(predictor, image)
    mask = find_foreground(predictor, image, options, 1, passes)
    assert np.flatnonzero(mask.any((0, 1))).tolist() == [0, 1, 2, *range(30, 36)]
    passes = Passes()
    mask = find_foreground(predictor, image, options, 2, passes)
    # 22 groups of three slices that cover 64, of which every second is looked at.
    assert len(passes.offered) == 22
    assert len(passes.taken) == 11
    assert {0, 1, 2} < set(np.flatnonzero(mask.any((0, 1))).tolist())
    assert mask.sum() < 9 * 64


def case_of(usual: list[float], quick: list[float], share: float = 0.25) -> dict[str, Any]:
    def way(dice: list[float], seconds: float) -> dict[str, Any]:
        classes = {str(number): {"dice": each, "found": int(each > 0)} for number, each in enumerate(dice, 1)}
        return {"classes": classes, "seconds": seconds}

    return {"usual": way(usual, 4.0), "coarse_first": way(quick, 1.0), "windows": share, "passes": share}


def test_differences_are_paired_and_lost_classes_are_told() -> None:
    """Three seeds that differ by far more than the two ways do."""
    runs = [
        {"a": case_of([seed, 0.4], [seed, 0.0]), "b": case_of([seed, 0.6], [seed, 0.4])} for seed in (0.2, 0.5, 0.8)
    ]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(runs).splitlines()[2:]]
    assert lines[0] == ["a", "0.450 ± 0.150", "0.250 ± 0.150", "-0.200 ± 0.000", "25%", "25%", "4.0", "1.0", "2"]
    assert lines[1][-1] == "-"
    assert lines[2][:4] == [
        *("all", "0.500 ± 0.150", "0.350 ± 0.150"),
        "-0.150 (-0.785 to +0.485), p = 0.2",
    ]
    assert lines[2][-1] == "3 of 12"


def test_classes_that_the_truth_lacks_do_not_count() -> None:
    truth, found = np.zeros((2, 2, 2), np.uint8), np.ones((2, 2, 2), np.uint8)
    assert judge(truth, found, LABELS) == {}
    truth[0] = 1
    assert judge(truth, found, LABELS) == {"tumour": {"dice": pytest.approx(2 / 3), "found": 4}}


@pytest.mark.slow
def test_trained_runs_are_compared(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = trained_once / "results" / DATASET_NAME
    runs = [results / "axial", tmp_path / "other"]
    shutil.copytree(*runs)
    output = tmp_path / "found.json"
    words = ["--workspace", str(trained_once), "--runs", *map(str, runs), "--device", "cpu", "-o", str(output)]
    assert coarse_first.main(words) == 0
    found = json.loads(output.read_text())
    assert {len(cases) for cases in found["runs"].values()} == {3}
    assert "± 0.000" in output.with_suffix(".md").read_text(), "twice the same models"
    monkeypatch.setattr(coarse_first, "measure", lambda *_: pytest.fail("measured again"))
    assert coarse_first.main(words) == 0
    with pytest.raises(SystemExit, match="other settings"):
        coarse_first.main([*words, "--margin-mm", "1"])
    with pytest.raises(SystemExit, match="no trained fold in common"):
        coarse_first.main([*words[:2], "--runs", str(runs[0]), str(results / "nothing"), "-o", str(tmp_path / "b")])
