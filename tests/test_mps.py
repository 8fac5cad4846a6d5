"""What is asked of Apple's GPUs (`mps`), on machines that have none: types, copies, and operations that are there.

Which operations have a kernel there is said by `native_functions.yaml`, which comes with torch.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchgen
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

from seg25d.core.device import Execution, choose_execution
from seg25d.core.errors import InputError
from seg25d.data.labels import Labels
from seg25d.planning.network_rules import networks_for
from seg25d.planning.recipe_rules import ConfigurationRules
from seg25d.planning.search import Limits, with_networks
from seg25d.representations import averaging
from seg25d.representations.averaging import averaged_to
from seg25d.representations.base import CONFIGURATIONS, VolumeGeometry
from seg25d.training.augmentation import apply_spatial, draw_augmentation, region_to_read
from seg25d.training.config import AugmentationConfig, TrainingConfig
from seg25d.training.device_augmentation import CHANGES, change_intensity, change_thickness
from seg25d.training.loading import choose_num_loaders
from seg25d.training.losses import LOSSES
from seg25d.training.processes import join_processes, share
from seg25d.training.state import new_state
from seg25d.training.validation import _counts

MPS = torch.device("mps")


@cache
def operations() -> dict[str, tuple[frozenset[str], str | None]]:
    """By name: where an operation has kernels (nowhere: it is made of others), and whose kernels it takes."""
    table = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
    found = {}
    for entry in re.split(r"^- func: ", table.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        keys = [
            key.strip() for line in re.findall(r"^    ([\w, ]+): \w", entry, re.MULTILINE) for key in line.split(",")
        ]
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)
        found[entry.split("(")[0]] = frozenset(keys), delegate and delegate.group(1)
    return found


def runs_on_mps(name: str) -> bool:
    """Whether torch has it for MPS; names are those of the table."""
    keys, delegate = operations()[name]
    if delegate is not None:
        return runs_on_mps(delegate)
    return not keys or any(key == "MPS" or key.startswith("Composite") for key in keys)


class Seen(TorchDispatchMode):
    """Notes the names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "aten":
            self.names.add(str(func).removeprefix("aten.").removesuffix(".default"))
        return func(*args, **(kwargs or {}))

    def missing(self) -> list[str]:
        return sorted(name for name in self.names if not runs_on_mps(name))


def test_the_table_is_read_rightly() -> None:
    assert len(operations()) > 2000
    assert runs_on_mps("max_pool3d_with_indices")
    assert runs_on_mps("upsample_trilinear3d")  # by its structured delegate
    assert runs_on_mps("leaky_relu_")
    assert not runs_on_mps("_adaptive_avg_pool3d")
    assert not runs_on_mps("segment_reduce")


def combinations() -> list[tuple[str, str]]:
    """Every configuration with its first network, and the first of each dimension with all networks."""
    chosen, seen = [], set()
    for configuration, method in CONFIGURATIONS.items():
        names = list(networks_for(method.network_dims))
        new = method.network_dims not in seen
        chosen += [(configuration, name) for name in (names if new else names[:1])]
        seen.add(method.network_dims)
    return chosen


