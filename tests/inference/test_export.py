import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seg25d.core.arrays import PlaneWriter
from seg25d.data.labels import Labels
from seg25d.inference import export
from seg25d.inference.export import export_slabs, labels_from_slabs
from seg25d.inference.sliding_window import Slab
from seg25d.inference.uncertainty import Uncertainty
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.resample import resample_labels
from tests.preprocessing.resampled_scores import resampled_scores

LABELS = Labels(names={"background": 0, "a": 1, "b": 5})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))


def labels_from_scores(scores: torch.Tensor, grid: Grid, labels: Labels) -> np.ndarray:
    return labels_from_slabs([Slab(0, 0, scores.movedim(1, 0))], grid, labels)


def labels_and_probabilities(slabs, grid, labels, threshold=None):
    """Labels and probabilities, which stay in memory."""
    writer = PlaneWriter(Path(), np.float32, in_memory_bytes=1 << 20)
    indices = export_slabs(slabs, grid, labels, [writer], threshold)
    return indices, writer.array[...]


def make_grid(canonical_shape, box, shape, spacing=(1.0, 1.0, 1.0), model_spacing=(1.0, 1.0, 1.0)):
    return Grid(
        canonical_shape=canonical_shape,
        canonical_spacing_mm=spacing,
        bounding_box=box,
        spacing_mm=model_spacing,
        shape=shape,
    )


def whole(shape):
    return tuple((0, size) for size in shape)


def cut_slabs(scores, axis, thickness):
    """Slabs as the sliding window gives them: their memory is used again for the next one."""
    planes = scores.movedim(axis + 1, 0)
    buffer = torch.empty(thickness, *planes.shape[1:])
    for start in range(0, len(planes), thickness):
        part = planes[start : start + thickness]
        buffer[: len(part)] = part
        yield Slab(axis, start, buffer[: len(part)])


def resampled_at_once(scores, new_shape, separate):
    """Of all scores (K, d, h, w), those on another grid: interpolated between the slices that were taken of it."""
    if separate is None or scores.shape[1 + separate] >= new_shape[separate]:
        return resampled_scores(scores, new_shape, separate)
    size, new_size = scores.shape[1 + separate], new_shape[separate]
    in_plane = [size if axis == separate else new for axis, new in enumerate(new_shape)]
    # The slice of the file that holds the middle of each slice of the model.
    taken = [int((index + 0.5) * new_size / size) for index in range(size)]
    return np.apply_along_axis(
        lambda line: np.interp(range(new_size), taken, line), 1 + separate, resampled_scores(scores, tuple(in_plane))
    ).astype(np.float32)


shapes = st.tuples(*[st.integers(1, 9)] * 3)


@settings(max_examples=60, deadline=None)
@given(shapes, shapes, st.integers(0, 2), st.integers(1, 4), st.sampled_from([None, 0, 1, 2]), st.integers(0, 99))
def test_slabs_give_what_resampling_all_scores_at_once_gives(shape, new_shape, axis, thickness, separate, seed):
    scores = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, *shape)).astype(np.float32))
    spacing = tuple(5.0 if index == separate else 1.0 for index in range(3))
    grid = make_grid(new_shape, whole(new_shape), shape, spacing, spacing)
    assert grid.separate_axis == grid.inverse_separate_axis == separate
    resampled = resampled_at_once(scores.numpy(), new_shape, separate)
    labels, probabilities = labels_and_probabilities(cut_slabs(scores, axis, thickness), grid, LABELS)
    np.testing.assert_allclose(probabilities, torch.from_numpy(resampled).softmax(0).numpy(), atol=1e-5)
    # Scores that are equal up to rounding may go either way.
    first, second = np.sort(resampled, axis=0)[-1], np.sort(resampled, axis=0)[-2]
    clear = first - second > 1e-5
    np.testing.assert_array_equal(labels[clear], resampled.argmax(0)[clear])
    np.testing.assert_array_equal(labels_from_slabs(cut_slabs(scores, axis, thickness), grid, LABELS), labels)


