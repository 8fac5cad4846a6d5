"""Sampling of windows: a pure function of seed and window number, so that any run can be continued exactly.

Letters: C channels, D H W window, d h w the region that is read for it, see `augmentation.py`.
"""

import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from seg25d.core.errors import Seg25dError, WorkerError
from seg25d.core.grids import box_shape, regular_starts, repeated_planes
from seg25d.core.system_errors import named, refusal
from seg25d.core.types import BoundingBox, IntArray, Shape
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.store import Store
from seg25d.representations.base import RegularSteps
from seg25d.training.augmentation import (
    Augmentation,
    apply_intensity,
    apply_spatial,
    apply_thickness,
    draw_augmentation,
    region_to_read,
)
from seg25d.training.config import TrainingConfig
from seg25d.training.crops import crop_around, draw_margins, object_box, usual_margins
from seg25d.training.device_augmentation import change_intensity, change_thickness, upload
from seg25d.training.labelled import NOWHERE, LabelledPart, Loose, is_partly_labelled, labelled_part, place_to_show
from seg25d.training.largest_slices import draw_in_slice, largest_slices
from seg25d.training.pretext_tasks import make_harder

Batch: TypeAlias = tuple[Tensor, Tensor]
"""Images (b, C, D, H, W) float32 and internal labels (b, D, H, W) uint8."""
BatchKey: TypeAlias = tuple[Literal["train", "validate"], int]
"""Key of a batch: an iteration of training, or the number of a validation batch."""
WINDOWS_PER_CASE = 4
"""Maximum number of validation windows of one case."""
VALIDATION_BATCHES = 20
"""Maximum number of validation batches: one costs a third of an update, and an epoch has up to 100 updates."""
CACHE_BYTES = 1 << 30
"""Bytes of decompressed arrays that all processes which prepare batches keep together, each its part of them; other
windows are read from the store each time."""


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a window, with which it can be augmented elsewhere."""

    region: Shape
    """(d, h, w)."""
    augmentation: Augmentation
    rng: np.random.Generator
    """Its source of randomness after all other draws, for a pretext task."""


class Regions(NamedTuple):
    """A batch of windows that are still to be augmented, in flat tensors, one behind the other.

    Each tensor takes an open file on its way from a loader: two for a batch are fewer than two for a window.
    """

    images: Tensor
    """float32, of each window (C, d, h, w)."""
    labels: Tensor
    """Internal labels, uint8, of each window (d, h, w)."""
    drawn: list[Drawn]


class CaseCache:
    """Arrays of cases: the first ones in memory, up to a limit, the others read window by window.

    Args:
        store: Of the cases.
        limit_bytes: Memory for decompressed arrays.
    """

    def __init__(self, store: Store, limit_bytes: int = CACHE_BYTES) -> None:
        self.store = store
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.cases: dict[str, tuple[Any, Any, Mapping[int, IntArray]]] = {}
        self.locations: dict[str, Mapping[int, IntArray]] = {}
        """Of the other cases: they know which classes there are, and read voxels of one when it is drawn."""

    def get(self, case: str) -> tuple[Any, Any, Mapping[int, IntArray]]:
        """Return image (C, D, H, W) and labels (D, H, W), both sliceable, and some voxels of each class."""
        if case in self.cases:
            return self.cases[case]
        image, labels = self.store.open_image(case), self.store.open_labels(case)
        size = 4 * math.prod(image.shape) + math.prod(labels.shape)
        if self.used_bytes + size <= self.limit_bytes:
            self.used_bytes += size
            self.cases[case] = image[:], labels[:], self.store.locations(case)
            return self.cases[case]
        if case not in self.locations:
            self.locations[case] = self.store.open_locations(case)
        return image, labels, self.locations[case]

    def clear(self) -> None:
        """Forget all cases."""
        self.cases.clear()
        self.locations.clear()
        self.used_bytes = 0


class WindowSource(Dataset[Batch | Regions | Seg25dError]):
    """Batches of windows by key; each sample has a generator of its own, seeded by its number.

    Args:
        store: Preprocessed arrays.
        plan: Window, batch size, spacing, mirroring.
        config: Seed, foreground share, augmentation.
        cases: Training and validation cases, by purpose.
        process: (rank, number of processes): sample j of a batch belongs to process j modulo their number.
        cache_bytes: Memory for decompressed arrays.
    """

    def __init__(
        self,
        store: Store,
        plan: ConfigurationPlan,
        config: TrainingConfig,
        cases: Mapping[str, Sequence[str]],
        process: tuple[int, int] = (0, 1),
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.cache = CaseCache(store, cache_bytes)
        self.plan = plan
        self.config = config
        self.cases = cases
        self.process = process
        self.objects: dict[str, BoundingBox | None] = {}
        self.labelled: dict[str, LabelledPart | None] = {}
        self.slices: list[tuple[str, int]] = []
        if config.largest_slices is not None and config.pretext is None:
            self.slices = largest_slices(store, cases["train"], self._slicing_axis(), config.largest_slices)
        shapes = (store.record(case).grid.shape for case in cases["validate"])
        inside = all(size <= wanted for shape in shapes for size, wanted in zip(shape, plan.window, strict=True))
        # All windows of a volume that fits into one window are equal.
        self.windows_per_case = 1 if inside else WINDOWS_PER_CASE
        self.augments = True
        """Whether windows of training are augmented when their batch is made, or later, see `finish_batch`."""

    def __getitem__(self, key: BatchKey) -> Batch | Regions | Seg25dError:
        """Make the batch; an error is returned as a value, as an exception would lose its type between processes."""
        purpose, number = key
        first = number * self.plan.batch_size
        last = first + self.plan.batch_size
        if purpose == "validate":
            last = min(last, self.num_validation_windows())
        rank, num_processes = self.process
        later = purpose == "train" and not self.augments
        samples: list[Any] = []
        for index in range(first + rank, last, num_processes):
            try:
                samples.append((self.read if later else self.window)(purpose, index))
            except Seg25dError as error:
                return error
            except Exception as error:
                case = f"case {self._case(purpose, index)}"
                if reason := refusal(error):
                    return named(reason, case)
                return WorkerError(f"{case}: {error!r}\n{traceback.format_exc()}")
        if not samples:
            empty = torch.empty(0, *self.plan.window, dtype=torch.uint8)
            return empty[:, None].float(), empty
        if later:
            images, labels, drawn = zip(*samples, strict=True)
            flat = [torch.cat([part.flatten() for part in parts]) for parts in (images, labels)]
            return Regions(flat[0], flat[1], list(drawn))
        images, labels = zip(*samples, strict=True)
        return torch.stack(images), torch.stack(labels)

    def num_validation_windows(self) -> int:
        """Number of windows that are scored after each epoch; fewer if windows are so large that batches are small."""
        most = min(self.windows_per_case * len(self.cases["validate"]), VALIDATION_BATCHES * self.plan.batch_size)
        return min(self.config.validation_windows, most)

    def num_validation_batches(self) -> int:
        """Number of batches of validation windows."""
        return -(-self.num_validation_windows() // self.plan.batch_size)

    def window(self, purpose: str, index: int) -> tuple[Tensor, Tensor]:
        """Make the window with this number: (C, D, H, W) and (D, H, W), augmented for training."""
        return self._finish(*self.read(purpose, index), on_device=False)

    def read(self, purpose: str, index: int) -> tuple[Tensor, Tensor, Drawn]:
        """Read the region of the window with this number: (C, d, h, w) and (d, h, w), which may be the cache's."""
        training = purpose == "train"
        rng = np.random.default_rng([self.config.seed, int(training), index])
        case, slice_number = self._choose(purpose, index)
        image, labels, locations = self.cache.get(case)
        window = self.plan.window
        crop = self._crop(rng, case, labels, training=training)
        corner, size = [low for low, _ in crop], box_shape(crop)
        centre: NDArray[np.integer[Any]] | None = None
        loose = NOWHERE
        # Pretraining ignores labels, as some belong to cases that are held out later.
        if rng.random() < self.config.foreground_share and self.config.pretext is None:
            if slice_number is None:
                centre = draw_foreground(rng, locations)
            else:
                centre = draw_in_slice(rng, labels, self._slicing_axis(), slice_number)
        if part := self._labelled_part(case, labels):
            centre, loose = place_to_show(rng, labels, part, centre, crop)
        if centre is not None:
            centre = centre - corner
        start = place_window(rng, size, window, centre, self.plan.representation.regular_steps, loose)
        augmentation = Augmentation()
        if training:
            augmentation = draw_augmentation(
                rng, self.config.augmentation, window, self.plan.spacing_mm, image.shape[0], self.plan.mirror_axes
            )
        lowest, repeated = self.plan.representation.padded_with_lowest, self.plan.repeated_axis
        region = region_to_read(augmentation, window)
        start = tuple(
            low + at - (read - wanted) // 2 for low, at, read, wanted in zip(corner, start, region, window, strict=True)
        )
        images = torch.from_numpy(read_region(image, start, region, crop, lowest=lowest, repeated=repeated))
        targets = torch.from_numpy(read_region(labels, start, region, crop, repeated=repeated))
        return images, targets, Drawn(region, augmentation, rng)

    def finish_batch(self, regions: Regions, device: torch.device) -> Batch:
        """Augment the windows of a batch on a device, see `device_augmentation.py`."""
        sizes = [math.prod(drawn.region) for drawn in regions.drawn]
        channels = len(regions.images) // sum(sizes)
        images = torch.split(upload(regions.images, device), [channels * size for size in sizes])
        targets = torch.split(upload(regions.labels, device), sizes)
        windows = [
            self._finish(image.view(channels, *drawn.region), target.view(drawn.region), drawn, on_device=True)
            for image, target, drawn in zip(images, targets, regions.drawn, strict=True)
        ]
        return torch.stack([image for image, _ in windows]), torch.stack([target for _, target in windows])

    def _finish(self, images: Tensor, targets: Tensor, drawn: Drawn, *, on_device: bool) -> tuple[Tensor, Tensor]:
        """Make a window (C, D, H, W) and (D, H, W) of its region, with numpy or on the region's device with torch."""
        window, augmentation = self.plan.window, drawn.augmentation
        if self.plan.representation.padded_with_lowest:
            # Where a rotated window reaches beyond the region it gets 0. Never in place: this may be the cache.
            floor = images.amin((1, 2, 3), keepdim=True)
            images, targets = apply_spatial(images - floor, targets, augmentation, window)
            images = images + floor
        else:
            images, targets = apply_spatial(images, targets, augmentation, window)
        if augmentation.thickness is not None:
            images = (change_thickness if on_device else apply_thickness)(images, augmentation.thickness)
        if augmentation.intensity and on_device:
            images = change_intensity(images, augmentation)
        elif augmentation.intensity:
            images = torch.from_numpy(apply_intensity(images.numpy().copy(), augmentation))
        if self.config.pretext is not None:
            # After all other draws, so that these are the same as in a run without it.
            return make_harder(images, self.plan.representation, self.config.pretext, drawn.rng), images.contiguous()
        return images.contiguous(), targets.contiguous()

    def _crop(self, rng: np.random.Generator, case: str, labels: Any, *, training: bool) -> BoundingBox:
        """Choose the part of a case that windows come from: all of it, or for a fine model a crop around the object."""
        fine, (depth, height, width) = self.config.fine, labels.shape
        if fine is None:
            return (0, depth), (0, height), (0, width)
        if case not in self.objects:
            self.objects[case] = object_box(labels[:])
        margins = draw_margins(rng, fine) if training else usual_margins(fine)
        return crop_around(self.objects[case], margins, labels.shape, self.plan.spacing_mm)

    def _labelled_part(self, case: str, labels: Any) -> LabelledPart | None:
        """What is labelled of a case; None if all of it is, or if its labels are not to be looked at."""
        if self.config.pretext is not None:
            return None
        if case not in self.labelled:
            is_part = is_partly_labelled(self.cache.store.record(case))
            self.labelled[case] = labelled_part(labels[:]) if is_part else None
        return self.labelled[case]

    def _case(self, purpose: str, index: int) -> str:
        """The case of a window."""
        return self._choose(purpose, index)[0]

    def _choose(self, purpose: str, index: int) -> tuple[str, int | None]:
        """Choose the case of a window, and in training the slice for it if windows are drawn by slices.

        All cases, or all slices, come in turn, in a new order for every pass over those of training.
        """
        cases = self.cases[purpose]
        if purpose == "validate":
            return cases[index % len(cases)], None
        length = len(self.slices or cases)
        number, place = divmod(index, length)
        chosen = int(_order(self.config.seed, number, length)[place])
        return self.slices[chosen] if self.slices else (cases[chosen], None)

    def _slicing_axis(self) -> int:
        axis = self.plan.representation.free_axis
        assert axis is not None, "looked at by check_largest_slices"
        return axis


