import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from seg25d.core import memory
from seg25d.core.errors import InputError
from seg25d.ensembling.fuse import disputed_voxels, majority_vote
from seg25d.ensembling.nonlocal_staple import NonlocalStapleSettings, nonlocal_staple, worker_bytes

PLAIN = NonlocalStapleSettings(search_radius=0, prior="global", consensus=None, tolerance=1e-7)
"""STAPLE: nothing is searched, nothing is taken for sure."""


def plain_staple(raters, prior, tolerance=1e-7, max_iterations=100):
    """STAPLE of several classes voxel by voxel (Warfield et al. 2004; Rohlfing et al. 2004), from the mean of votes."""
    values = np.unique(raters)
    said = np.stack([np.searchsorted(values, rater).ravel() for rater in raters])
    one_hot = np.eye(len(values))[said]
    shares = one_hot.mean(axis=0)
    f = np.broadcast_to(shares.mean(axis=0), shares.shape) if prior == "global" else shares
    weights, theta = shares, None
    for _ in range(max_iterations + 1):
        before = theta
        theta = np.zeros((len(raters), len(values), len(values)))
        for rater in range(len(raters)):
            for true in range(len(values)):
                for value in range(len(values)):
                    theta[rater, true, value] = weights[said[rater] == value, true].sum() / weights[:, true].sum()
        product = f.copy()
        for rater in range(len(raters)):
            for true in range(len(values)):
                product[:, true] *= theta[rater, true, said[rater]]
        weights = product / product.sum(axis=1, keepdims=True)
        if before is not None and np.abs(theta - before).max() < tolerance:
            break
    return values[weights.argmax(axis=1)].reshape(raters[0].shape)


@pytest.mark.parametrize("prior", ["global", "voxelwise"])
@pytest.mark.parametrize("error_rates", [(0.05, 0.1, 0.3), (0.02, 0.45, 0.45), (0.2, 0.2, 0.2, 0.2)])
def test_without_search_it_is_staple(three_classes, make_raters, rng, prior, error_rates):
    raters = make_raters(three_classes, error_rates)
    image = rng.normal(size=three_classes.shape)
    fused = nonlocal_staple(raters, image, PLAIN.model_copy(update={"prior": prior}))
    np.testing.assert_array_equal(fused, plain_staple(raters, prior))


@pytest.mark.parametrize("error_rates", [(0.05, 0.1, 0.3), (0.02, 0.4, 0.4)])
def test_without_search_one_class_is_what_simpleitk_gives(three_classes, make_raters, error_rates):
    truth = (three_classes > 0).astype(np.uint8)
    raters = make_raters(truth, error_rates)
    probability = sitk.GetArrayFromImage(sitk.STAPLE([sitk.GetImageFromArray(rater) for rater in raters], 1.0))
    np.testing.assert_array_equal(nonlocal_staple(raters, np.zeros(truth.shape), PLAIN), probability > 0.5)


def edge_volume(rng):
    """A bright half space with little noise, and its truth."""
    truth = np.zeros((12, 12, 12), np.uint8)
    truth[:, :, 6:] = 1
    return truth, truth * 2.0 + rng.normal(0, 0.05, truth.shape)


def test_voxels_that_look_alike_correct_each_other(rng, make_raters):
    truth, image = edge_volume(rng)
    raters = make_raters(truth, [0.2, 0.2, 0.2])
    disputed = disputed_voxels(raters)
    assert (majority_vote(raters) != truth)[disputed].mean() > 0.15
    np.testing.assert_array_equal(nonlocal_staple(raters, image)[disputed], truth[disputed])
    # An image that shows nothing says nothing about the edge.
    near_edge = np.zeros_like(disputed)
    near_edge[:, :, 5:7] = True
    blind = nonlocal_staple(raters, np.zeros(truth.shape))
    assert (blind != truth)[disputed & near_edge].mean() > 0.05


