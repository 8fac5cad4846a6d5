"""Batch norm and instance norm of `resnet_unet` in batches of two small pictures, made up.

python benchmarks/resnet_norms.py

ResNet-18 learns to tell bright ellipses from dark ones in noise, 240 updates of two 96 x 96 pictures. Pictures are
z-scored each, as cases are by default, or differ in brightness, as they may with other normalisations. Dice over 24
other pictures: of the model, and of the running mean of its weights with the model's statistics, as it is kept.
"""

import copy
import math

import torch
from torch import Tensor, nn

from seg25d.networks.resnet_unet import ResNetUNetSpec

SIZE, BATCH, UPDATES, LOOKS = 96, 2, 240, (20, 60, 120, 240)
LEARNING_RATE, WARM_UP, DECAY = 3e-3, 15, 0.99


def make_pictures(number: int, zscored: bool, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    places = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij"), -1).float()
    pictures, masks = [], []
    for _ in range(number):
        kinds = torch.zeros(SIZE, SIZE)
        for kind in (1, 1, 2, 2):
            centre = torch.rand(2, generator=generator) * 80 + 8
            radii = torch.rand(2, generator=generator) * 8 + 4
            kinds[((places - centre) / radii).square().sum(-1) < 1] = kind
        picture = (kinds == 1) * 1.0 - (kinds == 2) * 0.3 + torch.randn(SIZE, SIZE, generator=generator)
        picture += 0.5 * torch.randn(1, generator=generator)
        pictures.append((picture - picture.mean()) / picture.std() if zscored else picture)
        masks.append(kinds == 1)
    return torch.stack(pictures)[:, None], torch.stack(masks)


def loss_of(scores: Tensor, masks: Tensor) -> Tensor:
    probabilities = scores.softmax(1)[:, 1]
    dice = (2 * (probabilities * masks).sum() + 1) / (probabilities.sum() + masks.sum() + 1)
    return nn.functional.cross_entropy(scores, masks.long()) + 1 - dice


@torch.no_grad()
def dice_of(network: nn.Module, pictures: Tensor, masks: Tensor) -> float:
    found = network.eval()(pictures).argmax(1) == 1
    return float(2 * (found & masks).sum() / (found.sum() + masks.sum()))


def main() -> None:
    for zscored in (True, False):
        for norm in ("batch", "instance"):
            generator = torch.Generator().manual_seed(1)
            others = make_pictures(24, zscored, generator)
            torch.manual_seed(0)
            network = ResNetUNetSpec(depth=18, norm=norm).build(1, 2)
            averaged = copy.deepcopy(network)
            optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
            for update in range(UPDATES):
                warm = min(1, (update + 1) / WARM_UP)
                optimizer.param_groups[0]["lr"] = LEARNING_RATE * warm * (1 + math.cos(math.pi * update / UPDATES)) / 2
                pictures, masks = make_pictures(BATCH, zscored, generator)
                optimizer.zero_grad()
                loss_of(network.train()(pictures)[0][0], masks).backward()
                nn.utils.clip_grad_norm_(network.parameters(), 12)
                optimizer.step()
                rate = 1 - min(DECAY, (1 + update) / (10 + update))
                with torch.no_grad():
                    torch._foreach_lerp_(list(averaged.parameters()), list(network.parameters()), rate)
                for mean, value in zip(averaged.buffers(), network.buffers(), strict=True):
                    mean.copy_(value)
                if update + 1 in LOOKS:
                    dice = [dice_of(model, *others) for model in (network, averaged)]
                    print(f"z-scored {zscored!s:5} {norm:8} {update + 1:3} updates: {dice[0]:.3f} {dice[1]:.3f}")


if __name__ == "__main__":
    main()
