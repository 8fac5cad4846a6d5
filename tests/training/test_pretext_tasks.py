import numpy as np
import pytest
import torch
from pydantic import ValidationError

from seg25d.planning.pretext import PretextConfig
from seg25d.representations.projections.method import Projections
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume
from seg25d.training.pretext_tasks import (
    check_task,
    exchange_pieces,
    exchanged_order,
    hide_pieces,
    make_harder,
    piece_shape,
)


@pytest.fixture
def image():
    """Two channels whose values are all different and above 0."""
    return torch.arange(1, 1 + 2 * 6 * 8 * 8, dtype=torch.float32).reshape(2, 6, 8, 8)


SUPER = SuperImage(grid=(2, 3), axis=0)


def test_pieces_of_slices_and_of_windows():
    config = PretextConfig(piece=0.25)
    assert piece_shape((6, 8, 16), SUPER, config) == (1, 2, 4)
    assert piece_shape((6, 8, 16), Slices(axis=1), config) == (2, 1, 4)
    assert piece_shape((6, 8, 16), Volume(), config) == (2, 2, 4)
    assert piece_shape((6, 8, 16), SUPER, PretextConfig(whole_slices=True)) == (1, 8, 16)


def test_hidden_is_the_share_that_was_asked_for_in_whole_pieces(image, rng):
    hidden = hide_pieces(image, (1, 2, 2), 0.5, rng)
    gone = hidden == 0
    assert gone.float().mean() == 0.5
    assert (hidden[~gone] == image[~gone]).all()
    pieces = gone[0].reshape(6, 4, 2, 4, 2).float().mean((2, 4))
    assert set(pieces.unique().tolist()) == {0.0, 1.0}
    assert (gone[0] == gone[1]).all(), "all channels alike"


def test_of_two_pieces_one_is_hidden(image, rng):
    for share in (0.01, 0.99):
        assert (hide_pieces(image, (3, 8, 8), share, rng) == 0).float().mean() == 0.5


def test_large_pieces_never_hide_all_that_a_network_sees():
    assert piece_shape((8, 8, 1), Volume(), PretextConfig(piece=0.99)) == (7, 7, 1)
    with pytest.raises(ValidationError):
        PretextConfig(piece=1.0)


def test_pieces_that_do_not_divide_the_window(rng):
    hidden = hide_pieces(torch.ones(1, 5, 7, 3), (2, 3, 2), 0.5, rng)
    assert hidden.shape == (1, 5, 7, 3)
    assert 0 < hidden.mean() < 1


def test_jigsaw_keeps_all_values_and_what_is_over(rng):
    flat = torch.arange(7 * 9).reshape(7, 9)
    mixed = exchange_pieces(flat, (0, 1), 3, 1.0, rng)
    assert sorted(mixed.flatten().tolist()) == flat.flatten().tolist()
    assert (mixed[6] == flat[6]).all()
    assert (mixed != flat).any()
    # Every piece is somewhere, whole.
    pieces = {tuple(flat[2 * r : 2 * r + 2, 3 * c : 3 * c + 3].flatten().tolist()) for r in range(3) for c in range(3)}
    found = {tuple(mixed[2 * r : 2 * r + 2, 3 * c : 3 * c + 3].flatten().tolist()) for r in range(3) for c in range(3)}
    assert pieces == found


def test_only_a_share_of_the_pieces_changes_places(image, rng):
    flat = torch.arange(64).reshape(8, 8)
    for share, most in ((0.5, 8), (0.01, 2)):
        moved = (exchange_pieces(flat, (0, 1), 4, share, rng) != flat).reshape(4, 2, 4, 2).any(3).any(1)
        assert moved.sum() == most
    orders = [exchanged_order(10, 0.5, rng) for _ in range(200)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert {(order != np.arange(10)).sum() for order in orders} == {5}
    assert len({tuple(order) for order in orders}) > 100
    mixed = make_harder(image, SUPER, PretextConfig(task="jigsaw", exchanged_share=0.34), rng)
    assert (mixed != image).any(3).any(2).any(0).sum() == 2, "slices of a super image"


def test_slices_of_super_images_and_stacks_are_exchanged_whole(image, rng):
    stack = Stack(axis=0, stack_size=6)
    for representation in (SUPER, stack):
        mixed = make_harder(image, representation, PretextConfig(task="jigsaw"), rng)
        slices = {tuple(each.flatten().tolist()) for each in image.unbind(1)}
        assert {tuple(each.flatten().tolist()) for each in mixed.unbind(1)} == slices
        assert (mixed != image).any()


def test_a_grid_cuts_the_super_image_across_its_slices(image, rng):
    mixed = make_harder(image, SUPER, PretextConfig(task="jigsaw", grid=2), rng)
    assert mixed.shape == image.shape
    assert sorted(mixed.flatten().tolist()) == sorted(image.flatten().tolist())


def test_slices_that_are_seen_alone_are_puzzles_of_their_own(image, rng):
    mixed = make_harder(image, Slices(axis=0), PretextConfig(task="jigsaw", grid=4), rng)
    for before, after in zip(image.unbind(1), mixed.unbind(1), strict=True):
        assert sorted(before.flatten().tolist()) == sorted(after.flatten().tolist())


@pytest.mark.parametrize("task", ["inpainting", "jigsaw"])
@pytest.mark.parametrize("representation", [SUPER, Slices(axis=2), Volume()])
def test_same_seed_same_window_and_the_input_is_left_alone(image, representation, task):
    before = image.clone()
    first, second = (
        make_harder(image, representation, PretextConfig(task=task), np.random.default_rng(3)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert torch.equal(image, before)


def test_tasks_that_make_no_sense_are_refused():
    projections = Projections(axis=0, spacing_mm=(1, 1, 1), num_training_views=4, num_views=12, num_classes=2)
    with pytest.raises(ValueError, match="does not see images"):
        check_task(projections, PretextConfig())
    with pytest.raises(ValueError, match="several slices at once"):
        check_task(Slices(axis=0), PretextConfig(whole_slices=True))
    check_task(SUPER, PretextConfig(whole_slices=True))
