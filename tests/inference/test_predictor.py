import itertools
import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.core.errors import InputError, ModelError
from seg25d.data.labels import Labels
from seg25d.inference import windows
from seg25d.inference.predictor import Predictor, PredictorOptions, check_agreement
from seg25d.inference.sliding_window import window_starts
from seg25d.inference.windows import covering_window, deepened, default_batch_size
from seg25d.networks.specs.mixing import KINDS
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import load_header, save_model
from seg25d.planning.portable_model import Windows
from seg25d.representations.lifted.slices import LiftedSlices
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume

pytestmark = pytest.mark.processor
FLAT = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)))
"""A small network of two dimensions."""


def two_blocks(shape=(10, 12, 9)):
    """An image whose right labels (internal) are known: 1 in one block, 2 in another."""
    image, labels = np.zeros((2, *shape), np.float32), np.zeros(shape, np.uint8)
    image[0, 2:5, 3:7, 1:4] = 1
    labels[2:5, 3:7, 1:4] = 1
    image[1, 6:9, 8:11, 4:8] = 1
    labels[6:9, 8:11, 4:8] = 2
    return image, labels


@pytest.mark.parametrize("mirroring", [True, False])
def test_segments_an_array(header, execution, threshold, mirroring):
    image, labels = two_blocks()
    predictor = Predictor([threshold], header, execution, PredictorOptions(mirroring=mirroring))
    np.testing.assert_array_equal(predictor.predict_array(image, (1.0, 1.0, 1.0)), labels)


def test_other_spacings_come_back_on_the_grid_of_the_image(header, execution, threshold):
    image, labels = two_blocks()
    coarse = np.repeat(np.repeat(image, 2, 1), 2, 3)
    predicted = Predictor([threshold], header, execution).predict_array(coarse, (0.5, 1.0, 0.5))
    assert predicted.shape == (20, 12, 18)
    expected = np.repeat(np.repeat(labels, 2, 0), 2, 2)
    assert (predicted == expected).mean() > 0.98


def narrowing_object(num_slices):
    """An image of slices across an object that narrows from slice to slice, and its labels."""
    rows, columns = np.mgrid[-12:13, -12:13]
    inside = np.linspace(11, 4, num_slices)[:, None, None] - np.hypot(rows, columns)
    image = np.stack([0.5 + inside / 10, np.full_like(inside, 0.1)]).astype(np.float32)
    return image, (inside > 0).astype(np.uint8)


def test_thin_slices_are_not_repeated_by_a_model_of_thick_ones(header, execution, threshold):
    image, labels = narrowing_object(24)
    header = header.model_copy(update={"plan": header.plan.model_copy(update={"spacing_mm": (10.0, 1.0, 1.0)})})
    predictor = Predictor([threshold], header, execution)
    preprocessed, grid = predictor.preprocess(image, (10 / 3, 1.0, 1.0))
    np.testing.assert_array_equal(preprocessed, image[:, 1::3])
    predicted = predictor.predict_preprocessed(preprocessed, grid)
    assert (predicted[1:23] == labels[1:23]).mean() > 0.995
    # Where the object itself is the same in two slices, and nowhere else.
    repeated, truly = (
        [bool((one == other).all()) for one, other in pairwise(each[1:23])] for each in (predicted, labels)
    )
    assert repeated == truly
    assert sum(truly) < 5


def test_thick_slices_get_their_own_scores_of_a_model_of_thin_ones(header, execution, threshold):
    image, labels = narrowing_object(8)
    header = header.model_copy(update={"plan": header.plan.model_copy(update={"spacing_mm": (10 / 3, 1.0, 1.0)})})
    predicted = Predictor([threshold], header, execution).predict_array(image, (10.0, 1.0, 1.0))
    np.testing.assert_array_equal(predicted, labels)


def test_probabilities_agree_with_labels(header, execution, threshold, writer):
    image, labels = two_blocks()
    predictor = Predictor([threshold], header, execution)
    predicted = predictor.predict_probabilities(*predictor.preprocess(image, (1.0, 1.0, 1.0)), [writer])
    probabilities = writer.array[...]
    np.testing.assert_array_equal(predicted, labels)
    np.testing.assert_array_equal(probabilities.argmax(0), labels)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-5)


