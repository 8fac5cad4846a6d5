"""benchmarks/encoder_weights.py: the encoder of a model, in a file that `--pretrained` takes."""

from pathlib import Path

import pytest
import torch
from encoder_weights import write_encoder

from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.networks.specs.resnet_unet import ResNetUNetSpec
from seg25d.planning.model_file import ModelHeader, save_model
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.slices import Slices
from seg25d.training.transfer import PretrainedFile, take_over


def header_of(context: int, names: dict[str, int]) -> ModelHeader:
    """A model of slices with so many neighbours on each side."""
    plan = ConfigurationPlan(
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=(ChannelNormalization(channel="MRI", scheme="zscore"),),
        store="store",
        window=(4, 32, 32),
        batch_size=1,
        representation=Slices(axis=0, context=context),
        network=ResNetUNetSpec(depth=18),
        mirror_axes=(),
        estimated_memory_gb=1.0,
        num_parameters=1,
        reasons={},
    )
    labels = Labels(names={"background": 0, **names})
    description = DatasetDescription(channel_names=("MRI",), labels=labels, num_training=1, file_ending=".nii.gz")
    return ModelHeader(
        dataset_name="Dataset001_Other", configuration="axial", fold=0, description=description, plan=plan
    )


@pytest.mark.slow
def test_another_data_set_begins_with_the_encoder_and_a_new_decoder(tmp_path: Path) -> None:
    other, own = header_of(1, {"a": 1}), header_of(0, {"a": 1, "b": 2})
    torch.manual_seed(1)
    trained = other.build_model()
    save_model(tmp_path / "model.safetensors", trained.state_dict(), other)
    write_encoder(tmp_path / "model.safetensors", tmp_path / "folder" / "encoder.safetensors")
    torch.manual_seed(2)
    model = own.build_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    transfer = take_over(model, own, PretrainedFile.read(tmp_path / "folder" / "encoder.safetensors"))
    # Three slices were three channels; the sum over them is that of the one of now.
    assert transfer.adapted == ("network.encoder.conv1.weight",)
    assert transfer.taken
    for name, value in model.state_dict().items():
        if name in transfer.taken:
            assert torch.equal(value, trained.state_dict()[name]), name
        elif name in transfer.new and value.is_floating_point():
            assert torch.equal(value, before[name]), name
    assert all(name.startswith("network.encoder.") for name in (*transfer.taken, *transfer.adapted))
    assert any(name.startswith("network.decoder.") or "decoder" in name for name in transfer.new)
