import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.ensembling.fuse import majority_vote
from seg25d.ensembling.staple import staple


def test_a_good_rater_outvotes_two_bad_ones(three_classes, make_raters):
    raters = make_raters(three_classes, [0.02, 0.45, 0.45])
    right = [float((fused == three_classes).mean()) for fused in (staple(raters), majority_vote(raters))]
    assert right[0] > right[1] + 0.05


def test_one_class_is_what_the_binary_filter_gives(three_classes, make_raters):
    truth = (three_classes > 0).astype(np.uint8)
    raters = make_raters(truth, [0.05, 0.1, 0.3])
    probability = sitk.GetArrayFromImage(sitk.STAPLE([sitk.GetImageFromArray(rater) for rater in raters], 1.0))
    np.testing.assert_array_equal(staple(raters), probability > 0.5)


def test_gaps_in_the_numbering_make_no_difference(three_classes, make_raters):
    raters = make_raters(three_classes, [0.05, 0.1, 0.3])
    wide = np.array([0, 0, 40000, 0, 0, 7], np.uint16)
    np.testing.assert_array_equal(staple([wide[rater] for rater in raters]), wide[staple(raters)])


def test_what_itk_leaves_undecided_the_majority_decides():
    # By symmetry both labels are equally probable wherever the raters differ, and the background is out.
    first, second = np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8)
    first[1:3] = [[[1]], [[2]]]
    second[1:3] = [[[2]], [[1]]]
    images = [sitk.GetImageFromArray(array) for array in (first, second)]
    assert 3 in sitk.GetArrayFromImage(sitk.MultiLabelSTAPLE(images))
    np.testing.assert_array_equal(staple([first, second]), majority_vote([first, second]))


def test_raters_who_agree_are_not_asked_again(three_classes, monkeypatch):
    monkeypatch.setattr(sitk, "MultiLabelSTAPLEImageFilter", None)
    np.testing.assert_array_equal(staple([three_classes] * 2), three_classes)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        staple([np.zeros((1, 2, 3), np.uint8), np.zeros((3, 2, 1), np.uint8)])
