"""CTs of clinical size, made up: a body with organs and bones on a table, in air, with noise, as a raw data set.

    python benchmarks/clinical_ct.py raw/Dataset801_Clinical --slices 500 --labels 60 --cases 4

Organs are smooth random fields above a threshold, the largest field of a voxel wins; the last label is the spine. The
fields lie on coarse grids and are interpolated plane by plane, so that a volume of 512 x 512 x 500 voxels takes little
more memory than its two arrays. The shapes are not anatomical; what they share with real scans is what time and memory
depend on: sizes, the number of structures, ranges of Hounsfield units, borders and noise.

Letters: D H W the volume, d h w a coarse grid, h w also a plane.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.files import write_json
from seg25d.core.types import FloatArray, Shape, Spacing
from seg25d.data.made_up import MadeUpCase, MadeUpDataset, smooth_noise, write_dataset

TISSUES = {"liver": 105.0, "lung": -830.0, "kidney": 180.0, "heart": 150.0, "bladder": 8.0, "muscle": 60.0}
"""Kinds of organs in turn, and their Hounsfield units: chosen here, as all constants, within the usual ranges."""
AIR, FOAM, FAT, SOFT, SPONGY_BONE, HARD_BONE, SHELL = -1000.0, -750.0, -100.0, 45.0, 300.0, 800.0, 120.0
"""Hounsfield units outside of organs: air, the inside of the table, fat under the skin, other tissue, the inside of
vertebrae, hard bone, the shell of the table."""
NOISE_HU, TEXTURE_HU = 25.0, 8.0
"""Standard deviations: of the noise of a slice of 0.8 mm, and of tissue."""
RANGE_HU = (-1024, 3071)
"""12 bits from -1024 on, as scanners write them."""
FILLED = 0.35
"""Share of the body that organs would fill if they did not overlap."""
RIM = 0.12
"""Depth of the fat under the skin, as a share of the way to the middle."""
BLUR_VOXELS, ALONG_DEPTH = 0.7, 0.4
"""Blur in the plane, and correlation of the noise of neighbouring slices."""
FIELD_CELLS = 96
"""Cells of the coarse grid of the body along each axis of a plane."""


@dataclass(frozen=True)
class Scans:
    """What the scans of a data set have in common."""

    slices: int = 120
    size: int = 512
    """Voxels along both axes of a plane."""
    thickness_mm: float = 0.8
    pixel_mm: float = 0.8
    spread: float = 0.1
    """Thickness and pixels of a scan differ from these by up to this share."""
    num_labels: int = 3
    """Organs, the spine among them; at least 2, at most 255."""

    @property
    def shape(self) -> Shape:
        """Voxels (D, H, W) of every scan."""
        return self.slices, self.size, self.size

    @property
    def labels(self) -> dict[str, int]:
        """Values by name, the background first."""
        kinds = list(TISSUES)
        organs = {f"{kinds[index % len(kinds)]} {index + 1}": index + 1 for index in range(self.num_labels - 1)}
        return {"background": 0, **organs, "spine": self.num_labels}


class Axis(NamedTuple):
    """Voxels `start` to `stop` of one axis, on which a field has `cells` values from the first voxel to the last."""

    start: int
    stop: int
    cells: int

    @property
    def positions(self) -> FloatArray:
        """Voxels of the values, (cells,)."""
        return np.linspace(self.start, self.stop - 1, self.cells, dtype=np.float32)

    @property
    def matrix(self) -> FloatArray:
        """Linear interpolation of the values to the voxels, (stop - start, cells)."""
        size = self.stop - self.start
        places = np.linspace(0, self.cells - 1, size)
        below = np.minimum(places.astype(int), max(self.cells - 2, 0))
        matrix = np.zeros((size, self.cells), np.float32)
        rows = np.arange(size)
        matrix[rows, below] = 1 - (places - below)
        matrix[rows, np.minimum(below + 1, self.cells - 1)] += places - below
        return matrix


@dataclass(frozen=True)
class Field:
    """A smooth field on a coarse grid over a box of the volume."""

    axes: tuple[Axis, Axis, Axis]
    values: FloatArray
    """(d, h, w)."""

    @cached_property
    def _matrices(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        first, second, third = self.axes
        return first.matrix, second.matrix, third.matrix.T

    @property
    def plane_box(self) -> tuple[slice, slice]:
        """The part of a plane that the box covers."""
        return slice(*self.axes[1][:2]), slice(*self.axes[2][:2])

    def covers(self, index: int) -> bool:
        """Whether the box has a part in a plane."""
        return self.axes[0].start <= index < self.axes[0].stop

    def plane(self, index: int) -> FloatArray:
        """The field in a plane of the volume, on the box (h, w)."""
        along, rows, columns = self._matrices
        weights = along[index - self.axes[0].start]
        near = np.flatnonzero(weights)
        coarse = np.tensordot(weights[near], self.values[near], 1)
        return np.asarray(rows @ coarse @ columns, np.float32)


def draw_scan(rng: np.random.Generator, scans: Scans) -> MadeUpCase:
    """Draw one scan.

    Args:
        rng: Source of all randomness.
        scans: What all have in common.

    Returns:
        The image in Hounsfield units, `int16`, its labels and its spacing.
    """
    sizes = rng.uniform(1 - scans.spread, 1 + scans.spread, 2) * (scans.thickness_mm, scans.pixel_mm)
    thickness, pixel = (round(float(value), 3) for value in sizes)
    spacing: Spacing = (thickness, pixel, pixel)
    body = _draw_body(scans.shape, spacing, rng)
    texture = _over_volume(scans.shape, spacing, 4.0, rng)
    organs = [*_draw_organs(scans, spacing, rng), _draw_spine(scans.shape, spacing, rng)]
    units = _units(scans.num_labels, rng)
    table = _table(scans.shape, spacing)
    amplitude = NOISE_HU * np.sqrt(0.8 / thickness) / _blurred_deviation()
    image, labels = np.empty(scans.shape, np.int16), np.empty(scans.shape, np.uint8)
    noise = rng.standard_normal(scans.shape[1:], dtype=np.float32)
    for index in range(scans.slices):
        depth = body.plane(index)
        labels[index], clarity = _label_plane(organs, depth, index)
        tissue = _tissue_plane(depth, labels[index], clarity, units, _has_rib(index * thickness))
        tissue += TEXTURE_HU * texture.plane(index) * (depth > 0)
        tissue = np.where((depth <= 0) & (table != AIR), table, tissue)
        fresh = rng.standard_normal(noise.shape, dtype=np.float32)
        noise = np.float32(ALONG_DEPTH) * noise + np.float32(np.sqrt(1 - ALONG_DEPTH**2)) * fresh
        blurred = ndimage.gaussian_filter(tissue + np.float32(amplitude) * noise, BLUR_VOXELS)
        image[index] = np.rint(blurred).clip(*RANGE_HU)
    return MadeUpCase(image[np.newaxis], labels, spacing)


def write_scans(folder: Path, scans: Scans, *, num_training: int, num_test: int = 1, seed: int = 27) -> None:
    """Write a data set with one split, whose last case is for validation; what is complete is kept.

    Args:
        folder: The data set's folder, such as `raw/Dataset801_Clinical`.
        scans: What all scans have in common.
        num_training: Number of cases, at least 2.
        num_test: Number of held-out cases.
        seed: Seed of the whole data set.
    """
    names = [f"ct_{index:03d}" for index in range(num_training)]
    write_json(folder / "splits.json", [{"train": names[:-1], "val": names[-1:]}])
    dataset = MadeUpDataset("ct", ("CT",), scans.labels, partial(draw_scan, scans=scans), "benchmarks/clinical_ct.py")
    write_dataset(folder, dataset, num_training=num_training, num_test=num_test, seed=seed)


def _over_volume(shape: Shape, spacing_mm: Spacing, sigma_cells: float, rng: np.random.Generator) -> Field:
    """Smooth noise over the whole volume, in cells as long as wide."""
    cells = min(FIELD_CELLS, shape[1])
    step_mm = shape[1] * spacing_mm[1] / cells
    layers = min(shape[0], max(2, round(shape[0] * spacing_mm[0] / step_mm)))
    axes = (Axis(0, shape[0], layers), Axis(0, shape[1], cells), Axis(0, shape[2], cells))
    return Field(axes, smooth_noise((layers, cells, cells), sigma_cells, rng))


def _draw_body(shape: Shape, spacing_mm: Spacing, rng: np.random.Generator) -> Field:
    """Depth under the skin as a share of the way to the middle; negative outside."""
    noise = _over_volume(shape, spacing_mm, 8.0, rng)
    _, rows, columns = (axis.positions for axis in noise.axes)
    away = np.hypot(*np.ix_(rows / (shape[1] - 1) / 0.30 - 0.5 / 0.30, columns / (shape[2] - 1) / 0.42 - 0.5 / 0.42))
    return Field(noise.axes, np.asarray(1 - away + 0.04 * noise.values, np.float32))


def _draw_organs(scans: Scans, spacing_mm: Spacing, rng: np.random.Generator) -> list[Field]:
    """Fields of all organs but the spine: 1 in the middle, 0 at the border."""
    extent = np.array(scans.shape) * spacing_mm
    volume = np.pi * 0.30 * 0.42 * extent[1] * extent[2] * extent[0]
    typical = (FILLED * volume / scans.num_labels * 3 / (4 * np.pi)) ** (1 / 3)
    number = scans.num_labels - 1
    radii = typical * rng.uniform(0.7, 1.3, (number, 1)) * rng.uniform(0.85, 1.15, (number, 3))
    placed: list[tuple[FloatArray, float]] = []
    fields = []
    for radius in radii:
        centre = _free_place(placed, radius, extent, rng)
        placed.append((centre, float(radius.mean())))
        fields.append(_organ(centre, radius, scans.shape, spacing_mm, rng))
    return fields


def _free_place(
    placed: Sequence[tuple[FloatArray, float]], radius: FloatArray, extent_mm: FloatArray, rng: np.random.Generator
) -> FloatArray:
    """The one of 60 places in the body (3,), in mm, that is farthest from the spine and the organs that are there."""
    angle, away = rng.uniform(0, 2 * np.pi, 60), 0.75 * np.sqrt(rng.uniform(0, 1, 60))
    along = rng.uniform(0.05, 0.95, 60)
    shares = np.stack([along, 0.5 + 0.30 * away * np.sin(angle), 0.5 + 0.42 * away * np.cos(angle)], 1)
    places = shares * extent_mm
    own = float(radius.mean())
    spine = np.hypot(places[:, 1] - 0.68 * extent_mm[1], places[:, 2] - 0.5 * extent_mm[2])
    room = spine / (own + 0.05 * extent_mm[1])
    for centre, other in placed:
        room = np.minimum(room, np.linalg.norm(places - centre, axis=1) / (own + other))
    return np.asarray(places[room.argmax()])


def _organ(
    centre_mm: FloatArray, radius_mm: FloatArray, shape: Shape, spacing_mm: Spacing, rng: np.random.Generator
) -> Field:
    """A field of an ellipsoid with bumps, on the box around it."""
    axes = []
    for centre, radius, size, step in zip(centre_mm, radius_mm, shape, spacing_mm, strict=True):
        start = max(0, int((centre - 1.3 * radius) / step))
        stop = min(size, max(start + 1, int((centre + 1.3 * radius) / step) + 2))
        axes.append(Axis(start, stop, min(stop - start, 18)))
    offsets = [
        (axis.positions * step - centre) / radius
        for axis, step, centre, radius in zip(axes, spacing_mm, centre_mm, radius_mm, strict=True)
    ]
    away = np.sqrt(sum(np.square(offset) for offset in np.ix_(*offsets)))
    bumps = smooth_noise((axes[0].cells, axes[1].cells, axes[2].cells), 2.5, rng).clip(-2, 2)
    return Field((axes[0], axes[1], axes[2]), np.asarray(1 - away + 0.12 * bumps, np.float32))


def _draw_spine(shape: Shape, spacing_mm: Spacing, rng: np.random.Generator) -> Field:
    """A column along the volume, behind the middle, thinner every 30 mm (between vertebrae)."""
    layers = min(shape[0], max(2, round(shape[0] * spacing_mm[0] / 4)))
    top, bottom, left, right = (round(share * shape[1]) for share in (0.58, 0.78, 0.4, 0.6))
    cells = min(bottom - top, 40)
    axes = (Axis(0, shape[0], layers), Axis(top, bottom, cells), Axis(left, right, cells))
    along, down, across = np.ix_(*(axis.positions for axis in axes))
    bend = 0.02 * np.sin(along / shape[0] * 4 + rng.uniform(0, 6))
    away = np.hypot(down / shape[1] - 0.68, across / shape[2] - 0.5 - bend)
    radius = 0.055 * (1 - 0.15 * np.cos(2 * np.pi * along * spacing_mm[0] / 30 + rng.uniform(0, 6)))
    return Field(axes, np.asarray(1 - away / radius, np.float32))


def _units(num_labels: int, rng: np.random.Generator) -> FloatArray:
    """Hounsfield units of the background in the body, of every organ and of the spine's inside, (labels + 1,)."""
    kinds = list(TISSUES.values())
    organs = [kinds[index % len(kinds)] + rng.uniform(-10, 10) for index in range(num_labels - 1)]
    return np.array([SOFT, *organs, SPONGY_BONE], np.float32)