def test_maps_are_the_probabilities_of_the_foreground_on_the_models_grid(header, execution, threshold):
    image, _ = two_blocks()
    maps = Predictor([threshold], header, execution).predict_maps(image)
    softmax = threshold(torch.from_numpy(image)[None])[0].softmax(0)
    assert maps.dtype == torch.float16
    torch.testing.assert_close(maps.float(), softmax[1:], rtol=0, atol=1e-3)
    labels = Labels(names={"background": 0, "a": (1, 2), "b": (2,), "c": (3,)}, regions_class_order=(1, 2, 3))
    regions = header.model_copy(update={"description": header.description.model_copy(update={"labels": labels})})
    maps = Predictor([threshold], regions, execution).predict_maps(image)
    sigmoid = threshold(torch.from_numpy(image)[None])[0].sigmoid()
    torch.testing.assert_close(maps.float(), sigmoid, rtol=0, atol=1e-3)


def test_wrong_channels_are_refused_with_the_right_ones(header, execution, threshold):
    predictor = Predictor([threshold], header, execution)
    with pytest.raises(InputError, match=r"2 channel.*ct, pet"):
        predictor.predict_array(np.zeros((1, 4, 4, 4)), (1.0, 1.0, 1.0))


def test_voxels_that_are_not_finite_are_refused(header, execution, threshold):
    image, _ = two_blocks()
    image[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        Predictor([threshold], header, execution).predict_array(image, (1.0, 1.0, 1.0))


def test_loads_folds_and_averages_them(header, execution, tmp_path):
    paths, models = [], []
    for fold in range(2):
        torch.manual_seed(fold)
        models.append(header.build_model())
        paths.append(tmp_path / f"fold_{fold}.safetensors")
        save_model(paths[-1], models[-1].state_dict(), header.model_copy(update={"fold": fold}))
    image, _ = two_blocks()
    loaded = Predictor.load(paths, execution)
    assert not any(model.training for model in loaded.models)
    np.testing.assert_array_equal(
        loaded.predict_array(image, (1.0, 1.0, 1.0)),
        Predictor(models, header, execution).predict_array(image, (1.0, 1.0, 1.0)),
    )


def test_weights_of_another_network_are_refused(header, execution, tmp_path):
    save_model(tmp_path / "model.safetensors", {"a": torch.zeros(1)}, header)
    with pytest.raises(ModelError, match="do not fit"):
        Predictor.load([tmp_path / "model.safetensors"], execution)


def test_no_models_are_refused(execution):
    with pytest.raises(ModelError, match="no model file"):
        Predictor.load([], execution)


def test_models_of_different_plans_are_refused(header, tmp_path):
    other = header.model_copy(update={"plan": header.plan.model_copy(update={"window": (16, 16, 16)})})
    with pytest.raises(ModelError, match="different plan"):
        check_agreement([tmp_path / "a", tmp_path / "b"], [header, other])


def test_batches_shrink_with_the_number_of_classes(header, monkeypatch):
    assert default_batch_size(header) == 4
    # 3 classes x 512 voxels x 4 bytes
    monkeypatch.setattr(windows, "BATCH_SCORES_BYTES", 3 * 6144)
    assert default_batch_size(header) == 3
    monkeypatch.setattr(windows, "BATCH_SCORES_BYTES", 1)
    assert default_batch_size(header) == 1


def test_cpus_take_windows_of_many_voxels_one_by_one(header, execution, threshold):
    large = header.model_copy(update={"plan": header.plan.model_copy(update={"window": (40, 56, 40)})})

    def batch_size(header, size, **options):
        predictor = Predictor([threshold], header, execution, PredictorOptions(**options))
        return predictor.window_options((size, size, size)).batch_size

    assert batch_size(large, 80) == 1
    assert batch_size(large, 80, batch_size=3) == 3
    assert batch_size(header, 80) == 4


def test_goes_on_with_smaller_batches_when_memory_runs_out(header, execution, threshold, caplog):
    class Greedy(torch.nn.Module):
        def forward(self, volume):
            if len(volume) > 1:
                raise torch.OutOfMemoryError("too much")
            return threshold(volume)

    image, labels = two_blocks()
    predictor = Predictor([Greedy()], header, execution)
    np.testing.assert_array_equal(predictor.predict_array(image, (1.0, 1.0, 1.0)), labels)
    assert "batches of 1 windows" in caplog.text


class Small(torch.nn.Module):
    """A model whose device has room for one window of so many voxels; it counts those that did not fit."""

    def __init__(self, model, voxels):
        super().__init__()
        self.model, self.voxels, self.refused = model, voxels, []

    def forward(self, volume):
        if volume[:, 0].numel() > self.voxels:
            self.refused.append(tuple(volume[:, 0].shape))
            kind = (torch.OutOfMemoryError, RuntimeError)[len(self.refused) % 2]
            raise kind("CUDA out of memory. Tried to allocate 2.00 GiB; CUDNN_STATUS_ALLOC_FAILED\nmore")
        return self.model(volume)


def test_goes_on_with_planned_windows_when_a_single_stretched_one_does_not_fit(header, execution, threshold, caplog):
    image, labels = two_blocks()
    image += 0.1  # so that nothing is cropped
    model = Small(threshold, 8 * 8 * 8)
    predictor = Predictor([model], header, execution)
    np.testing.assert_array_equal(predictor.predict_array(image, (1.0, 1.0, 1.0)), labels)
    assert model.refused == [(4, 10, 8, 10), (2, 10, 8, 10), (1, 10, 8, 10)]
    assert "windows of the planned size, summed on the CPU" in caplog.text
    assert predictor.window_options((9, 9, 9)).sums_on_cpu
    # What was learnt holds for the next case.
    predictor.predict_array(image, (1.0, 1.0, 1.0))
    assert len(model.refused) == 3


def test_goes_on_with_planned_windows_when_a_deep_one_does_not_fit(header, execution, threshold):
    plan = header.plan.model_copy(update={"representation": Slices(axis=1, context=1), "network": FLAT})
    model = Small(threshold, 8 * 8 * 8)
    predictor = Predictor([model], header.model_copy(update={"plan": plan}), execution)
    image, labels = two_blocks((10, 24, 9))
    image += 0.1
    np.testing.assert_array_equal(predictor.predict_array(image, (1.0, 1.0, 1.0)), labels)
    assert {shape[2] for shape in model.refused} == {24, 16, 8}


def test_says_what_to_do_where_a_planned_window_does_not_fit(header, execution, threshold):
    image, _ = two_blocks()
    model = Small(threshold, 8 * 8 * 8 - 1)
    predictor = Predictor([model], header, execution)
    with pytest.raises(InputError, match=r"8 x 8 x 8 voxels \(CUDA out of memory. Tried to .* --device cpu") as caught:
        predictor.predict_array(image, (1.0, 1.0, 1.0))
    # The first error would hold on to what was on the device.
    assert caught.value.__context__ is None
    assert model.refused[-1] == (1, 8, 8, 8)


def test_a_window_is_chosen_that_computes_the_fewest_voxels(header):
    plan = header.plan  # windows of 8 x 8 x 8, divisible by 2
    assert covering_window(plan, (8, 8, 8), 3) == (8, 8, 8)
    assert covering_window(plan, (6, 9, 8), 3) == (8, 10, 8)
    assert covering_window(plan, (11, 9, 8), 3) == (12, 10, 8)
    assert covering_window(plan, (13, 8, 8), 3) == (10, 8, 8)  # two windows instead of three
    assert covering_window(plan, (13, 8, 8), 3, step_size=1) == (8, 8, 8)  # two of 8 do
    assert covering_window(plan, (16, 8, 8), 3) == (8, 8, 8)  # three of 8, as two of 12 would compute as much
    assert covering_window(plan, (12, 12, 12), 3) == (8, 8, 12)  # twice the voxels at most
    assert covering_window(plan, (9, 8, 8), 10**6) == (8, 8, 8)  # scores of so many classes would not fit
    assert covering_window(plan, (9, 9, 9), 3, free_axes=frozenset({1})) == (8, 10, 8)


@settings(max_examples=150)
@given(
    st.tuples(*[st.integers(1, 60)] * 3),
    st.tuples(*[st.integers(1, 10)] * 3),
    st.sampled_from([(1, 1, 1), (1, 2, 2), (2, 2, 2), (4, 2, 1)]),
    st.sampled_from([0.5, 0.3, 1.0]),
)
def test_the_window_is_the_best_of_all_sizes(shape, factors, divisor, step_size):
    window = tuple(size * factor for size, factor in zip(divisor, factors, strict=True))
    plan: Any = SimpleNamespace(
        window=window,
        representation=SimpleNamespace(network_axes=(0, 1, 2), regular_steps=None, resizable_axes=(0, 1, 2)),
        network=SimpleNamespace(divisor=divisor),
        step_sizes=lambda _, step: (step, step, step),
    )

    def cost(size):
        of_axes = (each * len(window_starts(voxels, each, step_size)) for voxels, each in zip(shape, size, strict=True))
        return math.prod(of_axes), size

    sizes = [
        [planned]
        if voxels <= planned
        else [*range(planned, min(-(-voxels // by) * by, int(1.5 * planned)) + 1, by), -(-voxels // by) * by]
        for voxels, planned, by in zip(shape, window, divisor, strict=True)
    ]
    whole = [voxels <= 1.5 * planned for voxels, planned in zip(shape, window, strict=True)]
    possible = [
        size
        for size in itertools.product(*sizes)
        if math.prod(size) <= 2 * math.prod(window)
        and all(each <= 1.5 * planned or fits for each, planned, fits in zip(size, window, whole, strict=True))
    ]
    assert covering_window(plan, shape, 3, step_size=step_size) == min([window, *possible], key=cost)


def test_few_windows_are_tried_where_a_network_takes_any_size(header, monkeypatch):
    """A window of 200 voxels may have 101 sizes along each axis, which are a million windows."""
    network = UNetSpec(widths=(4,), strides=((1, 1, 1),), kernels=((3, 3, 3),))
    plan = header.plan.model_copy(update={"window": (200,) * 3, "network": network})
    tried = []
    monkeypatch.setattr(windows, "window_starts", lambda *each: tried.append(each) or window_starts(*each))
    assert covering_window(plan, (420, 420, 420), 3) == (210, 210, 210)  # three along each axis instead of four
    assert len(tried) == 3 * 101


def test_slices_of_a_super_image_are_taken_as_planned_or_all(header):
    super_image = SuperImage(axis=0, grid=(2, 4))
    plan = header.plan.model_copy(update={"representation": super_image, "network": FLAT})
    assert covering_window(plan, (11, 8, 8), 3) == (11, 8, 8)
    assert covering_window(plan, (13, 8, 9), 3) == (8, 8, 10)


def test_slices_are_taken_together_as_far_as_a_batch_goes(header):
    plan = header.plan.model_copy(update={"representation": Slices(axis=1, context=1)})

    def of(size, batch_size, given=plan, **options):
        return deepened(given, (8, 8, 8), size, batch_size, 3, **{"in_parts": False, **options})

    assert of((20, 30, 20), 4) == ((8, 30, 8), 1)
    assert of((20, 30, 20), 9) == ((8, 30, 8), 2)
    assert of((20, 30, 20), 3) == ((8, 24, 8), 1)
    assert of((20, 8, 20), 3) == ((8, 8, 8), 3)
    assert of((20, 30, 20), 4, header.plan) == ((8, 8, 8), 4)
    assert of((20, 30, 20), 1, in_parts=True) == ((8, 30, 8), 1)


def test_sums_limit_the_depth_of_slices_that_are_computed_in_parts(header, monkeypatch):
    plan = header.plan.model_copy(update={"representation": Slices(axis=1, context=1)})
    monkeypatch.setattr(windows, "SUMS_BYTES", 4 * 3 * 20 * 20 * 17)  # of 17 slices
    assert deepened(plan, (8, 8, 8), (20, 30, 20), 1, 3, in_parts=True) == ((8, 16, 8), 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_in_parts_have_the_scores_of_all_at_once(axis):
    torch.manual_seed(0)
    model = LiftedSlices(FLAT.build(3, 2).eval(), Slices(axis=axis, context=1))
    volumes = torch.randn(2, 1, 8, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(model(volumes, images_at_once=3), model(volumes), rtol=1e-5, atol=1e-6)


def test_a_deep_window_computes_no_slice_twice_and_no_more_than_a_batch_at_a_time(header, execution):
    plan = header.plan.model_copy(
        update={"representation": Slices(axis=0, context=1), "network": FLAT, "batch_size": 1}
    )
    images: list[int] = []
    network = FLAT.build(2 * 3, 3)
    network.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    model = LiftedSlices(network, plan.representation)
    predictor = Predictor(
        [model], header.model_copy(update={"plan": plan}), execution, PredictorOptions(mirroring=False, batch_size=2)
    )
    image, _ = two_blocks((40, 8, 8))
    predictor.predict_array(image + 0.1, (1.0, 1.0, 1.0))
    assert images == [13, 13, 14]  # at most 2 windows of 8 slices at a time


def test_slices_overlap_no_further_than_their_neighbours_reach():
    assert Slices(axis=1, context=3).step_sizes((8, 30, 8), 0.5) == (0.5, 0.8, 0.5)
    assert Slices(axis=0, context=3).step_sizes((7, 8, 8), 0.5) == (0.5, 0.5, 0.5)
    assert Volume().step_sizes((8, 8, 8), 0.25) == (0.25, 0.25, 0.25)


def test_the_threshold_of_the_model_decides(header, execution, tmp_path):
    class Unsure(torch.nn.Module):
        def forward(self, volume):
            return torch.stack([torch.zeros_like(volume[:, 0]), volume[:, 0]], 1)

    description = header.description.model_copy(update={"labels": Labels(names={"background": 0, "organ": 1})})
    plain = header.model_copy(update={"description": description})
    image = np.zeros((2, 8, 8, 8), np.float32)
    image[0] = -5
    image[0, 2:5] = -1  # probability 0.27
    for threshold, planes in ((None, []), (0.2, [2, 3, 4]), (0.3, [])):
        model_header = plain.model_copy(update={"threshold": threshold})
        path = tmp_path / f"{threshold}.safetensors"
        save_model(path, model_header.build_model().state_dict(), model_header)
        predictor = Predictor([Unsure()], load_header(path), execution)
        predicted = predictor.predict_array(image, (1.0, 1.0, 1.0))
        assert np.flatnonzero(predicted.all((1, 2))).tolist() == planes
        assert np.count_nonzero(predicted) == 64 * len(planes)
        exported = predictor.predict_probabilities(*predictor.preprocess(image, (1.0, 1.0, 1.0)), ())
        np.testing.assert_array_equal(exported, predicted)
    with pytest.raises(ModelError, match="different threshold"):
        check_agreement([tmp_path / "a", tmp_path / "b"], [plain, model_header])


def test_scores_that_are_no_numbers_are_an_error_and_not_background(header, execution, threshold):
    class Broken(torch.nn.Module):
        def forward(self, volume):
            return threshold(volume) / volume.new_zeros(())

    with pytest.raises(ModelError, match="scores of the model of Dataset001_Test, 3d, fold 0 are NaN or infinite"):
        Predictor([Broken()], header, execution).predict_array(np.ones((2, 9, 9, 9), np.float32), (1.0, 1.0, 1.0))


def test_more_windows_than_a_list_of_them_may_have_are_refused(header, execution, threshold, monkeypatch):
    monkeypatch.setattr("seg25d.inference.sliding_window.MAX_WINDOWS", 7)
    predictor = Predictor([threshold], header, execution, PredictorOptions(step_size=0.6))
    with pytest.raises(
        InputError, match=r"would take \d+ windows of 8 x 8 x 10 voxels for a volume of 8 x 8 x 40, 7 are"
    ):
        predictor.predict_array(np.ones((2, 8, 8, 40), np.float32), (1.0, 1.0, 1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_slices_of_volumes_that_are_shorter_than_the_window_are_mixed_with_real_ones_alone(header, execution, kind):
    """Equal slices stay as they are, so that five of them have the scores of one, also where windows have eight."""
    network = UNetSpec(widths=(8, 8), strides=((1, 1), (2, 2)), kernels=((3, 3), (3, 3)), mixing=KINDS[kind]())
    plan = header.plan.model_copy(update={"representation": Slices(axis=0), "network": network})
    mixed = header.model_copy(update={"plan": plan})
    torch.manual_seed(0)
    model = mixed.build_model().eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    predictor = Predictor([model], mixed, execution, PredictorOptions(mirroring=False))
    image = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)).expand(-1, 5, -1, -1)
    with torch.inference_mode():
        expected = model(image[None, :, :1])[0].expand(-1, 5, -1, -1)
    found = torch.cat(
        [slab.planes.clone().movedim(0, 1 + slab.axis) for slab in predictor.slabs(image.contiguous())], 1
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert Windows.of(plan, 1).repeated_axis == 0
    plain = plan.model_copy(update={"network": network.model_copy(update={"mixing": None})})
    assert Windows.of(plain, 1).repeated_axis is None
    assert "repeated_axis" not in Windows.of(plain, 1).model_dump(mode="json")
