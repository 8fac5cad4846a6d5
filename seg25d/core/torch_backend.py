"""What prediction asks of torch's arrays, on any device, see `backend.py`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from seg25d.core.backend import HOST, Backend, Device, FindPositions, Host


class TorchBackend(Backend):
    """Torch's way; see `Backend` for arguments and shapes."""

    cpu: Device = torch.device("cpu")

    def from_numpy(self, values: NDArray[Any], device: Device = HOST) -> Tensor:
        """A tensor, which shares the memory on CPUs."""
        return torch.from_numpy(values).to(_place(device))

    def to_numpy(self, values: Tensor) -> NDArray[Any]:
        """An array of numpy's, which shares the memory on CPUs."""
        array: NDArray[Any] = values.cpu().numpy()
        return array

    def device(self, values: Tensor) -> Device:
        """Where a tensor is."""
        return values.device

    def device_of(self, model: nn.Module) -> Device:
        """Where a model computes: where its weights are."""
        parameter = next(model.parameters(), None)
        return self.cpu if parameter is None else parameter.device

    def num_parameters(self, model: nn.Module) -> int:
        """How many weights a module has."""
        return sum(parameter.numel() for parameter in model.parameters())

    def moved(self, values: Tensor, device: Device) -> Tensor:
        """The tensor on a device; the same where it is there."""
        return values.to(_place(device))

    def send(self, values: Tensor, device: Device) -> Tensor:
        """The same, without waiting for what a GPU does meanwhile."""
        place = _place(device)
        if values.device == place or place.type != "cuda":
            return values.to(place)
        # From other memory, a copy waits until the GPU has done all that it was asked for; torch keeps pinned memory
        # until the copy is done (docs.pytorch.org, pinmem_nonblock tutorial;
        # github.com/pytorch/pytorch/issues/130785).
        pinned = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values)
        return pinned.to(place, non_blocking=True)

    def float32(self, values: Tensor) -> Tensor:
        """The tensor in float32; the same if it is."""
        return values.float()

    def half(self, values: Tensor) -> Tensor:
        """The tensor in float16; the same if it is."""
        return values.half()

    def is_float32(self, values: Tensor, device: Device) -> bool:
        """Whether a tensor is in float32 and on a device."""
        return values.device == _place(device) and values.dtype == torch.float32

    def are_alike(self, first: Tensor, second: Tensor) -> bool:
        """Whether tensors have one type and one device."""
        return first.dtype == second.dtype and first.device == second.device

    def empty(self, shape: Sequence[int], dtype: str = "float32", device: Device = HOST) -> Tensor:
        """A new tensor with any content."""
        return torch.empty(tuple(shape), dtype=getattr(torch, dtype), device=_place(device))

    def zeros(self, shape: Sequence[int], dtype: str = "float32", device: Device = HOST) -> Tensor:
        """A new tensor of zeros."""
        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype), device=_place(device))

    def copy(self, values: Tensor) -> Tensor:
        """A copy."""
        return values.clone()

    def write(self, target: NDArray[Any], values: Tensor) -> None:
        """Copy a tensor, wherever it is, into an array of numpy's."""
        place = torch.from_numpy(target)
        # The type first: half as much to copy from a GPU, where torch would change it on the CPU.
        place.copy_(values if values.device.type == "cpu" else values.to(place.dtype))

    def stack(self, arrays: Sequence[Tensor]) -> Tensor:
        """Tensors of one shape along a new first axis."""
        return torch.stack(list(arrays))

    def concatenate(self, arrays: Sequence[Tensor], axis: int = 0) -> Tensor:
        """Tensors one after the other along an axis."""
        return torch.cat(list(arrays), axis)

    def flip(self, values: Tensor, axes: Sequence[int]) -> Tensor:
        """The tensor, mirrored along axes."""
        return values.flip(list(axes))

    def pad(self, values: Tensor, before: Sequence[int], after: Sequence[int]) -> Tensor:
        """Put zeros around a tensor."""
        return functional.pad(values, [part for axis in (2, 1, 0) for part in (before[axis], after[axis])])

    def between(
        self, values: Tensor, axis: int, low: NDArray[np.int64], high: NDArray[np.int64], fraction: NDArray[np.float64]
    ) -> Tensor:
        """Interpolate images along an axis."""
        chosen = values.index_select(axis, torch.from_numpy(low).to(values.device))
        if not fraction.any():
            return chosen
        weights = torch.from_numpy(fraction).to(values.device, values.dtype)
        further = values.index_select(axis, torch.from_numpy(high).to(values.device))
        return chosen.lerp_(further, weights[:, None] if axis == 1 else weights)

    def lowest(self, values: Tensor) -> Tensor:
        """The lowest value of each channel."""
        return values.amin((1, 2, 3), keepdim=True)

    def highest(self, values: Tensor) -> Tensor:
        """The highest values along the first axis."""
        return values.amax(0)

    def add_scaled(self, total: Tensor, part: Tensor, share: float) -> None:
        """Add `part` times a number to `total`."""
        total.add_(part, alpha=share)

    def add_product(self, total: Tensor, part: Tensor, weight: Tensor) -> None:
        """Add `part` times `weight` to `total`."""
        total.addcmul_(part, weight)

    def add_converted(self, total: Tensor, part: Tensor) -> None:
        """Add `part` to `total`."""
        # The type first: half as much to copy from a GPU, where torch would change it on the CPU.
        total += part.to(total.dtype).to(total.device)

    def lerp(self, first: Tensor, second: Tensor, share: float, out: Tensor | None = None) -> Tensor:
        """Interpolate between tensors."""
        return torch.lerp(first, second, share, out=out)

    def interpolate(
        self, scores: Tensor, shape: Sequence[int], positions: FindPositions, out: Tensor | None = None
    ) -> Tensor:
        """Images of another size; torch has the positions itself."""
        del positions
        if out is not None:  # as functional.interpolate does, whose result would be copied, in a fifth of the time
            torch.ops.aten.upsample_bilinear2d.out(scores[None], list(shape), False, None, None, out=out[None])
            return out
        return functional.interpolate(scores[None], size=list(shape), mode="bilinear", align_corners=False)[0]

    def sigmoid(self, scores: Tensor, out: Tensor | None = None) -> Tensor:
        """Sigmoid."""
        return torch.sigmoid(scores, out=out)

    def softmax(self, scores: Tensor) -> Tensor:
        """Softmax along the first axis."""
        return scores.softmax(0)

    def quick_softmax(self, scores: Tensor, out: Tensor | None) -> Tensor:
        """The same up to rounding: torch's softmax takes more than twice the time."""
        powers = torch.sub(scores, scores.amax(0), out=out).exp_()
        return powers.div_(powers.sum(0))

    def is_finite(self, planes: Tensor) -> bool:
        """Whether all numbers of planes are finite."""
        # A sum tells it in one pass, unless numbers are so large that it is infinite itself. Plane by plane, as CPUs
        # make a copy in float32; asked at once, as an answer from a GPU is waited for.
        sums = torch.stack([plane.sum(dtype=torch.float32) for plane in planes])
        return bool(torch.isfinite(sums).all()) or all(bool(torch.isfinite(plane).all()) for plane in planes)

    def no_gradients(self) -> AbstractContextManager[object]:
        """Torch's inference mode."""
        return torch.inference_mode()


TORCH = TorchBackend()


def _place(device: Device) -> torch.device:
    """A device by torch's name."""
    if isinstance(device, Host):
        return torch.device("cpu")
    assert isinstance(device, torch.device), "there are no others"
    return device
