import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seg25d.core.errors import InputError
from seg25d.core.grids import regular_starts
from seg25d.inference import window_sums
from seg25d.inference.sliding_window import (
    WindowOptions,
    axis_weights,
    gaussian_weights,
    labels_device,
    predict_slabs,
    window_starts,
)
from seg25d.representations.base import RegularSteps

pytestmark = pytest.mark.processor


def predict_volume(models, image: torch.Tensor, num_outputs: int, options: WindowOptions) -> torch.Tensor:
    """The scores (K, D, H, W) of all slabs."""
    scores = torch.empty(num_outputs, *image.shape[1:])
    for slab in predict_slabs(models, image, num_outputs, options):
        planes = scores.movedim(slab.axis + 1, 0)
        planes[slab.start : slab.start + len(slab.planes)] = slab.planes
    return scores


class Pointwise(nn.Module):
    """Scores that depend on one voxel only, so that windows do not matter."""

    def forward(self, volume):
        return torch.cat([volume[:, :1] * 2, volume[:, :1] ** 2, 1 - volume[:, :1]], 1)


class Recorder(Pointwise):
    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, volume):
        self.batches.append(volume.clone())
        return super().forward(volume)


def make_conv(seed=0):
    torch.manual_seed(seed)
    return nn.Conv3d(1, 3, 3, padding=1).eval()


def random_image(shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32))


@pytest.mark.parametrize(
    ("size", "window", "step", "starts"),
    [
        (192, 128, 0.5, [0, 64]),
        (100, 64, 0.5, [0, 18, 36]),
        (110, 64, 0.5, [0, 23, 46]),
        (64, 64, 0.5, [0]),
        (10, 64, 0.5, [0]),
        (129, 128, 1.0, [0, 1]),
        (3, 1, 0.5, [0, 1, 2]),
    ],
)
def test_window_starts_follow_nnunet(size, window, step, starts):
    # ceil((size - window) / (step * window)) + 1 windows, evenly spread and rounded
    assert window_starts(size, window, step) == starts


@given(st.integers(1, 60), st.integers(1, 30), st.floats(0.1, 1.0))
def test_windows_cover_everything_without_gaps(size, window, step):
    starts = window_starts(size, window, step)
    covered = {voxel for start in starts for voxel in range(start, start + window)}
    assert covered.issuperset(range(size))
    assert starts[-1] == max(0, size - window)


def test_gaussian_is_symmetric_and_stays_away_from_zero():
    weights = gaussian_weights(16)
    assert np.array_equal(weights, weights[::-1])
    assert weights.min() >= 1e-3
    # sigma = 16 / 8 = 2; the voxels next to the centre lie half a voxel off
    assert weights[7].item() == pytest.approx(np.exp(-0.5 * (0.5 / 2) ** 2))


def test_weights_of_all_windows_sum_to_one():
    starts = window_starts(19, 8, 0.5)
    total = np.zeros(19, np.float32)
    for start, weights in axis_weights(19, 8, starts).items():
        total[start : start + 8] += weights
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(1, 14), st.integers(1, 14), st.integers(1, 14)),
    st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9)),
    st.integers(1, 5),
    st.sampled_from([(), (2,), (0, 1, 2)]),
    st.sampled_from([0.5, 1.0, (1.0, 0.5, 0.4)]),
)
def test_windows_mirrors_and_batches_do_not_change_pointwise_scores(shape, window, batch_size, mirror_axes, step_size):
    image = random_image(shape)
    options = WindowOptions(window, step_size=step_size, mirror_axes=mirror_axes, batch_size=batch_size)
    scores = predict_volume([Pointwise()], image, 3, options)
    torch.testing.assert_close(scores, Pointwise()(image[None])[0], atol=1e-5, rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(4, 14)] * 3), st.integers(1, 7))
def test_slabs_follow_each_other(shape, batch_size):
    stop = 0
    for slab in predict_slabs([Pointwise()], random_image(shape), 3, WindowOptions((5, 4, 3), batch_size=batch_size)):
        assert slab.start == stop
        assert slab.planes.shape[1:] == (3, *(size for axis, size in enumerate(shape) if axis != slab.axis))
        stop += len(slab.planes)
    assert stop == shape[slab.axis]


def test_result_equals_explicit_average_of_weighted_windows():
    model, image, window = make_conv(), random_image((9, 8, 7)), (6, 5, 4)
    numerator, denominator = torch.zeros(3, 9, 8, 7), torch.zeros(9, 8, 7)
    depth, height, width = (torch.from_numpy(gaussian_weights(size)) for size in window)
    weight = depth[:, None, None] * height[:, None] * width
    starts = [window_starts(size, wanted, 0.5) for size, wanted in zip((9, 8, 7), window, strict=True)]
    with torch.inference_mode():
        for corner in itertools.product(*starts):
            place = tuple(slice(start, start + size) for start, size in zip(corner, window, strict=True))
            numerator[(slice(None), *place)] += model(image[(slice(None), *place)][None])[0] * weight
            denominator[place] += weight
        scores = predict_volume([model], image, 3, WindowOptions(window, batch_size=3))
    torch.testing.assert_close(scores, numerator / denominator, atol=1e-5, rtol=1e-5)


