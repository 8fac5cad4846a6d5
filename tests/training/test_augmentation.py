"""Augmentation: what is drawn can be replayed, and does what it says."""

from collections import Counter

import numpy as np
import pytest
import torch

from seg25d.training.augmentation import (
    INTENSITY,
    Augmentation,
    apply_intensity,
    apply_spatial,
    cube_rotations,
    draw_augmentation,
    region_to_read,
)
from seg25d.training.config import AugmentationConfig

OFF = AugmentationConfig(
    spatial=0, noise=0, blur=0, brightness=0, contrast=0, low_resolution=0, gamma_inverted=0, gamma=0, mirror=0
)
ISOTROPIC = (1.0, 1.0, 1.0)
WINDOW = (8, 8, 8)


def ramp(shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.arange(np.prod(shape)).reshape(shape) % 5
    return labels[None].float(), labels.to(torch.uint8)


def test_nothing_drawn_cuts_the_centre_out() -> None:
    image, labels = ramp((6, 7, 8))
    cut, cut_labels = apply_spatial(image, labels, Augmentation(), (4, 4, 4))
    assert torch.equal(cut, image[:, 1:5, 1:5, 2:6])
    assert torch.equal(cut_labels, labels[1:5, 1:5, 2:6])


@pytest.mark.parametrize("region", [(6, 7, 8), (5, 5, 5), (4, 4, 4), (9, 8, 7)])
def test_an_identity_matrix_is_the_identity(region: tuple[int, int, int]) -> None:
    image, labels = ramp(region)
    identity = Augmentation(matrix=np.eye(3))
    plain = apply_spatial(image, labels, Augmentation(), (4, 4, 4))
    sampled = apply_spatial(image, labels, identity, (4, 4, 4))
    torch.testing.assert_close(sampled[0], plain[0], atol=1e-4, rtol=0)
    assert torch.equal(sampled[1], plain[1])


def test_a_quarter_turn_in_the_plane_turns_the_plane() -> None:
    image, labels = ramp((3, 6, 6))
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # offset (h, w) in the window reads (-w, h) in the volume
    turned, turned_labels = apply_spatial(image, labels, Augmentation(matrix=turn), (3, 6, 6))
    torch.testing.assert_close(turned, torch.rot90(image, -1, (2, 3)), atol=1e-4, rtol=0)
    assert torch.equal(turned_labels, torch.rot90(labels, -1, (1, 2)))


def test_zooming_in_reads_a_smaller_part() -> None:
    image = torch.zeros(1, 8, 8, 8)
    image[:, 3:5, 3:5, 3:5] = 1
    zoomed, _ = apply_spatial(image, image[0].byte(), Augmentation(matrix=np.eye(3) / 2), (8, 8, 8))
    assert zoomed.sum() > 6 * image.sum()


def test_shifts_move_the_window() -> None:
    image, labels = ramp((6, 6, 6))
    shifts = np.zeros((3, 4, 4, 4))
    shifts[2] = 1.0  # one voxel along W
    moved, moved_labels = apply_spatial(image, labels, Augmentation(shifts=shifts), (4, 4, 4))
    torch.testing.assert_close(moved, image[:, 1:5, 1:5, 2:6], atol=1e-4, rtol=0)
    assert torch.equal(moved_labels, labels[1:5, 1:5, 2:6])


def test_flips_flip_image_and_labels() -> None:
    image, labels = ramp((3, 4, 5))
    flipped, flipped_labels = apply_spatial(image, labels, Augmentation(flips=(0, 2)), (3, 4, 5))
    assert torch.equal(flipped, image.flip(1, 3))
    assert torch.equal(flipped_labels, labels.flip(0, 2))


@pytest.mark.parametrize(
    ("row", "wanted"),
    [([3, 3, 1, 1, 255, 255], [3, 1, 1, 1, 255]), ([0, 255, 0, 3, 3, 1], [0, 0, 0, 3, 1]), ([7] * 6, [7] * 5)],
)
def test_between_two_labels_the_lower_one_wins(row: list[int], wanted: list[int]) -> None:
    labels = torch.tensor(row, dtype=torch.uint8).expand(5, 5, 6)
    half_a_voxel = np.zeros((3, 2, 2, 2))
    half_a_voxel[2] = 0.5
    # A difference of sizes that is odd: the window's centre is a voxel of the region, and the shift ends between two.
    _, moved = apply_spatial(labels[None].float(), labels, Augmentation(shifts=half_a_voxel), (1, 1, 5))
    assert moved.dtype == torch.uint8
    assert moved[0, 0].tolist() == wanted


def test_outside_of_the_volume_is_zero() -> None:
    image = torch.ones(1, 4, 4, 4)
    zoomed, labels = apply_spatial(image, image[0].byte(), Augmentation(matrix=np.eye(3) * 3), (4, 4, 4))
    assert zoomed[0, 0, 0, 0] == 0
    assert labels[0, 0, 0] == 0


def test_drawing_is_a_function_of_the_generator() -> None:
    config = AugmentationConfig(spatial=1, elastic=1, noise=1)
    first, second = (
        draw_augmentation(np.random.default_rng(7), config, WINDOW, ISOTROPIC, 2, (0, 1, 2)) for _ in range(2)
    )
    assert first.flips == second.flips
    assert first.intensity == second.intensity
    np.testing.assert_array_equal(first.matrix, second.matrix)
    np.testing.assert_array_equal(first.shifts, second.shifts)


def test_nothing_is_drawn_when_all_chances_are_zero_or_it_is_off(rng: np.random.Generator) -> None:
    for config in (OFF, AugmentationConfig(enabled=False)):
        assert draw_augmentation(rng, config, WINDOW, ISOTROPIC, 1, (0, 1, 2)) == Augmentation()
    assert region_to_read(Augmentation(), WINDOW) == WINDOW


def test_mirroring_keeps_to_the_allowed_axes(rng: np.random.Generator) -> None:
    config = OFF.model_copy(update={"mirror": 1.0})
    assert draw_augmentation(rng, config, WINDOW, ISOTROPIC, 1, (0, 1)).flips == (0, 1)


def test_rotations_turn_millimetres(rng: np.random.Generator) -> None:
    config = OFF.model_copy(update={"spatial": 1.0, "scaling": (1.0, 1.0)})
    spacing = np.array((2.0, 1.0, 1.0))
    matrix = draw_augmentation(rng, config, WINDOW, (2.0, 1.0, 1.0), 1, ()).matrix
    assert matrix is not None
    in_mm = matrix * spacing[:, None] / spacing[None, :]
    np.testing.assert_allclose(in_mm @ in_mm.T, np.eye(3), atol=1e-12)


def test_anisotropic_windows_rotate_in_the_plane_only(rng: np.random.Generator) -> None:
    config = OFF.model_copy(update={"spatial": 1.0, "scaling": (1.0, 1.0)})
    matrix = draw_augmentation(rng, config, WINDOW, (5.0, 1.0, 1.0), 1, ()).matrix
    assert matrix is not None
    np.testing.assert_allclose(matrix[0], (1, 0, 0), atol=1e-12)
    assert abs(matrix[1, 2]) > 0


@pytest.mark.parametrize("name", INTENSITY)
def test_intensity_changes_replay_and_leave_other_channels_and_global_state_alone(
    name: str, rng: np.random.Generator
) -> None:
    image = rng.normal(size=(2, 6, 7, 8)).astype(np.float32)
    augmentation = Augmentation(intensity=((name, 1, 5),))
    state = np.random.get_state()[1].copy()
    first = apply_intensity(image.copy(), augmentation)
    second = apply_intensity(image.copy(), augmentation)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first[0], image[0])
    assert not np.array_equal(first[1], image[1])
    assert np.isfinite(first).all()


