"""What views say, coarse and fine, where their answers are known."""

import tracemalloc

import numpy as np
import pytest
import torch
from torch import Tensor

from seg25d.data.labels import Labels
from seg25d.ensembling import view_maps as view_maps_module
from seg25d.ensembling.view_maps import found_by_most, fusion_input, view_maps
from seg25d.planning.coarse_to_fine import FineConfig

ORGAN = Labels(names={"background": 0, "organ": 1})
SHAPE = (12, 14, 16)


class Header:
    """As much of a model's header as is looked at."""

    def __init__(self, fine: FineConfig | None, labels: Labels = ORGAN) -> None:
        self.fine = fine
        self.threshold = None
        self.description = type("Description", (), {"labels": labels})
        self.plan = type("Plan", (), {"spacing_mm": (1.0, 1.0, 1.0)})


class View:
    """Gives a probability where the image is at least as bright as it wants; notes what it saw."""

    def __init__(self, least: float, probability: float = 0.9, fine: FineConfig | None = None) -> None:
        self.header = Header(fine)
        self.least, self.probability = least, probability
        self.seen: list[tuple[int, ...]] = []

    def predict_maps(self, image: np.ndarray) -> Tensor:
        self.seen.append(image.shape[1:])
        return torch.from_numpy(self.probability * (image >= self.least)).half()


@pytest.fixture
def image() -> np.ndarray:
    """A core of 3 within a cube of 5, and a voxel far away."""
    values = np.zeros((1, *SHAPE), np.float32)
    values[0, 3:8, 3:8, 3:8] = 0.5
    values[0, 4:7, 4:7, 4:7] = 1
    values[0, 11, 13, 15] = 0.5
    return values


def test_without_coarse_models_every_view_says_what_it_finds(image: np.ndarray) -> None:
    maps = view_maps(image, [View(0.5), View(0.9)])
    assert [int((each > 0).sum()) for each in maps] == [126, 27]


def test_fine_views_look_around_what_most_of_the_coarse_ones_find(image: np.ndarray) -> None:
    fine = FineConfig(margin=2)
    views = [View(0.5, 0.9, fine), View(0.5, 0.8, fine), View(0.9, 0.7, fine)]
    # One coarse view alone finds the voxel far away.
    maps = view_maps(image, views, [View(0.9), View(0.9), View(0.5)])
    assert [each.shape for each in maps] == [(1, *SHAPE)] * 3
    assert views[0].seen == views[2].seen == [(7, 7, 7), (9, 9, 9)]
    expected = image[0] >= 0.5
    expected[11] = False
    np.testing.assert_array_equal(maps[0][0].numpy() > 0.5, expected)
    assert maps[2].max() == pytest.approx(0.7, abs=1e-3)
    assert int((maps[2] > 0).sum()) == 27


def test_margins_are_voxels_of_the_finest_axis_and_as_many_millimetres_along_others(image: np.ndarray) -> None:
    view = View(0.9, fine=FineConfig(margin=2, max_rounds=1))
    view.header.plan.spacing_mm = (4.0, 1.0, 2.0)
    view_maps(image, [view], [View(0.9)])
    assert view.seen == [(3 + 2 * 1, 3 + 2 * 2, 3 + 2 * 1)]


def test_the_mean_of_the_fine_views_decides_where_they_look_next(image: np.ndarray) -> None:
    fine = FineConfig(margin=1)
    # Two of three find more, but hardly: 0.55 + 0.55 + 0 is below one half on average.
    views = [View(0.5, 0.55, fine), View(0.5, 0.55, fine), View(0.9, 0.9, fine)]
    view_maps(image, views, [View(0.9)] * 3)
    assert views[0].seen == [(5, 5, 5)]


@pytest.mark.parametrize("empty", ["coarse", "fine"])
def test_where_one_of_them_finds_nothing_it_is_what_the_coarse_ones_say(image: np.ndarray, empty: str) -> None:
    views = [View(0.9 if empty == "coarse" else 5, fine=FineConfig())] * 3
    coarse = [View(5 if empty == "coarse" else 0.9, 0.6)] * 3
    maps = view_maps(image, views, coarse)
    assert all(torch.equal(each, coarse[0].predict_maps(image)) for each in maps)


def test_small_components_do_not_widen_the_crop(image: np.ndarray) -> None:
    for wanted, expected in ((False, (10, 12, 14)), (True, (7, 7, 7))):
        view = View(0.5, fine=FineConfig(margin=1, large_components=wanted, max_rounds=1))
        view_maps(image, [view], [View(0.5)])
        assert view.seen == [expected]


