"""The recurrent saliency transformation network in the real loop."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from seg25d.networks.specs.rstn import RSTNSpec
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import load_model
from seg25d.representations.slices import Slices
from seg25d.training.trainer import FoldJob, train_fold
from tests.training.test_trainer import read_log, train_until, without_times

Maker = Callable[..., FoldJob]
SPEC = RSTNSpec(network=UNetSpec(widths=(4, 8), strides=((1, 1), (2, 2)), kernels=((3, 3),) * 2), margin=1)


def with_rstn(job: FoldJob) -> FoldJob:
    """The job with slices of 12 x 12 pixels, of which the object and its margins are a part."""
    changes = {"representation": Slices(axis=0), "window": (6, 12, 12), "network": SPEC}
    plan = job.header.plan.model_copy(update=changes)
    return dataclasses.replace(job, header=job.header.model_copy(update={"plan": plan}))


@pytest.mark.slow
def test_it_learns_a_bright_cube_on_crops_and_predicts_from_its_file(make_job: Maker) -> None:
    job = with_rstn(make_job("a", epochs=6, iterations_per_epoch=30, weight_averaging=0.9))
    assert train_fold(job)
    log = read_log(job)
    assert log[-1]["validation_dice"] > 0.85
    assert log[-1]["train_loss"] < 0.5 * log[0]["train_loss"]
    header, state = load_model(job.folder.model_final)
    model = header.build_model().eval()
    model.load_state_dict(state)
    sizes: list[torch.Size] = []
    model.network.fine.register_forward_hook(lambda module, images, output: sizes.append(images[0].shape[2:]))
    labels = torch.zeros(6, 12, 12)
    labels[1:5, 2:6, 3:7] = 1
    with torch.no_grad():
        scores = model(labels[None, None])
    found = scores[0, 1] > scores[0, 0]
    assert 2 * (found & (labels > 0)).sum() > 0.85 * (found.sum() + labels.sum())
    assert any(max(size) < 12 for size in sizes), "crops"


@pytest.mark.slow
def test_random_margins_go_on_to_the_very_same_bits(make_job: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = (with_rstn(make_job(name, epochs=2, iterations_per_epoch=6)) for name in ("whole", "cut"))
    train_fold(whole)
    train_until(8, cut, monkeypatch)
    torch.rand(7)
    train_fold(cut)
    assert without_times(cut) == without_times(whole)
    ours, theirs = (load_model(job.folder.model_final)[1] for job in (cut, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
