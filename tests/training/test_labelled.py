"""Cases of which only some slices are labelled: windows show labelled voxels, anywhere in them, and all of them."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seg25d.core.grids import count_voxels
from seg25d.data.labels import IGNORE_INDEX
from seg25d.preprocessing.locations import sample_locations
from seg25d.preprocessing.store import CaseArrays, Store
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.stack import Stack
from seg25d.representations.super_image import SuperImage
from seg25d.representations.volume import Volume
from seg25d.training.labelled import draw_labelled, is_partly_labelled, labelled_part, place_to_show
from seg25d.training.sampling import WindowSource, place_window
from seg25d.training.small_windows import cut_windows
from seg25d.training.trainer import FoldJob, train_fold

Maker = Callable[..., FoldJob]
EVERY = 3
STILL = {
    **dict.fromkeys(("spatial", "noise", "blur", "brightness", "contrast", "low_resolution"), 0.0),
    **dict.fromkeys(("gamma_inverted", "gamma", "mirror"), 0.0),
}


@pytest.fixture(scope="module")
def sparse_store(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The six volumes of 7 x 10 x 9 voxels, of which slices 1 and 4 along D are labelled; the object lies in both."""
    return with_labels(tiny_store, tmp_path_factory.mktemp("sparse"), hide_slices)


def hide_slices(labels: np.ndarray) -> np.ndarray:
    shown = labels.copy()
    shown[np.arange(len(labels)) % EVERY != 1] = IGNORE_INDEX
    shown[4, 4, 4] = 1
    return shown


