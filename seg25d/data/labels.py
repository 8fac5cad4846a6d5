"""Meaning of a data set's label values: classes, regions, ignored value; conversion to internal indices and back."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from seg25d.core.errors import DatasetError, InputError
from seg25d.core.records import Record
from seg25d.data.label_directions import directed_labels
from seg25d.data.label_problems import label_problems, members_of

Array = TypeVar("Array", bound=NDArray[Any])
IGNORE_INDEX = 255
"""Internal value of voxels that training and evaluation leave out."""
NUM_INDICES = 256
"""Number of possible internal values, which are uint8."""
_UNDECLARED = 254
_LARGEST_LOOKUP = 65535
_BLOCK = 1 << 16
_NEARLY = 1e-3
"""Of whole numbers; scaled 8-bit labels (slope 1/255 in 32 bits, say) are off by less than that."""


class Labels(Record):
    """The classes of a data set as `dataset.json` declares them.

    Inside the project a label array is uint8 and holds *internal indices*: the position of a value in `values`, and
    `IGNORE_INDEX` for voxels to be left out. This closes gaps in the numbering of the label files.

    Attributes:
        names: Value, or values of a region, per name, in the order of `dataset.json`; `ignore` included if declared.
        regions_class_order: The value painted where a region is predicted, for each region in the order of `names`;
            later regions paint over earlier ones (nnU-Net v2, `documentation/region_based_training.md`).
    """

    names: dict[str, int | tuple[int, ...]]
    regions_class_order: tuple[int, ...] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Labels":
        if problems := label_problems(self.names, self.regions_class_order):
            raise ValueError("; ".join(problems))
        return self

    @cached_property
    def values(self) -> tuple[int, ...]:
        """All declared values in ascending order, including background 0 and without `ignore`."""
        return tuple(sorted({value for members in self._classes.values() for value in members} | {0}))

    @property
    def ignore_value(self) -> int | None:
        """The value of voxels to be left out, if there is one."""
        return members_of(self.names["ignore"])[0] if "ignore" in self.names else None

    @property
    def has_regions(self) -> bool:
        """Whether any name has several values."""
        return any(len(members) > 1 for members in self._classes.values())

    @property
    def num_outputs(self) -> int:
        """Scores per voxel: one per value (softmax), or one per region (sigmoid)."""
        return len(self.output_members)

    @cached_property
    def output_members(self) -> tuple[tuple[int, ...], ...]:
        """Internal indices that belong to each output of a model."""
        if not self.has_regions:
            return tuple((index,) for index in range(len(self.values)))
        return tuple(self._indices(members) for members in self._foreground_classes.values())

    @cached_property
    def foreground(self) -> dict[str, tuple[int, ...]]:
        """Classes or regions to evaluate: the value as text, or the name of the region, and its internal indices."""
        if self.has_regions:
            return {name: self._indices(members) for name, members in self._foreground_classes.items()}
        return {str(value): (index,) for index, value in enumerate(self.values) if value != 0}

    @cached_property
    def directed(self) -> dict[int, tuple[str, ...]]:
        """Names per axis (0 D, 1 H, 2 W) that distinguish its directions, so that mirroring would make them wrong."""
        return directed_labels(name for name in self.names if name != "ignore")

    def name_of(self, key: str) -> str:
        """The name in `dataset.json` of what is evaluated under a key of `foreground`; other keys stay as they are."""
        if self.has_regions:
            return key
        return next(
            (name for name, members in self._classes.items() if [key] == [str(value) for value in members]), key
        )

    @property
    def sided(self) -> bool:
        """Whether names distinguish left and right, so that mirroring along the left-right axis would make them wrong.

        See `directed_labels` for the names.
        """
        return 2 in self.directed

    @property
    def directed_axes(self) -> tuple[int, ...]:
        """Axes (0 D, 1 H, 2 W) along which mirroring would make labels wrong."""
        return tuple(self.directed)

    def agrees_with(self, other: "Labels") -> bool:
        """Whether values and outputs of a model mean the same, apart from capital letters and the ignored value."""
        return self._meaning == other._meaning

    def encode(self, array: NDArray[Any], where: str) -> NDArray[np.uint8]:
        """Turn the values of a file into internal indices.

        Args:
            array: Values of a label file, any shape; floats are fine as long as they are whole numbers.
            where: Case or file, for the message.

        Returns:
            Internal indices, same shape; an empty array gives an empty array.

        Raises:
            DatasetError: If a value is not declared; names `where`, the values and what to do.
        """
        encoded, undeclared = self.translate(array)
        if undeclared:
            raise DatasetError(f"{where}: {self.undeclared_message(undeclared)}")
        return encoded

    def translate(self, array: NDArray[Any]) -> tuple[NDArray[np.uint8], list[float]]:
        """Like `encode`, but return the undeclared values, in ascending order (NaN last), instead of raising.

        Returns:
            The internal indices, meaningless where a value is not declared, and the undeclared values.
        """
        if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
            encoded = np.zeros(array.shape, np.uint8)
        else:
            encoded = self._look_up(array)
            if not bool((encoded == _UNDECLARED).any()):
                return encoded, []
        declared = {*self.values, *([] if self.ignore_value is None else [self.ignore_value])}
        return encoded, [value for value in np.unique(array).tolist() if value not in declared]

    def undeclared_message(self, undeclared: Sequence[float]) -> str:
        """A message with the values found, the declared values, and what to do."""
        declared = ", ".join(str(value) for value in self.values[:20]) + (", ..." if len(self.values) > 20 else "")
        ignore = "" if self.ignore_value is None else f" and {self.ignore_value} (ignore)"
        fractions = [value for value in undeclared if math.isfinite(value) and value != round(value)]
        whole = [value for value in undeclared if value not in fractions]
        negative = [value for value in whole if value < 0]
        if fractions:
            further = f", and {_listed(whole)} is not declared" if whole else ""
            return (
                f"label value {_listed(fractions)} is not a whole number{further}, dataset.json has {declared}{ignore};"
                " declare no such label: the labels were interpolated, or the file is an image or holds probabilities,"
                " so export the labels again, resampled with nearest neighbours if at all"
            )
        cure = "declare it under `labels` or correct the label file"
        if negative:
            cure = f"correct the label file: {_listed(negative)} cannot be declared, as labels count from 0"
        return f"label value {_listed(whole)} is not declared in dataset.json, which has {declared}{ignore}; {cure}"

    def decode(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.integer[Any]]:
        """Turn internal indices into the values of label files.

        Args:
            indices: Internal indices, any shape; `IGNORE_INDEX` becomes the ignored value where one is declared.

        Returns:
            Values, same shape, in the smallest of uint8, uint16 and int32 that holds all declared values.
        """
        top = max(self.values[-1], self.ignore_value or 0)
        dtype = next(kind for kind in (np.uint8, np.uint16, np.int32) if top <= np.iinfo(kind).max)
        table = np.zeros(256, dtype)
        table[: len(self.values)] = self.values
        table[IGNORE_INDEX] = self.ignore_value or 0
        decoded: NDArray[np.integer[Any]] = table[indices]
        return decoded

    def check_threshold(self, threshold: float | None) -> None:
        """Check that a threshold can be applied to these labels.

        Raises:
            InputError: If there are several mutually exclusive classes.
        """
        if threshold is not None and not self.has_regions and self.num_outputs != 2:
            raise InputError(
                f"a threshold ({threshold:g}) works with one foreground class, or with regions; this data set has "
                f"{self.num_outputs - 1} classes ({', '.join(self._foreground_classes)}), and the most probable is "
                "chosen: leave the threshold out (--set threshold=null)"
            )

    def from_scores(self, scores: NDArray[np.floating[Any]], threshold: float | None = None) -> NDArray[np.uint8]:
        """Choose the internal index of every voxel from the scores of a model.

        Args:
            scores: Logits (K, ...).
            threshold: Lowest probability of a foreground voxel, see `check_threshold`; None: the most probable class.

        Returns:
            Internal indices (...): that of the largest score; with a threshold, 1 where the probability of the class
            reaches it; with regions, every region whose probability is above 0.5 (logit above 0), or reaches the
            threshold, is painted in the order of `regions_class_order`.
        """
        if not self.has_regions:
            if threshold is not None:
                foreground: NDArray[np.uint8] = (scores[1] - scores[0] >= logit(threshold)).astype(np.uint8)
                return foreground
            return _largest_index(scores)
        regions = (score > 0 if threshold is None else score >= logit(threshold) for score in scores)
        return self._paint(regions, scores.shape[1:])

    def from_probabilities(
        self, probabilities: NDArray[np.floating[Any]], threshold: float | Sequence[float] | None = None
    ) -> NDArray[np.uint8]:
        """Choose the internal index of every voxel from probabilities, as `from_scores` does from logits.

        Args:
            probabilities: (K, ...), of the classes, which add up to 1, or of each region.
            threshold: See `from_scores`; or one per region (for one class a sequence of one).

        Returns:
            Internal indices (...).
        """
        if threshold is None:
            if not self.has_regions:
                return _largest_index(probabilities)
            return self._paint((each > 0.5 for each in probabilities), probabilities.shape[1:])
        foreground = probabilities if self.has_regions else probabilities[1:]
        thresholds = [threshold] * len(foreground) if isinstance(threshold, float) else threshold
        if not self.has_regions:
            alone: NDArray[np.uint8] = (foreground[0] >= thresholds[0]).astype(np.uint8)
            return alone
        regions = (each >= least for each, least in zip(foreground, thresholds, strict=True))
        return self._paint(regions, probabilities.shape[1:])

    def _paint(self, regions: Iterable[NDArray[np.bool_]], shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Internal indices of masks, one per region, painted in the order of `regions_class_order`."""
        assert self.regions_class_order is not None, "regions have an order"
        indices = np.zeros(shape, np.uint8)
        for region, value in zip(regions, self.regions_class_order, strict=True):
            indices[region] = self.values.index(value)
        return indices

    @property
    def _meaning(self) -> tuple[Any, ...]:
        names = {name.lower(): members for name, members in self._classes.items()}
        return names, self.output_members, self.regions_class_order

    @cached_property
    def _classes(self) -> dict[str, tuple[int, ...]]:
        return {name: members_of(value) for name, value in self.names.items() if name != "ignore"}

    @property
    def _foreground_classes(self) -> dict[str, tuple[int, ...]]:
        return {name: members for name, members in self._classes.items() if members != (0,)}

    def _indices(self, members: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(self.values.index(value) for value in sorted(set(members)))

    def _look_up(self, array: NDArray[Any]) -> NDArray[np.uint8]:
        """Internal indices of finite numbers, `_UNDECLARED` where one is not declared; in blocks, to save memory."""
        pairs = {value: index for index, value in enumerate(self.values)}
        if self.ignore_value is not None:
            pairs[self.ignore_value] = IGNORE_INDEX
        keys = np.array(sorted(pairs))
        table = _lookup_table(pairs) if keys[-1] <= _LARGEST_LOOKUP else None
        indices = np.array([pairs[key] for key in keys.tolist()], np.uint8)
        values = array.reshape(-1)
        encoded = np.empty(values.shape, np.uint8)
        for start in range(0, values.size, _BLOCK):
            block = values[start : start + _BLOCK]
            if table is not None and block.dtype.kind in "ui" and block.min() >= 0 and block.max() < table.size:
                found = table.take(block)
            elif table is not None:
                positions = np.clip(block, -1, table.size - 2).astype(np.int32)
                found = np.where(positions == block, table[positions], _UNDECLARED)
            else:
                positions = np.minimum(np.searchsorted(keys, block), keys.size - 1)
                found = np.where(keys[positions] == block, indices[positions], _UNDECLARED)
            encoded[start : start + _BLOCK] = found
        return encoded.reshape(array.shape)


def round_nearly_whole(array: Array) -> Array:
    """Round values that are whole numbers but for what scaling and compression of files leave.

    Args:
        array: Values of a label file, any shape and type.

    Returns:
        The same array if its type is one of whole numbers; else a copy in which values within 0.001 of a whole number
        are that number, and all others are as they were.
    """
    if array.dtype.kind != "f":
        return array
    whole = np.rint(array)
    with np.errstate(invalid="ignore"):
        return np.where(np.abs(array - whole) <= _NEARLY, whole, array)  # type: ignore[return-value]


def is_any_of(indices: NDArray[np.uint8], members: Sequence[int]) -> NDArray[np.bool_]:
    """Whether internal indices are those of a class or region: (...) of the same shape.

    In one byte per voxel; `np.isin` takes up to eleven for a while.
    """
    table = np.zeros(NUM_INDICES, np.bool_)
    table[list(members)] = True
    return table[indices]


def logit(probability: float) -> float:
    """The score whose sigmoid is this probability, between 0 and 1."""
    return math.log(probability / (1 - probability))


def _largest_index(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """The index of the largest of K scores (K, ...) per voxel, the lower one on ties.

    The same as `argmax(0)` class by class, without the copy that numpy makes of everything: for 60 x 192 x 192 scores
    0.7 ms on one core against 4.1 ms (numpy) and 15 ms (torch).
    """
    best = scores[0].copy()
    index = np.zeros(best.shape, np.uint8)
    for number, score in enumerate(scores[1:], 1):
        better = score > best
        np.maximum(index, better.view(np.uint8) * np.uint8(number), out=index)
        np.maximum(best, score, out=best)
    return index


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:8]) + (", ..." if len(values) > 8 else "")


def _lookup_table(pairs: Mapping[int, int]) -> NDArray[np.uint8]:
    """Index of each value; one extra entry at the end, used for -1 and for values that are too large."""
    table = np.full(max(pairs) + 2, _UNDECLARED, np.uint8)
    for value, index in pairs.items():
        table[value] = index
    return table
