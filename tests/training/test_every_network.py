"""Every configuration with every network that it can have: two updates of the real loop."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from seg25d.planning.network_rules import networks_for
from seg25d.planning.planner import CONFIGURATIONS
from seg25d.planning.recipe_rules import ConfigurationRules
from seg25d.planning.search import Limits, with_networks
from seg25d.preprocessing.store import CaseArrays, Store
from seg25d.representations.base import VolumeGeometry
from seg25d.training import trainer
from seg25d.training.trainer import FoldJob, train_fold

ALLOWED = [
    (configuration, network)
    for configuration, method in CONFIGURATIONS.items()
    if configuration not in ("coronal", "sagittal")
    for network in networks_for(method.representation.network_dims)
]


def plan_for(job: FoldJob, configuration: str, network: str) -> FoldJob:
    """The job with the best window that the planner has for a configuration and a network."""
    limits = Limits(
        configuration=configuration,
        geometry=VolumeGeometry(shape=(7, 10, 9), spacing_mm=(1.0, 1.0, 1.0)),
        num_channels=1,
        num_outputs=2,
        num_cases=6,
        total_voxels=6 * 630,
        gpu_memory_gb=8,
        asked_network=network,
    )
    candidates = CONFIGURATIONS[configuration].candidates(limits.geometry, 0, ConfigurationRules())
    representation, window, spec = next(with_networks(candidates, limits))
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
    assert len(ALLOWED) == 3 * 8 + 3 * 7


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


@pytest.mark.slow
@pytest.mark.parametrize(("configuration", "network"), ALLOWED)
def test_two_updates(
    make_job: Callable[..., FoldJob],
    views_store: Store,
    monkeypatch: pytest.MonkeyPatch,
    configuration: str,
    network: str,
) -> None:
    # Up to 38 million weights: nothing is written.
    monkeypatch.setattr(trainer, "save_model", lambda *_: None)
    monkeypatch.setattr(trainer, "save_checkpoint", lambda *_: None)
    job = plan_for(make_job("job", epochs=1, iterations_per_epoch=2, validation_windows=1), configuration, network)
    if configuration == "mv":
        job = dataclasses.replace(job, store=views_store)
    step, seen = trainer._Run._step, []

    def step_and_look(run: trainer._Run, *arguments: object) -> float:
        before = [parameter.detach().clone() for parameter in run.state.model.parameters()]
        loss = step(run, *arguments)
        moved = [bool((old != new).any()) for old, new in zip(before, run.state.model.parameters(), strict=True)]
        seen.append((loss, sum(moved) / len(moved)))
        return loss

    monkeypatch.setattr(trainer._Run, "_step", step_and_look)
    train_fold(job)
    assert len(seen) == 2
    # Most of the network learns; weights before a norm or a dead unit may stand still in a tiny window. Behind scores
    # that begin at zero nothing moves at first.
    from_zero = getattr(job.header.plan.network, "zero_scores", False)
    assert all(moved > 0.5 for _, moved in seen[from_zero:])
