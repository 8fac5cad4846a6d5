"""Pretraining, and beginning with what was pretrained."""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from seg25d.core.device import choose_execution
from seg25d.core.errors import ModelError
from seg25d.core.records import write_record
from seg25d.data.labels import Labels
from seg25d.planning.model_file import ModelHeader, load_model, save_model
from seg25d.planning.pretext import PretextConfig
from seg25d.training.checkpoint import clear_fold
from seg25d.training.config import PretrainedConfig
from seg25d.training.state import LEARNT, LEARNT_ENCODER, NEW, new_state
from seg25d.training.trainer import FoldJob, train_fold
from seg25d.training.transfer import PretrainedFile, take_over

Maker = Callable[..., FoldJob]
HEADS = {f"network.heads.{stage}.{kind}" for stage in range(2) for kind in ("weight", "bias")}
FIRST = "network.encoder.0.0.conv.weight"


def changed(header: ModelHeader, **settings: Any) -> ModelHeader:
    """The header with another network."""
    plan = header.plan.model_dump()
    plan["network"] |= settings
    return header.model_copy(update={"plan": type(header.plan).model_validate(plan)})


def with_channels(header: ModelHeader, number: int) -> ModelHeader:
    names = tuple(f"channel {index}" for index in range(number))
    return header.model_copy(update={"description": header.description.model_copy(update={"channel_names": names})})


@pytest.fixture
def pretrained(make_job, tmp_path):
    """A function that writes a model file of a header with random weights and gives it and its weights."""

    def write(header: ModelHeader, name: str = "model.safetensors"):
        torch.manual_seed(7)
        state = header.build_model().state_dict()
        save_model(tmp_path / name, state, header)
        return PretrainedFile.read(tmp_path / name), state

    return write


def test_all_but_the_heads_of_a_pretrained_model(make_job, pretrained):
    header = make_job("a").header
    file, weights = pretrained(header.model_copy(update={"pretext": PretextConfig()}))
    model = header.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    transfer = take_over(model, header, file)
    assert set(transfer.new) == HEADS
    assert transfer.adapted == ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name in HEADS else weights[name])
    assert "network.heads" in transfer.table()


def test_heads_of_the_same_labels_are_taken_of_others_not(make_job, pretrained):
    header = make_job("a").header
    file, _ = pretrained(header)
    assert take_over(header.build_model(), header, file).new == ()
    other = make_job("b", labels=Labels(names={"background": 0, "liver": 1, "lesion": 2})).header
    assert set(take_over(other.build_model(), other, file).new) == HEADS
    renamed = make_job("c", labels=Labels(names={"background": 0, "liver": 1})).header
    assert set(take_over(renamed.build_model(), renamed, file).new) == HEADS, "of the same size, but of another organ"


def test_first_convolutions_are_adapted_to_other_channels(make_job, pretrained):
    header = make_job("a").header
    file, weights = pretrained(with_channels(header, 3))
    model = header.build_model()
    transfer = take_over(model, header, file)
    assert transfer.adapted == (FIRST,)
    torch.testing.assert_close(model.state_dict()[FIRST], weights[FIRST].sum(1, keepdim=True))


def test_slices_beside_a_slice_keep_their_weights_when_channels_are_adapted(make_job, pretrained):
    header = make_job("a").header
    plan = header.plan.model_dump()
    plan["representation"] |= {"context": 1}
    header = header.model_copy(update={"plan": type(header.plan).model_validate(plan)})
    file, weights = pretrained(header)
    two = with_channels(header, 2)
    model = two.build_model()
    assert take_over(model, two, file).adapted == (FIRST,)
    before, middle, after = weights[FIRST].split(1, 1)
    torch.testing.assert_close(
        model.state_dict()[FIRST], torch.cat((before, before, middle, middle, after, after), 1) / 2
    )


def test_another_network_is_an_error_that_says_what_differs(make_job, pretrained):
    header = make_job("a").header
    file, _ = pretrained(changed(header, widths=(4, 8, 16)))
    model = header.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"widths: \(4, 8, 16\) in the file, \(4, 8, 8\) here"):
        take_over(model, header, file)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.raises(ModelError, match="does not exist"):
        PretrainedFile.read(file.path.with_name("missing.safetensors"))


def test_imagenet_weights_are_for_the_network_that_has_their_names(make_job, tmp_path):
    header = make_job("a").header
    plan = header.plan.model_dump()
    plan["network"] = {"name": "resnet_unet", "depth": 18}
    plan["window"] = (6, 32, 32)
    resnet = header.model_copy(update={"plan": type(header.plan).model_validate(plan)})
    torch.manual_seed(5)
    encoder = resnet.build_model().network.encoder
    state = {name: value for name, value in encoder.state_dict().items() if name != "conv1.weight"}
    state |= {"conv1.weight": torch.randn(64, 3, 7, 7), "fc.weight": torch.zeros(1000, 512)}
    path = tmp_path / "resnet18.pth"
    torch.save(state, path)
    model = resnet.build_model()
    transfer = take_over(model, resnet, PretrainedFile.read(path))
    assert transfer.adapted == ("network.encoder.conv1.weight",)
    assert "network.encoder.layer4.1.conv2.weight" in transfer.taken
    assert not any(".encoder." in name for name in transfer.new)
    assert torch.equal(model.network.encoder.layer1[0].conv1.weight, state["layer1.0.conv1.weight"])
    with pytest.raises(ModelError, match="--network resnet_unet"):
        take_over(header.build_model(), header, PretrainedFile.read(path))


