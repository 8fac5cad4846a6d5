from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from seg25d.core.arrays import PlaneWriter
from seg25d.core.device import Execution
from seg25d.data.description import DatasetDescription
from seg25d.data.labels import Labels
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.representations.volume import Volume


class Threshold(nn.Module):
    """Class 1 where the first channel is above 0.5, class 2 where the second is; class 1 wins."""

    def forward(self, volume):
        first, second = (volume[:, index] - 0.5 for index in (0, 1))
        return torch.stack([torch.zeros_like(first), 2 * first, second], 1)


@pytest.fixture
def execution():
    return Execution(torch.device("cpu"), torch.float32)


@pytest.fixture
def writer():
    """Takes the probabilities of one export, in float32; `writer.array` has them."""
    return PlaneWriter(Path("nothing_is_written_here"), np.float32, in_memory_bytes=1 << 20)


@pytest.fixture
def threshold():
    return Threshold()


@pytest.fixture
def header():
    """Two channels that are taken as they are, labels 0, 1 and 7, windows of 8 x 8 x 8 at 1 mm."""
    plan = ConfigurationPlan(
        spacing_mm=(1.0, 1.0, 1.0),
        normalization=tuple(ChannelNormalization(channel=name, scheme="none") for name in ("ct", "pet")),
        store="store",
        window=(8, 8, 8),
        batch_size=2,
        representation=Volume(),
        network=UNetSpec(widths=(4, 8), strides=((1, 1, 1), (2, 2, 2)), kernels=((3, 3, 3), (3, 3, 3))),
        mirror_axes=(0, 1),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(
        channel_names=("ct", "pet"),
        labels=Labels(names={"background": 0, "organ": 1, "lesion": 7}),
        file_ending=".nii.gz",
        num_training=1,
    )
    return ModelHeader(dataset_name="Dataset001_Test", configuration="3d", fold=0, plan=plan, description=description)