@lru_cache(maxsize=2)  # a batch may belong to two passes
def _order(seed: int, number: int, length: int) -> NDArray[np.int64]:
    """The order of cases, or of slices, in a pass over them."""
    return np.random.default_rng([seed, 2, number]).permutation(length)


def draw_foreground(rng: np.random.Generator, locations: Mapping[int, IntArray]) -> IntArray | None:
    """Draw a class of the case, then one of its voxels; None if the case has no foreground."""
    classes = sorted(label for label in locations if label != 0)
    if not classes:
        return None
    voxels = locations[classes[int(rng.integers(len(classes)))]]
    return np.asarray(voxels[int(rng.integers(len(voxels)))])


def place_window(
    rng: np.random.Generator,
    shape: Shape,
    window: Shape,
    centre: NDArray[np.integer[Any]] | None,
    regular: RegularSteps | None = None,
    loose: Loose = NOWHERE,
) -> tuple[int, ...]:
    """Draw the start of a window: inside the volume, around `centre` if there is one, else anywhere.

    Along axes on which the volume is smaller than the window, the volume lies anywhere in the window. Along a regular
    axis it is one of the windows that cover the volume in whole steps: of those that hold the centre, or of all. Along
    a loose axis it is any window inside the volume that holds the centre.
    """
    start = []
    for axis, (size, wanted) in enumerate(zip(shape, window, strict=True)):
        lowest, highest = min(0, size - wanted), max(0, size - wanted)
        if regular and axis == regular.axis:
            starts = regular_starts(size, wanted, regular.training_step)
            if centre is not None:
                starts = [first for first in starts if first <= centre[axis] < first + wanted]
            start.append(starts[int(rng.integers(len(starts)))])
            continue
        if centre is None or size <= wanted:
            start.append(int(rng.integers(lowest, highest + 1)))
        elif loose[axis]:
            first, last = max(lowest, int(centre[axis]) - wanted + 1), min(highest, int(centre[axis]))
            start.append(int(rng.integers(first, last + 1)))
        else:
            start.append(int(np.clip(centre[axis] - wanted // 2, lowest, highest)))
    return tuple(start)


def read_region(
    array: Any,
    start: Sequence[int],
    size: Sequence[int],
    crop: BoundingBox | None = None,
    *,
    lowest: bool = False,
    repeated: int | None = None,
) -> NDArray[Any]:
    """Read (..., d, h, w) from an array or store; what lies outside of it, or of a crop, is zero.

    Args:
        array: (..., D, H, W), sliceable.
        start: First voxel along the last three axes; may be negative.
        size: Voxels to read.
        crop: The part of the array to read from, half-open ranges along (D, H, W); None: all of it.
        lowest: Pad with the lowest value per channel of the part that was read, instead of zero.
        repeated: Axis (0 d, 1 h, 2 w) along which the outermost planes are repeated instead; None: none.
    """
    leading = (slice(None),) * (len(array.shape) - 3)
    limits = crop or tuple((0, length) for length in array.shape[-3:])
    inside = [
        (max(low, at), min(high, at + wanted)) for at, wanted, (low, high) in zip(start, size, limits, strict=True)
    ]
    part = np.asarray(array[(*leading, *(slice(low, max(low, high)) for low, high in inside))])
    if part.shape[-3:] == tuple(size):
        return np.ascontiguousarray(part)
    region = np.zeros((*part.shape[:-3], *size), part.dtype)
    if lowest and part.size:
        region += part.min((-3, -2, -1), keepdims=True)
    where = tuple(slice(low - at, max(low, high) - at) for at, (low, high) in zip(start, inside, strict=True))
    region[(*leading, *where)] = part
    if repeated is not None and part.size:
        region = region.take(repeated_planes(size[repeated], where[repeated].start, where[repeated].stop), repeated - 3)
    return region


def batch_keys(first_iteration: int, iterations_per_epoch: int, num_validation_batches: int) -> Iterator[BatchKey]:
    """The endless sequence of batches of a run from an iteration on: after each epoch the validation batches."""
    iteration = first_iteration
    while True:
        yield "train", iteration
        iteration += 1
        if iteration % iterations_per_epoch == 0:
            for number in range(num_validation_batches):
                yield "validate", number
