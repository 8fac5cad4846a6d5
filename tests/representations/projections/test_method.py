"""Projections: geometry by hand and by laws, the two paths, the plan's candidates."""

import itertools
import math

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.errors import InputError
from seg25d.core.types import Shape, Spacing
from seg25d.representations.base import VolumeGeometry
from seg25d.representations.epoch_aware import EpochAware
from seg25d.representations.projections.geometry import back_project, back_projection, ray_maxima, ray_sums
from seg25d.representations.projections.method import Projections
from seg25d.representations.projections.model import (
    GAIN,
    SHIFT,
    SHIFT_OF_INVERSION,
    Filtration,
    FineTuning,
    LiftedProjections,
    Reconstruction,
    average_pool,
)
from seg25d.representations.projections.plane import Plane
from seg25d.representations.projections.schedule import draw_angles, epoch_of_progress, even_angles, path_weight

ISOTROPIC = (1.0, 1.0, 1.0)
OBLIQUE = (0.0, 17.0, 45.0, 63.5, 90.0, 128.0, 179.0)


def make(axis: int = 1, spacing_mm: Spacing = ISOTROPIC, **fields: object) -> Projections:
    return Projections.model_validate({"axis": axis, "spacing_mm": spacing_mm, **fields})


def reconstruction(representation: Projections, num_views: int) -> Reconstruction:
    return Reconstruction(representation.geometry, num_views, representation.num_classes, representation.normalization)


# Projecting


def by_grid_sample(volume: Tensor, angle: float, spacing_mm: tuple[float, float]) -> Tensor:
    """Methods.md 3.2 word for word, in millimetres: (b, a, c) to (b, c)."""
    (rays, detector), (ray_mm, detector_mm) = volume.shape[1:], spacing_mm
    step = min(spacing_mm)
    num = math.ceil(math.hypot(rays * ray_mm, detector * detector_mm) / step)
    num += (num - rays) % 2
    s = (torch.arange(detector).double() - (detector - 1) / 2)[:, None] * detector_mm
    t = (torch.arange(num).double() - (num - 1) / 2) * step
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    i = (rays - 1) / 2 + (s * sine + t * cosine) / ray_mm
    k = (detector - 1) / 2 + (s * cosine - t * sine) / detector_mm
    grid = torch.stack((2 * (k + 0.5) / detector - 1, 2 * (i + 0.5) / rays - 1), -1)
    samples = functional.grid_sample(volume[None], grid[None], "bilinear", "zeros", align_corners=False)
    return samples[0].amax(-1)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (3.0, 1.0), (0.8, 2.0)])
