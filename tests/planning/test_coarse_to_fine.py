"""The window of fine models."""

import pytest

from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.coarse_to_fine import fine_plan
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.slices import Slices


@pytest.fixture
def plan() -> ConfigurationPlan:
    return ConfigurationPlan(
        spacing_mm=(3.0, 1.0, 1.0),
        normalization=(ChannelNormalization(channel="MRI", scheme="none"),),
        store="store",
        window=(8, 96, 128),
        batch_size=2,
        representation=Slices(axis=0, context=1),
        network=UNetSpec(widths=(4, 8, 8), strides=((1, 1), (2, 2), (4, 2)), kernels=((3, 3),) * 3),
        mirror_axes=(),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={"window": "Whole slices."},
    )


def test_the_window_holds_the_median_crop_in_steps_of_the_network(plan: ConfigurationPlan) -> None:
    fine = fine_plan(plan, [(5, 90, 30), (6, 50, 33), (7, 40, 300)])
    # Divisible by 8 and 4.
    assert fine.window == (6, 56, 36)
    assert fine.reasons["window"] == "Whole slices. Coarse-to-fine: no larger than for the median crop, [6, 50, 33]."
    assert fine.model_copy(update={"window": plan.window, "reasons": plan.reasons}) == plan
    assert ConfigurationPlan.model_validate(fine.model_dump()) == fine


def test_the_window_grows_never_and_leaves_the_network_something_to_see(plan: ConfigurationPlan) -> None:
    assert fine_plan(plan, [(20, 200, 200)]).window == plan.window
    assert fine_plan(plan, [(1, 1, 1)]).window == (1, 32, 16)
    assert fine_plan(plan, []) == plan