def test_weights_have_roles(make_job):
    job = make_job("a")
    model = job.header.build_model()
    learnt = set(model.state_dict()) - HEADS
    groups = new_state(model, job.config, choose_execution("cpu", "float32"), learnt).optimizer.param_groups
    assert {group["role"] for group in groups} == {NEW, LEARNT, LEARNT_ENCODER}
    sizes = {group["role"]: 0 for group in groups}
    for group in groups:
        sizes[group["role"]] += len(group["params"])
    assert sizes[NEW] == len(HEADS)
    assert sum(sizes.values()) == len(list(model.parameters()))


def begun_with(job: FoldJob, file: PretrainedFile, **settings: Any) -> FoldJob:
    model = job.header.build_model()
    transfer = take_over(model, job.header, file)
    start = PretrainedConfig(file=file.path.name, digest=transfer.digest, **settings)
    config = job.config.model_copy(update={"pretrained": start})
    return dataclasses.replace(job, model=model, learnt=transfer.learnt, config=config)


def test_a_restarted_fold_no_longer_says_what_it_began_with(make_job, pretrained):
    job = make_job("a")
    write_record(
        job.folder.transfer,
        take_over(job.header.build_model(), job.header, pretrained(job.header)[0]),
    )
    clear_fold(job.folder)
    assert not job.folder.transfer.exists()


def test_a_frozen_encoder_stays_as_it_is_and_then_learns(make_job, pretrained):
    header = make_job("a").header
    file, weights = pretrained(header)
    plain = {"weight_averaging": 0.0, "warmup": 0.0, "schedule": "constant"}
    for epochs, frozen in ((2, True), (3, False)):
        job = begun_with(make_job(f"b{epochs}", epochs=epochs, **plain), file, frozen_epochs=2)
        train_fold(job)
        _, trained = load_model(job.folder.model_final)
        same = {name for name, value in trained.items() if torch.equal(value, weights[name])}
        assert (FIRST in same) == frozen
        assert not any(name.startswith("network.decoder") for name in same)


def test_what_was_learnt_changes_more_slowly(make_job, pretrained):
    header = make_job("a").header
    file, weights = pretrained(header)
    plain = {"weight_averaging": 0.0, "warmup": 0.0, "schedule": "constant", "epochs": 1}
    job = begun_with(make_job("b", **plain), file, learning_rate_factor=0.0)
    train_fold(job)
    _, trained = load_model(job.folder.model_final)
    assert all(torch.equal(value, weights[name]) for name, value in trained.items()), "all of it was learnt"


def pretraining_job(make_job: Maker, name: str, task: str, **settings: Any) -> FoldJob:
    values = {"pretext": {"task": task}, "restore_best": True, "foreground_share": 0.0, **settings}
    job = make_job(name, augmentation={"enabled": False}, **values)
    return dataclasses.replace(job, header=job.header.model_copy(update={"pretext": job.config.pretext}))


@pytest.mark.parametrize("task", ["inpainting", "jigsaw"])
def test_pretraining_learns_to_restore(make_job, task):
    job = pretraining_job(make_job, task, task, epochs=3, iterations_per_epoch=20)
    assert train_fold(job)
    log = [json.loads(line) for line in job.folder.log.read_text().splitlines()]
    assert log[-1]["validation_loss"] < log[0]["validation_loss"]
    assert log[-1]["validation_loss_of_mean"] > 0
    assert log[-1]["validation_dice"] is None
    header, state = load_model(job.folder.model_final)
    header.build_model().load_state_dict(state)
    assert header.pretext == job.config.pretext
    pictures = sorted(path.name for path in job.folder.root.glob("reconstruction_*.png"))
    assert pictures == ["reconstruction_030.png", "reconstruction_060.png", "reconstruction_100.png"]


def test_pretraining_is_the_same_with_the_same_seed(make_job):
    states = []
    for name in ("first", "second"):
        job = pretraining_job(make_job, name, "inpainting", epochs=2)
        train_fold(job)
        states.append(load_model(job.folder.model_final)[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_last_picture_is_of_the_end_of_a_run_that_was_made_longer(make_job):
    job = pretraining_job(make_job, "longer", "inpainting", epochs=1)
    train_fold(job)
    picture = job.folder.reconstruction(100)
    before = picture.read_bytes()
    train_fold(dataclasses.replace(job, config=job.config.model_copy(update={"epochs": 2})))
    assert picture.read_bytes() != before
