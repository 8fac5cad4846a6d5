"""Which mixing is chosen by what was measured; by nothing, none."""

import pytest

from seg25d.planning.mixing_rule import (
    LEAST_SEEDS,
    MEASURED,
    DataKind,
    MeasuredGain,
    default_mixing,
    default_mixing_reason,
    mixing_asked_for,
)

CARDIAC = DataKind(anisotropic=True, multimodal=False)
SPACING = (10.0, 1.5, 1.5)


def gain(mixing: str, mean: float, low: float, seeds: int = 3, kind: DataKind = CARDIAC) -> MeasuredGain:
    return MeasuredGain(kind, "si", mixing, mean, low, mean + (mean - low), seeds, "data set 27")


def test_kinds_by_hand() -> None:
    assert DataKind.of(SPACING, 1) == CARDIAC
    assert DataKind.of((1.0, 1.0, 1.0), 1) == DataKind(anisotropic=False, multimodal=False)
    assert DataKind.of((3.6, 0.6, 0.6), 2) == DataKind(anisotropic=True, multimodal=True)
    assert DataKind.of((3.0, 1.0, 1.0), 1) == DataKind(anisotropic=False, multimodal=False), "not above 3 times"
    assert str(CARDIAC) == "anisotropic voxels and one channel"


def test_nothing_is_mixed_by_default_until_there_are_figures() -> None:
    assert MEASURED == ()
    for configuration in ("si", "axial", "stack"):
        choice = default_mixing(configuration, SPACING, 1)
        assert choice.mixing is None
        assert choice.reason == f"nothing was measured of {configuration} on {CARDIAC}"


def test_the_largest_gain_of_those_that_are_sure_is_taken() -> None:
    unsure, small, large = gain("conv", 0.05, -0.01), gain("shift", 0.01, 0.002), gain("attention", 0.02, 0.01)
    choice = default_mixing("si", SPACING, 1, [unsure, small, large])
    assert choice.mixing == "attention"
    assert "attention +0.020 (+0.010 to +0.030; data set 27)" in choice.reason
    assert default_mixing("si", SPACING, 1, [unsure, small]).mixing == "shift"
    none = default_mixing("si", SPACING, 1, [unsure])
    assert none.mixing is None
    assert none.reason.startswith("on anisotropic voxels and one channel none is known to gain")


@pytest.mark.parametrize(
    ("configuration", "spacing_mm", "num_channels"),
    [("axial", SPACING, 1), ("si", (1.0, 1.0, 1.0), 1), ("si", SPACING, 2)],
)
def test_what_was_measured_of_others_does_not_count(
    configuration: str, spacing_mm: tuple[float, float, float], num_channels: int
) -> None:
    assert default_mixing(configuration, spacing_mm, num_channels, [gain("shift", 0.1, 0.05)]).mixing is None


def test_few_seeds_rank_nothing() -> None:
    choice = default_mixing("si", SPACING, 1, [gain("shift", 0.1, 0.05, LEAST_SEEDS - 1)])
    assert choice.mixing is None
    assert choice.reason.endswith("with 3 seeds or more")


@pytest.mark.parametrize(
    ("name", "mixing"),
    [("si__shift", "shift"), ("si__se_unet__conv", "conv"), ("si", None), ("si__se_unet", None), ("shift", None)],
)
def test_the_name_asks_for_a_mixing(name: str, mixing: str | None) -> None:
    assert mixing_asked_for(name) == mixing


def test_only_who_asks_for_a_mixing_is_told_of_the_default() -> None:
    assert default_mixing_reason("si", SPACING, 1) == default_mixing_reason("si__se_unet", SPACING, 1) == {}
    told = "shift is asked for; by default none: nothing was measured of si on anisotropic voxels and one channel"
    assert default_mixing_reason("si__shift", SPACING, 1) == {"default_mixing": told}