@pytest.mark.parametrize("size", [(7, 9), (6, 11), (12, 5)])
def test_maxima_are_those_of_the_definition(size: tuple[int, int], spacing_mm: tuple[float, float]) -> None:
    volume = torch.rand(3, *size, dtype=torch.float64)
    views = ray_maxima(volume.flatten(1).T.contiguous(), Plane(size, spacing_mm), OBLIQUE)
    expected = torch.stack([by_grid_sample(volume, angle, spacing_mm).T for angle in OBLIQUE])
    torch.testing.assert_close(views, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("sizes", [(6, 10), (7, 11), (9, 5)])
def test_at_0_and_90_degrees_views_are_maxima_along_axes(axis: int, sizes: tuple[int, int]) -> None:
    rays, detector = sizes
    shape = [rays, detector]
    shape.insert(axis, 4)
    volume = torch.randn(2, 3, *shape)
    # Slices across the rotation axis first: (B, C, b, a, c).
    slices = volume.movedim(2 + axis, 2)
    views = make(axis).geometry.project(volume, [0, 90])
    torch.testing.assert_close(views[:, 0], slices.amax(3), atol=1e-6, rtol=0)
    inside = min(rays, detector)
    across = slices.amax(4)[..., (rays - inside) // 2 :][..., :inside]
    seen = views[:, 1, ..., (detector - inside) // 2 :][..., :inside]
    torch.testing.assert_close(seen, across, atol=1e-6, rtol=0)


def test_where_one_side_is_odd_90_degrees_lie_between_rows() -> None:
    volume = torch.rand(1, 1, 3, 4, 7)
    view = make(axis=0).geometry.project(volume - volume.amin(), [90])[0, 0, 0]
    between = functional.avg_pool2d(functional.pad((volume - volume.amin())[0, 0], (0, 0, 1, 1)), (2, 1), (1, 1))
    # Four rows lie at -1.5 to 1.5, detector pixels at -3 to 3: five of them within the reach of a row. Samples of a
    # ray have the parity of four rows and lie between the seven columns.
    ends = functional.avg_pool2d(functional.pad(between, (1, 1)), (1, 2), (1, 1))
    torch.testing.assert_close(view[:, 1:6], ends.amax(2), atol=1e-6, rtol=0)


def test_outside_of_a_volume_is_its_smallest_value() -> None:
    volume = torch.rand(2, 2, 5, 6, 7) - 3
    for representation in (make(1), make(1, projection="mean")):
        views = representation.geometry.project(volume, OBLIQUE)
        assert (views >= volume.amin((2, 3, 4))[:, None, :, None, None] - 1e-6).all()
        torch.testing.assert_close(representation.geometry.project(volume + 5, OBLIQUE), views + 5, atol=1e-5, rtol=0)


def test_mean_views_at_0_degrees_are_means() -> None:
    volume = torch.randn(1, 2, 5, 6, 8)
    views = make(axis=1, spacing_mm=(0.5, 1, 1), projection="mean").geometry.project(volume, [0])
    torch.testing.assert_close(views[:, 0], volume.mean(2))


@pytest.mark.parametrize("spacing_mm", [(3.0, 1.0), (1.0, 2.5), (1.0, 1.0)])
def test_a_ball_in_millimetres_has_the_same_shadow_from_everywhere(spacing_mm: tuple[float, float]) -> None:
    """In a plane of pixels that are not square; a shear, or a rotation in pixels, would give ellipses."""
    size = tuple(round(60 / step) for step in spacing_mm)
    axes = [(torch.arange(number) - (number - 1) / 2) * step for number, step in zip(size, spacing_mm, strict=True)]
    distance = torch.hypot(axes[0][:, None], axes[1])
    disc = (20 - distance).clamp(0, 1)
    views = ray_maxima(disc.reshape(-1, 1), Plane(size, spacing_mm), range(0, 180, 5))[..., 0]
    widths_mm = (views > 0.5).sum(1) * spacing_mm[1]
    assert widths_mm.min() >= 40 - 2 * max(spacing_mm)
    assert widths_mm.max() <= 40 + spacing_mm[1]
    areas = ray_sums(disc.reshape(-1, 1), Plane(size, spacing_mm), range(0, 180, 5))[..., 0].sum(1)
    # What is seen altogether is what is there, whatever the angle.
    torch.testing.assert_close(areas, disc.sum().expand(36), rtol=0.01, atol=0)


def test_the_direction_of_rotation() -> None:
    """A point at +c is seen at +c at 0 degrees; a point at +a is seen at +c at 90 (methods.md 3.2: s sin at i)."""
    volume = torch.zeros(1, 1, 11, 1, 11)
    volume[0, 0, 8, 0, 5] = 1
    assert int(make(1).geometry.project(volume, [90])[0, 0, 0, 0].argmax()) == 8
    assert int(make(1).geometry.project(volume, [0])[0, 0, 0, 0].argmax()) == 5
    # With the other axis as the detector, the same point is at +detector at 0 degrees.
    assert int(make(1, detector_axis=0).geometry.project(volume, [0])[0, 0, 0, 0].argmax()) == 8


def test_projecting_can_be_differentiated() -> None:
    volume = torch.rand(1, 1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: make(1).geometry.project(x, [0, 33]), volume)
    assert not make(1).geometry.project(volume.detach(), [33]).requires_grad


# Back-projecting


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0), (2.0, 1.0), (0.7, 1.0)])
def test_back_projection_is_the_adjoint_of_ray_sums(spacing_mm: tuple[float, float]) -> None:
    """Up to interpolation, 0.06 % (methods.md 3.4): on smooth data that the detector sees whole."""
    plane = Plane((21, 30), spacing_mm)
    a, c = (torch.arange(size).double() - (size - 1) / 2 for size in plane.size)
    volume = torch.exp(-((a[:, None] * spacing_mm[0] - 2) ** 2 + (c * spacing_mm[1] + 1) ** 2) / 18).reshape(-1, 1)
    angles = even_angles(12)
    views = torch.cos(torch.arange(12.0)[:, None] + torch.arange(30) / 5).double()[..., None]
    left = (ray_sums(volume, plane, angles) * views).sum()
    right = (volume * back_project(views.flatten(0, 1), back_projection(plane, angles))).sum()
    scale = (ray_sums(volume, plane, angles) * views.abs()).sum()
    assert abs(left - right) < 0.0006 * scale