def test_doubling_along_one_axis_by_hand():
    # Two voxels 0 | 10 become four: their centres lie at -0.25, 0.25, 0.75, 1.25 old voxels.
    scores = torch.zeros(2, 2, 1, 1)
    scores[1, :, 0, 0] = torch.tensor([-4.0, 4.0])
    grid = make_grid((4, 1, 1), whole((4, 1, 1)), (2, 1, 1))
    _, probabilities = labels_and_probabilities(
        [Slab(0, 0, scores.movedim(1, 0))], grid, Labels(names={"background": 0, "a": 1})
    )
    logits = np.log(probabilities[1] / probabilities[0])[:, 0, 0]
    np.testing.assert_allclose(logits, [-4, -2, 2, 4], atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(("size", "expected"), [(4, [-4, -4, 0, 4]), (6, [-4, -4, -4 / 3, 4 / 3, 4, 4])])
def test_slices_between_those_that_the_model_saw_get_a_mixture(axis, size, expected):
    """Of 4 slices the second and the last one are taken, of 6 the second and the fifth; along every axis of a slab."""
    scores = torch.zeros(2, 2, 1, 1)
    scores[1, :, 0, 0] = torch.tensor([-4.0, 4.0])
    canonical, model = (10.0 / (size / 2), 1.0, 1.0), (10.0, 1.0, 1.0)
    grid = make_grid((size, 1, 1), whole((size, 1, 1)), (2, 1, 1), canonical, model)
    slab = Slab(axis, 0, scores.movedim(axis + 1, 0))
    labels, probabilities = labels_and_probabilities([slab], grid, Labels(names={"background": 0, "a": 1}))
    logits = np.log(probabilities[1] / probabilities[0])[:, 0, 0]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert labels[:, 0, 0].tolist() == [int(logit > 0) for logit in expected]
    # Regions, and a threshold: probabilities of 0.018, 0.018, 0.5, 0.98 and so on.
    both = torch.stack([scores[1], -scores[1]])
    _, shares = labels_and_probabilities([Slab(axis, 0, both.movedim(axis + 1, 0))], grid, REGIONS)
    found = np.log(shares / (1 - shares))[:, :, 0, 0]
    np.testing.assert_allclose(found, [expected, np.negative(expected)], atol=1e-4)
    for make in (labels_from_slabs, export_slabs):
        found = make([slab], grid, Labels(names={"background": 0, "a": 1}), threshold=0.2)
        assert found[:, 0, 0].tolist() == [int(logit > np.log(0.25)) for logit in expected]


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("spacing", [(5.0, 1.0, 1.0), (5.001, 1.0, 1.0), (10.0, 1.0, 1.0)])
def test_scores_of_as_many_slices_or_more_stay_those_of_slices(axis, spacing):
    """Of as many slices each has its own scores, to the bit; of more the nearest ones are taken, as ever."""
    scores = torch.from_numpy(np.random.default_rng(4).normal(size=(3, 8, 5, 6)).astype(np.float32))
    depth = 4 if spacing[0] == 10 else 8
    grid = make_grid((depth, 5, 6), whole((depth, 5, 6)), (8, 5, 6), spacing, (5.0, 1.0, 1.0))
    planes = [plane.clone() for _, _, plane in export._resampled_planes(cut_slabs(scores, axis, 3), grid)]
    expected = scores if depth == 8 else scores[:, 1::2]
    assert torch.equal(torch.stack(planes).movedim(0, axis + 1), expected)


def test_segmentations_do_not_repeat_from_slice_to_slice():
    """A cone that a model sees in every third slice: as it was where it was seen, and narrowing in between."""
    radius = np.arange(12, 0, -1)[:, None, None] / 2
    rows, columns = np.mgrid[-8:9, -8:9]
    truth = (rows**2 + columns**2 <= radius**2).astype(np.uint8)
    grid = Grid.plan((12, 17, 17), (1.0, 0.3, 0.3), whole((12, 17, 17)), (3.0, 0.3, 0.3))
    seen = resample_labels(truth, grid.shape, grid.separate_axis)
    assert (seen == truth[1::3]).all()
    # As a network gives them: more certain further from the border.
    distance = np.clip(radius[1::3] - np.hypot(rows, columns), -3, 3).astype(np.float32)
    scores = torch.from_numpy(np.stack([np.zeros_like(distance), distance + 1e-3]))
    found = labels_from_scores(scores, grid, Labels(names={"background": 0, "cone": 1}))
    assert (found[1::3] == truth[1::3]).all()
    same = [bool((one == other).all()) for one, other in zip(found[1:], found[:-1], strict=True)]
    # Nothing is known before the first slice that was seen, nor behind the last one.
    assert same == [True, *[False] * 9, True]


def test_crop_is_undone():
    scores = torch.zeros(3, 2, 2, 2)
    scores[2] = 1
    labels = labels_from_scores(scores, make_grid((4, 5, 6), ((1, 3), (2, 4), (3, 5)), (2, 2, 2)), LABELS)
    assert labels.shape == (4, 5, 6)
    assert labels.dtype == np.uint8
    assert (labels[1:3, 2:4, 3:5] == 2).all()
    assert np.count_nonzero(labels) == 8


def test_outside_of_the_crop_is_certain_background():
    grid = make_grid((3, 1, 1), ((1, 2), (0, 1), (0, 1)), (1, 1, 1))
    _, probabilities = labels_and_probabilities([Slab(0, 0, torch.zeros(1, 3, 1, 1))], grid, LABELS)
    np.testing.assert_allclose(probabilities[:, :, 0, 0].T, [[1, 0, 0], [1 / 3] * 3, [1, 0, 0]], atol=1e-6)
    _, probabilities = labels_and_probabilities([Slab(0, 0, torch.zeros(1, 2, 1, 1))], grid, REGIONS)
    np.testing.assert_allclose(probabilities[:, :, 0, 0].T, [[0, 0], [0.5, 0.5], [0, 0]])


def test_regions_are_painted_in_their_order():
    scores = torch.tensor([[1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])[:, :, None, None]
    labels = labels_from_scores(scores, make_grid((4, 1, 1), whole((4, 1, 1)), (4, 1, 1)), REGIONS)
    assert labels[:, 0, 0].tolist() == [1, 2, 2, 0]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_half_precision_slabs_are_taken(axis):
    scores = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 4, 5, 6)).astype(np.float32)).half()
    grid = make_grid((4, 5, 6), whole((4, 5, 6)), (4, 5, 6))
    labels = labels_from_slabs([Slab(axis, 0, scores.movedim(axis + 1, 0))], grid, LABELS)
    np.testing.assert_array_equal(labels, scores.float().argmax(0))


