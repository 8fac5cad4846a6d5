import pytest

from seg25d.core.errors import InputError
from seg25d.planning.case_fingerprint import ChannelIntensities
from seg25d.planning.channel_rules import (
    asks_for_scheme,
    choose_normalization,
    normalization_reason,
    store_name,
    value_ranges,
)

INTENSITIES = ChannelIntensities(
    mean=20.0, std=30.0, median=25.0, minimum=-500.0, maximum=900.0, percentile_00_5=-80.0, percentile_99_5=160.0
)


@pytest.mark.parametrize(
    ("channel", "scheme"),
    [
        ("MRI", "zscore"),
        ("PET", "zscore"),
        ("T1: gadolinium", "zscore"),
        ("zscore", "zscore"),
        ("rescale_0_1", "zscore"),
        (" Rescale_to_0_1 ", "zscore"),
        ("None", "zscore"),
        ("ct", "ct"),
        ("CT ", "zscore"),
        ("CTA", "zscore"),
        ("noNorm", "none"),
        ("NONORM", "none"),
        ("no_norm", "zscore"),
        ("rescale_to_0_1", "rescale_0_1"),
        ("Rescale_To_0_1", "rescale_0_1"),
        ("rgb_to_0_1", "rgb_0_1"),
        ("RGB_to_0_1", "rgb_0_1"),
        ("R", "zscore"),
    ],
)
def test_the_name_chooses_the_scheme(channel: str, scheme: str) -> None:
    normalization = choose_normalization(channel, INTENSITIES)
    assert normalization.scheme == scheme
    assert normalization.channel == channel
    assert repr(channel) in normalization_reason(normalization)


@pytest.mark.parametrize("channel", ["noNorm", "rescale_to_0_1", "rgb_to_0_1", "zscore"])
def test_a_name_of_a_scheme_asks_for_it_and_the_reason_says_what_it_does(channel: str) -> None:
    assert asks_for_scheme(channel)
    normalization = choose_normalization(channel, INTENSITIES)
    reason = normalization_reason(normalization)
    assert f"{channel!r} asks for {normalization.scheme}: " in reason
    told = {"none": "values stay as they are", "rgb_0_1": "divided by 255", "rescale_0_1": "minimum and maximum"}
    assert told.get(normalization.scheme, "z-score per case") in reason


@pytest.mark.parametrize("channel", ["CT ", " noNorm"])
def test_blanks_count_as_for_nnunet_and_the_reason_says_so(channel: str) -> None:
    assert not asks_for_scheme(channel)
    reason = normalization_reason(choose_normalization(channel, INTENSITIES))
    assert reason.startswith(f"{channel!r} is no name of a scheme, as its blanks count: z-score per case")


def test_only_colours_have_a_range() -> None:
    assert value_ranges(["CT", "noNorm", "rgb_to_0_1", "RGB_to_0_1", "rescale_to_0_1"]) == {2: (0, 255), 3: (0, 255)}


def test_ct_takes_its_numbers_from_the_foreground() -> None:
    ct = choose_normalization("CT", INTENSITIES)
    assert (ct.lower, ct.upper, ct.mean, ct.std) == (-80.0, 160.0, 20.0, 30.0)


def test_a_window_has_level_and_width() -> None:
    window = choose_normalization("CT_Window: 40 : 400", INTENSITIES)
    assert (window.scheme, window.lower, window.upper) == ("ct_window", -160.0, 240.0)


def test_the_window_of_the_header_has_that_of_lungs_to_fall_back_on() -> None:
    window = choose_normalization("CT_Window: DICOM ", INTENSITIES)
    # Level -600, width 1500: methods.md 2.2.
    assert (window.scheme, window.lower, window.upper) == ("ct_window_dicom", -1350.0, 150.0)
    assert "header of each image" in normalization_reason(window)
    assert "-1350 .. 150 where it has none" in normalization_reason(window)
    assert asks_for_scheme("ct_window:dicom")


@pytest.mark.parametrize(
    "channel",
    [
        "ct_window",
        "ct_window:40",
        "ct_window:dicom:40",
        "ct_window:40:dicom",
        "ct_window:a:b",
        "ct_window:40:0",
        "ct_window:nan:5",
        "ct:5",
        "rgb_to_0_1:1",
        "noNorm:1",
    ],
)
def test_wrong_parameters_are_an_error_that_names_the_channel(channel: str) -> None:
    with pytest.raises(InputError, match=f"{channel}.*ct_window:LEVEL:WIDTH"):
        choose_normalization(channel, INTENSITIES)


def test_store_names_are_readable_and_differ_with_the_numbers() -> None:
    ct, pet = (choose_normalization(channel, INTENSITIES) for channel in ("CT", "PET"))
    name = store_name((3.27, 1.953, 1.953), [ct, pet])
    assert name.startswith("spacing_3.27_1.95_1.95_ct-zscore_")
    other = ct.model_copy(update={"mean": 21.0})
    assert len({name, store_name((3.27, 1.953, 1.953), [other, pet]), store_name((3.27, 1.954, 1.953), [ct, pet])}) == 3


def test_stores_of_a_common_size_are_called_after_it() -> None:
    normalization = [choose_normalization("PET", INTENSITIES)]
    name = store_name((5.0, 0.7, 0.7), normalization, (None, 512, 512))
    assert name.startswith("spacing_5.00_512voxels_512voxels_zscore_")
    others = [None, (None, 512, 256), (None, None, 512)]
    assert len({name, *(store_name((5.0, 0.7, 0.7), normalization, other) for other in others)}) == 4