def test_the_gradient_of_back_projection_is_its_transpose() -> None:
    plane, angles = Plane((4, 6), (1.5, 1.0)), (0.0, 31.0, 90.0, 140.0)
    matrix = back_projection(plane, angles)
    views = torch.rand(4 * 6, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: back_project(x, matrix), views)
    rows = torch.rand(4 * 6, 3, dtype=torch.float64)
    image = back_project(views, matrix)
    (transposed,) = torch.autograd.grad(image, views, rows)
    torch.testing.assert_close((image * rows).sum(), (views * transposed).sum(), rtol=1e-12, atol=0)


def test_back_projection_by_hand() -> None:
    """Two pixels at -0.5 and 0.5; at 45 degrees the corners of the plane lie at -0.707, 0, 0, 0.707."""
    views = torch.tensor([[1.0], [3.0]])
    outer, inner = 0.5 + math.sqrt(0.5), 0.5
    image = back_project(views, back_projection(Plane((2, 2), (1.0, 1.0)), [45]))
    # Positions in pixels are 0.5 + (-0.707, 0, 0, 0.707); beyond the ends the values fall to 0.
    low, high = 1 * (1 - (outer - 1)), 3 * (1 - (outer - 1))
    torch.testing.assert_close(image.flatten(), torch.tensor([low, 2 * inner * 2, 2.0, high]))


def test_constant_views_add_up_where_the_detector_sees() -> None:
    representation = make(0)
    volume = representation.geometry.back_project(torch.ones(1, 6, 1, 2, 9), even_angles(6), (2, 9, 9))
    torch.testing.assert_close(volume[:, :, :, 2:7, 2:7], torch.full((1, 1, 2, 5, 5), 6.0))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("other_detector", [False, True])
@pytest.mark.parametrize("spacing_mm", [ISOTROPIC, (3.0, 1.0, 2.0)])
def test_a_voxel_returns_to_its_place(axis: int, other_detector: bool, spacing_mm: Spacing) -> None:
    detector = next(other for other in range(3) if other != axis) if other_detector else None
    representation = make(axis, spacing_mm, detector_axis=detector)
    shape = (9, 12, 10)
    for place in ((3, 7, 4), (5, 4, 6)):
        volume = torch.zeros(1, 1, *shape)
        volume[0, 0][place] = 1
        angles = even_angles(30)
        back = representation.geometry.back_project(representation.geometry.project(volume, angles), angles, shape)
        assert back.shape == volume.shape
        assert torch.unravel_index(back[0, 0].argmax(), shape) == place