def test_ties_go_to_the_lower_index():
    labels = labels_from_scores(torch.zeros(3, 2, 2, 2), make_grid((2, 2, 2), whole((2, 2, 2)), (2, 2, 2)), LABELS)
    assert not labels.any()


@pytest.mark.parametrize(("threshold", "expected"), [(None, [0, 0, 0, 1]), (0.2, [0, 1, 1, 1]), (0.5, [0, 0, 1, 1])])
def test_a_threshold_decides_about_the_one_class(threshold, expected):
    probabilities = torch.tensor([0.1, 0.3, 0.5, 0.9])
    scores = torch.stack([-torch.logit(probabilities) / 2, torch.logit(probabilities) / 2])[:, :, None, None]
    labels, grid = Labels(names={"background": 0, "organ": 3}), make_grid((4, 1, 1), whole((4, 1, 1)), (4, 1, 1))
    slabs = [Slab(0, 0, scores.movedim(1, 0))]
    assert labels_from_slabs(slabs, grid, labels, threshold)[:, 0, 0].tolist() == expected
    exported, kept = labels_and_probabilities(slabs, grid, labels, threshold)
    assert exported[:, 0, 0].tolist() == expected
    np.testing.assert_allclose(kept[1, :, 0, 0], probabilities, atol=1e-6)


