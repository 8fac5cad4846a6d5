"""A coarse and a fine model whose answers are known."""

import numpy as np
import pytest
import torch
from torch import nn

from seg25d.core.errors import ModelError
from seg25d.core.workspace import FoldFolder
from seg25d.data.labels import Labels
from seg25d.inference.fine_predictor import FinePredictor
from seg25d.inference.framing import NOTHING
from seg25d.inference.predictor import Predictor, PredictorOptions, check_agreement
from seg25d.inference.sliding_window import WindowOptions, predict_slabs
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import save_model

MM = (1.0, 1.0, 1.0)


def predict_volume(models, image: torch.Tensor, num_outputs: int, options: WindowOptions) -> torch.Tensor:
    """The scores (K, D, H, W) of all slabs."""
    scores = torch.empty(num_outputs, *image.shape[1:])
    for slab in predict_slabs(models, image, num_outputs, options):
        planes = scores.movedim(slab.axis + 1, 0)
        planes[slab.start : slab.start + len(slab.planes)] = slab.planes
    return scores


class Nothing(nn.Module):
    """Background, hardly."""

    def forward(self, volume):
        scores = torch.zeros(len(volume), 3, *volume.shape[2:])
        scores[:, 0] = 0.01
        return scores


class Seen(nn.Module):
    """Another model that notes how much of the image it was shown."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.voxels = []

    def forward(self, volume):
        self.voxels.append(int(torch.count_nonzero(volume[:, 1])))
        return self.model(volume)


class Strict(nn.Module):
    """Class 1 where the first channel is above 0.9, class 2 nowhere."""

    def forward(self, volume):
        first = volume[:, 0] - 0.9
        return torch.stack([torch.zeros_like(first), first, torch.full_like(first, -1)], 1)


@pytest.fixture
def fine_header(header):
    return header.model_copy(update={"fine": FineConfig(margin=2)})


@pytest.fixture
def image():
    """A bright cube with a brighter core, and a second cube that is not as bright; the second channel is 0.25."""
    values = np.zeros((2, 20, 18, 16), np.float32)
    values[0, 2:7, 3:8, 4:9] = 0.8
    values[0, 3:6, 4:7, 5:8] = 1
    values[0, 15:17, 14:16, 12:14] = 0.8
    values[1] = 0.25
    return values


def make(models, coarse, header, execution):
    options = PredictorOptions(mirroring=False)
    plain = header.model_copy(update={"fine": None})
    return FinePredictor(models, header, execution, options, Predictor(coarse, plain, execution, options))


def test_the_fine_model_decides_within_the_crop_and_sees_nothing_else(fine_header, execution, threshold, image, writer):
    fine = Seen(threshold)
    predictor = make([fine], [Strict()], fine_header, execution)
    labels = predictor.predict_array(image, MM)
    expected = np.zeros((20, 18, 16), np.uint8)
    expected[2:7, 3:8, 4:9] = 1
    np.testing.assert_array_equal(labels, expected)
    # First the core and 2 voxels around, then the cube and 2 around: windows overlap, so no more than twice as much.
    assert fine.voxels[0] == 7 * 7 * 7
    assert sum(fine.voxels[1:]) <= 8 * 9 * 9 * 9
    predictor.predict_probabilities(*predictor.preprocess(image, MM), [writer])
    np.testing.assert_allclose(writer.array[0, 15:17, 14:16, 12:14], 1)
    maps = predictor.predict_maps(image)
    np.testing.assert_array_equal(maps[0].numpy() > 0.5, expected == 1)


@pytest.mark.parametrize("empty", ["coarse", "fine"])
def test_where_one_of_them_finds_nothing_the_coarse_scores_stand(fine_header, execution, image, empty):
    fine, coarse = (Strict(), Nothing()) if empty == "coarse" else (Nothing(), Strict())
    predictor = make([fine], [coarse], fine_header, execution)
    tensor = torch.from_numpy(image)
    scores = torch.cat([slab.planes.clone() for slab in predictor.slabs(tensor)])
    expected = predict_volume([coarse], tensor, 3, predictor.coarse.window_options((20, 18, 16)))
    axis = next(iter(predictor.slabs(tensor))).axis
    torch.testing.assert_close(scores.movedim(0, axis + 1), expected)


def test_small_components_are_background_if_that_is_wanted(fine_header, execution, threshold, image, writer):
    # The crop of both cubes is the whole volume; the second cube has 8 of 125 voxels.
    for wanted in (False, True):
        settings = FineConfig(margin=20, large_components=wanted)
        header = fine_header.model_copy(update={"fine": settings})
        predictor = make([threshold], [threshold], header, execution)
        labels = predictor.predict_probabilities(*predictor.preprocess(image, MM), [writer])
        assert np.count_nonzero(labels) == 125 + (0 if wanted else 8)
        np.testing.assert_array_equal(writer.array[...].argmax(0), labels)


def test_regions_end_where_the_crop_does(fine_header, execution, image):
    class Bright(nn.Module):
        def forward(self, volume):
            return volume[:, :1].repeat(1, 2, 1, 1, 1) - 0.5

    class Core(nn.Module):
        def forward(self, volume):
            return volume[:, :1].repeat(1, 2, 1, 1, 1) - 0.9

    labels = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    description = fine_header.description.model_copy(update={"labels": labels})
    header = fine_header.model_copy(update={"description": description})
    predictor = make([Bright()], [Core()], header, execution)
    scores = torch.cat([slab.planes.clone() for slab in predictor.slabs(torch.from_numpy(image))])
    assert scores.shape == (20, 2, 18, 16)
    assert (scores[10:] == NOTHING).all()
    assert (predictor.predict_array(image, MM) == 2).sum() == 125


def test_folds_are_averaged_in_every_round(fine_header, execution, threshold, image):
    alone = make([threshold], [Strict()], fine_header, execution).predict_array(image, MM)
    both = make([threshold, threshold], [Strict(), Strict()], fine_header, execution).predict_array(image, MM)
    np.testing.assert_array_equal(alone, both)
    # Scores of 0.6 and -0.1 in the cube around the core: class 1 on average.
    mixed = make([threshold, Strict()], [Strict(), Nothing()], fine_header, execution)
    assert mixed.predict_array(image, MM)[4, 5, 4] == 1


def test_memory_that_runs_out_shrinks_the_batches_of_both(fine_header, execution, threshold, image):
    class Greedy(nn.Module):
        def forward(self, volume):
            if len(volume) > 1:
                raise torch.OutOfMemoryError("too much")
            return threshold(volume)

    predictor = make([Greedy()], [Greedy()], fine_header, execution)
    labels = predictor.predict_array(image, MM)
    assert np.count_nonzero(labels) == 125 + 8
    assert (predictor.batch_size, predictor.coarse.batch_size) == (1, 1)
    assert not predictor.coarse.sparing


def test_memory_that_runs_out_for_single_windows_keeps_both_to_planned_ones(fine_header, execution, threshold, image):
    class Greedier(nn.Module):
        def forward(self, volume):
            if not predictor.coarse.sparing:
                raise torch.OutOfMemoryError("too much")
            return threshold(volume)

    predictor = make([Greedier()], [Greedier()], fine_header, execution)
    assert np.count_nonzero(predictor.predict_array(image, MM)) == 125 + 8
    assert predictor.sparing


def test_the_coarse_model_is_read_from_beside_the_fine_one(fine_header, header, execution, tmp_path):
    folder = FoldFolder(root=tmp_path)
    save_model(folder.model_final, fine_header.build_model().state_dict(), fine_header)
    with pytest.raises(ModelError, match=r"coarse\.safetensors does not exist"):
        FinePredictor.load([folder.model_final], execution)
    other = header.model_copy(update={"plan": header.plan.model_copy(update={"spacing_mm": (2.0, 1.0, 1.0)})})
    save_model(folder.coarse, other.build_model().state_dict(), other)
    with pytest.raises(ModelError, match="spacing differ"):
        FinePredictor.load([folder.model_final], execution)
    save_model(folder.coarse, header.build_model().state_dict(), header)
    assert FinePredictor.load([folder.model_final], execution).coarse.header == header


def test_fine_models_are_not_averaged_with_others(fine_header, header, tmp_path):
    with pytest.raises(ModelError, match="different coarse-to-fine settings"):
        check_agreement([tmp_path / "a", tmp_path / "b"], [fine_header, header])


def test_labels_are_made_where_the_models_compute(fine_header, execution, threshold, image, monkeypatch):
    monkeypatch.setattr(FinePredictor, "labels_device", torch.device("meta"))
    predictor = make([threshold], [Strict()], fine_header, execution)
    assert {slab.device.type for slab in predictor.slabs(torch.from_numpy(image))} == {"meta"}


def test_scores_of_a_crop_that_lie_in_a_file_are_the_same(fine_header, execution, threshold, image, request):
    def predict():
        settings = FineConfig(margin=20, large_components=True)
        predictor = make([threshold], [threshold], fine_header.model_copy(update={"fine": settings}), execution)
        return torch.cat([slab.planes.clone() for slab in predictor.slabs(torch.from_numpy(image))])

    in_memory = predict()
    shapes = request.getfixturevalue("arrays_in_files")
    assert torch.equal(predict(), in_memory)
    assert [sorted(shape) for shape in shapes] == [[3, 16, 18, 20]]