def test_units_of_the_image_make_no_difference(rng, make_raters):
    truth, image = edge_volume(rng)
    raters = make_raters(truth, [0.2, 0.2, 0.2])
    fused = nonlocal_staple(raters, image)
    np.testing.assert_array_equal(nonlocal_staple(raters, image * 100 - 1000), fused)


def test_the_rest_of_the_volume_makes_no_difference(rng, make_raters):
    truth, image = edge_volume(rng)
    raters = make_raters(truth, [0.2, 0.2, 0.2])
    for rater in raters:
        rater[:6] = truth[:6]  # agreed: only the margin of this is looked at
    padded = [np.pad(rater, ((8, 0), (0, 0), (0, 0)), mode="edge") for rater in raters]
    fused = nonlocal_staple(padded, np.pad(image, ((8, 0), (0, 0), (0, 0)), constant_values=500.0))
    np.testing.assert_array_equal(fused[8:], nonlocal_staple(raters, image))


def test_agreed_labels_stay_and_are_not_searched(three_classes, rng):
    image = rng.normal(size=three_classes.shape)
    np.testing.assert_array_equal(nonlocal_staple([three_classes] * 3, image), three_classes)
    other = three_classes.copy()
    other[4, 4, 4] = 5
    fused = nonlocal_staple([three_classes, three_classes, other], image)
    changed = fused != three_classes
    changed[4, 4, 4] = False
    assert not changed.any()


def test_consensus_is_a_share_of_the_raters(rng):
    truth, image = edge_volume(rng)
    wrong = truth.copy()
    wrong[3, 3, 3], wrong[8, 8, 8] = 1, 0
    raters = [wrong, wrong, wrong, truth]
    np.testing.assert_array_equal(nonlocal_staple(raters, image, NonlocalStapleSettings(consensus=0.75)), wrong)
    np.testing.assert_array_equal(nonlocal_staple(raters, image), truth)


def test_raters_who_are_much_alike_do_not_end_as_one(make_raters, three_classes):
    truth = (three_classes > 0).astype(np.uint8)
    raters = make_raters(truth, [0.19, 0.2, 0.21])
    image = np.zeros(truth.shape)
    without_search = NonlocalStapleSettings(search_radius=0)
    alone = nonlocal_staple(raters, image, without_search.model_copy(update={"agreed_margin": 0}))
    assert any((alone == rater).all() for rater in raters)
    together = nonlocal_staple(raters, image, without_search)
    np.testing.assert_array_equal(together, majority_vote(raters))


def test_equally_probable_labels_are_left_to_the_majority():
    raters = [np.array(values, np.uint8).reshape(1, 1, 3) for values in ([0, 4, 9], [4, 9, 0], [9, 0, 4])]
    settings = NonlocalStapleSettings(search_radius=0)
    np.testing.assert_array_equal(nonlocal_staple(raters, np.zeros((1, 1, 3)), settings).ravel(), [4, 4, 4])


def test_shapes_that_differ_are_refused(three_classes):
    with pytest.raises(ValueError, match="one shape"):
        nonlocal_staple([three_classes] * 2, np.zeros((1, 2, 3)))


def test_votes_for_which_there_is_no_memory_are_refused(rng, make_raters, monkeypatch):
    truth, image = edge_volume(rng)
    raters = make_raters(truth, [0.2, 0.2, 0.2])
    monkeypatch.setattr(memory, "available_memory_bytes", lambda: 10_000)
    told = r"non-local STAPLE of 3 segmentations that dispute \d+ voxels: .* GB are free: .*; take --method majority"
    with pytest.raises(InputError, match=told):
        nonlocal_staple(raters, image)


def test_workers_are_counted_with_their_votes():
    voxels, arrays = 500 * 512 * 512, 36 * 500 * 512 * 512
    usual = worker_bytes(voxels, 3, 61, NonlocalStapleSettings())
    assert arrays + 0.05 * voxels * 3 * 4 * 8 < usual < 1.2 * arrays
    assert worker_bytes(voxels, 3, 61, NonlocalStapleSettings(consensus=None)) > arrays + voxels * 3 * 4 * 8