def test_a_threshold_decides_about_each_region():
    scores = torch.logit(torch.tensor([[0.3, 0.3, 0.1], [0.1, 0.25, 0.6]]))[:, :, None, None]
    grid = make_grid((3, 1, 1), whole((3, 1, 1)), (3, 1, 1))
    slabs = [Slab(0, 0, scores.movedim(1, 0))]
    assert labels_from_slabs(slabs, grid, REGIONS, 0.2)[:, 0, 0].tolist() == [1, 2, 2]
    assert labels_from_slabs(slabs, grid, REGIONS)[:, 0, 0].tolist() == [0, 0, 2]


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
def test_parts_of_planes_and_threads_change_nothing(labels, monkeypatch):
    rng = np.random.default_rng(2)
    scores = torch.from_numpy(rng.normal(size=(labels.num_outputs, 5, 7, 6)).astype(np.float32)).half()
    grid = make_grid((8, 9, 11), whole((8, 9, 11)), (5, 7, 6))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)

    def result():
        uncertainty = Uncertainty(labels, with_map=True)
        found = labels_from_slabs(cut_slabs(scores, 0, 2), grid, labels, None, uncertainty)
        return found, uncertainty.map, uncertainty.sums

    expected = result()
    num_parts = []
    from_scores = Labels.from_scores

    def counted(self, part, threshold=None):
        num_parts.append(part.shape)
        return from_scores(self, part, threshold)

    monkeypatch.setattr(Labels, "from_scores", counted)
    monkeypatch.setattr(export, "SCORES_PER_THREAD", 1)
    monkeypatch.setattr(export, "PART_BYTES", 1)
    found = result()
    assert set(num_parts) == {(labels.num_outputs, 3, 11)}
    assert len(num_parts) == 3 * 8
    for first, second in zip(expected, found, strict=True):
        np.testing.assert_equal(first, second)


@pytest.mark.parametrize("separate", [None, 0, 1])
def test_planes_are_resampled_where_the_models_compute(separate):
    """Followed on a device without data; the sums are on the CPU, as where that device has no room for them."""
    spacing = tuple(5.0 if index == separate else 1.0 for index in range(3))
    grid = make_grid((8, 9, 11), whole((8, 9, 11)), (5, 7, 6), spacing, spacing)
    slabs = [Slab(0, 0, torch.zeros(5, 3, 7, 6), torch.device("meta"))]
    planes = [(index, scores.shape, scores.device.type) for _, index, scores in export._resampled_planes(slabs, grid)]
    assert planes == [(index, (3, 9, 11), "meta") for index in range(8)]


def test_labels_and_probabilities_are_made_where_the_models_compute(monkeypatch):
    """Followed on a device without data, of which nothing can be made on the CPU."""
    places = []

    class Writer:
        def begin(self, *_):
            pass

        def add(self, index, plane):
            places.append((index, plane.device.type))

        def finish(self):
            pass

    def choose(scores, labels, threshold):
        places.append(("labels", scores.device.type))
        return torch.zeros(scores.shape[1:], dtype=torch.uint8)

    monkeypatch.setattr(export, "indices_from_scores", choose)
    grid = make_grid((2, 9, 11), whole((2, 9, 11)), (2, 7, 6))
    slabs = [Slab(0, 0, torch.zeros(2, 3, 7, 6), torch.device("meta"))]
    assert export_slabs(slabs, grid, LABELS, [Writer()]).shape == (2, 9, 11)
    assert sorted(map(str, places)) == ["('labels', 'meta')"] * 2 + ["(0, 'meta')", "(1, 'meta')"]


@pytest.mark.parametrize("thickness", [1.0, 5.0])
@pytest.mark.parametrize(("depth", "kept"), [(4, 0), (8, 1)])
@pytest.mark.parametrize("make", [labels_from_slabs, export_slabs])
def test_no_plane_is_kept_while_the_models_compute_but_to_interpolate_with(make, depth, kept, thickness, monkeypatch):
    planes = []
    resample = export._resample_plane

    def noted(*arguments):
        plane = resample(*arguments)
        planes.append(weakref.ref(plane))
        return plane

    def slabs():
        for start in (0, 2):
            assert sum(plane() is not None for plane in planes) == (kept if start else 0)
            yield Slab(0, start, torch.zeros(2, 3, 7, 6))

    monkeypatch.setattr(export, "_resample_plane", noted)
    spacing = (thickness, 1.0, 1.0)
    make(slabs(), make_grid((depth, 9, 11), whole((depth, 9, 11)), (4, 7, 6), spacing, spacing), LABELS)
    assert len(planes) == 4


