"""Parts of volumes set into background."""

import pytest
import torch

from seg25d.data.labels import Labels
from seg25d.inference import export, framing
from seg25d.inference.framing import NOTHING, background_scores, framed
from seg25d.inference.sliding_window import Slab
from seg25d.preprocessing.grid import Grid

BACKGROUND = torch.tensor([0.0, NOTHING])
SHAPE = (40, 5, 6)
BOX = ((18, 22), (1, 4), (0, 6))


def whole(slabs, axis):
    """The volume (K, D, H, W) of slabs that follow each other."""
    slabs = [Slab(slab.axis, slab.start, slab.planes.clone()) for slab in slabs]
    assert [slab.start for slab in slabs] == [sum(len(each.planes) for each in slabs[:n]) for n in range(len(slabs))]
    return torch.cat([slab.planes for slab in slabs]).movedim(0, axis + 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_part_is_where_it_was_and_the_rest_is_background(axis):
    part = torch.randn(2, 4, 3, 6)
    planes = part.movedim(axis + 1, 0)
    slabs = [Slab(axis, 0, planes[:2]), Slab(axis, 2, planes[2:])]
    volume = whole(framed(slabs, BOX, SHAPE, BACKGROUND), axis)
    assert volume.shape == (2, *SHAPE)
    assert torch.equal(volume[:, 18:22, 1:4, 0:6], part)
    volume[:, 18:22, 1:4, 0:6] = BACKGROUND[:, None, None, None]
    assert torch.equal(volume, BACKGROUND[:, None, None, None].expand_as(volume))


def test_without_a_part_everything_is_background():
    volume = whole(framed((), None, SHAPE, BACKGROUND), 0)
    assert torch.equal(volume, BACKGROUND[:, None, None, None].expand(2, *SHAPE))


def test_background_has_no_score_of_its_own_where_there_are_regions():
    assert background_scores(Labels(names={"background": 0, "a": 1, "b": 2})).tolist() == [0, NOTHING, NOTHING]
    regions = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    assert background_scores(regions).tolist() == [NOTHING, NOTHING]


def test_what_is_background_is_that_for_sure():
    classes = torch.from_numpy(background_scores(Labels(names={"background": 0, "a": 1, "b": 2})))
    assert classes.softmax(0).tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    regions = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    assert torch.from_numpy(background_scores(regions)).sigmoid().tolist() == pytest.approx([0, 0], abs=1e-6)


def test_planes_are_a_few_at_a_time_where_labels_are_made(monkeypatch):
    monkeypatch.setattr(framing, "SLAB_BYTES", 3 * 4 * 2 * 5 * 6)
    part = torch.randn(4, 2, 3, 6)
    slabs = list(framed([Slab(0, 0, part)], BOX, SHAPE, BACKGROUND))
    assert max(len(slab.planes) for slab in slabs) == 3
    assert torch.equal(whole(slabs, 0)[:, 18:22, 1:4], part.movedim(0, 1))
    # Followed on a device without data.
    for slab in framed([Slab(0, 0, part, torch.device("meta"))], BOX, SHAPE, BACKGROUND):
        assert slab.device.type == slab.planes.device.type == "meta"


def test_planes_of_background_and_part_are_interpolated_on_one_device():
    """Followed on a device without data."""
    canonical = (80, *SHAPE[1:])
    grid = Grid.plan(canonical, (0.5, 1.0, 1.0), tuple((0, size) for size in canonical), (1.0, 1.0, 1.0))
    assert grid.shape == SHAPE
    slabs = framed([Slab(0, 0, torch.randn(4, 2, 3, 6), torch.device("meta"))], BOX, SHAPE, BACKGROUND)
    devices = [plane.device.type for _, _, plane in export._resampled_planes(slabs, grid)]
    assert devices == ["meta"] * 80
