import math
import os
import signal
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from seg25d.core import arrays, grids, parallel, progress
from seg25d.core.arrays import CHUNK
from seg25d.core.errors import InputError
from seg25d.core.parallel import choose_num_workers
from seg25d.core.unfinished import forget_unfinished, unfinished_folder
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.ensembling.fuse import mean_of_probabilities
from seg25d.ensembling.weights import overlap_sums
from seg25d.evaluation.lesions import count_lesions
from seg25d.evaluation.summary import CaseSummary
from seg25d.inference.postprocessing import PostProcessing, remove_components
from seg25d.inference.probability_maps import open_probability_map
from seg25d.selection import scoring
from seg25d.selection.candidates import Ensemble
from seg25d.selection.choose_postprocessing import find_components
from seg25d.selection.scoring import (
    CaseToScore,
    Validation,
    fused_labels,
    fused_parts,
    score_ensembles,
    worker_bytes,
)
from tests.selection.maps import write_probability_map

LABELS = Labels(names={"background": 0, "organ": 1, "lesion": 2})
MM = (1.0, 1.0, 1.0)
SHAPE = (CHUNK[0] + 3, CHUNK[1] + 5, CHUNK[2] + 4)
"""More than one chunk along every axis."""


@pytest.fixture
def item(tmp_path: Path, rng: np.random.Generator) -> CaseToScore:
    """A case of two members with weights."""
    paths = tuple(tmp_path / f"{name}.b2nd" for name in ("a", "b"))
    for path in paths:
        write_probability_map(path, rng.dirichlet((1, 1, 1), SHAPE).transpose(3, 0, 1, 2))
    return CaseToScore(Ensemble(("a", "b"), (0.2, 0.8)), "case", paths, None)


def test_parts_are_those_of_the_whole(item: CaseToScore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "PART_BYTES", 1)
    whole = mean_of_probabilities([open_probability_map(path)[...] for path in item.maps], item.ensemble.weights)
    seen = np.zeros(SHAPE, int)
    for part, mean in fused_parts(item):
        assert all(np.less_equal(mean.shape[1:], CHUNK)), "60 classes of a slab of 512 x 512 would take gigabytes"
        np.testing.assert_array_equal(mean, whole[(slice(None), *part)])
        seen[part] += 1
    assert (seen == 1).all()
    np.testing.assert_array_equal(fused_labels(item, LABELS), whole.argmax(0))


def test_members_of_different_shape_are_named(item: CaseToScore) -> None:
    write_probability_map(item.maps[1], np.zeros((3, 4, 4, 4), np.float32))
    with pytest.raises(InputError, match=r"case: probabilities have different shapes: .*b\.b2nd"):
        fused_labels(item, LABELS)


def test_sums_for_weights_are_read_channel_by_channel(item: CaseToScore, rng: np.random.Generator) -> None:
    truth = rng.integers(0, 3, SHAPE).astype(np.uint8)
    maps = [open_probability_map(path) for path in item.maps]
    whole = overlap_sums([each[...] for each in maps], truth, LABELS)
    for channel, sums in overlap_sums(maps, truth, LABELS).items():
        np.testing.assert_array_equal(sums.products, whole[channel].products)
        np.testing.assert_array_equal(sums.overlaps, whole[channel].overlaps)


def dice(validation: Validation, ensemble: Ensemble) -> float | None:
    return score_ensembles(validation, [ensemble])[ensemble].foreground_mean.dice


def test_scores_by_hand_and_only_once(validation: Validation, monkeypatch: pytest.MonkeyPatch) -> None:
    # Both together: 0.5 where only one finds the organ, which is no more than the background has.
    assert dice(validation, Ensemble(("good",))) == 1
    assert dice(validation, Ensemble(("poor",))) == pytest.approx(2 / 3)
    assert dice(validation, Ensemble(("good", "poor"), (0.6, 0.4))) == 1
    monkeypatch.setattr(scoring, "score_case", lambda *_: pytest.fail("counted again"))
    assert dice(validation, Ensemble(("poor",))) == pytest.approx(2 / 3)


def test_a_truth_that_was_corrected_counts_again(validation: Validation, truth: np.ndarray, write_case) -> None:
    assert dice(validation, Ensemble(("good",))) == 1
    for case in validation.cases:
        write_case(validation.store, case, np.where(np.arange(4) < 2, truth, 0).astype(np.uint8), key="second")
    assert dice(replace(validation), Ensemble(("good",))) == pytest.approx(2 / 3)


SINGLES = [Ensemble(("good",)), Ensemble(("poor",))]


def score_until(
    validation: Validation, end: Callable[[], None], ensembles: Sequence[Ensemble] = SINGLES
) -> list[tuple[str, str]]:
    """Score ensembles, up to the last case of the last one; what there is is written after each case.

    Returns:
        The runs and cases that were scored.
    """
    score_case = scoring.score_case
    scored: list[tuple[str, str]] = []

    def score(validation: Validation, item: CaseToScore) -> CaseSummary:
        if (item.ensemble, item.case) == (ensembles[-1], "b"):
            end()
        scored.append((item.ensemble.name, item.case))
        return score_case(validation, item)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
        patch.setattr(progress, "SHARE_OF_WRITES", math.inf)
        patch.setattr(scoring, "score_case", score)
        score_ensembles(validation, ensembles)
    return scored