def test_samples_channels_and_classes_stay_apart() -> None:
    representation = make(2, (1.0, 2.0, 1.0))
    volume = torch.rand(2, 3, 5, 6, 4)
    views = representation.geometry.project(volume, OBLIQUE)
    assert views.shape == (2, 7, 3, 4, 6)
    back = representation.geometry.back_project(views, OBLIQUE, volume.shape[2:])
    for sample, channel in itertools.product(range(2), range(3)):
        own = representation.geometry.project(volume[sample, channel][None, None], OBLIQUE)
        torch.testing.assert_close(views[sample, :, channel], own[0, :, 0])
        own_back = representation.geometry.back_project(own, OBLIQUE, volume.shape[2:])
        torch.testing.assert_close(back[sample, channel], own_back[0, 0])


# Filtration and fine-tuning


@pytest.mark.parametrize(("num_views", "count"), [(12, 36), (60, 180)])
def test_filtration_has_three_numbers_per_view(num_views: int, count: int) -> None:
    assert sum(parameter.numel() for parameter in Filtration(num_views).parameters()) == count  # methods.md 3.3


def test_filtration_acts_along_the_detector_with_each_view_s_own_numbers() -> None:
    filtration = Filtration(2)
    assert (filtration.weight - 0.5).abs().max() < 0.1
    with torch.no_grad():
        filtration.weight.copy_(torch.tensor([[2.0, 3.0], [1.0, -1.0]]))
        filtration.bias.copy_(torch.tensor([10.0, 0.0]))
    maps = torch.tensor([[1.0, 2.0, 4.0], [0.0, 1.0, 0.0]]).expand(1, 2, 3, 2, 3)
    # 2 * 1 + 3 * 2 + 10 = 18, 2 * 2 + 3 * 4 + 10 = 26; at the end 2 * 4 + 3 * 0 + 10 = 18.
    # 2 * 1 + 3 * 2 is not 3 * 1 + 2 * 2: the second weight is that of the next pixel.
    for classes in filtration(maps)[0, 0]:
        assert classes.tolist() == [[18, 26, 18], [13, 12, 10]]
    for classes in filtration(maps)[0, 1]:
        assert classes.tolist() == [[-1, -2, 4], [-1, 1, 0]]


def test_pooling_keeps_the_shape_and_leaves_padding_out() -> None:
    volume = torch.rand(2, 3, 4, 5, 6)
    pooled = average_pool(volume)
    assert pooled.shape == volume.shape
    torch.testing.assert_close(pooled[:, :, 1, 2, 3], volume[:, :, 1:3, 2:4, 3:5].mean((2, 3, 4)))
    torch.testing.assert_close(pooled[:, :, 3, 2, 5], volume[:, :, 3, 2:4, 5].mean(2))
    torch.testing.assert_close(pooled[:, :, 3, 4, 5], volume[:, :, 3, 4, 5])
    torch.testing.assert_close(average_pool(volume[:, :, 3:]), pooled[:, :, 3:])


def test_the_two_normalisations() -> None:
    volume = torch.full((1, 2, 3, 3, 3), 0.9)
    affine = FineTuning(2, "affine")
    torch.testing.assert_close(affine(volume), torch.full_like(volume, GAIN * (0.9 - SHIFT)))
    with torch.no_grad():
        affine.normalize.shift[1] = 0.9
    assert affine(volume)[0, :, 0, 0, 0].tolist() == pytest.approx([1, 0], abs=1e-5)
    batch = FineTuning(2, "batch")
    assert isinstance(batch.normalize, nn.BatchNorm3d)
    scores = batch(torch.rand(2, 2, 4, 4, 4))
    torch.testing.assert_close(scores.mean((0, 2, 3, 4)), torch.zeros(2), atol=1e-5, rtol=0)


# The random training


@pytest.mark.parametrize(
    ("epoch", "weight"), [(1, 0.99), (5, 0.895), (10, 0.630), (12, 0.510), (20, 0.147), (30, 0.013)]
)
def test_weights_of_path_1(epoch: int, weight: float) -> None:
    assert path_weight(epoch) == pytest.approx(weight, abs=0.0005)  # methods.md 3.7
    assert path_weight(epoch + 1) == pytest.approx(path_weight(epoch) * 0.99**epoch)  # the paper's recursion