class Writer:
    """Writes nothing; waits in the first plane until so many were asked for, and fails in one of them."""

    def __init__(self, wanted=0, broken=None):
        self.asked, self.added, self.seen = [], [], 0
        self.wanted, self.broken = wanted, broken
        self.thread = None

    def slabs(self, number):
        for index in range(number):
            self.asked.append(index)
            yield Slab(0, index, torch.full((1, 3, 7, 6), float(index)))

    def begin(self, *_):
        self.added.clear()

    def add(self, index, plane):
        self.thread = threading.get_ident()
        deadline = time.monotonic() + 5
        while len(self.asked) < self.wanted and time.monotonic() < deadline:
            time.sleep(0.01)
        if not self.seen:
            time.sleep(0.1)  # in which more would be asked for
            self.seen = len(self.asked)
        if index == self.broken:
            raise OSError("the disk is full")
        self.added.append(index)

    def finish(self):
        self.added.append("finished")


def test_models_go_on_while_probabilities_are_written_until_two_planes_wait():
    writer = Writer(wanted=4)
    grid = make_grid((9, 7, 6), whole((9, 7, 6)), (9, 7, 6))
    export_slabs(writer.slabs(9), grid, LABELS, [writer])
    # One is written, two wait, and one that is made waits for its place among them.
    assert writer.seen == 4
    assert writer.added == [*range(9), "finished"]
    assert writer.thread != threading.get_ident()


def test_what_goes_wrong_in_writing_ends_the_prediction():
    writer = Writer(broken=1)
    grid = make_grid((9, 7, 6), whole((9, 7, 6)), (9, 7, 6))
    with pytest.raises(OSError, match="the disk is full"):
        export_slabs(writer.slabs(9), grid, LABELS, [writer])
    assert len(writer.asked) < 9
    assert "finished" not in writer.added
    assert writer.added[0] == 0


def test_an_error_of_a_model_leaves_nothing_to_be_written_later():
    writer = Writer()

    def slabs():
        yield from writer.slabs(3)
        raise RuntimeError("out of memory")

    grid = make_grid((9, 7, 6), whole((9, 7, 6)), (9, 7, 6))
    with pytest.raises(RuntimeError, match="out of memory"):
        export_slabs(slabs(), grid, LABELS, [writer])
    done = list(writer.added)
    time.sleep(0.05)
    assert writer.added == done
    assert "finished" not in done


@pytest.mark.parametrize("labels", [LABELS, REGIONS])
@pytest.mark.parametrize("threshold", [None, (0.3, 0.6)])
def test_threads_change_no_labels_beside_probabilities(labels, threshold, monkeypatch):
    if threshold is not None and not labels.has_regions:
        threshold = 0.4
        labels = Labels(names={"background": 0, "a": 1})
    rng = np.random.default_rng(2)
    scores = torch.from_numpy(rng.normal(size=(labels.num_outputs, 5, 7, 6)).astype(np.float32))
    grid = make_grid((8, 9, 11), whole((8, 9, 11)), (5, 7, 6))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    threads = set()

    def result():
        uncertainty = Uncertainty(labels, with_map=True)
        writer = PlaneWriter(Path(), np.float32, in_memory_bytes=1 << 20)
        found = export_slabs(cut_slabs(scores, 0, 2), grid, labels, [writer], threshold, uncertainty)
        return found, writer.array[...], uncertainty.map, uncertainty.sums

    def noted(function):
        def call(self, *arguments, **settings):
            threads.add(threading.get_ident())
            return function(self, *arguments, **settings)

        return call

    expected = result()
    monkeypatch.setattr(export, "SCORES_PER_THREAD", 1)
    for name in ("from_scores", "from_probabilities"):
        monkeypatch.setattr(Labels, name, noted(getattr(Labels, name)))
    found = result()
    assert threading.get_ident() not in threads
    assert threads
    for first, second in zip(expected, found, strict=True):
        np.testing.assert_equal(first, second)