def with_labels(store: Store, folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> Store:
    changed = Store(folder)
    for case in store.cases():
        labels = change(store.open_labels(case)[:])
        counts = count_voxels(labels)
        voxels = {str(index): int(counts[index]) for index in np.flatnonzero(counts) if index != IGNORE_INDEX}
        record = store.record(case).model_copy(update={"voxels": voxels})
        locations = sample_locations(labels, counts, case, IGNORE_INDEX)
        changed.write(record, CaseArrays(store.open_image(case)[:], labels, labels, locations))
    return changed


def source_of(
    job: FoldJob, representation: Representation, window: tuple[int, int, int], cache_bytes: int = 1 << 30
) -> WindowSource:
    plan = job.header.plan.model_copy(update={"representation": representation, "window": window})
    cases = {"train": job.split.train, "validate": job.split.val}
    return WindowSource(job.store, plan, job.config, cases, cache_bytes=cache_bytes)


METHODS: Sequence[tuple[Representation, tuple[int, int, int]]] = (
    (Slices(axis=0), (1, 10, 9)),
    (Slices(axis=0, context=1), (3, 8, 8)),
    (Slices(axis=1), (2, 3, 9)),
    (SuperImage(grid=(1, 2)), (2, 8, 8)),
    (Stack(stack_size=2), (2, 10, 9)),
    (Volume(), (2, 4, 4)),
)


@pytest.mark.parametrize(("representation", "window"), METHODS)
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_every_window_shows_labelled_voxels(
    make_job: Maker, sparse_store: Store, representation: Representation, window: tuple[int, int, int], share: float
) -> None:
    job = make_job("a", store=sparse_store, foreground_share=share, augmentation=STILL)
    for cache_bytes in (0, 1 << 30):
        source = source_of(job, representation, window, cache_bytes)
        windows = [source.window("train", index)[1] for index in range(30)]
        windows += [source.window("validate", index)[1] for index in range(source.num_validation_windows())]
        assert all((labels != IGNORE_INDEX).any() for labels in windows)
    if share == 1:
        assert all((labels == 1).any() for labels in windows)


def test_without_that_most_windows_of_a_slice_would_teach_nothing(
    make_job: Maker, sparse_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("a", store=sparse_store, foreground_share=0.0, augmentation=STILL)
    monkeypatch.setattr("seg25d.training.sampling.is_partly_labelled", lambda _: False)
    source = source_of(job, Slices(axis=0), (1, 10, 9))
    shown = [bool((source.window("train", index)[1] != IGNORE_INDEX).any()) for index in range(60)]
    assert sum(shown) < 30


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_every_slice_of_a_super_image_is_taught(make_job: Maker, sparse_store: Store, share: float) -> None:
    job = make_job("a", store=sparse_store, foreground_share=share, augmentation=STILL)
    source = source_of(job, SuperImage(grid=(1, 3)), (3, 10, 9))
    taught = Counter(
        place
        for index in range(240)
        for place in np.flatnonzero((source.window("train", index)[1] != IGNORE_INDEX).numpy().any((1, 2))).tolist()
    )
    assert set(taught) == {0, 1, 2}
    assert min(taught.values()) > 5


def test_foreground_stays_in_the_middle_where_all_is_labelled(make_job: Maker, sparse_store: Store) -> None:
    """In the plane of the labelled slices windows are as ever, along D the labelled slice lies anywhere."""
    job = make_job("a", store=sparse_store, foreground_share=1.0, augmentation=STILL)
    source = source_of(job, Volume(), (3, 3, 3))
    labels = np.full((7, 10, 9), IGNORE_INDEX, np.uint8)
    labels[3] = 0
    labels[3, 5, 5] = 1
    for case in job.split.train:
        source.cache.cases[case] = source.cache.get(case)[0], labels, {1: np.array([[3, 5, 5]])}
    places = {tuple(np.argwhere(source.window("train", index)[1].numpy() == 1)[0]) for index in range(40)}
    assert places == {(0, 1, 1), (1, 1, 1), (2, 1, 1)}


def test_windows_of_fine_models_show_labelled_voxels_of_the_crop(make_job: Maker, sparse_store: Store) -> None:
    fine = {"margin": 1, "random_share": 0.5, "random_margin": 2}
    job = make_job("a", store=sparse_store, foreground_share=0.0, augmentation=STILL, fine=fine)
    source = source_of(job, Slices(axis=0), (1, 6, 6))
    for index in range(40):
        assert (source.window("train", index)[1] != IGNORE_INDEX).any()


def test_pretraining_looks_at_no_labels(make_job: Maker, sparse_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(make_job("a", store=sparse_store, pretext={}), Slices(axis=0), (1, 8, 8))
    monkeypatch.setattr("seg25d.training.sampling.labelled_part", lambda _: pytest.fail("it looked"))
    source.window("train", 0)


def test_volumes_that_are_labelled_everywhere_are_not_looked_at(
    make_job: Maker, tiny_store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = with_labels(tiny_store, tmp_path / "all", lambda labels: labels)
    monkeypatch.setattr("seg25d.training.sampling.labelled_part", lambda _: pytest.fail("it looked"))
    settings = {"augmentation": STILL, "foreground_share": 0.5}
    ours, before = (
        source_of(make_job("a", store=each, **settings), Volume(), (4, 4, 4)) for each in (store, tiny_store)
    )
    for index in range(6):
        for one, other in zip(ours.window("train", index), before.window("train", index), strict=True):
            assert torch.equal(one, other)


def test_where_a_case_is_labelled_by_hand() -> None:
    labels = np.full((4, 3, 2), IGNORE_INDEX, np.uint8)
    labels[1], labels[3, 0, 1] = 0, 2
    part = labelled_part(labels)
    assert part.counts.tolist() == [0, 6, 0, 1]
    assert part.gaps == (True, False, False)
    box = np.full((4, 3, 2), IGNORE_INDEX, np.uint8)
    box[:, 1:, :1] = 0
    assert labelled_part(box).gaps == (False, True, True)
    assert labelled_part(np.zeros((4, 3, 2), np.uint8)).gaps == (False, False, False)


def test_all_labelled_voxels_of_a_crop_are_as_likely(rng: np.random.Generator) -> None:
    labels = np.full((5, 4, 4), IGNORE_INDEX, np.uint8)
    labels[1, 0, 0] = labels[1, 2, 1:3] = labels[3, 2, 2] = labels[4, 3, 3] = 0
    counts = labelled_part(labels).counts
    whole = ((0, 5), (0, 4), (0, 4))
    drawn = Counter(tuple(map(int, draw_labelled(rng, labels, counts, whole))) for _ in range(1000))
    assert set(drawn) == {(1, 0, 0), (1, 2, 1), (1, 2, 2), (3, 2, 2), (4, 3, 3)}
    assert min(drawn.values()) > 150
    assert max(drawn.values()) < 250
    assert {tuple(draw_labelled(rng, labels, counts, ((2, 4), (1, 3), (2, 4)))) for _ in range(20)} == {(3, 2, 2)}
    assert draw_labelled(rng, labels, counts, ((2, 3), (0, 4), (0, 4))) is None
    assert draw_labelled(rng, labels, counts, ((3, 4), (0, 2), (0, 4))) is None


def test_what_a_window_is_for_is_the_foreground_if_there_is_one(rng: np.random.Generator) -> None:
    labels = np.full((3, 2, 2), IGNORE_INDEX, np.uint8)
    labels[2] = 0
    part, whole = labelled_part(labels), ((0, 3), (0, 2), (0, 2))
    centre, loose = place_to_show(rng, labels, part, np.array([2, 1, 0]), whole)
    assert (centre.tolist(), loose) == ([2, 1, 0], (True, False, False))
    centre, loose = place_to_show(rng, labels, part, None, whole)
    assert (int(centre[0]), loose) == (2, (True, True, True))


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 11), st.integers(0, 100))
def test_loose_windows_lie_inside_and_hold_the_centre(size: int, window: int, centre: int, seed: int) -> None:
    rng, point = np.random.default_rng(seed), min(centre, size - 1)
    shape, wanted = (size,) * 3, (window,) * 3
    starts = place_window(rng, shape, wanted, np.array([point] * 3), None, (True, False, True))
    for start in starts:
        assert min(0, size - window) <= start <= max(0, size - window)
        assert start <= point < start + window


def test_a_loose_window_begins_anywhere_that_shows_the_centre() -> None:
    rng = np.random.default_rng(0)
    starts = {
        place_window(rng, (9, 9, 9), (4, 4, 4), np.array([2, 5, 5]), None, (True, True, False)) for _ in range(400)
    }
    assert {start[0] for start in starts} == {0, 1, 2}
    assert {start[1] for start in starts} == {2, 3, 4, 5}
    assert {start[2] for start in starts} == {3}


def test_parts_of_windows_show_labelled_voxels(rng: np.random.Generator) -> None:
    labels = torch.full((1, 9, 6, 6), IGNORE_INDEX, dtype=torch.uint8)
    labels[:, 7] = 0
    for share in (0.0, 1.0):
        for _ in range(20):
            images, truth = labels[:, None].float(), labels.clone()
            truth[:, 7, 3, 3] = int(share)
            _, parts = cut_windows(images, truth, (3, 4, 4), share, rng.spawn(1), partly_labelled=True)
            assert (parts != IGNORE_INDEX).any()
            assert share == 0 or (parts == 1).any()


def test_a_run_says_whether_its_cases_are_partly_labelled(tiny_store: Store, sparse_store: Store) -> None:
    assert all(is_partly_labelled(sparse_store.record(case)) for case in sparse_store.cases())
    # Records of test stores name no voxels, as those of cases that are ignored altogether.
    assert not any(is_partly_labelled(tiny_store.record(case)) for case in tiny_store.cases())


def test_such_a_run_trains(make_job: Maker, sparse_store: Store) -> None:
    job = make_job("a", store=sparse_store, epochs=1, iterations_per_epoch=2)
    train_fold(job)
    line = json.loads(job.folder.log.read_text(encoding="utf-8").splitlines()[-1])
    assert np.isfinite([line["train_loss"], line["validation_loss"]]).all()
