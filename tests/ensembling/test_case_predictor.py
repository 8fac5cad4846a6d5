"""Members that are averaged, with weights, thresholds and post-processing, where their answers are known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seg25d.core.errors import ModelError
from seg25d.data.labels import Labels
from seg25d.ensembling.case_predictor import CasePredictor, Prepared
from seg25d.inference.postprocessing import PostProcessing

ORGAN = Labels(names={"background": 0, "organ": 1})
SPACING = (1.0, 1.0, 1.0)


class Member:
    """Gives every voxel of a row the probability of the only class that it is told."""

    def __init__(self, probabilities: list[float], threshold: float | None = None, channels: tuple = ("CT",)) -> None:
        description = SimpleNamespace(labels=ORGAN, channel_names=channels)
        self.header = SimpleNamespace(description=description, threshold=threshold, configuration="si")
        organ = np.array(probabilities, np.float32).reshape(1, 1, -1)
        self.probabilities = np.stack([1 - organ, organ])

    def predict_probabilities(self, image, grid, writers, thresholds, uncertainty):
        assert uncertainty is None
        shape = self.probabilities.shape
        for writer in writers:
            writer.begin(shape, 0, ((0, 1), (0, 1), (0, shape[3])), (0, 0))
            writer.add(0, torch.from_numpy(self.probabilities[:, 0]))
            writer.finish()
        return ORGAN.from_probabilities(self.probabilities, thresholds or self.header.threshold)

    def predict_preprocessed(self, image, grid, uncertainty):
        assert uncertainty is None
        return ORGAN.from_probabilities(self.probabilities, self.header.threshold)


def segment(predictor: CasePredictor) -> list[int]:
    prepared = Prepared(((None, None),) * len(predictor.members), SPACING)
    with predictor.segment_with_probabilities(prepared, Path("nothing_is_written_here")) as (indices, _):
        pass
    np.testing.assert_array_equal(predictor.segment(prepared), indices)
    return indices.ravel().tolist()


FIRST, SECOND = [0.9, 0.6, 0.3, 0.0], [0.0, 0.6, 0.6, 0.6]


def test_probabilities_are_averaged_with_the_members_weights() -> None:
    members = [Member(FIRST), Member(SECOND)]
    # 0.45, 0.6, 0.45, 0.3; with weights 0.675, 0.6, 0.375, 0.15.
    assert segment(CasePredictor(members)) == [0, 1, 0, 0]
    assert segment(CasePredictor(members, (3.0, 1.0))) == [1, 1, 0, 0]
    assert segment(CasePredictor(members, (1.0, 3.0))) == [0, 1, 1, 0]


def test_the_threshold_is_that_of_all_members_or_else_the_likeliest_class() -> None:
    assert segment(CasePredictor([Member(FIRST, 0.2)])) == [1, 1, 1, 0]
    assert segment(CasePredictor([Member(FIRST, 0.4), Member(SECOND, 0.4)])) == [1, 1, 1, 0]
    assert segment(CasePredictor([Member(FIRST, 0.4), Member(SECOND, 0.2)])) == [0, 1, 0, 0]
    assert CasePredictor([Member(FIRST, 0.4), Member(SECOND)]).threshold is None


def test_thresholds_of_the_postprocessing_come_first_and_components_after_them() -> None:
    chosen = PostProcessing(thresholds={"1": 0.55})
    assert segment(CasePredictor([Member(FIRST, 0.2)], postprocessing=chosen)) == [1, 1, 0, 0]
    # Two components at 0.45, of two voxels and of one: only the larger one stays.
    apart = Member([0.5, 0.5, 0.0, 0.5], 0.45)
    assert segment(CasePredictor([apart])) == [1, 1, 0, 1]
    largest = PostProcessing(largest_foreground=True)
    assert segment(CasePredictor([apart], postprocessing=largest)) == [1, 1, 0, 0]


def test_an_image_that_may_be_overwritten_serves_all_members_first() -> None:
    """Two kinds of arrays, of which the first serves two members."""

    def member(arrays: str) -> SimpleNamespace:
        def preprocess(image, spacing_mm, normalization, *, overwrite):
            result = image + len(seen)
            seen.append((arrays, image.item(), overwrite))
            if overwrite:
                image[...] = -1
            return result, None

        description = SimpleNamespace(labels=ORGAN, channel_names=("CT",))
        plan = SimpleNamespace(arrays=arrays, normalization=())
        return SimpleNamespace(header=SimpleNamespace(description=description, plan=plan), preprocess=preprocess)

    seen: list[tuple[str, float, bool]] = []
    predictor = CasePredictor([member("a"), member("a"), member("b")])
    predictor.prepare(np.full((1, 1, 1, 1), 7.0), SPACING)
    assert seen == [("a", 7, False), ("b", 7, False)]
    seen.clear()
    prepared = predictor.prepare(np.full((1, 1, 1, 1), 7.0), SPACING, overwrite=True)
    assert seen == [("a", 7, False), ("b", 7, True)]
    assert [each[0].item() for each in prepared.images] == [7, 7, 8]


def test_members_of_other_channels_are_refused() -> None:
    with pytest.raises(ModelError, match="different channels"):
        CasePredictor([Member(FIRST), Member(SECOND, channels=("MRI",))])