def test_whole_volume_in_one_window_is_the_models_output():
    model, image = make_conv(), random_image((6, 5, 4))
    with torch.inference_mode():
        expected = model(image[None])[0]
    torch.testing.assert_close(predict_volume([model], image, 3, WindowOptions((6, 5, 4))), expected)


def test_mirroring_averages_over_all_subsets_of_axes():
    model, image = make_conv(), random_image((6, 5, 4))
    with torch.inference_mode():
        variants = [
            model(image[None].flip(dims)).flip(dims)[0] if dims else model(image[None])[0]
            for dims in ([], [2], [4], [2, 4])
        ]
    options = WindowOptions((6, 5, 4), mirror_axes=(0, 2), batch_size=3)
    torch.testing.assert_close(predict_volume([model], image, 3, options), torch.stack(variants).mean(0))


def test_several_models_are_averaged():
    first, second, image = make_conv(0), make_conv(1), random_image((9, 8, 7))
    options = WindowOptions((6, 5, 4), batch_size=2)
    both = predict_volume([first, second], image, 3, options)
    single = [predict_volume([model], image, 3, options) for model in (first, second)]
    torch.testing.assert_close(both, torch.stack(single).mean(0))


def test_small_volume_lies_in_the_middle_of_zeros():
    model, image = Recorder(), random_image((2, 5, 4))
    predict_volume([model], image, 3, WindowOptions((6, 5, 4)))
    (batch,) = model.batches
    assert torch.equal(batch[0, :, 2:4], image)
    assert not batch[0, :, :2].any()
    assert not batch[0, :, 4:].any()


def test_windows_and_mirrors_fill_batches_together():
    model = Recorder()
    options = WindowOptions((4, 4, 4), step_size=1.0, mirror_axes=(0,), batch_size=4)
    predict_volume([model], random_image((4, 4, 12)), 3, options)
    assert [len(batch) for batch in model.batches] == [4, 2]


def test_few_planes_are_in_work_at_a_time():
    # Windows of 2 planes at steps of 1 in batches of 1: never more than 2 of the 20 planes.
    slabs = predict_slabs([Pointwise()], random_image((8, 8, 20)), 3, WindowOptions((8, 8, 2)))
    assert {(slab.axis, len(slab.planes)) for slab in slabs} == {(2, 1), (2, 2)}


def test_large_sums_are_kept_in_half_precision(monkeypatch):
    # 7 planes of 3 x 6 x 5 numbers are open: 4 bytes each would be too many, 2 are not.
    monkeypatch.setattr(window_sums, "PLANES_BYTES", 3000)
    image = random_image((9, 8, 7))
    (kind,) = {slab.planes.dtype for slab in predict_slabs([Pointwise()], image, 3, WindowOptions((6, 5, 4)))}
    assert kind == torch.float16
    scores = predict_volume([Pointwise()], image, 3, WindowOptions((6, 5, 4)))
    torch.testing.assert_close(scores, Pointwise()(image[None])[0], atol=2e-2, rtol=2e-3)