class Says:
    """Gives the probabilities (D, H, W) of one class of the crop that begins where the image says."""

    def __init__(self, says: np.ndarray, fine: FineConfig | None = None) -> None:
        self.header = Header(fine)
        self.says = says
        self.seen: list[tuple[int, ...]] = []

    def predict_maps(self, image: np.ndarray) -> Tensor:
        self.seen.append(image.shape[1:])
        start = np.unravel_index(int(image[0, 0, 0, 0]), self.says.shape)
        crop = tuple(slice(at, at + size) for at, size in zip(start, image.shape[1:], strict=True))
        return torch.from_numpy(self.says[crop][None]).half()


def boxes(**of: float) -> np.ndarray:
    """Probabilities of the core, of a piece beside it and of one far away."""
    places = {"core": np.s_[4:7, 4:7, 4:7], "beside": np.s_[4:7, 4:7, 9:12], "far": np.s_[8:11, 10:13, 12:15]}
    says = np.zeros(SHAPE, np.float32)
    for name, probability in of.items():
        says[places[name]] = probability
    return says


def test_pieces_on_which_the_three_views_do_not_agree_are_left_out_of_every_step() -> None:
    """methods.md 4.1: seed voxels, for the first crop, in the rounds, and in what comes out."""
    places = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    coarse = [Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9))]
    said = [boxes(core=0.9, beside=0.9), boxes(core=0.9, beside=0.9), boxes(core=0.9, beside=0.4)]
    for wanted in (False, True):
        fine = FineConfig(margin=5, large_components=wanted)
        views = [Says(each, fine) for each in said]
        maps = view_maps(places, views, coarse)
        # Two of three coarse views find what is far away; the mean of the fine ones is 0.73 beside the core.
        assert views[0].seen[0] == ((12, 12, 12) if wanted else (12, 14, 16))
        assert views[0].seen[1:] == ([] if wanted else [(12, 12, 16)])
        assert [int((each > 0.5).sum()) for each in maps] == ([27] * 3 if wanted else [54, 54, 27])
        assert maps[2][0, 5, 5, 10] == pytest.approx(0 if wanted else 0.4, abs=1e-3)


def test_what_the_coarse_views_say_is_cleaned_too_where_the_fine_ones_find_nothing() -> None:
    places = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    coarse = [Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9))]
    maps = view_maps(places, [Says(boxes(), FineConfig(large_components=True))] * 3, coarse)
    assert [int((each > 0.5).sum()) for each in maps] == [27] * 3


def test_a_single_vote_counts_where_there_are_no_more() -> None:
    maps = [torch.zeros(1, 2, 2, 2) for _ in range(3)]
    assert not found_by_most(maps, ORGAN).any()
    maps[0][0, 0, 0, 0] = maps[1][0, 1, 1, 1] = 1
    assert found_by_most(maps, ORGAN).sum() == 2
    maps[2][0, 1, 1, 1] = 1
    assert found_by_most(maps, ORGAN).sum() == 1


def test_few_planes_are_looked_at_at_a_time(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Of maps in float16, no whole one is made in float32."""
    views = [rng.uniform(0, 0.14, (12, 40, 32, 32)).astype(np.float16) for _ in range(3)]
    labels = Labels(names={"background": 0} | {str(value): value for value in range(1, 13)})
    expected = found_by_most(views, labels)
    monkeypatch.setattr(view_maps_module, "PART_BYTES", 4 * 12 * 32 * 32)
    tracemalloc.start()
    several = found_by_most(views, labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(several, expected)
    assert 0 < several.sum() < several.size
    assert peak < 0.7 * views[0].nbytes


def test_small_pieces_are_left_out_in_parts_and_in_files_as_at_once(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    places = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)

    def predict() -> list[Tensor]:
        coarse = [Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9, far=0.9)), Says(boxes(core=0.9))]
        said = [boxes(core=0.9, beside=0.9), boxes(core=0.9, beside=0.9), boxes(core=0.9, beside=0.4)]
        fine = FineConfig(margin=5, large_components=True)
        return view_maps(places, [Says(each, fine) for each in said], coarse)

    expected = predict()
    monkeypatch.setattr(view_maps_module, "PART_BYTES", 1)
    shapes = request.getfixturevalue("arrays_in_files")
    assert all(torch.equal(*pair) for pair in zip(predict(), expected, strict=True))
    assert shapes == [(1, *SHAPE)] * 3


def test_a_fusion_network_takes_the_image_and_all_maps_within_a_box(arrays_in_files: list[tuple[int, ...]]) -> None:
    image = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    maps = [torch.from_numpy(image + offset).half() for offset in (30, 60)]
    both = fusion_input(image, [torch.cat([maps[0], maps[1]]), maps[1]], ((1, 2), (0, 2), (1, 4)))
    core = np.array([[[[13, 14, 15], [17, 18, 19]]]], np.float32)
    np.testing.assert_array_equal(both, np.concatenate([core, core + 30, core + 60, core + 60]))
    assert both.dtype == np.float32
    assert arrays_in_files == [(4, 1, 2, 3)]
