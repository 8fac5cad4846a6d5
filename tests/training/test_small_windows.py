"""Training on parts of windows in the first share of a run."""

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from seg25d.core.errors import InputError
from seg25d.networks.specs.vnet import VNetSpec
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.stack import Stack
from seg25d.representations.volume import Volume
from seg25d.training import trainer
from seg25d.training.config import TrainingConfig
from seg25d.training.recipes import RECIPES
from seg25d.training.small_windows import check_small_windows, cut_windows, small_share, small_window
from seg25d.training.trainer import FoldJob, train_fold

WINDOW = (8, 8, 8)


@pytest.fixture
def stack_job(make_job: Callable[..., FoldJob]) -> Callable[..., FoldJob]:
    """Jobs of stacks of eight slices that hold the volumes of 7 x 10 x 9 voxels but for two voxels."""

    def make(name: str, window: tuple[int, int, int] = WINDOW, **settings: object) -> FoldJob:
        job = make_job(name, **settings)
        network = VNetSpec(
            widths=(4, 8),
            strides=((1, 1, 1), (2, 2, 2)),
            kernels=((3, 3, 3),) * 2,
            encoder_blocks=(1, 1),
            decoder_blocks=(1,),
        )
        values = {"window": window, "representation": Stack(stack_size=window[0]), "network": network}
        plan = job.header.plan.model_copy(update=values)
        header = job.header.model_copy(update={"plan": ConfigurationPlan.model_validate(plan.model_dump())})
        return replace(job, header=header)

    return make


def plan_of(job: FoldJob) -> ConfigurationPlan:
    return job.header.plan


def test_parts_are_a_share_of_the_window_that_the_network_divides(stack_job):
    assert small_window(plan_of(stack_job("a"))) == (6, 6, 6)
    assert small_window(plan_of(stack_job("b", window=(8, 12, 16)))) == (6, 8, 10)


def test_parts_show_what_windows_show(rng):
    images = torch.arange(3 * 2 * 6 * 7 * 8).view(3, 2, 6, 7, 8).float()
    labels = (images[:, 0] % 5).to(torch.uint8)
    cut_images, cut_labels = cut_windows(images, labels, (4, 5, 6), 0.0, rng.spawn(3))
    assert (cut_images.shape, cut_labels.shape) == ((3, 2, 4, 5, 6), (3, 4, 5, 6))
    starts = set()
    for image, part, truth in zip(images, cut_images, cut_labels, strict=True):
        start = (image[0] == part[0, 0, 0, 0]).nonzero()[0].tolist()
        z, y, x = (slice(at, at + size) for at, size in zip(start, (4, 5, 6), strict=True))
        assert torch.equal(part, image[:, z, y, x])
        assert torch.equal(truth, (part[0] % 5).to(torch.uint8))
        starts.add(tuple(start))
    assert len(starts) > 1


def test_parts_around_the_foreground_hold_it_and_ignored_voxels_are_none(rng):
    labels = torch.zeros(1, 16, 16, 16, dtype=torch.uint8)
    labels[0, 3, 12, 9] = 1
    labels[0, :, 0] = 255
    for _ in range(20):
        _, truth = cut_windows(labels[:, None].float(), labels, (4, 4, 4), 1.0, rng.spawn(1))
        assert (truth == 1).sum() == 1


def test_a_process_without_windows_gets_none():
    images, labels = cut_windows(torch.empty(0, 2, 8, 8, 8), torch.empty(0, 8, 8, 8), (4, 4, 4), 0.5, [])
    assert (images.shape, labels.shape) == ((0, 2, 4, 4, 4), (0, 4, 4, 4))


def test_only_where_it_was_measured_parts_are_trained_on_unasked(stack_job, make_job):
    config = RECIPES["default"].model_copy(update={"time_budget_seconds": 60.0})
    plan = plan_of(stack_job("a"))
    assert small_share(config, plan, [(8, 8, 8), (6, 7, 8), (9, 9, 9)]) == 0.6
    assert small_share(config, plan, [(8, 8, 9), (8, 8, 9), (8, 8, 8)]) == 0.0, "windows of a larger volume"
    assert small_share(config, plan_of(make_job("si")), [(2, 2, 2)]) == 0.0, "not possible"
    volume = plan.model_copy(update={"representation": Volume()})
    assert small_share(config, volume, [(2, 2, 2)]) == 0.0, "not measured"
    assert small_share(config.model_copy(update={"small_windows": 0.3}), volume, [(2, 2, 2)]) == 0.3
    assert small_share(config.model_copy(update={"small_windows": 0.3}), plan, [(99, 99, 99)]) == 0.3
    assert small_share(RECIPES["default"], plan, [(2, 2, 2)]) == 0.0, "no shorter updates are needed"
    assert small_share(config, plan_of(stack_job("thin", window=(2, 2, 2))), [(2, 2, 2)]) == 0.0, "no smaller part"
    assert [name for name, recipe in RECIPES.items() if recipe.small_windows is None] == ["default"]
    assert TrainingConfig.model_validate_json("{}").small_windows == 0.0, "a run from before there were parts"


def test_whole_windows_cannot_be_cut(make_job, stack_job):
    with pytest.raises(InputError, match="small_windows"):
        train_fold(make_job("si", small_windows=0.5))
    assert train_fold(make_job("whole", small_windows=0.0, epochs=1))
    with pytest.raises(InputError, match="as large"):
        check_small_windows(TrainingConfig(small_windows=0.5), plan_of(stack_job("thin", window=(2, 2, 2))))


def test_a_run_begins_with_parts_and_ends_with_windows(stack_job, monkeypatch):
    seen = []
    forward = trainer._Run._step

    def noted(self, model, images, target, progress):
        handle = model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
        try:
            return forward(self, model, images, target, progress)
        finally:
            handle.remove()

    monkeypatch.setattr(trainer._Run, "_step", noted)
    job = stack_job("run", small_windows=0.5, epochs=2)
    train_fold(job)
    assert seen == [WINDOW] + [(6, 6, 6)] * 3 + [WINDOW] * 4
    log = [json.loads(line) for line in job.folder.log.read_text().splitlines()]
    speeds = [line["voxels_per_second"] * line["seconds_per_iteration"] for line in log]
    np.testing.assert_allclose(speeds, [(8**3 + 3 * 6**3) / 2, 2 * 8**3])