def score_and_die(validation: Validation) -> None:
    score_until(validation, lambda: os.kill(os.getpid(), signal.SIGKILL))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_cases_that_were_scored_before_a_kill_are_not_scored_again(validation: Validation, tmp_path: Path) -> None:
    undisturbed = replace(validation, scores=tmp_path / "undisturbed")
    summaries = score_ensembles(undisturbed, SINGLES)
    process = get_context("spawn").Process(target=score_and_die, args=(validation,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    kept = unfinished_folder(scoring.passes_of(validation.scores), scoring.SCORING)
    assert {path.name for path in validation.scores.iterdir()} == {"good.json", kept.name}
    assert len(list(kept.iterdir())) == 3
    assert score_until(validation, lambda: None) == [("poor", "b")]
    assert score_ensembles(validation, SINGLES) == summaries
    forget_unfinished(scoring.passes_of(validation.scores))  # as `held` does at the end
    assert contents(validation.scores) == contents(undisturbed.scores)


def test_what_was_kept_of_ensembles_outlasts_a_call_with_others(validation: Validation) -> None:
    single, pair = SINGLES[:1], [Ensemble(("good", "poor"))]
    score_ensembles(validation, single)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_until(validation, interrupt, pair)
    score_ensembles(validation, single)  # the first that the same command asks for
    assert len(score_until(validation, lambda: None, pair)) == 1


def test_what_was_scored_against_another_truth_is_scored_again(
    validation: Validation, truth: np.ndarray, write_case: Callable[..., None]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score_until(validation, interrupt)
    write_case(validation.store, "a", truth, key="second")
    assert score_until(replace(validation), lambda: None) == [("good", "a"), ("poor", "a"), ("poor", "b")]


def test_names_longer_than_a_file_may_have(validation: Validation) -> None:
    runs = {f"{name}__{'x' * 60}": validation.runs["good"] for name in "abcde"}
    many = replace(validation, runs=runs)
    names = tuple(runs)
    for ensemble in (Ensemble(names), Ensemble(names[:4])):
        assert dice(many, ensemble) == 1
    assert len(list(validation.scores.glob("*.json"))) == 2


REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
LARGE = (48, 96, 96)


def all_classes_everywhere() -> tuple[np.ndarray, np.ndarray]:
    """A truth and a prediction whose classes fill the volume, and a voxel that is ignored."""
    truth = np.where(np.arange(LARGE[0]) < 24, 1, 2)[:, None, None].repeat(LARGE[1], 1).repeat(LARGE[2], 2)
    truth = truth.astype(np.uint8)
    predicted = np.roll(truth, 2, 0)
    truth[0, 0, 0] = IGNORE_INDEX
    return truth, predicted


def count(truth: np.ndarray, predicted: np.ndarray) -> None:
    count_lesions(truth, predicted, REGIONS.foreground)


def find(truth: np.ndarray, predicted: np.ndarray) -> None:
    find_components(predicted, truth, REGIONS, MM)


def remove(_: np.ndarray, predicted: np.ndarray) -> None:
    steps = PostProcessing(largest_foreground=True, largest=("whole",), smallest_mm3={"core": 2.0})
    remove_components(predicted, REGIONS, MM, steps)


@pytest.mark.parametrize(("stage", "held"), [(count, 3), (find, 2), (remove, 1)])
def test_memory_per_voxel_is_what_workers_are_counted_with(
    stage: Callable[[np.ndarray, np.ndarray], None], held: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What numpy takes beside volumes that are there before; the 9 bytes of the budget that can be told by reading."""
    monkeypatch.setattr(grids, "COUNTED_TOGETHER", 1 << 12)
    volumes = all_classes_everywhere()
    stage(*volumes)  # what is loaded
    tracemalloc.start()
    stage(*volumes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held + peak / math.prod(LARGE) < 9 < scoring._BYTES_PER_VOXEL


def test_two_workers_have_room_for_whole_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    """500 x 512 x 512 voxels of any number of classes, on a machine of 24 GB, and on one of 8."""
    monkeypatch.setattr(parallel, "available_cores", lambda: 2)
    for free_gib in (24, 8):
        monkeypatch.setattr(parallel, "available_memory_bytes", lambda free_gib=free_gib: free_gib << 30)
        assert choose_num_workers(None, worker_bytes(500 * 512 * 512), 2) == 2


def test_what_goes_to_a_worker_with_every_item_does_not_grow_with_the_cases(
    validation: Validation, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(validation.case_keys) == 2, "they are kept once they were asked for"
    given: list[Validation] = []

    def note(function: Callable[..., object], *_: object, **__: object) -> list[object]:
        given.extend(function.args)  # type: ignore[attr-defined] # it is a partial
        return []

    monkeypatch.setattr(scoring, "map_and_keep", note)
    items = [validation.item(Ensemble(("good",)), "a")]
    assert list(validation.over_cases(scoring.score_case, items, "scoring", CaseSummary)) == []
    (known,) = given
    assert (known.labels, known.store) == (validation.labels, validation.store)
    assert not known.runs
    assert not known.cases
    assert "case_keys" not in vars(known)
