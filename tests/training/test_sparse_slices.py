"""Slices that are nearly empty are learnt from by the recipe of the paper that has them."""

import numpy as np
import pytest
import torch

from seg25d.core.device import choose_execution
from seg25d.data.labels import Labels
from seg25d.data.vessels import make_vessels
from seg25d.planning.geometry import choose_topology
from seg25d.planning.network_rules import make_network
from seg25d.planning.recipe_rules import find_rules
from seg25d.representations.slices import Slices
from seg25d.training.losses import LOSSES
from seg25d.training.recipes import find_recipe
from seg25d.training.state import new_state
from seg25d.training.update import make_update

SHAPE = (48, 40, 32)
"""Of the largest of the made-up volumes, sliced along the last axis: 57 % of the slices are empty."""


def made_up_volume(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Image from 0 to 1 and labels, (slices, rows, columns)."""
    case = make_vessels(rng, SHAPE)
    inside = tuple(slice(0, size) for size in SHAPE)
    image, labels = case.images[0].astype(np.float32), case.labels[inside]
    image = ((image - image.min()) / (image.max() - image.min()))[inside]
    rest = [(0, full - size) for size, full in zip(image.shape, SHAPE, strict=True)]
    return np.moveaxis(np.pad(image, rest), 2, 0), np.moveaxis(np.pad(labels, rest), 2, 0)


@pytest.mark.slow
def test_slices_of_angermann2022_learn_sparse_vessels() -> None:
    """As it stood, the same 36 updates found nothing: of eight neighbours, or without clipping, the loss is 1."""
    config, rules = find_recipe("angermann2022"), find_rules("angermann2022").of("sagittal")
    assert rules.network is not None
    assert rules.batch_size is not None
    rng = np.random.default_rng(5)
    volumes = [made_up_volume(rng) for _ in range(12)]
    torch.manual_seed(0)
    network = make_network(rules.network, choose_topology(SHAPE[:2], (1.0, 1.0))).build(1, 2)
    execution = choose_execution("cpu", "float32")
    state = new_state(Slices(axis=0).lift(network).train(), config, execution)
    loss = LOSSES[config.loss](Labels(names={"background": 0, "vessels": 1}), config.dice_smooth)
    draw = np.random.default_rng(0)
    losses = []
    for _ in range(36):
        windows = []
        for _ in range(rules.batch_size):
            image, labels = volumes[int(draw.integers(len(volumes)))]
            depth = rules.num_slices or len(image)
            first = int(draw.integers(len(image) - depth + 1))
            windows.append((image[None, first : first + depth], labels[first : first + depth]))
        images, target = (torch.from_numpy(np.stack(parts)) for parts in zip(*windows, strict=True))
        assert target.any(), "Dice of a batch without foreground teaches nothing, or to find nothing"
        update = make_update(state, state.model, (images, target), loss, execution, config.gradient_clip)
        assert update.gradient_norm > 1e-6
        losses.append(update.loss)
    assert np.mean(losses[-10:]) < 0.8
