"""Recipes: both halves have the same names, each trains, and the augmentation of PT&A does what TorchIO's does."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import parse_record
from seg25d.data.labels import Labels
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import load_header
from seg25d.planning.recipe_rules import PLANNING_RULES
from seg25d.representations.slices import Slices
from seg25d.training.augmentation import apply_spatial, apply_thickness, draw_augmentation, region_to_read
from seg25d.training.config import AugmentationConfig, FusionConfig, TrainingConfig
from seg25d.training.losses import LOSSES
from seg25d.training.recipes import PTA_AUGMENTATION, RECIPES, find_recipe
from seg25d.training.sampling import WindowSource
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.workflows.options import TrainingOptions
from seg25d.workflows.settings import resolve_settings


def test_both_halves_of_a_recipe_have_one_name() -> None:
    assert list(RECIPES) == list(PLANNING_RULES)
    assert all(config.recipe == name for name, config in RECIPES.items())


@pytest.mark.parametrize("config", RECIPES.values(), ids=RECIPES)
def test_recipes_are_valid_and_survive_their_file(config: TrainingConfig) -> None:
    assert parse_record(config.model_dump(mode="json"), TrainingConfig, "config.json") == config


def test_unknown_recipes_list_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"sobirov2022, .*angermann2022"):
        find_recipe("sobirov")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains_two_steps(make_job: Callable[..., FoldJob], name: str) -> None:
    settings = RECIPES[name].model_dump() | {"epochs": 2, "iterations_per_epoch": 1, "validation_windows": 2}
    job = make_job(name, **settings | {"precision": "float32"})
    if job.config.largest_slices is not None:
        slices = {"representation": Slices(axis=0, context=1), "window": (3, 8, 8)}
        header = job.header.model_copy(update={"plan": job.header.plan.model_copy(update=slices)})
        job = dataclasses.replace(job, header=header)
    train_fold(job)
    assert load_header(job.folder.model_final).build_model() is not None


def test_thick_slices_by_hand() -> None:
    image = torch.arange(8.0).reshape(1, 1, 1, 8).expand(1, 2, 3, 8)
    thick = apply_thickness(image, (2, 2.0))
    # Four slices, the nearest ones of 8 with centres at 0.5, 2.5, 4.5, 6.5 round up; linear in between.
    expected = torch.nn.functional.interpolate(
        torch.tensor([[[1.0, 3, 5, 7]]]), 8, mode="linear", align_corners=False
    ).flatten()
    torch.testing.assert_close(thick, expected.expand(1, 2, 3, 8))
    assert expected[:3].tolist() == [1.0, 1.5, 2.5]


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_thick_slices_change_one_axis_only_and_all_channels_alike(axis: int, rng: np.random.Generator) -> None:
    profile = torch.from_numpy(rng.normal(size=(2, 9)).astype(np.float32))
    shape = [2, 1, 1, 1]
    shape[axis + 1] = 9
    across = apply_thickness(profile.reshape(shape).expand(2, 9, 9, 9), ((axis + 1) % 3, 4.0))
    torch.testing.assert_close(across, profile.reshape(shape).expand(2, 9, 9, 9))
    along = apply_thickness(profile.reshape(shape).expand(2, 9, 9, 9), (axis, 4.0))
    alone = apply_thickness(profile[1:].reshape([1, *shape[1:]]).expand(1, 9, 9, 9), (axis, 4.0))
    torch.testing.assert_close(along[1:], alone)
    assert not torch.allclose(along[0], profile[0].reshape(shape[1:]).expand(9, 9, 9))
    assert apply_thickness(torch.ones(1, 1, 1, 1), (axis, 5.0)).shape == (1, 1, 1, 1)


def test_the_deformation_of_pta_keeps_its_border_and_its_bounds() -> None:
    shifts = [
        draw_augmentation(np.random.default_rng(seed), PTA_AUGMENTATION, (8, 8, 8), (2.5, 1.0, 1.0), 1, ()).shifts
        for seed in range(20)
    ]
    values = np.stack([each for each in shifts if each is not None])
    assert values.shape == (20, 3, 5, 5, 5)
    inner = values[:, :, 1:-1, 1:-1, 1:-1]
    assert np.abs(values).sum() == pytest.approx(np.abs(inner).sum())
    # Up to 7.5 mm, which are 3 voxels of 2.5 mm; uniform numbers come close to their bounds.
    assert 2.9 < np.abs(inner[:, 0]).max() < 3
    assert 7.3 < np.abs(inner[:, 1:]).max() < 7.5


def test_the_zoom_of_pta_differs_between_axes_and_stays_in_its_bounds() -> None:
    config = PTA_AUGMENTATION.model_copy(update={"rotation_degrees": 0.0})
    zooms = []
    for seed in range(30):
        matrix = draw_augmentation(np.random.default_rng(seed), config, (8, 8, 8), (1.0, 1.0, 1.0), 1, ()).matrix
        assert matrix is not None
        np.testing.assert_array_equal(matrix - np.diag(np.diag(matrix)), 0)
        zooms.append(1 / np.diag(matrix))
    assert 0.9 <= np.min(zooms) < 0.92
    assert 1.08 < np.max(zooms) <= 1.1
    assert all(len(set(zoom.tolist())) == 3 for zoom in zooms)


def test_everything_of_pta_is_drawn_every_time_but_flips_half_of_the_time() -> None:
    drawn = [
        draw_augmentation(np.random.default_rng(seed), PTA_AUGMENTATION, (8, 8, 8), (1.0, 1.0, 1.0), 2, (2,))
        for seed in range(60)
    ]
    assert all(each.matrix is not None and each.thickness is not None for each in drawn)
    assert {each.thickness[0] for each in drawn if each.thickness} == {0, 1, 2}
    assert all(1.5 <= each.thickness[1] <= 5 for each in drawn if each.thickness)
    assert {name for each in drawn for name, _, _ in each.intensity} == {"log_gamma"}
    assert 15 < sum(each.flips == (2,) for each in drawn) < 45
    image = torch.ones(2, *region_to_read(drawn[0], (8, 8, 8)))
    assert apply_spatial(image, image[0].byte(), drawn[0], (8, 8, 8))[0].shape == (2, 8, 8, 8)


def test_what_is_new_leaves_the_default_augmentation_as_it_was() -> None:
    """Drawn with the code before anisotropy, log-gamma and zooms per axis were added."""
    drawn = [
        draw_augmentation(np.random.default_rng(seed), AugmentationConfig(), (8, 8, 8), (1.0, 1.0, 1.0), 2, (0, 1, 2))
        for seed in range(200)
    ]
    digest = sum((index + 1) * seed for each in drawn for index, (_, _, seed) in enumerate(each.intensity)) % 1_000_003
    flips = sum((number + 1) * sum(1 << axis for axis in each.flips) for number, each in enumerate(drawn))
    matrices = sum(float(each.matrix.sum()) for each in drawn if each.matrix is not None)
    assert (digest, flips, round(matrices, 9)) == (571425, 71177, 100.977688723)


def test_thick_slices_need_a_factor_of_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least one voxel"):
        AugmentationConfig(anisotropy_factor=(0.5, 2.0))


def test_thick_slices_reach_the_windows(make_job: Callable[..., FoldJob]) -> None:
    chances = ("spatial", "noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma")
    off = dict.fromkeys((*chances, "mirror"), 0.0)
    windows = []
    for chance in (0.0, 1.0):
        job = make_job(str(chance), augmentation=off | {"anisotropy": chance, "anisotropy_factor": (4.0, 4.0)})
        cases = {"train": job.split.train, "validate": job.split.val}
        source = WindowSource(job.store, job.header.plan, job.config, cases)
        windows.append(source.window("train", 0))
    assert torch.equal(windows[0][1], windows[1][1])
    assert not torch.equal(windows[0][0], windows[1][0])


@pytest.mark.parametrize(
    ("settings", "joint"), [({}, False), ({"fusion.joint": "true"}, True), ({"fusion.joint": "True"}, True)]
)
def test_the_fusion_has_settings_of_its_own_and_others_when_views_are_trained_with_it(settings, joint) -> None:
    options = TrainingOptions(recipe="xia2018", settings=settings)
    config = resolve_settings(options, settings, fuses_views=True).config
    assert (config.recipe, config.fusion.joint) == ("xia2018", joint)
    # Views are no longer views when the cube is turned.
    assert (config.augmentation.cube_rotation, config.learning_rate) == ((0, 3e-4) if joint else (1, 1e-2))
    assert resolve_settings(options, {}).config == RECIPES["xia2018"]


def test_coarse_and_fine_models_of_xia2018_have_settings_of_their_own() -> None:
    coarse, fine = (find_recipe("xia2018", fine=fine) for fine in (False, True))
    # methods.md 4.1: 80,000 updates of the coarse stage, 60,000 of the fine one.
    assert (coarse.num_iterations(), fine.num_iterations()) == (80_000, 60_000)
    assert coarse.fine is None
    assert fine.fine == FineConfig(large_components=True)
    # The largest 98 % of the slices with an object, or all of them (FINE_SLICE_THRESHOLD of the authors' run.sh).
    assert (coarse.largest_slices, fine.largest_slices) == (0.98, 1.0)
    assert coarse.foreground_share == fine.foreground_share == 1
    other = find_recipe("angermann2022", fine=True)
    assert other == RECIPES["angermann2022"].model_copy(update={"fine": FineConfig()})


def test_what_is_absent_from_a_window_pulls_at_nothing_in_xia2018() -> None:
    """With the authors' smoothing; with 1, one of two classes of the hippocampus was no longer found."""
    labels = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    target = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    target[:, :, :2] = 1

    def gradients(smooth: float) -> list[float]:
        scores = torch.zeros(1, 2, 3, 4, 4, requires_grad=True)
        LOSSES["dice"](labels, smooth)([(scores, 1.0)], target).backward()
        assert scores.grad is not None
        return scores.grad.abs().amax((0, 2, 3, 4)).tolist()

    whole, core = gradients(find_recipe("xia2018").dice_smooth)
    assert whole > 1e-3
    assert core < 1e-8
    assert gradients(1.0)[1] > 1e-4