def test_autocast_is_used_and_scores_stay_full():
    options = WindowOptions((6, 5, 4), autocast=torch.autocast("cpu", torch.bfloat16))
    image = random_image((9, 8, 7))
    scores = predict_volume([make_conv()], image, 3, options)
    exact = predict_volume([make_conv()], image, 3, WindowOptions((6, 5, 4)))
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, exact)
    torch.testing.assert_close(scores, exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("step_size", [0.0, 1.5, (0.5, 0.5, -1.0)])
def test_impossible_steps_are_refused(step_size):
    with pytest.raises(InputError, match="step size"):
        WindowOptions((4, 4, 4), step_size=step_size)


@pytest.mark.parametrize("overlap", [0, 2, 3])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("size", [3, 5, 11, 15])
def test_a_regular_axis_is_covered_in_whole_steps_and_filled_up_behind(axis, overlap, size):
    shape = [4, 5, 6]
    shape[axis] = size
    window = [4, 5, 6]
    window[axis] = 5
    image = random_image(tuple(shape)) + 10
    recorder = Recorder()
    options = WindowOptions(tuple(window), regular=RegularSteps(axis, 1, 5 - overlap))
    scores = predict_volume([recorder], image, 3, options)
    torch.testing.assert_close(scores, Pointwise()(image[None])[0], rtol=1e-5, atol=1e-4)
    starts = regular_starts(size, 5, 5 - overlap)
    seen = torch.cat(recorder.batches)
    assert len(seen) == len(starts)
    for start, part in zip(starts, seen, strict=True):
        inside = min(5, size - start)
        assert torch.equal(part.narrow(1 + axis, 0, inside), image.narrow(1 + axis, start, inside))
        assert (part.narrow(1 + axis, inside, 5 - inside) == 0).all()


def test_the_last_window_of_a_regular_axis_can_be_flush_with_the_end():
    image = random_image((11, 4, 4)) + 10
    recorder = Recorder()
    regular = RegularSteps(axis=0, training_step=1, step=5, flush=True)
    scores = predict_volume([recorder], image, 3, WindowOptions((5, 4, 4), regular=regular))
    torch.testing.assert_close(scores, Pointwise()(image[None])[0], rtol=1e-5, atol=1e-4)
    for start, part in zip((0, 5, 6), torch.cat(recorder.batches), strict=True):
        assert torch.equal(part, image[:, start : start + 5])


def test_volumes_are_filled_up_with_what_the_representation_wants():
    image = torch.stack([torch.full((2, 3, 2), 5.0), torch.full((2, 3, 2), -4.0)])
    image[:, 0, 0, 0] -= 1
    recorder = Recorder()
    predict_volume([recorder], image, 3, WindowOptions((2, 4, 4), padded_with_lowest=True))
    (seen,) = torch.cat(recorder.batches)
    assert (seen[:, :, -1] == torch.tensor([4.0, -5.0])[:, None, None]).all()
    assert torch.equal(seen[:, :, :3, 1:3], image)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_volumes_are_filled_up_with_their_end_slices_where_these_are_mixed(axis):
    image, window = random_image((3, 3, 3)) + 10, [4, 4, 4]
    window[axis] = 8
    recorder = Recorder()
    scores = predict_volume([recorder], image, 3, WindowOptions(tuple(window), repeated_axis=axis))
    torch.testing.assert_close(scores, Pointwise()(image[None])[0], rtol=1e-5, atol=1e-4)
    (seen,) = torch.cat(recorder.batches)
    others = [3 if other == axis else 4 for other in range(3)]
    inside = torch.zeros(len(image), *others)
    inside[:, *(slice(None) if other == axis else slice(0, 3) for other in range(3))] = image
    assert torch.equal(seen, inside.index_select(1 + axis, torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])))


def test_volumes_that_fill_the_window_along_the_axis_are_padded_along_the_others():
    seen = []
    for axis in (None, 0):
        recorder = Recorder()
        predict_volume([recorder], random_image((5, 3, 3)), 3, WindowOptions((4, 4, 4), repeated_axis=axis))
        seen.append(torch.cat(recorder.batches))
    assert torch.equal(*seen)


def test_scores_along_a_regular_axis_are_averaged_with_equal_weights():
    class Position(nn.Module):
        def forward(self, volume):
            return torch.arange(4.0)[None, None, :, None, None].expand(len(volume), 1, 4, *volume.shape[3:])

    options = WindowOptions((4, 2, 2), regular=RegularSteps(0, 1, 2))
    scores = predict_volume([Position()], torch.zeros(1, 8, 2, 2), 1, options)
    assert scores[0, :, 0, 0].tolist() == [0, 1, 1, 2, 1, 2, 2, 3]


@pytest.mark.parametrize("axis", [1, 2])
def test_along_the_other_axes_of_regular_windows_the_middle_weighs_more(axis):
    class Position(nn.Module):
        def forward(self, volume):
            return (
                torch.arange(8.0).reshape([8 if each == axis else 1 for each in range(3)]).expand(1, *volume.shape[1:])
            )

    options = WindowOptions((2, 8, 8), regular=RegularSteps(0, 1, 2))
    shape = [2, 8, 8]
    shape[axis] = 12
    scores = predict_volume([Position()], torch.zeros(1, *shape), 1, options)[0].movedim(axis, 0)
    # Windows begin at 0 and 4: voxel 5 is number 5 of the first and number 1 of the second.
    first, second = gaussian_weights(8)[[5, 1]]
    expected = float((5 * first + 1 * second) / (first + second))
    torch.testing.assert_close(scores[5], torch.full_like(scores[5], expected))
    assert expected > 4, "equal weights would give 3"


def test_sums_stay_on_a_gpu_whose_memory_torch_only_keeps(monkeypatch):
    """From the second case on torch holds nearly all of the memory, most of it for tensors that are gone."""
    for name, answer in {"mem_get_info": (50, 1000), "memory_reserved": 900, "memory_allocated": 150}.items():
        monkeypatch.setattr(torch.cuda, name, lambda _device, answer=answer: answer)
    gpu = torch.device("cuda:0")
    assert window_sums.buffer_device(gpu, 400) == gpu
    assert window_sums.buffer_device(gpu, 401) == torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "on_cpu", "place"),
    [("cuda:1", False, "cuda:1"), ("cuda:1", True, "cpu"), ("cpu", False, "cpu"), ("mps", False, "cpu")],
)
def test_labels_are_made_on_the_gpu_of_the_models_unless_it_lacks_memory(device, on_cpu, place):
    assert labels_device(torch.device(device), on_cpu=on_cpu) == torch.device(place)
