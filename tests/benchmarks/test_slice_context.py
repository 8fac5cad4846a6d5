"""benchmarks/slice_context.py: what it says of made-up models that look at neighbours or not, and of trained ones."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slice_context
import torch
from slice_context import BlankNeighbours, ShuffledSlices, changes_of, measure_context, slice_axis, some
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.core.records import read_record
from seg25d.core.types import Shape, Spacing
from seg25d.core.workspace import Workspace
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels
from seg25d.data.phantom import DATASET_NAME
from seg25d.evaluation.slice_context import SliceChange, SliceContext
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.report.results import gather_results
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

MM = (1.0, 1.0, 1.0)
SHAPE = (8, 8, 8)
LABELS = Labels(names={"background": 0, "organ": 1})
BENCHMARKS = Path(slice_context.__file__).parent


class Shifted(nn.Module):
    """Segments in each slice what is bright so many slices further on; nothing beyond the end."""

    def __init__(self, by: int, axis: int = 0) -> None:
        super().__init__()
        self.by, self.axis = by, axis

    def forward(self, volume: Tensor) -> Tensor:
        slices = volume.movedim(2 + self.axis, 2)
        seen = torch.cat([slices[:, :, self.by :], torch.zeros_like(slices[:, :, : self.by])], 2)
        return torch.cat([torch.full_like(seen, 0.5), seen], 1).movedim(2, 2 + self.axis)


def plan_of(representation: Representation, spacing_mm: Spacing = MM, window: Shape = SHAPE) -> ConfigurationPlan:
    dims = representation.network_dims
    return ConfigurationPlan(
        spacing_mm=spacing_mm,
        normalization=(ChannelNormalization(channel="MRI", scheme="none"),),
        store="store",
        window=window,
        batch_size=1,
        representation=representation,
        network=UNetSpec(widths=(4, 4), strides=((1,) * dims, (2,) * dims), kernels=((3,) * dims,) * 2),
        mirror_axes=(),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )


def predictor_of(model: nn.Module, representation: Representation) -> Predictor:
    description = DatasetDescription(channel_names=("MRI",), labels=LABELS, file_ending=".nii.gz", num_training=1)
    plan = plan_of(representation)
    header = ModelHeader(
        dataset_name="Dataset001_Test", configuration="any", fold=0, plan=plan, description=description
    )
    execution = Execution(torch.device("cpu"), torch.float32)
    return Predictor([model], header, execution, PredictorOptions(mirroring=False))


def store_of(folder: Path, by: int, axis: int) -> Store:
    """Two cases whose labels are the image, so many slices further on; every slice has another pattern."""
    store = Store(folder)
    rng = np.random.default_rng(3)
    for case in ("a", "b"):
        image = np.moveaxis(rng.integers(0, 2, SHAPE).astype(np.float32), 0, axis)
        labels = np.zeros(SHAPE, np.uint8)
        along, truth = np.moveaxis(image, axis, 0), np.moveaxis(labels, axis, 0)
        truth[: len(truth) - by] = along[by:]
        grid = Grid.plan(SHAPE, MM, tuple((0, size) for size in SHAPE), MM)
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        geometry = Geometry(shape=SHAPE, spacing_mm=MM, origin_mm=(0.0, 0.0, 0.0), direction=direction)
        record = CaseRecord(case=case, geometry=geometry, grid=grid, voxels={}, source_key="test")
        store.write(record, CaseArrays(image[None], labels, labels, {}))
    return store


def measured(folder: Path, model: nn.Module, by: int, representation: Representation) -> SliceContext:
    store = store_of(folder, by, slice_axis(plan_of(representation)))
    return measure_context(predictor_of(model, representation), store, ["a", "b"], changes_of(3), 0)


@pytest.mark.parametrize("representation", [SuperImage(grid=(2, 4)), Slices(axis=1), Slices(axis=2, context=1)])
def test_a_model_that_does_not_look_at_neighbours_loses_nothing(
    tmp_path: Path, representation: SuperImage | Slices
) -> None:
    found = measured(tmp_path, Shifted(0, representation.axis), 0, representation)
    assert found.dice == (1.0, 1.0)
    assert found.losses == {
        "slices shuffled": 0.0,
        "neighbours at 1 blank": 0.0,
        "neighbours at 2 blank": 0.0,
        "neighbours at 3 blank": 0.0,
        "neighbours from 4 on blank": 0.0,
        "all neighbours blank": 0.0,
    }
    assert found.axis == representation.axis


@pytest.mark.parametrize("distance", [1, 2])
@pytest.mark.parametrize("representation", [SuperImage(grid=(2, 4), axis=1), Stack(stack_size=8), Volume()])
def test_a_model_that_looks_at_one_neighbour_loses_all_where_that_is_blank(
    tmp_path: Path, distance: int, representation: Representation
) -> None:
    axis = slice_axis(plan_of(representation))
    found = measured(tmp_path, Shifted(distance, axis), distance, representation)
    assert found.dice == (1.0, 1.0)
    losses = found.losses
    assert losses["slices shuffled"] > 0.1
    assert losses["all neighbours blank"] == 1.0
    for other in (1, 2, 3):
        assert losses[f"neighbours at {other} blank"] == (1.0 if other == distance else 0.0)
    assert losses["neighbours from 4 on blank"] == 0.0


def test_far_neighbours_are_seen_beyond_the_distances_that_are_told_apart(tmp_path: Path) -> None:
    losses = measured(tmp_path, Shifted(5), 5, SuperImage(grid=(2, 4))).losses
    assert losses["neighbours from 4 on blank"] == 1.0
    assert losses["neighbours at 3 blank"] == 0.0


def test_what_was_measured_is_kept_after_each_change_and_not_measured_again(tmp_path: Path) -> None:
    seen: list[int] = []

    class Counted(Shifted):
        def forward(self, volume: Tensor) -> Tensor:
            seen.append(1)
            return super().forward(volume)

    representation = SuperImage(grid=(2, 4))
    store, predictor = store_of(tmp_path, 1, 0), predictor_of(Counted(1), representation)
    kept: list[SliceContext] = []
    whole = measure_context(predictor, store, ["a", "b"], changes_of(2), 0, keep=kept.append)
    assert [len(each.changes) for each in kept] == [0, 1, 2, 3, 4, 5]
    assert kept[-1] == whole
    # Cut off after two changes: the rest is measured, and nothing else.
    num_passes = len(seen)
    seen.clear()
    assert measure_context(predictor, store, ["a", "b"], changes_of(2), 0, kept[2]) == whole
    assert 0 < len(seen) < num_passes
    seen.clear()
    assert measure_context(predictor, store, ["a", "b"], changes_of(0), 0, whole) == whole
    assert not seen


def test_slices_can_be_shuffled_alone() -> None:
    assert changes_of(0) == [SliceChange(kind="shuffled")]


def test_blank_is_what_windows_are_padded_with() -> None:
    volume = torch.arange(8.0).reshape(1, 1, 8, 1, 1) - 3
    change = SliceChange(kind="blanked")
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            seen.append(volume)
            return volume

    for lowest, blank in ((False, 0.0), (True, -3.0)):
        seen.clear()
        scores = BlankNeighbours(Seeing(), 0, change, lowest=lowest)(volume)
        assert torch.equal(scores, volume), "each slice is its own"
        assert len(seen) == 1 + 8
        assert seen[6].flatten().tolist() == [blank] * 5 + [2.0] + [blank] * 2


def test_shuffled_slices_come_back_in_order_and_orders_differ() -> None:
    seen: list[list[float]] = []

    class Seeing(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            seen.append(volume[0, 0, 0, :, 0].tolist())
            return 2 * volume

    volume = torch.arange(8.0).reshape(1, 1, 1, 8, 1) + torch.arange(0, 1, 0.25).expand(2, 1, 3, 8, 4)
    model = ShuffledSlices(Seeing(), 1, 0)
    assert torch.equal(model(volume), 2 * volume)
    assert torch.equal(model(volume), 2 * volume)
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(8))
    assert seen[0] != list(range(8))
    assert seen[0] != seen[1]
    again = ShuffledSlices(Seeing(), 1, 0)
    again(volume)
    assert seen[2] == seen[0], "by the seed"


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize(("before", "behind"), [(2, 3), (0, 1), (0, 0)])
def test_slices_are_shuffled_inside_of_the_volume_alone(repeated: bool, before: int, behind: int) -> None:
    seen: list[Tensor] = []

    class Seeing(nn.Module):
        def forward(self, volume: Tensor) -> Tensor:
            seen.append(volume[0, 0, :, 0])
            return 2 * volume

    rng = torch.Generator().manual_seed(0)
    real = torch.randn(1, 2, 5, 4, 4, generator=rng)
    ends = [real[:, :, :1].expand(-1, -1, before, -1, -1), real[:, :, -1:].expand(-1, -1, behind, -1, -1)]
    if not repeated:
        ends = [torch.zeros_like(each) for each in ends]
    volume = torch.cat([ends[0], real, ends[1]], 2)
    model = ShuffledSlices(Seeing(), 0, 1, repeated=repeated)
    inside = slice(before, before + 5)
    for _ in range(5):
        torch.testing.assert_close(model(volume)[:, :, inside], 2 * real, rtol=0, atol=0)
    assert len({tuple(each[inside, 0].tolist()) for each in seen}) > 1
    for each in seen:
        assert sorted(each[inside, 0].tolist()) == sorted(real[0, 0, :, 0, 0].tolist())
        for place, end in ((slice(0, before), before), (slice(before + 5, None), before + 4)):
            assert (each[place] == (each[end] if repeated else 0)).all()


def test_windows_of_nothing_stay_as_they_are() -> None:
    volume = torch.zeros(2, 1, 4, 3, 3)
    for repeated in (False, True):
        assert torch.equal(ShuffledSlices(nn.Identity(), 0, 0, repeated=repeated)(volume), volume)


def test_the_axis_is_that_of_the_slices() -> None:
    assert slice_axis(plan_of(Slices(axis=2))) == 2
    assert slice_axis(plan_of(Stack(stack_size=8, axis=1))) == 1
    assert slice_axis(plan_of(Volume(), (1.0, 4.0, 1.0))) == 1


def test_cases_are_chosen_evenly() -> None:
    cases = [f"case_{number}" for number in range(9)]
    assert some(cases[::-1], 3) == ["case_0", "case_3", "case_6"]
    assert some(cases, 20) == cases
    assert some(cases[:1], 1) == ["case_0"]


@pytest.mark.slow
def test_a_trained_model_gets_its_file_which_the_report_reads(
    trained_once: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "workspace"
    shutil.copytree(trained_once, root)
    workspace, place = Workspace.resolve(root, {}), ["--workspace", str(root), "--device", "cpu"]
    slice_context.main(["900", "2d", "--distances", "1", *place])
    fold = workspace.run(DATASET_NAME, "axial").fold(0)
    found = read_record(fold.slice_context, SliceContext)
    assert found.cases == ("phantom_000",)
    assert found.dice[0] is not None
    assert list(found.losses) == [
        *("slices shuffled", "neighbours at 1 blank", "neighbours from 2 on blank", "all neighbours blank"),
    ]
    assert "| slices shuffled |" in capsys.readouterr().out
    written = fold.slice_context.read_bytes()
    slice_context.main(["900", "2d", "--distances", "0", *place])
    assert fold.slice_context.read_bytes() == written, "nothing new was asked for"
    with pytest.raises(SystemExit, match=r"has 1 cases with seed 0, expected the same 1 with seed 5; remove it"):
        slice_context.main(["900", "2d", "--seed", "5", *place])
    slice_context.main(["900", "si", "-f", "1", *place])
    shown = gather_results(workspace, DATASET_NAME).contexts
    assert {name: each.cases for name, each in shown.items()} == {
        "axial, fold 0": ("phantom_000",),
        "si, fold 1": ("phantom_001",),
    }
    for words, message in (
        (["900", "stack"], "error: configuration stack is not trained"),
        (["900", "3d"], "fold 0 is not trained; trained: 1"),
        (["901", "si"], "data set 901 not found"),
    ):
        with pytest.raises(SystemExit, match=message):
            slice_context.main([*words, *place])


@pytest.mark.slow
def test_it_needs_no_simpleitk() -> None:
    code = "import slice_context, sys; sys.exit('SimpleITK' in sys.modules)"
    paths = f"{BENCHMARKS.parent}:{BENCHMARKS}"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": paths, "PATH": ""}, check=True)