def test_progress_runs_through_thirty_epochs() -> None:
    assert [epoch_of_progress(progress) for progress in (0, 0.5, 1)] == [1, 15.5, 30]


@pytest.mark.parametrize("num_views", [1, 5, 7, 12, 60, 180])
def test_parts_of_half_a_turn_hold_each_degree_once(num_views: int) -> None:
    drawn = [draw_angles(num_views, epoch, 3) for epoch in range(1, 400)]
    parts = [set(part) for part in zip(*drawn, strict=True)]
    ends = [part * 180 // num_views for part in range(num_views + 1)]
    for part, begin, end in zip(parts, ends[:-1], ends[1:], strict=True):
        assert part <= set(range(begin, end))
    if num_views >= 5:
        # With 399 draws of at most 36 degrees, each comes up (12 views: 15 degrees, as printed in the paper).
        assert set().union(*parts) == set(range(180))


def test_angles_depend_on_seed_and_epoch_alone() -> None:
    model = Projections.examples()[0].lift(nn.Identity())
    assert isinstance(model, EpochAware)
    assert isinstance(model, LiftedProjections)
    first = model.training_angles
    seen = []
    for epoch, seed in ((1, 0), (2, 0), (2, 1), (2, 0)):
        model.start_epoch(epoch, seed, 0.0)
        seen.append(model.training_angles)
    assert first == seen[0] == draw_angles(4, 1, 0)
    assert seen[1] == seen[3]
    assert len(set(seen)) == 3


def test_both_schedules() -> None:
    for schedule, weight in (("paper", path_weight(5)), ("progress", path_weight(15.5))):
        model = make(path_schedule=schedule).lift(nn.Identity())
        assert isinstance(model, LiftedProjections)
        keys = set(model.state_dict())
        model.start_epoch(5, 0, 0.5)
        assert model.path_1_weight == pytest.approx(weight)
        # Nothing of an epoch is saved.
        assert set(model.state_dict()) == keys


class Counting(nn.Module):
    """A 1 x 1 network that notes how it is called."""

    def __init__(self, num_outputs: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, num_outputs, 1)
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((len(images), self.training, torch.is_grad_enabled()))
        return self.conv(images)  # type: ignore[no-any-return]


def test_path_2_sees_all_views_in_eval_mode_and_without_gradients() -> None:
    network = Counting()
    model = make(num_training_views=4, num_views=10).lift(network).train()
    (_, first_weight), (scores, second_weight) = model(torch.rand(2, 1, 5, 4, 6))
    assert network.calls == [(8, True, True), (8, False, False), (8, False, False), (4, False, False)]
    assert network.training
    assert first_weight + second_weight == pytest.approx(1)
    model.zero_grad()
    scores.sum().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_training_scores_of_path_2_are_those_of_prediction() -> None:
    model = make(num_training_views=3, num_views=7).lift(Counting()).train()
    volume = torch.rand(1, 1, 5, 4, 6)
    (first, _), (second, _) = model(volume)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(model.eval()(volume), second)


def test_gradients_reach_the_network_under_autocast() -> None:
    """What autocast keeps of weights from a pass without gradients would cut them off."""
    network = Counting()
    model = make(num_training_views=2, num_views=4).lift(network).train()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(torch.rand(1, 1, 5, 4, 6))
    assert all(scores.dtype == torch.float32 for scores, _ in outputs)
    sum(scores.sum() * weight for scores, weight in outputs).backward()
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in network.parameters())  # type: ignore[union-attr]


def test_a_model_that_was_used_for_prediction_can_be_trained() -> None:
    model = make(num_training_views=2, num_views=4).lift(Counting())
    volume = torch.rand(1, 1, 5, 4, 6)
    with torch.inference_mode():
        model.eval()(volume)
    outputs = model.train()(volume)
    sum(scores.sum() for scores, _ in outputs).backward()


