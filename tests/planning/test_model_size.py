"""Models that ask for more than there is are refused before anything is made."""

import sys

import pytest

from seg25d.core.errors import ModelError
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning import model_size
from seg25d.planning.channel_rules import store_name
from seg25d.planning.memory import prediction_memory
from seg25d.planning.model_size import check_memory
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.volume import Volume

MM = (1.0, 1.0, 1.0)
NORMALIZATION = (ChannelNormalization(channel="MRI", scheme="zscore"),)


def make_plan(widths: tuple[int, ...] = (4, 8), window: tuple[int, int, int] = (8, 8, 8)) -> ConfigurationPlan:
    stages = len(widths)
    return ConfigurationPlan(
        spacing_mm=MM,
        normalization=NORMALIZATION,
        store=store_name(MM, NORMALIZATION),
        window=window,
        batch_size=1,
        representation=Volume(),
        network=UNetSpec(widths=widths, strides=((1,) * 3, *((2,) * 3,) * (stages - 1)), kernels=((3,) * 3,) * stages),
        mirror_axes=(),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )


def test_a_usual_network_passes_without_torchs_compiler() -> None:
    loaded = "torch._dynamo" in sys.modules
    check_memory("model", make_plan(), 1, 2, on_cpu=True)
    assert ("torch._dynamo" in sys.modules) == loaded


def test_a_network_larger_than_memory_is_not_made() -> None:
    with pytest.raises(ModelError, match=r"model: its network of [\d,]+ numbers takes [\d,.]+ GB .* is enough for"):
        check_memory("model", make_plan(widths=(16000, 16000, 16000)), 1, 2, on_cpu=True)


def test_sizes_that_no_number_holds_are_refused() -> None:
    with pytest.raises(ModelError, match="model: its network"):
        check_memory("model", make_plan(widths=(16384,) * 16, window=(1 << 15,) * 3), 1, 2, on_cpu=True)


def test_a_window_larger_than_memory_is_refused_on_cpus_only(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan(window=(64, 64, 64))
    needed = prediction_memory(lambda: plan.build_model(1, 2), (1, 1, *plan.window))
    check_memory("model", plan, 1, 2, on_cpu=True)
    for free, fits in ((needed, True), (needed // 2, False), (1 << 20, False)):
        monkeypatch.setattr(model_size, "available_memory_bytes", lambda free=free: free)
        check_memory("model", plan, 1, 2, on_cpu=False)
        if fits:
            check_memory("model", plan, 1, 2, on_cpu=True)
            continue
        with pytest.raises(
            ModelError,
            match=r"model: in its network, a window of 64 x 64 x 64 voxels takes .* enough for about [\d,]+ vox",
        ):
            check_memory("model", plan, 1, 2, on_cpu=True)


def test_the_memory_of_a_window_grows_with_it() -> None:
    plans = [make_plan(window=(size,) * 3) for size in (16, 32)]
    sizes = [prediction_memory(lambda plan=plan: plan.build_model(1, 2), (1, 1, *plan.window)) for plan in plans]
    weights = sum(value.nbytes for value in plans[0].build_model(1, 2).state_dict().values())
    assert 6 < (sizes[1] - weights) / (sizes[0] - weights) < 10
