"""Windows around the slices that show most of an object: which slices, and how often each (methods.md 4.1)."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.core.records import parse_record
from seg25d.data.labels import IGNORE_INDEX
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.training.config import TrainingConfig
from seg25d.training.largest_slices import check_largest_slices, draw_in_slice, largest_slices
from seg25d.training.sampling import WindowSource
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]
STILL = {"enabled": False}


class Volumes:
    """As much of a store as is read."""

    def __init__(self, **labels: np.ndarray) -> None:
        self.labels = labels

    def open_labels(self, case: str) -> np.ndarray:
        return self.labels[case]


def with_areas(*areas: int) -> np.ndarray:
    """Labels (1, 10, n) whose slices along the last axis have so many voxels of two classes."""
    labels = np.zeros((1, 10, len(areas)), np.uint8)
    for number, area in enumerate(areas):
        labels[0, :area, number] = 1 + number % 2
    return labels


def test_slices_of_all_cases_are_compared_and_those_without_an_object_do_not_count() -> None:
    store = Volumes(a=with_areas(0, 3, 9, 1), b=with_areas(5, 0, 4))
    assert largest_slices(store, ["a", "b"], 2, 1.0) == [("a", 2), ("b", 0), ("b", 2), ("a", 1), ("a", 3)]
    # Rounded down, but one stays; what is alike comes in order.
    assert largest_slices(store, ["a", "b"], 2, 0.79) == [("a", 2), ("b", 0), ("b", 2)]
    assert largest_slices(store, ["b"], 2, 0.01) == [("b", 0)]
    assert largest_slices(Volumes(a=with_areas(2, 2, 2)), ["a"], 2, 0.67) == [("a", 0), ("a", 1)]
    assert largest_slices(Volumes(a=with_areas(0, 0)), ["a"], 2, 0.98) == []


def test_ignored_voxels_are_no_object() -> None:
    labels = with_areas(2, 3)
    labels[0, :2, 1] = IGNORE_INDEX
    assert largest_slices(Volumes(a=labels), ["a"], 2, 1.0) == [("a", 0), ("a", 1)]


@pytest.mark.parametrize(("axis", "expected"), [(0, [3, 1]), (1, [2, 0]), (2, [4, 5])])
def test_areas_are_those_along_an_axis(axis: int, expected: list[int]) -> None:
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[3, 0, 4] = labels[3, 2, 4] = labels[3, 2, 5] = labels[1, 2, 4] = 1
    assert largest_slices(Volumes(a=labels), ["a"], axis, 1.0) == [("a", number) for number in expected]


def test_voxels_of_a_slice_are_drawn_equally_often(rng: np.random.Generator) -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 2, 3:5], labels[1, 4, 0], labels[2], labels[1, 0] = 1, 2, 1, IGNORE_INDEX
    drawn = Counter(tuple(map(int, draw_in_slice(rng, labels, 0, 1))) for _ in range(600))
    assert set(drawn) == {(1, 2, 3), (1, 2, 4), (1, 4, 0)}
    assert min(drawn.values()) > 150


def with_slices(job: FoldJob, axis: int = 0, window: tuple[int, int, int] = (3, 10, 9)) -> FoldJob:
    """The job with slices and a neighbour on each side."""
    representation: Representation = Slices(axis=axis, context=1)
    plan = job.header.plan.model_copy(update={"representation": representation, "window": window})
    return dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan}))


def source_of(job: FoldJob) -> WindowSource:
    cases = {"train": job.split.train, "validate": job.split.val}
    return WindowSource(job.store, job.header.plan, job.config, cases)


def drawn_slices(source: WindowSource, number: int) -> list[tuple[str, int | None]]:
    return [source._choose("train", index) for index in range(number)]


def test_every_slice_but_the_smallest_is_drawn_once_in_every_pass(make_job: Maker) -> None:
    settings = {"foreground_share": 1.0, "largest_slices": 0.8, "augmentation": STILL}
    source = source_of(with_slices(make_job("a", **settings)))
    positive = sum(int(source.cache.get(case)[1].any((1, 2)).sum()) for case in source.cases["train"])
    kept = int(0.8 * positive)
    drawn = drawn_slices(source, 2 * kept)
    first, second = drawn[:kept], drawn[kept:]
    assert sorted(first) == sorted(second) == sorted(source.slices)
    assert len(set(first)) == kept < positive
    assert first != second, "in another order"
    assert drawn == drawn_slices(source_of(with_slices(make_job("b", **settings))), 2 * kept)
    assert first != drawn_slices(source_of(with_slices(make_job("c", seed=1, **settings))), kept)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_drawn_slice_is_in_the_middle_of_its_window(make_job: Maker, axis: int) -> None:
    window = tuple(3 if each == axis else size for each, size in enumerate((7, 10, 9)))
    job = with_slices(make_job("a", foreground_share=1.0, largest_slices=1.0, augmentation=STILL), axis, window)
    source = source_of(job)
    for index in range(12):
        case, number = source._choose("train", index)
        _, labels = source.window("train", index)
        size = job.store.open_labels(case).shape[axis]
        place = min(max(number - 1, 0), size - 3)
        expected = np.moveaxis(job.store.open_labels(case)[:], axis, 0)[place : place + 3]
        np.testing.assert_array_equal(np.moveaxis(labels.numpy(), axis, 0), expected)
        assert number - place == 1 or number in (0, size - 1)


def test_small_windows_show_the_object_in_the_slice(make_job: Maker) -> None:
    job = with_slices(make_job("a", foreground_share=1.0, largest_slices=0.98, augmentation=STILL), window=(3, 2, 2))
    source = source_of(job)
    for index in range(20):
        _, labels = source.window("train", index)
        assert labels.any()


def test_only_windows_around_foreground_are_centred_on_slices(make_job: Maker, monkeypatch) -> None:
    seen: list[int] = []

    def draw(rng: np.random.Generator, labels: np.ndarray, axis: int, number: int) -> np.ndarray:
        seen.append(number)
        return draw_in_slice(rng, labels, axis, number)

    monkeypatch.setattr("seg25d.training.sampling.draw_in_slice", draw)
    job = with_slices(make_job("a", foreground_share=0.25, largest_slices=0.98, augmentation=STILL))
    source = source_of(job)
    for index in range(200):
        source.window("train", index)
    assert 30 < len(seen) < 70
    seen.clear()
    source.window("validate", 0)
    assert not seen, "validation windows are centred on classes"


def test_without_any_object_cases_are_drawn(make_job: Maker, make_case: Callable[..., None], tmp_path: Path) -> None:
    store = Store(tmp_path / "empty")
    rng = np.random.default_rng(0)
    for number in range(6):
        make_case(store, f"case_{number}", rng, num_classes=1)
    job = with_slices(make_job("a", store=store, foreground_share=1.0, largest_slices=0.98, augmentation=STILL))
    source = source_of(job)
    assert {source._choose("train", index) for index in range(4)} == {(case, None) for case in job.split.train}
    assert not source.window("train", 0)[1].any()


def test_only_methods_of_single_slices_can_be_trained_so(make_job: Maker) -> None:
    job = make_job("a", foreground_share=1.0, largest_slices=0.98)
    plan: ConfigurationPlan = job.header.plan
    assert isinstance(plan.representation, SuperImage)
    with pytest.raises(InputError, match=r"largest_slices: expected a method of single slices .* got super_image"):
        check_largest_slices(job.config, plan)
    check_largest_slices(job.config.model_copy(update={"largest_slices": None}), plan)
    check_largest_slices(job.config, with_slices(job).header.plan)


def test_it_needs_windows_that_are_centred_on_foreground() -> None:
    with pytest.raises(RecordError, match="expected a foreground_share above 0 with largest_slices"):
        parse_record({"largest_slices": 0.98, "foreground_share": 0.0}, TrainingConfig, "--set")