def test_matrices_are_kept_and_not_too_many() -> None:
    model = make(num_training_views=2, num_views=4).lift(nn.Identity()).eval()
    assert isinstance(model, LiftedProjections)
    for size in (4, 5, 6, 6):
        model(torch.rand(1, 1, size, 4, 6))
    kept = list(model.path_2._matrices)
    assert [plane.size for plane, *_ in kept] == [(5, 6), (6, 6)]
    matrix = model.path_2._matrices[kept[1]]
    model(torch.rand(1, 1, 6, 4, 6))
    assert model.path_2._matrices[kept[1]] is matrix


def test_scores_of_one_class_are_the_paper_s() -> None:
    """With 0 for the background, the softmax over both is the sigmoid over one."""
    representation = make(num_training_views=2, num_views=4)
    model = representation.lift(nn.Identity()).eval()
    scores = model(torch.randn(1, 1, 5, 4, 6))
    assert scores.shape == (1, 2, 5, 4, 6)
    assert (scores[:, 0] == 0).all()
    torch.testing.assert_close(scores.softmax(1)[:, 1], scores[:, 1].sigmoid())


def test_a_reconstruction_is_t_after_r_after_f_divided_by_the_views_that_see_a_voxel() -> None:
    representation = make(0, (1.0, 2.0, 1.0), num_classes=2, background=False)
    path = reconstruction(representation, 3)
    maps, angles, shape = torch.rand(1, 3, 2, 4, 6), (5.0, 70.0, 120.0), (4, 5, 6)
    matrix = back_projection(representation.geometry.plane(shape), angles, between_pixels=True)
    volume = representation.geometry.back_project(path.filtration(maps), angles, shape, matrix)
    seen = representation.geometry.back_project(torch.ones_like(maps), angles, shape, matrix)
    assert seen.min() < 2.5
    assert 2.99 < seen.max() <= 3.001
    mean = average_pool(volume / seen.clamp_min(1))
    torch.testing.assert_close(path(maps, angles, shape), GAIN * (mean - SHIFT))


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 2.0, 1.25)])
def test_filtration_and_average_leave_a_voxel_at_its_place_in_the_plane(spacing_mm: Spacing) -> None:
    """Both look a pixel ahead. One network makes the maps of all views: none may want another shift than the others."""
    representation = make(0, spacing_mm, num_views=36, background=False)
    path = reconstruction(representation, 36)
    nn.init.constant_(path.filtration.weight, 0.5)
    volume = torch.zeros(1, 1, 3, 21, 23)
    volume[0, 0, 1, 8, 14] = 1
    angles = even_angles(36)
    found = path(representation.geometry.project(volume, angles), angles, volume.shape[2:])[0, 0].detach()
    # Beyond half of the peak, where streaks do not reach.
    found = (found - (found.max() + found.min()) / 2).clamp_min(0).sum(0)
    rows, columns = (torch.arange(size, dtype=torch.float32) for size in found.shape)
    assert float((found.sum(1) * rows).sum() / found.sum()) == pytest.approx(8, abs=0.1)
    assert float((found.sum(0) * columns).sum() / found.sum()) == pytest.approx(14, abs=0.1)


