import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from seg25d.core import progress
from seg25d.inference.postprocessing import PostProcessing
from seg25d.selection import fit_postprocessing as module
from seg25d.selection.candidates import Ensemble
from seg25d.selection.fit_postprocessing import fit_postprocessing
from seg25d.selection.scoring import CaseToScore, Validation, score_ensembles
from tests.selection.maps import write_probability_map

RUN = Ensemble(("good",))


def predicting(validation: Validation, foreground: np.ndarray, threshold: float | None) -> Validation:
    """The same with other probabilities of the run `good`, and a threshold of its own."""
    run = replace(validation.runs["good"], threshold=threshold, stamps={0: str(threshold), 1: str(threshold)})
    for case in validation.cases:
        write_probability_map(run.probability_map(case), np.stack([1 - foreground, foreground]))
    return replace(validation, runs={"good": run})


def fitted(validation: Validation) -> tuple[PostProcessing, float | None, float | None]:
    """The choice, and the Dice before and after."""
    before = score_ensembles(validation, [RUN])[RUN]
    steps, after = fit_postprocessing(validation, RUN, before)
    return steps, before.foreground_mean.dice, after.foreground_mean.dice


@pytest.fixture
def doubtful(truth: np.ndarray) -> np.ndarray:
    """Probabilities of which half of the organ is 0.4, the other 0.9."""
    return np.where(truth == 0, 0.1, np.where(np.arange(4) < 2, 0.9, 0.4)).astype(np.float32)


def test_a_threshold_of_its_own_where_the_model_has_one(validation: Validation, doubtful: np.ndarray) -> None:
    steps, before, after = fitted(predicting(validation, doubtful, 0.5))
    assert (before, after) == (pytest.approx(2 / 3), 1)
    assert 0.1 <= steps.thresholds["1"] <= 0.4
    assert fitted(predicting(validation, doubtful, None))[0].does_nothing, "the likeliest class has no threshold"


def test_components_without_thresholds_that_do_harm(
    validation: Validation, truth: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_choose_thresholds", lambda *_: PostProcessing(thresholds={"1": 0.95}))
    # Half of the organ, and a voxel that does not touch it.
    found = np.where((truth == 1) & (np.arange(4) < 2), 0.9, 0.1).astype(np.float32)
    found[0, 0, 3] = 0.9
    steps, before, after = fitted(predicting(validation, found, 0.5))
    assert steps == PostProcessing(largest_foreground=True)
    assert (before, after) == (pytest.approx(8 / 13), pytest.approx(8 / 12))


STEPS = ("_count_case", "_find_case_components", "score_case")


def fit_until(validation: Validation, last: str | None = None) -> list[tuple[str, str]]:
    """Fit; what there is is written after each case.

    Args:
        validation: The cases.
        last: The step whose second case kills the process.

    Returns:
        The steps and cases that were done.
    """
    done: list[tuple[str, str]] = []

    def watched(step: str) -> Callable[..., object]:
        function = getattr(module, step)

        def call(validation: Validation, item: CaseToScore, **others: object) -> object:
            if (step, item.case) == (last, "b"):
                os.kill(os.getpid(), signal.SIGKILL)
            done.append((step, item.case))
            return function(validation, item, **others)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_WRITES", 0.0)
        patch.setattr(progress, "SHARE_OF_WRITES", math.inf)
        for step in STEPS:
            patch.setattr(module, step, watched(step))
        fitted(validation)
    return done


@pytest.mark.slow
def test_each_step_goes_on_after_a_kill(validation: Validation, doubtful: np.ndarray, tmp_path: Path) -> None:
    doubtful[0, 0, 3] = 0.9  # to be removed
    ours = predicting(validation, doubtful, 0.5)
    for step in STEPS:
        process = get_context("spawn").Process(target=fit_until, args=(ours, step))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    undisturbed = fitted(replace(ours, scores=tmp_path / "undisturbed"))
    assert not undisturbed[0].does_nothing
    assert fit_until(ours) == [("score_case", "b")]
    assert fitted(ours) == undisturbed
    write_probability_map(ours.runs["good"].probability_map("a"), np.stack([doubtful, doubtful]))
    assert fit_until(ours) == [(step, "a") for step in STEPS]