def _table(shape: Shape, spacing_mm: Spacing) -> FloatArray:
    """Hounsfield units (h, w) of a curved table under the body, and of air."""
    extent = shape[1] * spacing_mm[1]
    down, across = np.ogrid[: shape[1], : shape[2]]
    under = down / (shape[1] - 1) - 0.5 - 0.345 + 0.25 * np.square(across / (shape[2] - 1) - 0.5)
    shell = max(2.0 / extent, 1.0 / shape[1])
    table = np.where((under > 0) & (under < 0.03), FOAM, AIR)
    table[(np.abs(under) < shell) | (np.abs(under - 0.03) < shell)] = SHELL
    table[:, np.abs(np.arange(shape[2]) / (shape[2] - 1) - 0.5) > 0.4] = AIR
    return np.asarray(table, np.float32)


def _label_plane(organs: Sequence[Field], depth: FloatArray, index: int) -> tuple[NDArray[np.uint8], FloatArray]:
    """Labels of a plane (h, w), and the fields that won: 0 at an organ's border."""
    labels = np.zeros(depth.shape, np.uint8)
    largest = np.zeros(depth.shape, np.float32)
    for value, organ in enumerate(organs, 1):
        if organ.covers(index):
            box = organ.plane_box
            field = organ.plane(index)
            wins = field > largest[box]
            largest[box][wins] = field[wins]
            labels[box][wins] = value
    labels[depth < RIM] = 0
    return labels, largest