@pytest.mark.parametrize(("shape", "corner"), [((2, 32, 32), 4), ((2, 44, 32), 3)])
def test_what_lies_in_a_corner_is_found_like_what_lies_in_the_middle(shape: Shape, corner: int) -> None:
    """Perfect views, untrained filters and normalisation: a view that does not see a voxel says nothing of it."""
    representation = make(0, (1.0, 1.0, 1.0), detector_axis=2)
    path, angles = reconstruction(representation, 60), even_angles(60)
    with torch.no_grad():
        path.filtration.weight.copy_(torch.tensor([1.0, 0.0]).expand(60, 2))
    points = torch.stack(torch.meshgrid(*(torch.arange(size) for size in shape[1:]), indexing="ij"), -1)
    dice = []
    for centre in (torch.tensor(shape[1:]) // 2, torch.tensor([corner, corner])):
        disc = ((points - centre) ** 2).sum(-1) <= 9
        truth = disc.expand(shape)
        views = representation.geometry.project(truth[None, None].float(), angles)
        found = path((views >= 0.5).float(), angles, shape)[0, -1] > 0
        dice.append(2 * float((found & truth).sum()) / float(found.sum() + truth.sum()))
    assert min(dice) > 0.5
    assert dice[1] > dice[0] - 0.25


@pytest.mark.parametrize(("background", "num_outputs"), [(True, 4), (False, 3)])
def test_several_classes_and_regions(background: bool, num_outputs: int) -> None:
    representation = make(num_training_views=2, num_views=4, num_classes=3, background=background)
    network = Counting(representation.network_outputs(num_outputs))
    model = representation.lift(network)
    volume = torch.rand(2, 1, 5, 4, 6)
    assert model.eval()(volume).shape == (2, num_outputs, 5, 4, 6)
    assert [scores.shape for scores, _ in model.train()(volume)] == [(2, num_outputs, 5, 4, 6)] * 2
    with pytest.raises(InputError, match=rf"{num_outputs} scores per voxel, but 2 are needed"):
        representation.network_outputs(2)


def test_the_network_s_answer_to_each_view_comes_back_to_the_volume() -> None:
    """A bright ball, and a network that sees brightness: the ball is segmented without any training."""
    points = torch.stack(torch.meshgrid(*(torch.arange(20.0) for _ in range(3)), indexing="ij"))
    ball = (points - torch.tensor([9.0, 11.0, 8.0])[:, None, None, None]).square().sum(0) < 30

    class Brightness(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return 40 * (images - 0.5)

    model = make(0).lift(Brightness()).eval()
    predicted = model(ball[None, None].float()).argmax(1)[0].bool()
    dice = 2 * (predicted & ball).sum() / (predicted.sum() + ball.sum())
    # Filter and pooling move what they average by half a pixel each; they have not learnt to make up for it.
    assert dice > 0.8


def ring(shape: Shape, spacing_mm: Spacing, inner_mm: float, outer_mm: float) -> Tensor:
    """A ring around the middle of each slice: no views of its outline show that it is hollow."""
    points = torch.stack(
        torch.meshgrid(*(torch.arange(size) - (size - 1) / 2 for size in shape[1:]), indexing="ij"), -1
    )
    radius = (points * torch.tensor(spacing_mm[1:])).square().sum(-1).sqrt()
    return ((radius > inner_mm) & (radius < outer_mm)).expand(shape)


def reconstructed(spacing_mm: Spacing, *, inversion: bool, autocast: bool = False) -> tuple[Tensor, Tensor]:
    """A ring of 5 to 12 mm, and what comes back of perfect means along rays: (D, H, W) each."""
    representation = make(0, spacing_mm, num_views=60, projection="mean", inversion=inversion, background=False)
    path, angles, shape = reconstruction(representation, 60), even_angles(60), (2, 40, 44)
    truth = ring(shape, spacing_mm, 5, 12)
    views = representation.geometry.project(truth[None, None].float(), angles)
    with torch.no_grad():
        path.filtration.weight.copy_(torch.tensor([1.0, 0.0]).expand(60, 2))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            scores = path(views, angles, shape)
    return truth, scores[0, 0] / GAIN + (SHIFT_OF_INVERSION if inversion else SHIFT)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 0.8)])
@pytest.mark.parametrize("autocast", [False, True])
def test_the_inversion_formula_brings_back_what_is_hollow(spacing_mm: Spacing, autocast: bool) -> None:
    truth, found = reconstructed(spacing_mm, inversion=True, autocast=autocast)
    inside, hole = ring(truth.shape, spacing_mm, 7, 10), ring(truth.shape, spacing_mm, -1, 3)
    assert float(found[inside].mean()) == pytest.approx(1, abs=0.01)
    assert float(found[hole].mean()) == pytest.approx(0, abs=0.01)
    marked = found > SHIFT_OF_INVERSION
    assert 2 * float((marked & truth)[0].sum()) / float(marked[0].sum() + truth[0].sum()) > 0.93


