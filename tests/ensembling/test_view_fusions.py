"""Views fused without a network."""

import pytest
import torch

from seg25d.data.labels import Labels
from seg25d.ensembling.view_fusions import fuse_views

SHAPE = (6, 7, 8)
CLASSES = Labels(names={"background": 0, "organ": 1})
TWO = Labels(names={"background": 0, "organ": 1, "other": 2})
REGIONS = Labels(names={"background": 0, "whole": (1, 2)}, regions_class_order=(1,))
METHODS = ("mean", "majority", "staple", "nlstaple")


def make_maps(*corners: int) -> list[torch.Tensor]:
    """Per view the probability of one class in a cube that begins at a corner."""
    maps = []
    for corner in corners:
        each = torch.full((1, *SHAPE), 0.1, dtype=torch.float16)
        each[0, corner : corner + 3, 2:5, 2:5] = 0.8
        maps.append(each)
    return maps


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_views_that_agree_are_right(method: str, regions: bool) -> None:
    maps = make_maps(1, 1, 1)
    scores = fuse_views(maps, torch.zeros(1, *SHAPE), method, REGIONS if regions else CLASSES)
    found = scores[0] > 0 if regions else scores.argmax(0) == 1
    assert torch.equal(found, maps[0][0] > 0.5)


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_two_of_three_views_outvote_the_third(method: str, regions: bool) -> None:
    maps = make_maps(1, 1, 3)
    # The image shows what the two say, for non-local STAPLE.
    scores = fuse_views(maps, 10 * (maps[0] > 0.5).float(), method, REGIONS if regions else CLASSES)
    found = scores[0] > 0 if regions else scores.argmax(0) == 1
    assert torch.equal(found, maps[0][0] > 0.5)


def test_the_mean_gives_the_mean_probability() -> None:
    maps = [torch.full((2, *SHAPE), value, dtype=torch.float16) for value in (0.1, 0.3)]
    probabilities = fuse_views(maps, torch.zeros(1, *SHAPE), "mean", TWO).softmax(0)
    torch.testing.assert_close(probabilities[:, 0, 0, 0], torch.tensor([0.6, 0.2, 0.2]), rtol=1e-3, atol=1e-3)


def test_a_threshold_decides_what_a_view_says() -> None:
    maps = make_maps(1, 1, 3)
    scores = fuse_views([each / 4 for each in maps], torch.zeros(1, *SHAPE), "majority", CLASSES, threshold=0.15)
    assert torch.equal(scores.argmax(0) == 1, maps[0][0] > 0.5)
    assert not (fuse_views([each / 4 for each in maps], torch.zeros(1, *SHAPE), "majority", CLASSES).argmax(0)).any()