def test_views_of_xia2018_are_coarse_to_fine_unless_they_are_not_to_be() -> None:
    def fusion(**words: str) -> FusionConfig | None:
        settings = {f"fusion.{key}": value for key, value in words.items()}
        return resolve_settings(TrainingOptions(recipe="xia2018"), settings, fuses_views=True).config.fusion

    assert fusion() == FusionConfig(fine=True)
    assert fusion(fine="false") == FusionConfig()
    assert fusion(joint="true") == FusionConfig(joint=True)
    assert fusion(joint="false") == FusionConfig(fine=True)
    with pytest.raises(RecordError, match="set one of the two"):
        fusion(joint="true", fine="true")
    assert find_recipe("default", fuses_views=True).fusion == FusionConfig()


def test_fusion_networks_train_as_everything_else_but_for_the_papers_recipe():
    ours, paper = (find_recipe(name, fuses_views=True) for name in ("default", "xia2018"))
    assert (ours.optimizer, ours.loss, ours.schedule) == ("muon", "dice_cross_entropy", "cosine")
    # methods.md 4.3: Dice, 0.01, a tenth after 20,000 and after 25,000 of 30,000 updates.
    assert (paper.optimizer, paper.loss, paper.learning_rate, paper.schedule) == ("sgd", "dice", 0.01, "drops")
    assert [round(share * paper.num_iterations()) for share in paper.schedule_drops] == [20_000, 25_000]
    assert ours.num_iterations() == paper.num_iterations() == 30_000
    assert ours.augmentation == paper.augmentation
    assert find_recipe("default", fuses_views=True, joint=True).learning_rate == pytest.approx(ours.learning_rate / 10)