def test_gamma_keeps_mean_and_order(rng: np.random.Generator) -> None:
    image = np.sort(rng.normal(size=60)).reshape(1, 3, 4, 5).astype(np.float32)
    for name in ("gamma", "gamma_inverted"):
        changed = apply_intensity(image.copy(), Augmentation(intensity=((name, 0, 3),)))
        assert changed.mean() == pytest.approx(image.mean(), abs=1e-4)
        assert (np.diff(changed.ravel()) >= -1e-5).all()


def test_flat_windows_rotate_in_the_plane_only(rng: np.random.Generator) -> None:
    config = OFF.model_copy(update={"spatial": 1.0, "scaling": (1.0, 1.0)})
    matrix = draw_augmentation(rng, config, (2, 8, 8), ISOTROPIC, 1, ()).matrix
    assert matrix is not None
    np.testing.assert_allclose(matrix[0], (1, 0, 0), atol=1e-12)
    assert abs(matrix[1, 2]) > 0


@pytest.mark.parametrize("window", [(4, 8, 6), (2, 12, 12), (7, 7, 7)])
def test_enough_is_read_for_any_rotation_scaling_and_deformation(
    rng: np.random.Generator, window: tuple[int, int, int]
) -> None:
    config = OFF.model_copy(update={"spatial": 1.0, "elastic": 1.0, "rotation_degrees": 45.0, "scaling": (0.6, 1.6)})
    for _ in range(20):
        drawn = draw_augmentation(rng, config, window, (1.5, 1.0, 1.0), 1, ())
        ones = torch.ones(1, *region_to_read(drawn, window))
        image, labels = apply_spatial(ones, ones[0].byte(), drawn, window)
        assert image.min() > 0.999
        assert labels.min() == 1


