"""Prediction by fused views, beside a plain computation of the same on whole arrays."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg25d.core.device import Execution
from seg25d.core.errors import InputError
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.ensembling import fused_predictor
from seg25d.ensembling.fused_predictor import FusedPredictor, found_box, margin_voxels
from seg25d.ensembling.view_maps import found
from seg25d.inference.framing import background_scores
from seg25d.inference.predictor import FusionName, Predictor, PredictorOptions
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.fused_views import FusedViews

CLASSES = Labels(names={"background": 0, "a": 1, "b": 2})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
SHAPE = (20, 18, 22)
SPACING = (2.0, 1.0, 1.0)


class Says(nn.Module):
    """Scores that follow from the image: each output another multiple of its first channel, and a shift."""

    def __init__(self, num_outputs: int, shift: float) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.linspace(-1, 1, num_outputs) + shift)

    def forward(self, volume: Tensor) -> Tensor:
        return torch.stack([volume[:, 0] * factor for factor in self.factors], 1)


class Weighs(nn.Module):
    """A fusion voxel by voxel: every score another weighted sum of all channels."""

    def __init__(self, num_channels: int, num_outputs: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.randn(num_outputs, num_channels))

    def forward(self, volume: Tensor) -> Tensor:
        return torch.einsum("kc,bcdhw->bkdhw", self.weights, volume)


def make_header(labels: Labels, threshold: float | None = None) -> ModelHeader:
    maps = labels.num_outputs - (not labels.has_regions)
    plan = ConfigurationPlan(
        spacing_mm=SPACING,
        normalization=(ChannelNormalization(channel="MRI", scheme="none"),),
        store="store",
        window=(8, 8, 8),
        batch_size=1,
        representation=FusedViews(maps_per_view=maps, regions=labels.has_regions, from_mean=False),
        network=FusionNetSpec(width=2),
        mirror_axes=(),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(channel_names=("MRI",), labels=labels, file_ending=".nii.gz", num_training=6)
    return ModelHeader(
        dataset_name="Dataset001_Tiny",
        configuration="mv",
        fold=0,
        plan=plan,
        description=description,
        threshold=threshold,
    )


def make_predictor(labels: Labels, num_folds: int, options: PredictorOptions | None = None) -> FusedPredictor:
    torch.manual_seed(0)
    header, execution = make_header(labels), Execution(torch.device("cpu"), torch.float32)
    views = [
        [Predictor([Says(labels.num_outputs, 0.1 * view + fold)], header, execution) for view in range(3)]
        for fold in range(num_folds)
    ]
    maps = header.plan.representation.num_maps
    networks = [Weighs(1 + maps, labels.num_outputs) for _ in range(num_folds)]
    return FusedPredictor(networks, header, execution, options, views)


def scores_of(predictor: FusedPredictor, image: Tensor) -> Tensor:
    """(K, d, h, w) of all slabs."""
    slabs = [(slab.axis, slab.start, slab.planes.clone()) for slab in predictor.slabs(image)]
    axis = slabs[0][0]
    assert [start for _, start, _ in slabs] == sorted(start for _, start, _ in slabs)
    return torch.cat([planes for _, _, planes in slabs]).movedim(0, 1 + axis)


@pytest.mark.parametrize("num_folds", [1, 2])
@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_it_is_the_plain_computation_within_the_region_and_background_elsewhere(labels: Labels, num_folds: int) -> None:
    predictor = make_predictor(labels, num_folds)
    image = torch.zeros(1, *SHAPE)
    image[0, 17:19, 2:4, 3:6] = 4.0
    with torch.inference_mode():
        scores = scores_of(predictor, image)
        wanted = torch.zeros(labels.num_outputs, *SHAPE)
        for network, views in zip(predictor.models, predictor.views, strict=True):
            maps = [view.models[0](image[None]) for view in views]
            chosen = [each.sigmoid() if labels.has_regions else each.softmax(1)[:, 1:] for each in maps]
            # float16, as the views give them
            volume = torch.cat([image[None], *(each.half().float() for each in chosen)], 1)
            wanted += network.model(volume)[0] / num_folds
    margin = margin_voxels(SPACING)
    assert margin == (16, 32, 32)
    torch.testing.assert_close(scores[:, 1:], wanted[:, 1:], rtol=1e-4, atol=1e-4)
    # 16 voxels below 17: the first plane is outside.
    np.testing.assert_array_equal(scores[:, 0, 5, 5], background_scores(labels))


def test_where_no_view_finds_anything_there_is_background() -> None:
    scores = scores_of(make_predictor(CLASSES, 1), torch.full((1, *SHAPE), -4.0))
    assert scores.shape == (3, *SHAPE)
    assert (scores.argmax(0) == 0).all()


def test_the_region_is_that_of_most_views_or_else_of_any() -> None:
    maps = [torch.zeros(1, 9, 9, 9) for _ in range(3)]
    labels = Labels(names={"background": 0, "a": 1})
    assert found_box(maps, labels, (0, 0, 0)) is None
    maps[0][0, 1, 1, 1] = 1
    assert found_box(maps, labels, (1, 0, 0)) == ((0, 3), (1, 2), (1, 2))
    maps[1][0, 5, 5, 5] = maps[2][0, 5, 5, 5] = 1
    assert found_box(maps, labels, (0, 0, 9)) == ((5, 6), (5, 6), (0, 9))


def test_what_a_view_finds_follows_threshold_and_kind() -> None:
    maps = torch.tensor([0.3, 0.3, 0.1]).reshape(3, 1, 1, 1)
    assert found(maps[:2], CLASSES).item() is False
    assert found(torch.tensor([0.45, 0.2]).reshape(2, 1, 1, 1), CLASSES).item() is True
    assert found(torch.tensor([0.45, 0.2]).reshape(2, 1, 1, 1), REGIONS).item() is False
    assert found(maps[:1], CLASSES, threshold=0.2).item() is True


def test_labels_of_untrained_fusions_are_made_where_the_models_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FusedPredictor, "labels_device", torch.device("meta"))
    predictor = make_predictor(CLASSES, 1, PredictorOptions(fusion="mean"))
    image = torch.zeros(1, *SHAPE)
    image[0, 9:11, 2:4, 3:6] = 4.0
    assert {slab.device.type for slab in predictor.slabs(image)} == {"meta"}


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
def test_views_whose_maps_lie_in_files_say_the_same(labels: Labels, request: pytest.FixtureRequest) -> None:
    image = torch.zeros(1, *SHAPE)
    image[0, 17:19, 2:4, 3:6] = 4.0
    in_memory = scores_of(make_predictor(labels, 2), image)
    shapes = request.getfixturevalue("arrays_in_files")
    scores = scores_of(make_predictor(labels, 2), image)
    assert torch.equal(scores, in_memory)
    maps = labels.num_outputs - (not labels.has_regions)
    # A map of each of two times three views, across the axis along which they were predicted; then all of the region.
    assert [sorted(shape) for shape in shapes[:-1]] == [sorted([maps, *SHAPE])] * 6
    assert shapes[-1] == (1 + 6 * maps, 19, 18, 22)


@pytest.mark.parametrize(("fusion", "number"), [("mean", 10 * 6 + 12 * 3), ("majority", 2 * 6 + 12 * 3)])
def test_what_memory_has_no_room_for_is_not_fused_without_a_network(
    fusion: FusionName, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(fused_predictor, "lack_of_memory", lambda *wanted: asked.append(wanted) or "too much")
    image = torch.zeros(1, *SHAPE)
    image[0, 17:19, 2:4, 3:6] = 4.0
    with pytest.raises(InputError, match=rf"fusion by {fusion}: too much; use --fusion network"):
        make_predictor(CLASSES, 1, PredictorOptions(fusion=fusion)).slabs(image)
    assert asked == [((19, 18, 22), number)]
