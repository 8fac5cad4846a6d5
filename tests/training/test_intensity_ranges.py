"""Changes of intensity are as strong as they say: what was done is worked out from what came out.

Ranges are nnU-Net's (nnUNetTrainer.get_training_transforms), of `log_gamma` TorchIO's.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from seg25d.training.augmentation import INTENSITY, Augmentation, apply_intensity

Volume = NDArray[np.float32]
NUM_DRAWS = 60


def changed(name: str, image: Volume) -> list[Volume]:
    """The image (D, H, W) changed in many ways."""
    draws = (Augmentation(intensity=((name, 0, seed),)) for seed in range(NUM_DRAWS))
    return [apply_intensity(image[None].copy(), draw)[0] for draw in draws]


def check_range(values: list[float], low: float, high: float) -> None:
    """All lie between two numbers, and some come close to both."""
    margin = (high - low) / 8
    assert low - 1e-3 * margin <= min(values) < low + margin
    assert high - margin < max(values) <= high + 1e-3 * margin


def test_noise_has_a_deviation_of_up_to_a_tenth() -> None:
    image = np.zeros((16, 16, 16), np.float32)
    deviations = [float(each.std()) for each in changed("noise", image)]
    assert min(deviations) < 0.02
    assert 0.08 < max(deviations) < 0.105


def test_blur_has_a_deviation_of_half_a_voxel_to_one() -> None:
    image = np.zeros((15, 15, 15), np.float32)
    image[7, 7, 7] = 1
    for axis in range(3):
        profiles = [each.sum(tuple({0, 1, 2} - {axis})) for each in changed("blur", image)]
        assert all(profile.sum() == pytest.approx(1, abs=1e-4) for profile in profiles)
        # A Gaussian's neighbours: exp(-1 / (2 s^2)) of its middle.
        ratios = [float(profile[8] / profile[7]) for profile in profiles]
        check_range([(-0.5 / np.log(ratio)) ** 0.5 for ratio in ratios], 0.5, 1.0)


def test_brightness_multiplies() -> None:
    image = np.linspace(-2, 3, 27, dtype=np.float32).reshape(3, 3, 3)
    factors = [each / image for each in changed("brightness", image)]
    assert max(np.ptp(each) for each in factors) < 1e-5
    check_range([float(each.mean()) for each in factors], 0.75, 1.25)


def test_contrast_stretches_around_the_mean_within_the_range() -> None:
    image = np.linspace(-2, 4, 125, dtype=np.float32).reshape(5, 5, 5)
    results = changed("contrast", image)
    assert all(each.min() >= -2 and each.max() <= 4 for each in results)
    # At both ends the range cuts off; at the mean, which is 1, nothing changes.
    seen = (np.abs(image - 1) > 0.1) & (np.abs(image - 1) < 2)
    factors = [(each[seen] - 1) / (image[seen] - 1) for each in results]
    assert max(np.ptp(each) for each in factors) < 1e-4
    check_range([float(each.mean()) for each in factors], 0.75, 1.25)


def test_low_resolution_keeps_at_least_half_of_the_voxels_and_is_linear_in_between() -> None:
    image = np.zeros((12, 12, 12), np.float32)
    image[6:] = 1
    results = changed("low_resolution", image)
    # A step is as wide as a voxel of the coarse image at the most, which is two voxels; ends stay.
    assert all((each[:3] < 1e-4).all() and (each[9:] > 1 - 1e-4).all() for each in results)
    between = [each[(each > 0.1) & (each < 0.9)] for each in results]
    assert sum(map(len, between)) > 0, "nearest neighbours alone"


@pytest.mark.parametrize(("name", "sign"), [("gamma", 1), ("gamma_inverted", -1)])
def test_gamma_is_a_power_of_the_place_within_the_range_and_keeps_mean_and_deviation(name: str, sign: int) -> None:
    image = np.linspace(-1, 3, 125, dtype=np.float32).reshape(5, 5, 5)
    powers = []
    for each in changed(name, image):
        assert each.mean() == pytest.approx(image.mean(), abs=1e-3)
        assert each.std() == pytest.approx(image.std(), rel=1e-3)
        values = np.sort(sign * each.ravel())
        # The voxel in the middle of the range: a half to the power of gamma.
        powers.append(float(np.log2((values[-1] - values[0]) / (values[62] - values[0]))))
        assert each[0, 0, 0] < each[2, 2, 2] < each[4, 4, 4]
    check_range(powers, 0.7, 1.5)


def test_log_gamma_is_a_power_of_the_size_and_keeps_the_sign() -> None:
    image = np.array([-4, -1, 0, 1, 2, 8, 16, -0.5], np.float32).reshape(2, 2, 2)
    results = changed("log_gamma", image)
    powers = [float(np.log2(each[1, 0, 1]) / 3) for each in results]
    for each, power in zip(results, powers, strict=True):
        np.testing.assert_allclose(each, np.sign(image) * np.abs(image) ** power, rtol=1e-4)
    check_range([float(np.log(power)) for power in powers], -0.3, 0.3)


def test_changes_come_in_nnunets_order_each_to_its_channel() -> None:
    assert list(INTENSITY) == [
        *("noise", "blur", "brightness", "contrast", "low_resolution", "gamma_inverted", "gamma"),
        "log_gamma",
    ]
    image = np.random.default_rng(0).normal(size=(2, 5, 5, 5)).astype(np.float32)
    both = Augmentation(intensity=(("gamma", 1, 3), ("brightness", 1, 4)))
    after_each_other = image.copy()
    for change in both.intensity:
        after_each_other = apply_intensity(after_each_other, Augmentation(intensity=(change,)))
    together = apply_intensity(image.copy(), both)
    np.testing.assert_array_equal(together, after_each_other)
    np.testing.assert_array_equal(together[0], image[0])
    assert not np.array_equal(together, apply_intensity(image.copy(), Augmentation(intensity=both.intensity[::-1])))
