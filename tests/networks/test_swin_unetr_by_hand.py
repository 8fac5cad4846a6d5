"""The Swin UNETR's forward pass worked out once more: Hatamizadeh et al. 2022 (methods.md 1.4) in 2D, window by window.

Only names and shapes of weights are taken from the network; nothing here calls its code.
"""

import itertools
import math

import torch
from torch import Tensor
from torch.nn import functional

from seg25d.networks.specs.swin_unetr import SwinUNETRSpec

WINDOW, SHIFT = 7, 3
HEADS = (3, 6, 12, 24)
PLACES = [divmod(place, WINDOW) for place in range(WINDOW**2)]
# MONAI counts the places of windows that are smaller than 7 as if their rows had 7, too.
OFFSETS = torch.tensor([[(y - y2 + 6) * 13 + x - x2 + 6 for y2, x2 in PLACES] for y, x in PLACES])


class Swin:
    """The weights by name, and what is made of them. Tokens are (..., C), images (N, C, h, w)."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        self.weights = weights

    def linear(self, name: str, tokens: Tensor) -> Tensor:
        return functional.linear(tokens, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"))

    def norm(self, name: str, tokens: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(tokens, weight.shape, weight, bias)

    def attention(self, name: str, tokens: Tensor, groups: Tensor, heads: int) -> Tensor:
        """Attention among the tokens (n, C) of one window; those of different groups do not see each other."""
        number = len(tokens)
        query, key, value = self.linear(f"{name}.qkv", tokens).chunk(3, -1)
        table, bar = self.weights[f"{name}.relative_position_bias_table"], groups[:, None] != groups[None]
        results = []
        # Each head has its part of the channels.
        for head, (q, k, v) in enumerate(zip(*(each.chunk(heads, -1) for each in (query, key, value)), strict=True)):
            logits = q @ k.T / math.sqrt(q.shape[-1]) + table[OFFSETS[:number, :number], head]
            results.append((logits - 100 * bar).softmax(-1) @ v)
        return self.linear(f"{name}.proj", torch.cat(results, -1))

    def windowed(self, name: str, tokens: Tensor, heads: int, shift: int) -> Tensor:
        """Attention within windows of tokens (h, h, C); zeros fill the last windows up."""
        size = len(tokens)
        edge, shift = min(WINDOW, size), shift if size > WINDOW else 0
        full = math.ceil(size / edge) * edge
        rolled = functional.pad(tokens, (0, 0, 0, full - size, 0, full - size)).roll((-shift, -shift), (0, 1))
        # What came round the end is no neighbour of what is there: it is a group of its own.
        beyond = (torch.arange(full) >= full - shift).long()
        groups = 2 * beyond[:, None] + beyond[None]
        result = torch.empty_like(rolled)
        for y, x in itertools.product(range(0, full, edge), repeat=2):
            part = slice(y, y + edge), slice(x, x + edge)
            told = self.attention(name, rolled[part].flatten(0, 1), groups[part].flatten(), heads)
            result[part] = told.unflatten(0, (edge, edge))
        return result.roll((shift, shift), (0, 1))[:size, :size]

    def stage(self, name: str, features: Tensor, heads: int) -> Tensor:
        """Two blocks, then patches of 2 x 2 are merged: (C, h, h) to (2 C, h / 2, h / 2)."""
        tokens = features.permute(1, 2, 0)
        for number, shift in enumerate((0, SHIFT)):
            block = f"{name}.blocks.{number}"
            tokens = tokens + self.windowed(f"{block}.attn", self.norm(f"{block}.norm1", tokens), heads, shift)
            hidden = functional.gelu(self.linear(f"{block}.mlp.linear1", self.norm(f"{block}.norm2", tokens)))
            tokens = tokens + self.linear(f"{block}.mlp.linear2", hidden)
        # In the order of Liu et al. 2021: rows first.
        merged = torch.cat([tokens[y::2, x::2] for x in (0, 1) for y in (0, 1)], -1)
        merged = self.linear(f"{name}.downsample.reduction", self.norm(f"{name}.downsample.norm", merged))
        return merged.permute(2, 0, 1)

    def residual(self, name: str, images: Tensor) -> Tensor:
        """Two convolutions with instance norm without parameters, and a shortcut."""
        result = functional.conv2d(images, self.weights[f"{name}.conv1.conv.weight"], padding=1)
        result = functional.leaky_relu(functional.instance_norm(result), 0.01)
        result = functional.conv2d(result, self.weights[f"{name}.conv2.conv.weight"], padding=1)
        if f"{name}.conv3.conv.weight" in self.weights:
            images = functional.instance_norm(functional.conv2d(images, self.weights[f"{name}.conv3.conv.weight"]))
        return functional.leaky_relu(functional.instance_norm(result) + images, 0.01)


def swin_unetr(swin: Swin, images: Tensor) -> Tensor:
    """Patches of 2 x 2, four stages, and a residual U-Net on the image and on what went into and out of each stage."""
    embedding = "network.swinViT.patch_embed.proj"
    hidden = [functional.conv2d(images, swin.weights[f"{embedding}.weight"], swin.weights[f"{embedding}.bias"], 2)]
    for number, heads in enumerate(HEADS, 1):
        name = f"network.swinViT.layers{number}.0"
        hidden.append(torch.stack([swin.stage(name, one, heads) for one in hidden[-1]]))
    skips = [functional.layer_norm(each.movedim(1, -1), each.shape[1:2]).movedim(-1, 1) for each in hidden]
    features = swin.residual("network.encoder10.layer", skips.pop())
    for level in (5, 4, 3, 2, 1):
        skip = skips.pop() if skips else images
        # What goes into the last stage goes over as it is.
        skip = skip if level == 5 else swin.residual(f"network.encoder{level}.layer", skip)
        name = f"network.decoder{level}"
        up = functional.conv_transpose2d(features, swin.weights[f"{name}.transp_conv.conv.weight"], stride=2)
        features = swin.residual(f"{name}.conv_block", torch.cat((up, skip), 1))
    return functional.conv2d(
        features, swin.weights["network.out.conv.conv.weight"], swin.weights["network.out.conv.conv.bias"]
    )


def test_scores_are_those_worked_out() -> None:
    torch.manual_seed(0)
    network = SwinUNETRSpec(dims=2, feature_size=12).build(2, 3).double().eval()
    with torch.no_grad():
        for name, values in network.state_dict().items():
            # MONAI begins with scales of 1, shifts of 0 and hardly any bias of places.
            if values.dim() == 1 or name.endswith("bias_table"):
                values.add_(torch.empty_like(values).uniform_(-0.4, 0.4))
        images = torch.randn(1, 2, 64, 64, dtype=torch.double)
        scores = network(images)
        torch.testing.assert_close(scores, swin_unetr(Swin(network.state_dict()), images), rtol=1e-8, atol=1e-8)
    assert scores.std((0, 2, 3)).min() > 1e-3
