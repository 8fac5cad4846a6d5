"""`CASE.npz` and kept probabilities, written in pieces: the numbers are those of all at once, and nothing is halved."""

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from seg25d.core.errors import InputError
from seg25d.core.leftovers import remove_leftovers
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels
from seg25d.inference import probability_files
from seg25d.inference.export import export_slabs
from seg25d.inference.probability_files import read_probabilities, write_probabilities
from seg25d.inference.probability_maps import open_probability_map, passing_map_writer, probability_map_writer
from seg25d.inference.sliding_window import Slab
from seg25d.preprocessing.grid import Grid

CLASSES = Labels(names={"background": 0, "a": 1, "b": 5})
REGIONS = Labels(names={"background": 0, "whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
ORIENTATIONS = [
    [[sign if column == axis else 0.0 for column in range(3)] for axis, sign in zip(axes, signs, strict=True)]
    for axes in itertools.permutations(range(3))
    for signs in ((1.0, 1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (1.0, 1.0, -1.0))
]


def geometry_of(direction: list[list[float]]) -> Geometry:
    flat = tuple(value for row in direction for value in row)
    return Geometry(shape=(7, 5, 4), spacing_mm=(1, 2, 3), origin_mm=(0, 0, 0), direction=flat)


@pytest.mark.parametrize("direction", ORIENTATIONS, ids=str)
@pytest.mark.parametrize("part_bytes", [1, 4 * 5 * 4 * 3])
def test_pieces_make_the_array_of_the_file(
    tmp_path: Path, direction: list[list[float]], part_bytes: int, rng: np.random.Generator, monkeypatch
) -> None:
    monkeypatch.setattr(probability_files, "PART_BYTES", part_bytes)
    geometry = geometry_of(direction)
    probabilities = rng.random((2, *geometry.canonical_shape)).astype(np.float32)
    write_probabilities(tmp_path / "a.nii.gz", probabilities, geometry)
    np.testing.assert_array_equal(
        read_probabilities(tmp_path / "a.npz"), np.stack([geometry.from_canonical(each) for each in probabilities])
    )


def test_an_error_in_the_middle_leaves_the_earlier_files(tmp_path: Path, rng: np.random.Generator) -> None:
    class Broken:
        shape = (2, 7, 5, 4)

        def __getitem__(self, key: tuple) -> np.ndarray:
            if key[0] == 1:
                raise InputError("no more")
            return np.ones(self.shape[1:], np.float32)[key[1:]]

    geometry = geometry_of([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    with pytest.raises(InputError, match="no more"):
        write_probabilities(tmp_path / "new.nii.gz", Broken(), geometry)
    assert not list(tmp_path.iterdir())
    write_probabilities(tmp_path / "a.nii.gz", rng.random((2, 7, 5, 4)).astype(np.float32), geometry)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match="no more"):
        write_probabilities(tmp_path / "a.nii.gz", Broken(), geometry)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_kept_probabilities_are_those_of_all_at_once(
    tmp_path: Path, labels: Labels, axis: int, rng: np.random.Generator
) -> None:
    """As they were when all of them were in memory: computed plane by plane in float32, then rounded to float16."""
    shape, box = (labels.num_outputs, 6, 7, 8), ((1, 7), (2, 9), (0, 8))
    scores = torch.from_numpy(rng.normal(scale=4, size=shape).astype(np.float32))
    planes = scores.movedim(axis + 1, 0)
    probabilities = torch.stack([plane.sigmoid() if labels.has_regions else plane.softmax(0) for plane in planes])
    whole = np.zeros((labels.num_outputs, 9, 10, 8), np.float32)
    whole[0] = not labels.has_regions
    whole[:, 1:7, 2:9] = probabilities.movedim(0, axis + 1).numpy()
    grid = Grid(
        canonical_shape=(9, 10, 8),
        canonical_spacing_mm=(1.0, 1.0, 1.0),
        bounding_box=box,
        spacing_mm=(1.0, 1.0, 1.0),
        shape=(6, 7, 8),
    )
    slabs = [Slab(axis, 0, planes[:4]), Slab(axis, 4, planes[4:])]
    with probability_map_writer(tmp_path / "a.b2nd") as kept, passing_map_writer(tmp_path) as passing:
        indices = export_slabs(slabs, grid, labels, [kept, passing])
        np.testing.assert_array_equal(passing.array[...], whole)
    np.testing.assert_array_equal(open_probability_map(tmp_path / "a.b2nd")[...], whole.astype(np.float16))
    np.testing.assert_array_equal(indices, labels.from_probabilities(whole))
    assert [path.name for path in tmp_path.iterdir()] == ["a.b2nd"]


def test_passing_probabilities_that_are_large_are_on_disk_until_the_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("seg25d.inference.probability_maps.IN_MEMORY_BYTES", 100)
    with passing_map_writer(tmp_path / "out") as writer:
        assert not (tmp_path / "out").exists(), "nothing is made before there is something to write"
        writer.begin((2, 3, 4, 5), 0, ((0, 3), (0, 4), (0, 5)), (0, 0))
        assert len(list((tmp_path / "out").iterdir())) == 1
    assert not list((tmp_path / "out").iterdir())


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from seg25d.inference.probability_maps import passing_map_writer, probability_map_writer
folder = Path(sys.argv[1])
with probability_map_writer(folder / "a.b2nd") as kept, passing_map_writer(folder) as passing:
    passing.in_memory_bytes = 0
    for writer in (kept, passing):
        writer.begin((2, 80, 4, 4), 0, ((0, 80), (0, 4), (0, 4)), (0, 0))
        for index in range(40):
            writer.add(index, torch.ones(2, 4, 4))
    print(len(list(folder.iterdir())), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow  # a process of its own loads torch
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_a_kill_between_slabs_leaves_nothing_that_counts(tmp_path: Path) -> None:
    (tmp_path / "a.b2nd").write_bytes(b"earlier")
    ended = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, check=False)
    assert ended.stdout == "3\n", ended.stderr
    assert (tmp_path / "a.b2nd").read_bytes() == b"earlier"
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.b2nd"]