def test_without_the_formula_a_hole_is_hardly_darker_than_what_is_around_it() -> None:
    truth, found = reconstructed(ISOTROPIC, inversion=False)
    inside, hole = ring(truth.shape, ISOTROPIC, 7, 10), ring(truth.shape, ISOTROPIC, -1, 3)
    assert float(found[hole].mean()) > 0.7 * float(found[inside].mean())


# The record and its candidates


@pytest.mark.parametrize(
    "fields",
    [
        {"detector_axis": 1},
        {"spacing_mm": (1, 0, 1)},
        {"num_training_views": 181},
        {"num_training_views": 0},
        {"axis": 3},
        {"projection": "median"},
        {"num_classes": 0},
        {"inversion": True},
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Projections.model_validate({"axis": 1, "spacing_mm": ISOTROPIC, **fields})


def planned(shape: Shape, spacing_mm: Spacing, **options: int) -> list[tuple[Projections, Shape]]:
    geometry = VolumeGeometry(shape=shape, spacing_mm=spacing_mm, num_outputs=3)
    return list(Projections.candidates(geometry, **options))


def test_candidates_lose_slices_then_views_then_the_plane() -> None:
    candidates = planned((96, 288, 224), ISOTROPIC)
    representation, window = candidates[0]
    assert window == (96, 288, 224)  # the paper's volume, axes and views
    assert (representation.axis, representation.network_axes) == (1, (1, 2))
    assert (representation.num_training_views, representation.num_views) == (12, 60)
    assert (representation.num_classes, representation.background) == (2, True)
    views = [(item.num_training_views, item.num_views) for item, _ in candidates]
    assert list(dict.fromkeys(views)) == [(12, 60), (12, 36), (6, 36), (6, 18)]
    along = [window[1] for (_, window), seen in zip(candidates, views, strict=True) if seen == (12, 60)]
    assert along == [288, 216, 162, 121, 90, 67, 50, 37, 32]
    whole_plane = [(window[0], window[2]) == (96, 224) for _, window in candidates]
    assert whole_plane == sorted(whole_plane, reverse=True)
    assert sum(whole_plane) == 12
    assert candidates[-1][1] == (32, 32, 32)


@pytest.mark.parametrize(
    ("shape", "spacing_mm", "axes", "window"),
    [
        ((93, 512, 400), (2.5, 0.8, 0.8), (1, 2), (93, 512, 400)),  # thick slices: the detector is in the plane
        ((200, 256, 30), (1.0, 1.0, 5.0), (1, 0), (200, 256, 30)),  # sagittal: not along the thick slices
        ((40, 200, 60), (3.0, 1.0, 1.0), (1, 2), (40, 200, 120)),  # on its side the plane needs 120 mm of detector
        ((100, 60, 60), ISOTROPIC, (0, 2), (100, 60, 60)),
        ((70, 100, 60), ISOTROPIC, (1, 0), (70, 100, 60)),  # the longer of equally fine ones
        ((60, 60, 60), ISOTROPIC, (0, 2), (60, 60, 60)),
        ((1, 20, 20), ISOTROPIC, (1, 2), (1, 20, 20)),
    ],
)
def test_planned_axes(shape: Shape, spacing_mm: Spacing, axes: tuple[int, int], window: Shape) -> None:
    representation, first = planned(shape, spacing_mm)[0]
    assert representation.network_axes == axes
    assert first == window
    assert representation.spacing_mm == spacing_mm


def test_the_rotation_axis_can_be_chosen() -> None:
    assert planned((96, 288, 224), ISOTROPIC, axis=0)[0][0].axis == 0


def test_regions_have_no_background() -> None:
    geometry = VolumeGeometry(shape=(20, 20, 20), spacing_mm=ISOTROPIC, num_outputs=3, has_regions=True)
    representation, _ = next(Projections.candidates(geometry))
    assert (representation.num_classes, representation.background) == (3, False)
