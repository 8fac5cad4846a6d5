import numpy as np
import pytest
from pydantic import ValidationError

from seg25d.data.labels import Labels
from seg25d.inference.postprocessing import PostProcessing, remove_components, threshold_values, value_beneath

PLAIN = Labels(names={"background": 0, "organ": 1, "lesion": 7})
REGIONS = Labels(
    names={"background": 0, "whole": (1, 2, 3), "core": (2, 3), "enhancing": 3}, regions_class_order=(1, 2, 3)
)
MM = (2.0, 1.0, 1.0)


@pytest.fixture
def indices():
    """Organ of 8 and 2 voxels apart, a lesion of 4 beside the larger and one of 1 by itself."""
    volume = np.zeros((6, 12, 12), np.uint8)
    volume[0:2, 0:2, 0:2] = 1
    volume[0:2, 9, 9] = 1
    volume[0:2, 2:4, 0] = 2
    volume[5, 11, 0] = 2
    return volume


def test_nothing_is_done_by_default(indices):
    assert PostProcessing().does_nothing
    np.testing.assert_array_equal(remove_components(indices, PLAIN, MM, PostProcessing()), indices)


def test_largest_of_all_foreground(indices):
    kept = remove_components(indices, PLAIN, MM, PostProcessing(largest_foreground=True))
    assert [int((kept == value).sum()) for value in (1, 2)] == [8, 4]
    assert indices[5, 11, 0] == 2, "the input is left alone"


def test_largest_of_one_class(indices):
    kept = remove_components(indices, PLAIN, MM, PostProcessing(largest=("7",)))
    assert [int((kept == value).sum()) for value in (1, 2)] == [10, 4]


@pytest.mark.parametrize(("smallest", "lesion"), [(2.0, 5), (2.1, 4), (8.0, 4), (8.1, 0)])
def test_smallest_volume_is_in_cubic_millimetres(indices, smallest, lesion):
    kept = remove_components(indices, PLAIN, MM, PostProcessing(smallest_mm3={"7": smallest}))
    assert [int((kept == value).sum()) for value in (1, 2)] == [10, lesion]


def test_voxels_that_touch_by_a_corner_are_one_component():
    volume = np.zeros((3, 3, 3), np.uint8)
    volume[0, 0, 0] = volume[1, 1, 1] = 1
    np.testing.assert_array_equal(remove_components(volume, PLAIN, MM, PostProcessing(largest=("1",))), volume)


def test_of_a_region_that_is_removed_there_remains_what_is_around_it():
    assert [REGIONS.values[value_beneath(REGIONS, name)] for name in REGIONS.foreground] == [0, 1, 2]
    volume = np.full((4, 4, 8), 1, np.uint8)
    volume[1:3, 1:3, 1:3] = 3
    volume[1, 1, 6] = 3
    kept = remove_components(volume, REGIONS, MM, PostProcessing(largest=("enhancing",)))
    assert kept[1, 1, 6] == 2
    assert (kept == 3).sum() == 8
    kept = remove_components(volume, REGIONS, MM, PostProcessing(largest=("core",)))
    assert kept[1, 1, 6] == 1


def test_thresholds_are_in_the_order_of_the_labels():
    thresholds = {"enhancing": 0.3, "whole": 0.5, "core": 0.4}
    assert threshold_values(PostProcessing(thresholds=thresholds), REGIONS) == (0.5, 0.4, 0.3)
    assert threshold_values(PostProcessing(), REGIONS) is None
    with pytest.raises(ValidationError):
        PostProcessing(thresholds={"core": 1.0})


def test_labels_take_a_threshold_per_region():
    probabilities = np.array([[0.6, 0.6], [0.45, 0.35], [0.2, 0.2]]).reshape(3, 1, 1, 2)
    assert REGIONS.from_probabilities(probabilities).ravel().tolist() == [1, 1]
    assert REGIONS.from_probabilities(probabilities, (0.5, 0.4, 0.3)).ravel().tolist() == [2, 1]
    one = Labels(names={"background": 0, "organ": 1})
    alone = np.array([[0.7, 0.9], [0.3, 0.1]]).reshape(2, 1, 1, 2)
    assert one.from_probabilities(alone, (0.2,)).ravel().tolist() == [1, 0]


def test_steps_are_described():
    steps = PostProcessing(largest_foreground=True, largest=("1",), smallest_mm3={"7": 12.5}, thresholds={"1": 0.3})
    assert len(steps.describe()) == 4
    assert "12.5 mm3" in " ".join(steps.describe())
    labels = Labels(names={"background": 0, "liver": 1, "spleen": 7})
    assert steps.describe(labels)[2:] == [
        "only the largest component of liver",
        "no component of spleen below 12.5 mm3",
    ]


def test_components_of_a_line_through_a_larger_volume_are_all_found():
    volume = np.zeros((8, 3, 3), np.uint8)
    volume[[0, 1, 5], 1, 1] = 1
    kept = remove_components(volume, PLAIN, MM, PostProcessing(largest=("1",)))
    assert kept[:, 1, 1].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
