"""Windows: where they lie, what they hold, and that they are a function of their number."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.preprocessing.store import CaseArrays, Store
from seg25d.representations.base import RegularSteps
from seg25d.representations.stack import Stack
from seg25d.training.config import AugmentationConfig
from seg25d.training.crops import object_box
from seg25d.training.sampling import (
    CaseCache,
    WindowSource,
    batch_keys,
    draw_foreground,
    place_window,
    read_region,
)
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]


def source_of(job: FoldJob, process: tuple[int, int] = (0, 1)) -> WindowSource:
    cases = {"train": job.split.train, "validate": job.split.val}
    return WindowSource(job.store, job.header.plan, job.config, cases, process)


@given(st.integers(-5, 8), st.integers(1, 9), st.integers(-5, 8))
def test_regions_are_cut_out_and_filled_with_zeros(start: int, size: int, other: int) -> None:
    array = np.arange(1, 1 + 2 * 5 * 6 * 7).reshape(2, 5, 6, 7)
    region = read_region(array, (start, other, 0), (size, 3, 7))
    padded = np.pad(array, ((0, 0), (20, 20), (20, 20), (0, 0)))
    np.testing.assert_array_equal(region, padded[:, start + 20 : start + 20 + size, other + 20 : other + 23])


def test_regions_can_be_filled_with_the_lowest_value_of_each_channel() -> None:
    array = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3) - 40
    region = read_region(array, (-1, 0, 1), (4, 3, 4), lowest=True)
    np.testing.assert_array_equal(region[:, 1:, :, :2], array[:, :, :, 1:])
    # Of what was read: the first column is not.
    assert (region[0, 0] == -39).all()
    assert (region[1, :, :, 2:] == -12).all()


@given(st.integers(-4, 4), st.integers(1, 12), st.integers(-3, 3), st.integers(0, 2))
def test_regions_can_be_filled_with_the_end_slices_along_one_axis(start: int, size: int, other: int, axis: int) -> None:
    array = np.arange(1, 1 + 2 * 5 * 5 * 5).reshape(2, 5, 5, 5)
    starts, sizes = [other] * 3, [4] * 3
    starts[axis], sizes[axis] = start, size
    region = read_region(array, starts, sizes, repeated=axis)
    if start + size <= 0:  # no part of the volume is seen
        return
    padding = [(0, 0), *((8, 8) if each != axis else (0, 0) for each in range(3))]
    ends = [(0, 0), *((20, 20) if each == axis else (0, 0) for each in range(3))]
    padded = np.pad(np.pad(array, padding), ends, mode="edge")
    corner = [first + (20 if each == axis else 8) for each, first in enumerate(starts)]
    where = tuple(slice(first, first + length) for first, length in zip(corner, sizes, strict=True))
    np.testing.assert_array_equal(region, padded[(slice(None), *where)])


def test_turned_windows_are_filled_up_like_others(make_job: Maker) -> None:
    always = AugmentationConfig(spatial=1.0, rotation_degrees=90, noise=0, blur=0, brightness=0, contrast=0)
    job = with_stacks(make_job("a", augmentation=always.model_copy(update={"low_resolution": 0.0, "gamma": 0.0})))
    source = source_of(job)
    for case in job.split.train:
        image, labels, locations = source.cache.get(case)
        source.cache.cases[case] = image - 100, labels, locations
    for index in range(8):
        image, _ = source.window("train", index)
        assert image.max() < -90


def test_windows_leave_the_cached_volumes_as_they_are(make_job: Maker) -> None:
    job = make_job("a", augmentation=AugmentationConfig(spatial=0.0, mirror=1.0))
    plan = job.header.plan.model_copy(update={"representation": Stack(stack_size=7), "window": (7, 10, 9)})
    source = source_of(dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan})))
    before = {case: source.cache.get(case)[0].copy() for case in job.split.train}
    for index in range(8):
        source.window("train", index)
    for case, image in before.items():
        np.testing.assert_array_equal(source.cache.get(case)[0], image)


def with_stacks(job: FoldJob) -> FoldJob:
    """The job with stacks, which are filled up with the lowest value, larger than the volumes."""
    plan = job.header.plan.model_copy(update={"representation": Stack(stack_size=16), "window": (16, 16, 16)})
    return dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan}))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 11), st.integers(0, 100))
def test_windows_lie_inside_or_hold_the_whole_volume(size: int, window: int, centre: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape, wanted = (size,) * 3, (window,) * 3
    for point in (None, np.array([min(centre, size - 1)] * 3)):
        for start in place_window(rng, shape, wanted, point):
            if size >= window:
                assert 0 <= start <= size - window
                assert point is None or start <= point[0] < start + window
            else:
                assert start <= 0
                assert start + window >= size


def test_foreground_is_drawn_class_by_class(rng: np.random.Generator) -> None:
    locations = {0: np.zeros((9, 3), int), 1: np.full((1000, 3), 1), 2: np.full((1, 3), 2)}
    drawn = [int(draw_foreground(rng, locations)[0]) for _ in range(200)]
    assert 70 < drawn.count(2) < 130
    assert draw_foreground(rng, {0: locations[0]}) is None


def test_a_window_is_a_function_of_its_number(make_job: Maker) -> None:
    first, second = (source_of(make_job("a")) for _ in range(2))
    for key in (("train", 5), ("validate", 0)):
        for one, other in zip(first[key], second[key], strict=True):
            assert torch.equal(one, other)
    assert not torch.equal(first["train", 5][0], first["train", 6][0])
    assert not torch.equal(first["train", 5][0], source_of(make_job("b", seed=1))["train", 5][0])


def test_images_and_labels_stay_together_under_augmentation(make_job: Maker) -> None:
    strong = AugmentationConfig(spatial=1, elastic=1, noise=0, blur=0, brightness=0, contrast=0, low_resolution=0)
    source = source_of(make_job("a", augmentation=strong.model_copy(update={"gamma": 0, "gamma_inverted": 0})))
    for number in range(5):
        images, labels = source["train", number]
        assert images[:, 0][labels == 1].mean() > 0.7
        assert images[:, 0][labels == 0].mean() < 0.2


def test_pretraining_looks_at_no_labels(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(make_job("a", pretext={}, foreground_share=1.0))
    monkeypatch.setattr("seg25d.training.sampling.draw_foreground", lambda *_: pytest.fail("it looked"))
    assert source.window("validate", 0)[1].shape == source.window("train", 0)[1].shape == (1, 6, 8, 8)


def test_every_case_comes_before_any_comes_again(make_job: Maker) -> None:
    source = source_of(make_job("a"))
    seen = [source._case("train", index) for index in range(8)]
    assert sorted(seen[:4]) == sorted(seen[4:]) == list(source.cases["train"])


def test_processes_share_a_batch(make_job: Maker) -> None:
    whole = source_of(make_job("a"))["train", 3]
    parts = [source_of(make_job("a"), (rank, 2))["train", 3] for rank in range(2)]
    assert torch.equal(whole[0], torch.cat([images for images, _ in parts]))
    third = source_of(make_job("a"), (2, 3))["train", 3]
    assert third[0].shape[0] == third[1].shape[0] == 0


def test_validation_windows_are_whole_in_number(make_job: Maker) -> None:
    source = source_of(make_job("a", validation_windows=5))
    assert source.num_validation_batches() == 3
    assert [len(source["validate", number][0]) for number in range(3)] == [2, 2, 1]


def test_validation_windows_are_few_where_windows_are_large(make_job: Maker) -> None:
    source = source_of(make_job("a", validation_windows=400))
    source.cases = {**source.cases, "validate": source.cases["train"] * 10}
    assert source.num_validation_batches() == 20
    assert source.num_validation_windows() == 20 * source.plan.batch_size
    source.cases = {**source.cases, "validate": source.cases["train"][:1]}
    assert source.num_validation_windows() == 4


def test_the_cache_keeps_to_its_limit(tiny_store: Store) -> None:
    cache = CaseCache(tiny_store, limit_bytes=2 * 5 * 7 * 10 * 9)
    for case in tiny_store.cases():
        image, labels, _ = cache.get(case)
        np.testing.assert_array_equal(image[:, 1:3], tiny_store.open_image(case)[:, 1:3])
        assert labels.shape == (7, 10, 9)
    assert len(cache.cases) == 2


def test_of_a_case_that_is_not_cached_one_class_is_read_and_the_draw_is_the_same(
    make_job: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, rng = Store(tmp_path), np.random.default_rng(3)
    tiny = make_job("a").store
    labels = rng.integers(0, 61, (7, 10, 9)).astype(np.uint8)
    locations = {label: np.argwhere(labels == label).astype(np.int32) for label in (*range(9, 61), *range(1, 9))}
    store.write(tiny.record("case_0"), CaseArrays(tiny.open_image("case_0")[...], labels, None, locations))
    read: list[str] = []
    load = np.lib.npyio.NpzFile.__getitem__

    def noted(archive: Any, name: str) -> Any:
        read.append(name)
        return load(archive, name)

    monkeypatch.setattr(np.lib.npyio.NpzFile, "__getitem__", noted)
    cache = CaseCache(store, limit_bytes=0)
    for seed in range(5):
        drawn = draw_foreground(np.random.default_rng(seed), cache.get("case_0")[2])
        expected = draw_foreground(np.random.default_rng(seed), locations)
        assert drawn is not None
        assert expected is not None
        assert (drawn.tolist(), drawn.dtype) == (expected.tolist(), np.int32)
        assert len(read) == seed + 1
        assert int(read[-1]) == labels[tuple(drawn)]


def test_the_order_of_a_pass_is_drawn_once(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(make_job("a", seed=1234))
    generators: list[object] = []
    make = np.random.default_rng
    monkeypatch.setattr(np.random, "default_rng", lambda seed: generators.append(seed) or make(seed))
    seen = [source._case("train", index) for index in range(12)]
    assert generators == [[1234, 2, number] for number in range(3)]
    assert seen[4:8] == [source.cases["train"][place] for place in make([1234, 2, 1]).permutation(4)]


@pytest.mark.parametrize("first", [0, 3, 4])
def test_keys_go_on_where_they_stopped(first: int) -> None:
    def take(iteration: int, count: int) -> list[tuple[str, int]]:
        keys = batch_keys(iteration, 4, 2)
        return [next(keys) for _ in range(count)]

    everything = take(0, 18)
    assert everything[:7] == [*(("train", n) for n in range(4)), ("validate", 0), ("validate", 1), ("train", 4)]
    start = everything.index(("train", first))
    assert take(first, 5) == everything[start : start + 5]


def test_regular_windows_start_at_whole_steps_and_hold_the_centre() -> None:
    rng = np.random.default_rng(0)
    regular = RegularSteps(axis=1, training_step=3, step=8)
    anywhere = {place_window(rng, (9, 20, 9), (5, 8, 5), None, regular)[1] for _ in range(200)}
    assert anywhere == {0, 3, 6, 9, 12}
    centre = np.array([4, 13, 4])
    around = {place_window(rng, (9, 20, 9), (5, 8, 5), centre, regular)[1] for _ in range(200)}
    assert around == {6, 9, 12}
    assert place_window(rng, (9, 6, 9), (5, 8, 5), np.array([4, 5, 4]), regular)[1] == 0


UNCHANGED = {
    **dict.fromkeys(("spatial", "noise", "blur", "brightness", "contrast", "low_resolution"), 0.0),
    **dict.fromkeys(("gamma_inverted", "gamma"), 0.0),
}
"""Augmentation that flips at the most."""


def test_windows_of_whole_volumes_are_what_they_were_before_there_were_crops(make_job: Maker) -> None:
    """Those of validation were all centred on the foreground then."""
    digest = hashlib.sha256()
    for purpose, number, share in (("train", 20, 0.5), ("validate", 8, 1.0)):
        source = source_of(make_job(purpose, augmentation=UNCHANGED, foreground_share=share))
        for index in range(number):
            for part in source.window(purpose, index):
                digest.update(part.numpy().tobytes())
    assert digest.hexdigest()[:16] == "5451e590866c984f"


@pytest.mark.parametrize("cache_bytes", [0, 1 << 30])
def test_windows_of_a_fine_model_show_the_object_and_nothing_beyond_its_margins(make_job: Maker, cache_bytes) -> None:
    still = UNCHANGED | {"mirror": 0.0}
    fine = {"margin": 1, "random_share": 0.0}
    job = make_job("a", augmentation=still, fine=fine)
    # Windows larger than the volume: each shows the whole crop.
    plan = job.header.plan.model_copy(update={"window": (12, 12, 12)})
    cases = {"train": job.split.train, "validate": job.split.val}
    source = WindowSource(job.store, plan, job.config, cases, cache_bytes=cache_bytes)
    for purpose, number in (("train", 8), ("validate", 2)):
        for index in range(number):
            labels = job.store.open_labels(source._case(purpose, index))[:]
            image, target = source.window(purpose, index)
            assert int(target.sum()) == int(labels.sum())
            box = object_box(labels)
            assert box is not None
            voxels = [
                min(stop + 1, size) - max(start - 1, 0) for (start, stop), size in zip(box, labels.shape, strict=True)
            ]
            assert np.count_nonzero(image) == np.prod(voxels)


def test_random_margins_change_what_windows_show_but_not_from_run_to_run(make_job: Maker) -> None:
    settings = {"augmentation": UNCHANGED | {"mirror": 0.0}, "fine": {"margin": 1, "random_margin": 4}}
    sources = []
    for name in "ab":
        job = make_job(name, **settings)
        plan = job.header.plan.model_copy(update={"window": (12, 12, 12)})
        sources.append(source_of(dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan}))))
    first, second = sources
    shown = {int(np.count_nonzero(first.window("train", index)[0])) for index in range(0, 40, 4)}
    assert len(shown) > 3
    for index in (0, 3, 17):
        for one, other in zip(first.window("train", index), second.window("train", index), strict=True):
            assert torch.equal(one, other)


def test_windows_around_the_foreground_are_placed_in_the_crop(make_job: Maker) -> None:
    settings = {"fine": {"margin": 0, "random_share": 0.0}, "foreground_share": 1.0}
    job = make_job("a", augmentation=UNCHANGED | {"mirror": 0.0}, **settings)
    plan = job.header.plan.model_copy(update={"window": (2, 2, 2)})
    source = source_of(dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan})))
    labels = np.zeros((7, 10, 9), np.uint8)
    labels[3, 4, 4] = labels[6, 9, 8] = 1
    for case in job.split.train:
        source.cache.cases[case] = source.cache.get(case)[0], labels, {1: np.array([[3, 4, 4]])}
    assert all(int(source.window("train", index)[1].sum()) == 1 for index in range(4))


def test_cases_without_an_object_are_shown_whole(make_job: Maker) -> None:
    job = make_job("a", augmentation=UNCHANGED, fine={"margin": 0})
    plan = job.header.plan.model_copy(update={"window": (12, 12, 12)})
    source = source_of(dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan})))
    for case in job.split.train:
        image, labels, _ = source.cache.get(case)
        source.cache.cases[case] = image, np.zeros_like(labels), {}
    image, target = source.window("train", 0)
    assert np.count_nonzero(image) == 7 * 10 * 9
    assert not target.any()


@given(st.integers(-5, 8), st.integers(1, 9), st.integers(0, 4), st.integers(1, 3))
def test_regions_of_a_crop_are_filled_as_those_of_a_volume(start: int, size: int, low: int, length: int) -> None:
    array = np.arange(1, 1 + 5 * 6 * 7, dtype=np.float32).reshape(1, 5, 6, 7)
    crop = ((low, min(5, low + length)), (1, 5), (2, 4))
    part = array[:, crop[0][0] : crop[0][1], 1:5, 2:4]
    for lowest in (False, True):
        region = read_region(array, (low + start, 0, 1), (size, 6, 4), crop, lowest=lowest)
        np.testing.assert_array_equal(region, read_region(part, (start, -1, -1), (size, 6, 4), lowest=lowest))
