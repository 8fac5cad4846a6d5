"""Training of networks that mix slices: the same seed gives the same bits, and what was learnt elsewhere is refused."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from seg25d.networks.specs.mixing import KINDS
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.training.trainer import FoldJob, train_fold


def mixed(job: FoldJob, kind: str, representation: Representation) -> FoldJob:
    """The job with a network that mixes slices."""
    plan = job.header.plan
    network = plan.network.model_copy(update={"mixing": KINDS[kind](), "widths": (8, 8, 16)})
    changed = plan.model_copy(update={"network": network, "representation": representation})
    return dataclasses.replace(job, header=job.header.model_copy(update={"plan": changed}))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "representation", [SuperImage(grid=(3, 2)), Slices(axis=0, context=1)], ids=lambda each: each.name
)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_same_seed_gives_the_same_bits(
    make_job: Callable[..., FoldJob], kind: str, representation: Representation, precision: str
) -> None:
    weights = []
    for name in ("first", "second"):
        job = mixed(make_job(name, epochs=1, iterations_per_epoch=3, precision=precision), kind, representation)
        train_fold(job)
        weights.append(load_file(job.folder.model_final))
    assert all(torch.equal(value, weights[1][key]) for key, value in weights[0].items())
    learnt = {key: value for key, value in weights[0].items() if ".mix_" in key}
    assert bool(learnt) == (kind != "shift")
    # What begins at zero is learnt from the first update on.
    assert all(value.any() for value in learnt.values())
