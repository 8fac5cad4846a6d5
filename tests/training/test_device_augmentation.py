"""Augmentation on the device that trains: the same changes as by the loaders, apart from rounding and the noise."""

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from seg25d.representations.stack import Stack
from seg25d.representations.volume import Volume
from seg25d.training import augmentation
from seg25d.training.augmentation import INTENSITY, Augmentation, apply_intensity, apply_thickness
from seg25d.training.device_augmentation import CHANGES, change_intensity, change_thickness
from seg25d.training.sampling import Batch, Regions, WindowSource
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]
CPU = torch.device("cpu")
SEEDS = range(25)
ALL_BUT_NOISE: dict[str, Any] = {
    **dict.fromkeys(("spatial", "elastic", "anisotropy"), 0.7),
    **dict.fromkeys(("blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma", "log_gamma"), 0.5),
    "noise": 0.0,
    "cube_rotation": 0.5,
}


def test_there_are_the_same_changes_in_the_same_order() -> None:
    assert list(CHANGES) == list(INTENSITY)


@pytest.mark.parametrize("shape", [(12, 14, 9), (1, 16, 20), (3, 2, 31)])
@pytest.mark.parametrize("name", [name for name in INTENSITY if name != "noise"])
def test_the_same_seed_makes_the_same_change(name: str, shape: tuple[int, int, int], rng: np.random.Generator) -> None:
    image = rng.normal(size=(2, *shape)).astype(np.float32)
    for seed in SEEDS:
        drawn = Augmentation(intensity=((name, 1, seed),))
        changed = change_intensity(torch.from_numpy(image), drawn).numpy()
        np.testing.assert_allclose(changed, apply_intensity(image.copy(), drawn), atol=2e-5)
        np.testing.assert_array_equal(changed[0], image[0])


@pytest.mark.parametrize("name", INTENSITY)
def test_an_image_of_one_value_stays_finite_and_inputs_stay_as_they_are(name: str) -> None:
    image = torch.full((1, 4, 5, 6), 3.0)
    changed = change_intensity(image, Augmentation(intensity=((name, 0, 1),)))
    assert torch.isfinite(changed).all()
    assert (image == 3).all()


