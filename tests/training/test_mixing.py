"""Training of networks that mix slices: the same seed gives the same bits, and what was learnt elsewhere is refused."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from seg25d.networks.specs.mixing import KINDS
from seg25d.networks.specs.unet import UNetSpec
from seg25d.representations.base import Representation
from seg25d.representations.slices import Slices
from seg25d.representations.super_image import SuperImage
from seg25d.training.sampling import WindowSource
from seg25d.training.trainer import FoldJob, train_fold

INTENSITY = ("noise", "blur", "brightness", "contrast", "low_resolution", "gamma", "gamma_inverted")
SHRUNK = {"spatial": 1.0, "scaling": (0.4, 0.5), **dict.fromkeys(INTENSITY, 0.0)}


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


@pytest.mark.parametrize("representation", [SuperImage(grid=(4, 4)), Slices(axis=0)], ids=lambda each: each.name)
@pytest.mark.parametrize("augmentation", [{"enabled": False}, SHRUNK], ids=["still", "shrunk"])
def test_no_slice_of_a_window_of_mixed_slices_is_blank(
    make_job: Callable[..., FoldJob], representation: Representation, augmentation: dict[str, object]
) -> None:
    """Volumes of 7 slices in windows of 16, and regions that reach farther beyond them as they are shrunk."""
    plain = make_job("a", augmentation=augmentation)
    wide = plain.header.plan.model_copy(update={"window": (16, 8, 8), "representation": representation})
    plain = dataclasses.replace(plain, header=plain.header.model_copy(update={"plan": wide}))
    for job, is_mixed in ((plain, False), (mixed(plain, "shift", representation), True)):
        cases = {"train": job.split.train, "validate": job.split.val}
        source = WindowSource(job.store, job.header.plan, job.config, cases)
        for purpose in ("train", "validate"):
            for index in range(6):
                image, labels = source.window(purpose, index)
                blank = (image[0] == 0).flatten(1).all(1)
                assert bool(blank.any()) != is_mixed
                if is_mixed and (purpose == "validate" or not job.config.augmentation.enabled):
                    # Copies of the end slices, with their labels.
                    ends = (image[0, 1:] == image[0, :-1]).flatten(1).all(1)
                    assert int(ends.sum()) == 16 - 7
                    assert (labels[1:] == labels[:-1])[ends].all()


def striped(rng: torch.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Volumes whose slices have rows or columns of stripes, and for each slice which ones the next slice has."""
    columns = torch.randint(2, (batch, 6), generator=rng)
    stripes = torch.tensor([1.0, 1.0, -1.0, -1.0] * 2)
    patterns = torch.stack([stripes[:, None].expand(8, 8), stripes.expand(8, 8)])
    volumes = patterns[columns] + 0.1 * torch.randn(batch, 6, 8, 8, generator=rng)
    following = torch.cat([columns[:, 1:], columns[:, -1:]], 1)
    return volumes[:, None], following[:, :, None, None].expand(-1, -1, 8, 8)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_what_only_the_next_slice_shows_is_learnt_with_mixing_alone(kind: str | None) -> None:
    """Also that it is the next one, not the one before."""
    network = UNetSpec(
        widths=(16, 16, 16),
        strides=((1, 1), (2, 2), (2, 2)),
        kernels=((3, 3), (3, 3), (1, 1)),
        mixing=None if kind is None else KINDS[kind](),
    )
    torch.manual_seed(0)
    model = Slices(axis=0).lift(network.build(1, 2)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    rng = torch.Generator().manual_seed(1)
    shares = []
    for _ in range(120):
        images, labels = striped(rng, 4)
        (scores, _), *_ = model(images)
        loss = functional.cross_entropy(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        shares.append(float((scores.argmax(1) == labels).float().mean()))
    share = sum(shares[-20:]) / 20
    # Of the last slice, which has no next one, the label is its own: without mixing one of six is known.
    assert share < 0.7 if kind is None else share > 0.95
