"""Normalisations, on values worked out by hand."""

from typing import get_args

import numpy as np
import pytest

from seg25d.core.errors import InputError, RecordError
from seg25d.planning.normalization import ChannelNormalization, Scheme
from seg25d.preprocessing.normalize import SCHEMES, normalize

VALUES = np.array([-2000.0, 0.0, 50.0, 2000.0], np.float32).reshape(1, 1, 2, 2)


def _normalize(scheme: str, image: np.ndarray = VALUES, **numbers: float) -> list[float]:
    settings = ChannelNormalization.model_validate({"channel": "X", "scheme": scheme, **numbers})
    return [float(value) for value in normalize(image, [settings]).ravel()]


def test_ct_clips_then_scores() -> None:
    assert _normalize("ct", lower=-100, upper=100, mean=50, std=25) == [-6, -2, 0, 2]


def test_zscore() -> None:
    image = np.array([1.0, 3.0, 1.0, 3.0], np.float32).reshape(1, 1, 2, 2)
    assert _normalize("zscore", image) == [-1, 1, -1, 1]


def test_zscore_of_huge_values() -> None:
    rng = np.random.default_rng(0)
    image = (1.7e6 * rng.random((1, 9, 9, 9))).astype(np.float32)
    result = normalize(image, [ChannelNormalization(channel="MR", scheme="zscore")])
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5


def test_zscore_with_an_offset() -> None:
    image = np.array([1.0, 3.0, 1.0, 3.0], np.float32).reshape(1, 1, 2, 2)
    assert _normalize("zscore_offset", image) == pytest.approx([-1 / 1.001, 1 / 1.001] * 2)


@pytest.mark.parametrize("scheme", ["zscore", "zscore_offset", "rescale_0_1"])
@pytest.mark.parametrize("value", [0.0, 0.1, 123456.7])
def test_a_constant_channel_becomes_zero(scheme: str, value: float) -> None:
    image = np.full((1, 3, 3, 3), value, np.float32)
    assert set(_normalize(scheme, image)) == {0.0}


def test_rescale() -> None:
    assert _normalize("rescale_0_1") == pytest.approx([0, 0.5, 0.5125, 1])


def test_colours_are_divided_by_255_whatever_the_case_has() -> None:
    image = np.array([51, 0, 102, 153], np.uint8).reshape(1, 1, 2, 2)
    assert _normalize("rgb_0_1", image) == pytest.approx([0.2, 0, 0.4, 0.6])
    assert _normalize("rgb_0_1", image.astype(np.float32)) == pytest.approx([0.2, 0, 0.4, 0.6])
    assert image.max() == 153


@pytest.mark.parametrize("value", [-1, 256])
def test_other_values_than_colours_are_refused(value: int) -> None:
    image = np.array([0, value, 255, 8], np.int16).reshape(1, 1, 2, 2)
    with pytest.raises(InputError, match=f"channel X: expected colours from 0 to 255, got values from .*{value}"):
        _normalize("rgb_0_1", image)


def test_window() -> None:
    # Level 50, width 200.
    assert _normalize("ct_window", lower=-50, upper=150) == [0, 0.25, 0.5, 1]


def test_window_of_the_header_is_a_window() -> None:
    assert _normalize("ct_window_dicom", lower=-50, upper=150) == [0, 0.25, 0.5, 1]


def test_none_changes_nothing_and_the_input_is_kept() -> None:
    image = VALUES.copy()
    assert _normalize("none", image) == VALUES.ravel().tolist()
    _normalize("ct", image, lower=-1, upper=1, mean=0, std=1)
    np.testing.assert_array_equal(image, VALUES)


def test_channels_have_their_own_schemes() -> None:
    image = np.concatenate([VALUES, VALUES])
    settings = [ChannelNormalization(channel="A", scheme="none"), ChannelNormalization(channel="B", scheme="zscore")]
    result = normalize(image, settings)
    assert result.dtype == np.float32
    assert result[0].max() == 2000
    assert result[1].max() < 2


def test_wrong_number_of_channels_says_which_are_wanted() -> None:
    settings = [ChannelNormalization(channel=name, scheme="none") for name in ("CT", "PET")]
    with pytest.raises(InputError, match=r"2 channel\(s\) \(CT, PET\), the image has 1"):
        normalize(VALUES, settings)


def test_the_plan_refuses_a_scheme_that_is_not_there() -> None:
    with pytest.raises(
        ValueError, match=r"'ct', 'zscore', .*'none', 'ct_window', 'ct_window_dicom' or 'zscore_offset'"
    ):
        ChannelNormalization.model_validate({"channel": "X", "scheme": "median"})
    assert set(SCHEMES) == set(get_args(Scheme))


def test_missing_number_names_it() -> None:
    with pytest.raises(RecordError, match="channel X: normalisation ct needs `lower`"):
        _normalize("ct")


@pytest.mark.parametrize("scheme", get_args(Scheme))
@pytest.mark.parametrize("part", [slice(None), slice(1, -2)])
def test_an_image_may_be_normalised_in_its_place(scheme: Scheme, part: slice, rng: np.random.Generator) -> None:
    image = rng.uniform(0, 255, (2, 4, 6, 7)).astype(np.float32)
    settings = [
        ChannelNormalization(channel=name, scheme=scheme, lower=20.3, upper=201.7, mean=99.1, std=31.7) for name in "AB"
    ]
    cut = image[..., part]
    expected = normalize(cut.copy(), settings)
    result = normalize(cut, settings, cut)
    assert result is cut
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(image[..., part], expected)