@pytest.mark.parametrize(
    ("spacing_mm", "window", "number"),
    [(ISOTROPIC, (8, 8, 8), 24), ((5, 1, 1), (8, 8, 8), 8), (ISOTROPIC, (8, 8, 4), 8), ((1, 2, 4), (8, 8, 8), 4)],
)
def test_turns_of_a_cube_are_all_different_and_proper(spacing_mm, window, number) -> None:
    turns = cube_rotations(spacing_mm, window)
    matrices = []
    for order, flips in turns:
        matrix = np.eye(3)[list(order)]
        matrix[list(flips)] *= -1
        matrices.append(matrix)
    assert len(turns) == number == len({matrix.tobytes() for matrix in matrices})
    assert all(np.linalg.det(matrix) == pytest.approx(1) for matrix in matrices)


def test_a_mirrored_turn_is_a_turn_and_a_mirroring() -> None:
    config = OFF.model_copy(update={"cube_rotation": 1.0, "mirror": 1.0})
    for axes in ((), (0,), (1, 2), (0, 1, 2)):
        for seed in range(30):
            drawn = draw_augmentation(np.random.default_rng(seed), config, WINDOW, ISOTROPIC, 1, axes)
            matrix = np.eye(3)[list(drawn.order)]
            matrix[list(drawn.flips)] *= -1
            # Each mirroring changes the sign once; two are half a turn.
            assert np.linalg.det(matrix) == pytest.approx((-1) ** len(axes))


def test_turns_move_image_and_labels_alike() -> None:
    labels = torch.arange(64, dtype=torch.uint8).reshape(4, 4, 4)
    image = torch.stack([labels, labels]).float()
    for order, flips in cube_rotations(ISOTROPIC, (4, 4, 4)):
        turned, turned_labels = apply_spatial(image, labels, Augmentation(order=order, flips=flips), (4, 4, 4))
        assert torch.equal(turned[1], turned_labels.float())
        assert torch.equal(turned_labels.flatten().sort().values, labels.flatten())


def test_turns_are_drawn_evenly(rng) -> None:
    config = AugmentationConfig(spatial=0, mirror=0, cube_rotation=1)
    drawn = [draw_augmentation(rng, config, (8, 8, 8), ISOTROPIC, 1, (0, 1, 2)) for _ in range(480)]
    counts = Counter((each.order, each.flips) for each in drawn)
    assert len(counts) == 24
    assert min(counts.values()) >= 5