def noises(channel: torch.Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    """What noise adds on the device, and by the loaders, for each seed."""
    found = []
    for seed in SEEDS:
        drawn = Augmentation(intensity=(("noise", 0, seed),))
        added = (change_intensity(channel[None], drawn)[0] - channel).numpy()
        found.append((added, apply_intensity(channel[None].numpy().copy(), drawn)[0] - channel.numpy()))
    return found


def test_noise_has_the_same_distribution() -> None:
    """Its strength is drawn alike; 13,824 values tell a deviation to 0.6 %, and a correlation to 0.0085."""
    for ours, theirs in noises(torch.linspace(-1, 1, 24**3).reshape(24, 24, 24)):
        assert ours.std() == pytest.approx(theirs.std(), rel=0.04)
        assert abs(ours.mean()) < 5 * theirs.std() / 24**1.5
        kurtosis = ((ours - ours.mean()) ** 4).mean() / ours.var() ** 2
        assert kurtosis == pytest.approx(3, abs=0.2)
        for axis in range(3):
            shifted = np.roll(ours, 1, axis)
            assert abs(np.corrcoef(ours.ravel(), shifted.ravel())[0, 1]) < 0.045
        assert abs(np.corrcoef(ours.ravel(), theirs.ravel())[0, 1]) < 0.045


def test_noise_is_a_function_of_its_seed_and_leaves_the_global_generator_alone() -> None:
    image = torch.zeros(1, 6, 6, 6)
    state = torch.get_rng_state()
    first, same, other = (change_intensity(image, Augmentation(intensity=(("noise", 0, seed),))) for seed in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("axis", range(3))
def test_thick_slices_are_the_same(axis: int, rng: np.random.Generator) -> None:
    for size in (1, 2, 7, 30, 52, 60):
        shape = [2, 3, 3, 3]
        shape[axis + 1] = size
        image = torch.from_numpy(rng.normal(size=shape).astype(np.float32))
        for factor in (1.5, 4.5, float(rng.uniform(1.5, 5))):
            thickness = axis, factor
            torch.testing.assert_close(
                change_thickness(image, thickness), apply_thickness(image, thickness), atol=5e-5, rtol=0
            )


def source_of(job: FoldJob, **changes: object) -> WindowSource:
    plan = job.header.plan.model_copy(update=changes)
    return WindowSource(job.store, plan, job.config, {"train": job.split.train, "validate": job.split.val})


def on_device(source: WindowSource, number: int) -> Batch:
    """A batch as it comes through a loader to the device."""
    source.augments = False
    batch = pickle.loads(pickle.dumps(source["train", number]))
    assert isinstance(batch, Regions)
    return source.finish_batch(batch, CPU)


@pytest.mark.parametrize(
    ("plan", "settings"),
    [
        pytest.param({}, {}, id="super image"),
        pytest.param({"representation": Volume(), "window": (8, 8, 8), "spacing_mm": (1.5, 1.0, 1.0)}, {}, id="volume"),
        pytest.param({"representation": Stack(stack_size=16), "window": (16, 12, 12)}, {}, id="padded with the lowest"),
        pytest.param({}, {"fine": {"margin": 1}}, id="fine"),
        pytest.param({}, {"pretext": {"task": "inpainting"}}, id="inpainting"),
        pytest.param({}, {"pretext": {"task": "jigsaw"}}, id="jigsaw"),
    ],
)
def test_windows_are_those_of_the_loaders(make_job: Maker, plan: dict[str, Any], settings: dict[str, Any]) -> None:
    job = make_job("a", augmentation=ALL_BUT_NOISE, **settings)
    for number in range(6):
        batches = source_of(job, **plan)["train", number], on_device(source_of(job, **plan), number)
        for theirs, ours in zip(*batches, strict=True):
            assert ours.dtype == theirs.dtype
            assert ours.is_contiguous()
            torch.testing.assert_close(ours.float(), theirs.float(), atol=1e-4, rtol=1e-4)


def test_processes_share_a_batch(make_job: Maker) -> None:
    job = make_job("a", augmentation={**ALL_BUT_NOISE, "noise": 1.0})
    whole, parts = on_device(source_of(job), 3), []
    for rank in range(2):
        source = source_of(job)
        source.process = rank, 2
        parts.append(on_device(source, 3))
    for place, both in enumerate(whole):
        assert torch.equal(both, torch.cat([part[place] for part in parts]))


def test_cached_volumes_stay_as_they_are(make_job: Maker) -> None:
    job = make_job("a", augmentation={"spatial": 0.0, "noise": 1.0, "brightness": 1.0})
    source = source_of(job, window=(7, 10, 9))
    before = {case: source.cache.get(case)[0].copy() for case in job.split.train}
    for number in range(3):
        on_device(source, number)
    for case, image in before.items():
        np.testing.assert_array_equal(source.cache.get(case)[0], image)


def test_validation_windows_are_whole_batches_in_any_case(make_job: Maker) -> None:
    ours, theirs = source_of(make_job("a")), source_of(make_job("a"))
    ours.augments = False
    for one, other in zip(ours["validate", 0], theirs["validate", 0], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("task", [None, "inpainting", "jigsaw"])
def test_nothing_of_it_stays_on_the_cpu(make_job: Maker, monkeypatch: pytest.MonkeyPatch, task: str | None) -> None:
    """Tensors without data do not go together with those of the CPU; they have no values, and no generator."""
    monkeypatch.setattr(augmentation, "_sample_labels", lambda labels, grid: (labels.sum() + grid[0, ..., 0]).byte())
    settings = {} if task is None else {"pretext": {"task": task}}
    always = {name: 1.0 if chance else 0.0 for name, chance in ALL_BUT_NOISE.items()}
    source, device = source_of(make_job("a", augmentation=always, **settings)), torch.device("meta")
    source.augments = False
    regions = source["train", 0]
    assert isinstance(regions, Regions)
    images, target = source.finish_batch(regions, device)
    assert images.device == target.device == device
    assert images.shape == (2, 1, 6, 8, 8)
