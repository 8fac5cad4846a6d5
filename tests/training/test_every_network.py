"""Every configuration with every network that it can have: two updates of the real loop in 32 and in 16 bits."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seg25d.data.labels import Labels
from seg25d.networks import REQUESTABLE
from seg25d.networks.specs.fusion_net import FusionNetSpec
from seg25d.networks.specs.swin_unetr import SwinUNETRSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.network_rules import networks_for
from seg25d.planning.pretext import PretextConfig
from seg25d.planning.recipe_rules import ConfigurationRules
from seg25d.planning.search import Limits, with_networks
from seg25d.preprocessing.store import CaseArrays, Store
from seg25d.representations import ANATOMICAL
from seg25d.representations.base import CONFIGURATIONS, VolumeGeometry
from seg25d.representations.fused_views import FusedViews
from seg25d.representations.slices import Slices
from seg25d.training import trainer
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.views.joint import JointFusion, PaddedView

ORGAN = Labels(names={"background": 0, "organ": 1})
ALLOWED = [
    (configuration, network)
    for configuration, method in CONFIGURATIONS.items()
    if configuration not in ANATOMICAL[1:]
    for network in networks_for(method.network_dims)
]
SLOW_NETWORKS = frozenset({"swin_unetr", "xception_cbam_unet", "resnet_unet"})
"""Large as published: two updates in two precisions take 3 to 30 seconds."""
USUAL = VolumeGeometry(shape=(7, 10, 9), spacing_mm=(1.0, 1.0, 1.0))
THICK_SLICES = VolumeGeometry(shape=(6, 20, 18), spacing_mm=(10.0, 1.0, 1.0))
SINGLE_SLICE = VolumeGeometry(shape=(1, 10, 9), spacing_mm=(1.0, 1.0, 1.0))
PRECISIONS = ("float32", "bfloat16")


def plan_for(job: FoldJob, configuration: str, network: str, geometry: VolumeGeometry = USUAL) -> FoldJob:
    """The job with the best window that the planner has for a configuration and a network."""
    limits = Limits(
        configuration=configuration,
        geometry=geometry,
        num_channels=1,
        num_outputs=2,
        num_cases=6,
        total_voxels=6 * 630,
        gpu_memory_gb=8,
        asked_network=network,
    )
    candidates = CONFIGURATIONS[configuration].from_rules(configuration, limits.geometry, ConfigurationRules())
    (representation, window, spec), _ = next(with_networks(candidates, limits))
    if isinstance(spec, SwinUNETRSpec):
        # Half as wide as published: in 16 bits, which processors without such instructions imitate, minutes less.
        spec = spec.model_copy(update={"feature_size": 12})
    header = job.header
    values = header.plan.model_dump() | {
        "representation": representation.model_dump(),
        "window": window,
        "network": spec.model_dump(),
        "batch_size": 1,
    }
    plan = type(header.plan).model_validate(values)
    return dataclasses.replace(job, header=header.model_copy(update={"plan": plan}))


def test_all_methods_and_networks_are_there() -> None:
    assert {configuration for configuration, _ in ALLOWED} == set(CONFIGURATIONS) - set(ANATOMICAL[1:])
    assert {network for _, network in ALLOWED} == set(REQUESTABLE)


@pytest.fixture(scope="module")
def views_store(tmp_path_factory: pytest.TempPathFactory, tiny_store: Store) -> Store:
    """The same cases with what three views might say of one class as further channels."""
    store = Store(tmp_path_factory.mktemp("views"))
    for case in tiny_store.cases():
        labels = tiny_store.open_labels(case)[:]
        maps = np.repeat(0.1 + 0.8 * labels[None].astype(np.float32), 3, axis=0)
        image = np.concatenate([tiny_store.open_image(case)[:], maps])
        store.write(tiny_store.record(case), CaseArrays(image, labels, None, tiny_store.locations(case)))
    return store


class Seen(NamedTuple):
    """What two updates did."""

    losses: list[float]
    """Before each."""
    moved: list[float]
    """The share of all tensors of weights that each changed."""
    probabilities: Tensor
    """Of a window, after both."""
    has_batch_norm: bool


@pytest.fixture
def two_updates(monkeypatch: pytest.MonkeyPatch) -> Callable[[FoldJob], Seen]:
    """Trains a job, and predicts in the same precision."""
    # Up to 38 million weights: nothing is written.
    monkeypatch.setattr(trainer, "save_model", lambda *_: None)
    monkeypatch.setattr(trainer, "save_checkpoint", lambda *_: None)
    step = trainer._Run._step

    def update(job: FoldJob) -> Seen:
        losses: list[float] = []
        shares: list[float] = []
        runs: list[trainer._Run] = []

        def step_and_look(run: trainer._Run, *arguments: Any) -> float:
            before = [parameter.detach().clone() for parameter in run.state.model.parameters()]
            losses.append(step(run, *arguments))
            after = run.state.model.parameters()
            moved = [bool((old != new).any()) for old, new in zip(before, after, strict=True)]
            shares.append(sum(moved) / len(moved))
            runs.append(run)
            return losses[-1]

        monkeypatch.setattr(trainer._Run, "_step", step_and_look)
        train_fold(job)
        run = runs[-1]
        channels = job.store.open_image("case_4").shape[0]
        window = torch.randn(1, channels, *job.header.plan.window, generator=torch.Generator().manual_seed(3))
        model = run.state.model.eval()
        with torch.no_grad(), run.execution.autocast():
            scores = model(window)
        has_batch_norm = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in model.modules())
        return Seen(losses, shares, scores.float().softmax(1), has_batch_norm)

    return update


def check_agreement(exact: Seen, fast: Seen) -> None:
    """Make sure that two updates in 16 bits are about those in 32.

    The first loss differs by rounding alone. Then weights do: an optimizer that takes the sign or the direction of a
    gradient (Muon, AdamW) moves those whose gradient is all but zero one way or the other, so that the second loss and
    the probabilities are further apart; most so behind batch norms, whose statistics are those of two tiny windows.
    """
    assert exact.losses[0] == pytest.approx(fast.losses[0], rel=0.02, abs=0.005)
    assert exact.losses[1] == pytest.approx(fast.losses[1], rel=0.1, abs=0.02)
    assert exact.probabilities.isfinite().all()
    assert float((exact.probabilities - fast.probabilities).abs().mean()) <= (0.3 if exact.has_batch_norm else 0.05)


def in_each_precision(make_job: Callable[..., FoldJob]) -> Iterator[FoldJob]:
    """The same job of two updates in 32 and in 16 bits."""
    for precision in PRECISIONS:
        yield make_job(precision, epochs=1, iterations_per_epoch=2, validation_windows=1, precision=precision)


@pytest.mark.parametrize(
    ("configuration", "network"),
    [pytest.param(*pair, marks=[pytest.mark.slow] * (pair[1] in SLOW_NETWORKS)) for pair in ALLOWED],
)
def test_two_updates(
    make_job: Callable[..., FoldJob],
    views_store: Store,
    two_updates: Callable[[FoldJob], Seen],
    configuration: str,
    network: str,
) -> None:
    seen = []
    for job in in_each_precision(make_job):
        planned = plan_for(job, configuration, network)
        if planned.header.plan.representation.fuses_views:
            planned = dataclasses.replace(planned, store=views_store)
        seen.append(two_updates(planned))
    # Most of the network learns; weights before a norm or a dead unit may stand still in a tiny window. Behind scores
    # that begin at zero nothing moves at first.
    from_zero = getattr(planned.header.plan.network, "zero_scores", False)
    for each in seen:
        assert len(each.losses) == 2
        assert all(moved > 0.5 for moved in each.moved[from_zero:])
    check_agreement(*seen)


@pytest.mark.processor
@pytest.mark.parametrize(
    ("configuration", "network", "geometry"),
    [
        *((configuration, network, THICK_SLICES) for configuration in ("stack", "3d") for network in ("unet", "vnet")),
        *((configuration, "unet", SINGLE_SLICE) for configuration in ("stack", "3d")),
    ],
)
def test_two_updates_on_thick_slices_and_on_single_ones(
    make_job: Callable[..., FoldJob],
    two_updates: Callable[[FoldJob], Seen],
    configuration: str,
    network: str,
    geometry: VolumeGeometry,
) -> None:
    """Kernels of 1 x 3 x 3 and steps of 1 x 2 x 2."""
    seen = []
    for job in in_each_precision(make_job):
        seen.append(two_updates(plan_for(job, configuration, network, geometry)))
    check_agreement(*seen)


@pytest.mark.processor
@pytest.mark.parametrize("task", ["inpainting", "jigsaw"])
def test_two_updates_of_pretraining(
    make_job: Callable[..., FoldJob], two_updates: Callable[[FoldJob], Seen], task: str
) -> None:
    seen = []
    for job in in_each_precision(make_job):
        pretext = PretextConfig(task=task)
        config = job.config.model_copy(update={"pretext": pretext})
        header = job.header.model_copy(update={"pretext": pretext})
        seen.append(two_updates(dataclasses.replace(job, config=config, header=header)))
    check_agreement(*seen)


@pytest.mark.processor
def test_two_updates_of_views_and_fusion_together(
    make_job: Callable[..., FoldJob], two_updates: Callable[[FoldJob], Seen]
) -> None:
    seen = []
    for job in in_each_precision(make_job):
        torch.manual_seed(0)
        network = UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2)
        views = [Slices(axis=axis, context=0).lift(network.build(1, 2)) for axis in range(3)]
        fused = FusedViews(maps_per_view=1)
        fusion = FusionNetSpec(width=4, norm="instance", zero_scores=True).build(fused.network_channels(1), 2)
        padded = [PaddedView(view, (2, 2, 2)) for view in views]
        plan = job.header.plan.model_copy(update={"window": (8, 8, 8)})
        header = job.header.model_copy(update={"plan": plan})
        model = JointFusion(padded, fused.lift(fusion), ORGAN)
        seen.append(two_updates(dataclasses.replace(job, header=header, model=model)))
    check_agreement(*seen)
