from dataclasses import replace

import numpy as np
import pytest

from seg25d.inference.postprocessing import PostProcessing
from seg25d.selection import fit_postprocessing as module
from seg25d.selection.candidates import Ensemble
from seg25d.selection.fit_postprocessing import fit_postprocessing
from seg25d.selection.scoring import Validation, score_ensembles
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
