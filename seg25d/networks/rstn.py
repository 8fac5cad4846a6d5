"""A U-Net finds the object, and a second one looks at the crop around it, weighted by what the first one says (RSTN).

The recurrent saliency transformation network: Yu, Xie et al. 2018 (arXiv 1709.04518), the stronger baseline [17] of Xia
et al. 2018 (methods.md 4.1). What that leaves open is as in the authors' code, github.com/198808xc/OrganSegRSTN at
1b5b947: prototxts/training_J3x10.prototxt (saliency, weights of the loss), Crop.py (crops), run.sh and
coarse2fine_testing.py (margins, rounds), README.md (first weights of the saliency).

What differs from the original:

- Both networks are the planner's U-Nets instead of FCN-8s with weights from photographs, as methods.md 4.1 allows.
- Networks here give scores of the slice in the middle alone, so its maps make the saliency of its neighbours, too.
- Both learn together from the first update on, at one learning rate. The original begins with 10,000 updates on crops
  around the true object without saliency and 30,000 with it, and then has 40,000 of these.
- A network sees no labels: where the coarse one finds nothing in training, the crop is the whole image, not that of
  the true object.
- Each slice settles by itself. The original repeats its fine pass on the whole volume, from the mean of three planes
  and without small components. `fine` (inference/fixed_point.py) is coarse-to-fine on volumes, but knows no saliency.

Letters: N images, C channels, K scores, M maps (foreground classes, or regions), h w image.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from seg25d.networks.convolutions import Conv2d
from seg25d.networks.specs.rstn import RSTNSpec

FOREGROUND = 0.5
"""Probability from which on a pixel belongs to the object, all classes or any region together (run.sh)."""
OUTSIDE = -10.0
"""Score of foreground outside the crop, where there is background: a probability of 5e-5. Our choice: the original has
-9,999,999, and cross-entropy, which it does not have, would be as large there."""
SALIENCY_DEVIATION = 1e-3
"""Standard deviation of the first weights of the second saliency layer: with a bias of 1 the saliency begins as 1. They
are 0 in the original (README.md, 4.3.3), where no gradient passes before the second update."""


class Crop(NamedTuple):
    """Part of an image."""

    rows: slice
    columns: slice

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


class RSTN(nn.Module):
    """Coarse network, saliency, fine network on the crop of the image times its saliency.

    In training the fine network passes once, and gradients of its loss reach the coarse network through the saliency.
    In prediction it passes until the mask of each image hardly changes. The device is asked where the crops are: once
    in training, once for every pass in prediction. Crops of one size pass together; each image gets what it would get
    alone.

    Args:
        spec: The settings.
        in_channels: Channels of the input, C.
        num_outputs: Scores per pixel, K.

    Raises:
        ValueError: If there is no foreground among the scores.
    """

    def __init__(self, spec: RSTNSpec, in_channels: int, num_outputs: int) -> None:
        super().__init__()
        num_maps = num_outputs - (not spec.regions)
        if num_maps < 1:
            raise ValueError(f"{spec.name} needs scores of background and foreground, or regions; got {num_outputs}")
        self.spec = spec
        self.coarse = spec.network.build(in_channels, num_outputs)
        self.saliency = Saliency(num_maps, in_channels, spec.saliency_kernels)
        self.fine = spec.network.build(in_channels, num_outputs)

    def forward(self, images: Tensor) -> Tensor | list[tuple[Tensor, float]]:
        """Scores of images.

        Args:
            images: (N, C, h, w) with sizes divisible by `spec.divisor`.

        Returns:
            (N, K, h, w) in eval mode: those of the last pass, background outside its crop; those of the coarse network
            where it finds nothing. In training mode a list of (scores, weight), the fine network's first.
        """
        scores = _finest(self.coarse(images))
        probabilities = self._probabilities(scores)
        if not self.training:
            return self._settled(images, scores, probabilities)
        whole = _whole(images)
        crops = [crop or whole for crop in self._crops(self._masks(probabilities))]
        weight = self.spec.coarse_weight
        return [(self._look_closely(images, probabilities, crops), 1 - weight), (scores, weight)]

    def _settled(self, images: Tensor, scores: Tensor, probabilities: Tensor) -> Tensor:
        """Scores (N, K, h, w) after the fine network has passed until masks hardly change, or are empty."""
        results, numbers = list(scores), list(range(len(images)))
        masks = self._masks(probabilities)
        # Without data nothing ever settles, and one pass takes as much memory as all.
        for _ in range(self.spec.max_rounds if _has_data(images) else 1):
            crops = self._crops(masks)
            left = [index for index, crop in enumerate(crops) if crop is not None]
            if not left:
                break
            numbers, images, masks = [numbers[index] for index in left], _chosen(images, left), _chosen(masks, left)
            fine = self._look_closely(images, _chosen(probabilities, left), [crop for crop in crops if crop])
            for number, each in zip(numbers, fine, strict=True):
                results[number] = each
            probabilities = self._probabilities(fine)
            found = self._masks(probabilities)
            # An empty mask ends the passes of its image.
            masks = found & differ(masks, found, self.spec.stop_dice)[:, None, None]
        return torch.stack(results)

    def _look_closely(self, images: Tensor, probabilities: Tensor, crops: list[Crop]) -> Tensor:
        """Scores (N, K, h, w) of a pass of the fine network.

        Args:
            images: (N, C, h, w).
            probabilities: (N, M, h, w), of the pass before.
            crops: One per image.
        """
        weighted = (images * self.saliency(probabilities)).unbind()
        alike: dict[tuple[int, int], list[int]] = {}
        for number, crop in enumerate(crops):
            alike.setdefault(crop.size, []).append(number)
        results: dict[int, Tensor] = {}
        for numbers in alike.values():
            parts = torch.stack([weighted[number][:, *crops[number]] for number in numbers])
            for number, scores in zip(numbers, _finest(self.fine(parts)), strict=True):
                results[number] = self._put_back(scores, crops[number], images.shape[2:])
        return torch.stack([results[number] for number in range(len(crops))])

    def _put_back(self, scores: Tensor, crop: Crop, size: torch.Size) -> Tensor:
        """Scores (K, h, w) of an image from those of its crop."""
        full = scores.new_full((len(scores), *size), OUTSIDE)
        if not self.spec.regions:
            full[0] = 0
        full[:, *crop] = scores
        return full

    def _probabilities(self, scores: Tensor) -> Tensor:
        """(N, M, h, w) of foreground classes or regions, in single precision."""
        exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
        return exact.sigmoid() if self.spec.regions else exact.softmax(1)[:, 1:]

    def _masks(self, probabilities: Tensor) -> Tensor:
        """(N, h, w): the foreground of all classes together, or any region."""
        together = probabilities.amax(1) if self.spec.regions else probabilities.sum(1)
        return together >= FOREGROUND

    def _crops(self, masks: Tensor) -> list[Crop | None]:
        """The crop around each mask (N, h, w), rounded up to the divisors; None of an empty one.

        Of masks without data, by which memory is planned, they are the largest ones: whole images.
        """
        height, width = masks.shape[1:]
        if not _has_data(masks):
            return [_whole(masks)] * len(masks)
        crops: list[Crop | None] = []
        for box, margins in zip(bounding_boxes(masks).tolist(), self._margins(len(masks)), strict=True):
            (top, bottom, left, right), (above, below, before, behind) = box, margins
            rows = extent(top - above, bottom + below, height, self.spec.divisor[0])
            columns = extent(left - before, right + behind, width, self.spec.divisor[1])
            crops.append(Crop(rows, columns) if bottom > 0 else None)
        return crops

    def _margins(self, number: int) -> list[list[int]]:
        """Pixels above, below, left and right of the object of each image."""
        margins = torch.full((number, 4), self.spec.margin)
        if self.training and self.spec.random_margins > 0:
            drawn = torch.randint(0, 2 * self.spec.margin + 1, (number, 4))
            margins = torch.where(torch.rand(number, 1) < self.spec.random_margins, drawn, margins)
        result: list[list[int]] = margins.tolist()
        return result


class Saliency(nn.Module):
    """Convolution, ReLU, convolution: from probabilities to a weight for every pixel and channel of the image.

    Args:
        num_maps: M.
        channels: Of the image, C.
        kernels: Sizes of the convolutions.
    """

    def __init__(self, num_maps: int, channels: int, kernels: tuple[int, int]) -> None:
        super().__init__()
        first, second = kernels
        self.first = Conv2d(num_maps, channels, first, padding=first // 2)
        self.second = Conv2d(channels, channels, second, padding=second // 2)
        nn.init.xavier_uniform_(self.first.weight)
        nn.init.normal_(self.second.weight, std=SALIENCY_DEVIATION)
        for layer in (self.first, self.second):
            assert layer.bias is not None, "made with one"
            nn.init.ones_(layer.bias)

    def forward(self, probabilities: Tensor) -> Tensor:
        """(N, M, h, w) to (N, C, h, w)."""
        weights: Tensor = self.second(functional.relu(self.first(probabilities)))
        return weights


def bounding_boxes(masks: Tensor) -> Tensor:
    """The box of each mask.

    Args:
        masks: (N, h, w) bool.

    Returns:
        (N, 4): first row, row after the last, first column, column after the last; those after the last are 0 where
        the mask is empty.
    """
    ends = []
    for across in (2, 1):
        inside = masks.any(across)
        size = inside.shape[1]
        positions = torch.arange(size, device=masks.device)
        ends += [torch.where(inside, positions, size).amin(1), torch.where(inside, positions + 1, 0).amax(1)]
    return torch.stack(ends, 1)


def extent(first: int, last: int, size: int, divisor: int) -> slice:
    """A range of pixels cut off at the border of an image, then lengthened on both sides to a multiple.

    It has two pixels in the coarsest stage, if the image has them: a norm of a single one would leave nothing.

    Args:
        first: First pixel, may be negative.
        last: Pixel after the last one, may lie beyond the image.
        size: Pixels of the image, a multiple of the divisor.
        divisor: What the network divides the length by.
    """
    first, last = max(0, first), min(last, size)
    length = min(size, max(2, -(-(last - first) // divisor)) * divisor)
    start = min(max(0, first - (length - (last - first)) // 2), size - length)
    return slice(start, start + length)


def differ(before: Tensor, after: Tensor, stop_dice: float) -> Tensor:
    """Whether the Dice of each pair of masks is below a bound.

    Args:
        before: (N, h, w) bool, none of them empty.
        after: The same shape, of the next pass.
        stop_dice: The bound.

    Returns:
        (N,) bool.
    """
    overlap, sizes = (before & after).sum((1, 2)), before.sum((1, 2)) + after.sum((1, 2))
    return 2 * overlap < stop_dice * sizes


def _finest(output: Tensor | list[tuple[Tensor, float]]) -> Tensor:
    """The only scores of a U-Net."""
    return output if isinstance(output, Tensor) else output[0][0]


def _whole(images: Tensor) -> Crop:
    """The crop that is all of the image (..., h, w)."""
    return Crop(slice(0, images.shape[-2]), slice(0, images.shape[-1]))


def _has_data(images: Tensor) -> bool:
    """Whether there are numbers in a tensor; in those by which memory is planned there are none."""
    return type(images) is Tensor


def _chosen(tensors: Tensor, numbers: list[int]) -> Tensor:
    """Some of the tensors of a batch; without a copy if it is all of them."""
    return tensors if len(numbers) == len(tensors) else tensors[numbers]
