"""What windows show, counted over many of them: where they lie, which voxels they are centred on, in which order."""

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.training.sampling import WindowSource, draw_foreground, place_window
from seg25d.training.trainer import FoldJob

Maker = Callable[..., FoldJob]
STILL = {"enabled": False}


def source_of(job: FoldJob, window: tuple[int, int, int] = (6, 8, 8)) -> WindowSource:
    plan = job.header.plan.model_copy(update={"window": window})
    return WindowSource(job.store, plan, job.config, {"train": job.split.train, "validate": job.split.val})


@given(st.integers(1, 40), st.integers(1, 40), st.data())
def test_a_centre_is_in_the_middle_of_its_window_where_the_volume_has_room(size, window, data) -> None:
    centre = data.draw(st.integers(0, size - 1))
    (start, *_) = place_window(np.random.default_rng(0), (size,) * 3, (window,) * 3, np.array([centre] * 3))
    before, behind = centre - window // 2, centre - window // 2 + window
    if before >= 0 and behind <= size and size > window:
        assert start == before
    elif size > window:
        assert start == (0 if before < 0 else size - window)


@pytest.mark.parametrize(
    ("size", "window", "places"), [(9, 4, range(6)), (4, 9, range(-5, 1)), (5, 5, [0]), (6, 5, [0, 1])]
)
def test_windows_without_a_centre_are_at_all_places_equally_often(rng, size, window, places) -> None:
    counts = Counter(place_window(rng, (size,) * 3, (window,) * 3, None)[axis] for _ in range(300) for axis in range(3))
    assert sorted(counts) == list(places)
    assert min(counts.values()) > 0.7 * max(counts.values())


def test_every_voxel_of_a_class_is_drawn_equally_often(rng) -> None:
    locations = {1: np.arange(15).reshape(5, 3), 2: np.arange(15, 21).reshape(2, 3)}
    counts: Counter[tuple[int, ...]] = Counter(tuple(map(int, draw_foreground(rng, locations))) for _ in range(2000))
    assert len(counts) == 7
    for voxels in locations.values():
        for voxel in voxels.tolist():
            assert counts[tuple(voxel)] == pytest.approx(1000 / len(voxels), rel=0.25)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75, 1.0])
@pytest.mark.parametrize("purpose", ["train", "validate"])
def test_as_many_windows_as_asked_for_are_centred_on_the_foreground(
    make_job: Maker, monkeypatch, share, purpose
) -> None:
    source = source_of(make_job("a", foreground_share=share, augmentation=STILL))
    centres = seen_centres(monkeypatch)
    for index in range(200):
        source.window(purpose, index)
    centred = sum(centre is not None for centre in centres)
    assert centred == pytest.approx(200 * share, abs=20 if 0 < share < 1 else 0)


def test_validation_windows_show_what_training_shows_also_parts_without_foreground(make_job: Maker) -> None:
    """Else false positives far from the object would not count; they are the same after every epoch."""
    source = source_of(make_job("a", foreground_share=0.5), (3, 3, 3))
    source.cases = {**source.cases, "validate": source.cases["train"] * 10}
    windows = [source.window("validate", index) for index in range(40)]
    assert 20 < sum(bool(labels.any()) for _, labels in windows) < 40
    again = source_of(make_job("b", foreground_share=0.5), (3, 3, 3))
    again.cases = source.cases
    assert all(torch.equal(labels, again.window("validate", index)[1]) for index, (_, labels) in enumerate(windows))


def seen_centres(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The centres that windows are placed around."""
    centres = []

    def place(rng, shape, window, centre, *others):
        centres.append(centre)
        return place_window(rng, shape, window, centre, *others)

    monkeypatch.setattr("seg25d.training.sampling.place_window", place)
    return centres


def test_cases_come_in_a_new_order_in_every_pass_and_with_every_seed(make_job: Maker) -> None:
    def passes(seed: int) -> list[tuple[str, ...]]:
        source = source_of(make_job(f"{seed}", seed=seed))
        names = [source._case("train", index) for index in range(40)]
        return [tuple(names[first : first + 4]) for first in range(0, 40, 4)]

    assert len(set(passes(0))) > 5
    assert passes(0) != passes(1)
    validation = source_of(make_job("v"))
    assert [validation._case("validate", index) for index in range(4)] == ["case_4", "case_5"] * 2


def test_training_and_validation_windows_of_one_case_are_drawn_apart(make_job: Maker) -> None:
    job = make_job("a", foreground_share=1.0, augmentation=STILL)
    cases: Mapping[str, tuple[str, ...]] = {"train": ("case_0",), "validate": ("case_0",)}
    plan = job.header.plan.model_copy(update={"window": (3, 3, 3)})
    source = WindowSource(job.store, plan, job.config, cases)
    pairs = [(source.window("train", index)[0], source.window("validate", index)[0]) for index in range(20)]
    assert sum(bool((one == other).all()) for one, other in pairs) < 5