def _has_rib(position_mm: float) -> bool:
    """Whether there are ribs at a position along the body: 10 of every 25 mm."""
    return position_mm % 25 < 10


def _tissue_plane(
    depth: FloatArray, labels: NDArray[np.uint8], clarity: FloatArray, units: FloatArray, ribs: bool
) -> FloatArray:
    """Hounsfield units of a plane (h, w) without table, texture and noise."""
    tissue = units[labels]
    tissue[(labels == len(units) - 1) & (clarity < 0.25)] = HARD_BONE
    tissue[depth < RIM] = FAT
    if ribs:
        tissue[(depth >= RIM) & (depth < RIM + 0.04) & (labels == 0)] = HARD_BONE
    tissue[depth <= 0] = AIR
    return tissue


def _blurred_deviation() -> float:
    """Standard deviation of white noise of deviation 1 after the blur in the plane."""
    impulse = np.zeros((15, 15))
    impulse[7, 7] = 1
    return float(np.sqrt(np.square(ndimage.gaussian_filter(impulse, BLUR_VOXELS)).sum()))


def main() -> None:
    """Write a data set."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="folder of the data set; with a dataset.json it is kept as it is")
    parser.add_argument("--slices", type=int, default=120)
    parser.add_argument("--size", type=int, default=512, help="voxels along both axes of a plane (default: 512)")
    parser.add_argument("--thickness-mm", type=float, default=0.8)
    parser.add_argument("--pixel-mm", type=float, default=0.8)
    parser.add_argument("--spread", type=float, default=0.1, help="share by which spacings differ (default: 0.1)")
    parser.add_argument("--labels", type=int, default=3)
    parser.add_argument("--cases", type=int, default=4, help="training cases, of which the last is for validation")
    parser.add_argument("--test-cases", type=int, default=1)
    parser.add_argument("--seed", type=int, default=27)
    options = parser.parse_args()
    scans = Scans(options.slices, options.size, options.thickness_mm, options.pixel_mm, options.spread, options.labels)
    write_scans(options.folder, scans, num_training=options.cases, num_test=options.test_cases, seed=options.seed)


if __name__ == "__main__":
    main()