@pytest.mark.slow
@pytest.mark.parametrize(("configuration", "network"), combinations())
def test_every_network_trains_with_operations_that_are_there(
    configuration: str, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_there(volumes: torch.Tensor, size: Any) -> torch.Tensor:
        # Tensors on MPS that are not there have no gradients.
        factors = [fine // coarse for fine, coarse in zip(volumes.shape[2:], size, strict=True)]
        return functional.avg_pool3d(volumes, factors)

    monkeypatch.setattr("seg25d.representations.lifted.fused_views.averaged_to", as_there)
    limits = Limits(
        configuration=configuration,
        geometry=VolumeGeometry(shape=(16, 32, 32), spacing_mm=(1.0, 1.0, 1.0)),
        num_channels=1,
        num_outputs=2,
        num_cases=6,
        total_voxels=6 * 16 * 32 * 32,
        gpu_memory_gb=8,
        asked_network=network,
    )
    candidates = CONFIGURATIONS[configuration].from_rules(configuration, limits.geometry, ConfigurationRules())
    (representation, window, spec), _ = next(with_networks(candidates, limits))
    with FakeTensorMode(), Seen() as seen:
        network_channels, outputs = representation.network_channels(1), representation.network_outputs(2)
        model = representation.lift(spec.build(network_channels, outputs)).train()
        images = torch.empty(2, representation.input_channels(1), *window)
        seen.names.clear()
        scores = model(images)
        total = sum(each.square().sum() * weight for each, weight in scores)
        total.backward()
        with torch.no_grad():
            model.eval()(images)
    assert seen.missing() == []
    assert len(seen.names) > 10


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("regions", [True, False])
def test_losses_and_their_validation_are_there(name: str, regions: bool) -> None:
    labels = (
        Labels(names={"background": 0, "whole": (1, 2), "core": 2}, regions_class_order=(1, 2))
        if regions
        else Labels(names={"background": 0, "organ": 1, "lesion": 2})
    )
    scores = torch.randn(2, labels.num_outputs, 4, 6, 6, requires_grad=True)
    target = torch.randint(0, 3, (2, 4, 6, 6), dtype=torch.uint8)
    with Seen() as seen:
        loss = LOSSES[name](labels)([(scores, 1.0), (scores[:, :, ::2, ::2, ::2], 0.5)], target)
        loss.backward()
        _counts(scores.detach(), target, labels, None)
    assert seen.missing() == []


@pytest.mark.parametrize("optimizer", ["adamw", "adam", "sgd", "muon"])
def test_updates_are_there(optimizer: str) -> None:
    model = torch.nn.Sequential(torch.nn.Conv3d(2, 4, 3), torch.nn.PReLU(4), torch.nn.Conv3d(4, 2, 3))
    state = new_state(model, TrainingConfig(optimizer=optimizer), Execution(torch.device("cpu"), torch.float32))
    with Seen() as seen:
        for _ in range(2):
            state.optimizer.zero_grad(set_to_none=True)
            model(torch.randn(1, 2, 6, 6, 6)).sum().backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=False)
            state.optimizer.step()
            state.update_average(0.9)
    # On CPUs a Conv3d of one small volume has a kernel of its own.
    assert [name for name in seen.missing() if "slow_conv3d" not in name] == []
    types = {value.dtype for values in state.optimizer.state.values() for value in values.values()}
    assert types == {torch.float32}


def test_the_augmentation_is_there(rng: np.random.Generator) -> None:
    """`augmentation.place=device`, with everything that may be drawn, and labels of few and of many classes."""
    config = AugmentationConfig(spatial=1, elastic=1, anisotropy=1, cube_rotation=1, mirror=1)
    drawn = draw_augmentation(rng, config, (4, 6, 6), (1.0, 1.0, 1.0), 1, (0, 1, 2))
    drawn = replace(drawn, intensity=tuple((name, 0, 1) for name in CHANGES))
    region = region_to_read(drawn, (4, 6, 6))
    with Seen() as seen:
        for num_classes in (3, 40):
            labels = torch.randint(0, num_classes, region, dtype=torch.uint8)
            image, _ = apply_spatial(torch.rand(1, *region), labels, drawn, (4, 6, 6))
            assert drawn.thickness is not None
            changed = change_intensity(change_thickness(image, drawn.thickness), drawn)
    assert changed.dtype == torch.float32
    assert seen.missing() == []


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine whose best device is MPS."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with FakeTensorMode():
        yield


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("device", [None, "mps"])
def test_mps_computes_in_float32_without_autocast(device: str | None) -> None:
    execution = choose_execution(device)
    assert execution == Execution(MPS, torch.float32)
    with execution.autocast():
        assert not torch.is_autocast_enabled("mps")
    assert execution._channels_last(torch.nn.Conv3d(1, 1, 1)) == {}
    # A scaler would be for float16.
    assert not torch.amp.GradScaler("mps", enabled=execution.dtype == torch.float16).is_enabled()
    assert choose_num_loaders(3, execution) == 3


@pytest.mark.usefixtures("apple")
@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
def test_other_precisions_are_refused_with_the_reason(precision: str) -> None:
    with pytest.raises(InputError, match=f"{precision} is not for mps.*float32"):
        choose_execution("mps", precision)


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would share numbers in float64, which MPS has not, through a backend that does not know it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match=r"not on mps.*--device cpu"):
        join_processes(MPS)
    assert share([0.1], MPS, combine="max") == [0.1]


@pytest.mark.parametrize("size", [(2, 3, 2), (4, 6, 8), (1, 1, 1)])
def test_means_over_even_parts_need_no_missing_kernel(size: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    volumes = torch.rand(2, 3, 4, 6, 8)
    expected = averaged_to(volumes, size)
    factors = [fine // coarse for fine, coarse in zip(volumes.shape[2:], size, strict=True)]
    torch.testing.assert_close(functional.avg_pool3d(volumes, factors), expected)
    with FakeTensorMode(), Seen() as seen, torch.no_grad():
        result = averaged_to(torch.empty(2, 3, 4, 6, 8, device="mps"), size)
        assert result.shape == expected.shape
    assert seen.missing() == []
    # Without gradients torch has no other way than its own for uneven parts.
    monkeypatch.setattr(averaging.functional, "adaptive_avg_pool3d", lambda _volumes, shape: shape)
    assert averaged_to(volumes, (3, 6, 8)) == (3, 6, 8)
