"""Segmentations of Slicer: layers become one label map where that has one meaning, and are named as such where not."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.errors import ImageError
from seg25d.data.image_io import read_geometry, read_image, read_labels

SHAPE = (3, 4, 5)


def write(path: Path, layers: list[np.ndarray], notes: list[str]) -> None:
    """A file as Slicer writes it; layers (z, y, x)."""
    size, none, listed = (f"{len(layers)} ", "none ", "list ") if len(layers) > 1 else ("", "", "")
    lines = [
        "NRRD0004", "type: unsigned char", f"dimension: {4 if listed else 3}", "space: left-posterior-superior",
        f"sizes: {size}5 4 3", f"space directions: {none}(1,0,0) (0,1,0) (0,0,1)",
        f"kinds: {listed}domain domain domain", "encoding: gzip", "space origin: (0,0,0)", *notes, "", "",
    ]  # fmt: skip
    data = np.stack(layers, -1).astype(np.uint8).tobytes()
    path.write_bytes("\n".join(lines).encode() + gzip.compress(data))


def notes(*segments: tuple[str, int, int]) -> list[str]:
    return [
        line
        for index, (name, layer, value) in enumerate(segments)
        for line in (
            f"Segment{index}_ID:=Segment_{index}",
            f"Segment{index}_LabelValue:={value}",
            f"Segment{index}_Layer:={layer}",
            f"Segment{index}_Name:={name}",
        )
    ]


def layers(first: int, second: int) -> list[np.ndarray]:
    both = np.zeros((2, *SHAPE), np.uint8)
    both[0, 0, :2, 1], both[1, 2, 1:, 2] = first, second
    return list(both)


def test_layers_with_values_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    write(path, layers(1, 2), notes(("x", 0, 1), ("y", 1, 2)))
    values, geometry = read_labels(path)
    assert np.array_equal(values, layers(1, 2)[0] + layers(1, 2)[1])
    assert geometry.shape == SHAPE == read_geometry(path).shape


def test_two_segments_in_one_layer(tmp_path: Path) -> None:
    both = layers(1, 2)
    both[0][1, 0, 0] = 3
    write(tmp_path / "a.nrrd", both, notes(("x", 0, 1), ("y", 1, 2), ("z", 0, 3)))
    assert np.array_equal(read_labels(tmp_path / "a.nrrd")[0], both[0] + both[1])


@pytest.mark.parametrize("legacy", [False, True])
def test_segments_that_share_a_value_get_that_of_their_name(legacy: bool, tmp_path: Path) -> None:
    found = ["Segment0_Name:=Liver", "Segment1_Name:=tumour"] if legacy else notes(("Liver", 0, 1), ("tumour", 1, 1))
    write(tmp_path / "a.nrrd", layers(1, 1), found)
    names: dict[str, int | tuple[int, ...]] = {"background": 0, "tumour": 1, "liver": 2, "both": (1, 2)}
    assert np.array_equal(read_labels(tmp_path / "a.nrrd", names)[0], sum(layers(2, 1)))
    with pytest.raises(ImageError, match="segmentation of Slicer in which Liver, tumour have the same value in diff"):
        read_labels(tmp_path / "a.nrrd")


def test_few_of_many_segments_are_named(tmp_path: Path) -> None:
    found = notes(*((f"s{number}", 0, 1) for number in range(200)))
    write(tmp_path / "a.nrrd", layers(1, 1), found)
    with pytest.raises(ImageError, match="in which s0, s1, s2, s3, s4 and 195 more have the same value"):
        read_labels(tmp_path / "a.nrrd")


def test_what_has_no_meaning_is_refused(tmp_path: Path) -> None:
    overlap = layers(1, 2)
    overlap[1][0, 0, 1] = 2
    write(tmp_path / "overlap.nrrd", overlap, notes(("x", 0, 1), ("y", 1, 2)))
    write(tmp_path / "unnamed.nrrd", layers(1, 2), notes(("x", 0, 1)))
    write(tmp_path / "missing.nrrd", layers(1, 2), notes(("x", 0, 1), ("y", 2, 2)))
    for name, message in (
        ("overlap", "the segments x and y of Slicer overlap in 1 voxels; a voxel can have one label only: in Slicer"),
        ("unnamed", "3 voxels of its layers belong to no segment"),
        ("missing", "segment y is in layer 2, but there are 2 layers"),
    ):
        with pytest.raises(ImageError, match=message):
            read_labels(tmp_path / f"{name}.nrrd")


@pytest.mark.parametrize("one_layer", [False, True])
def test_names_that_contradict_the_values_are_refused(one_layer: bool, tmp_path: Path) -> None:
    both = [sum(layers(1, 2))] if one_layer else layers(1, 2)
    found = notes(("Liver", 0, 1), ("tumour", 0 if one_layer else 1, 2), ("gone", 0, 3))
    path = tmp_path / "a.nrrd"
    write(path, both, found)
    agreeing: list[dict[str, int | tuple[int, ...]]] = [
        {"background": 0, "liver": 1, "tumour": 2, "gone": 4},  # no voxel is `gone`
        {"background": 0, "liver": (1, 2), "tumour": 2},
        {"background": 0, "x": 1, "y": 2},
        {},
    ]
    for names in agreeing:
        assert np.array_equal(read_labels(path, names)[0], sum(layers(1, 2)))
    with pytest.raises(ImageError, match=r"its header says that Liver is 1, but in dataset\.json Liver is 2; rename"):
        read_labels(path, {"background": 0, "liver": 2, "tumour": 1})
    with pytest.raises(ImageError, match=r"its header says that tumour is 2, but in dataset\.json tumour is 1 or 3"):
        read_labels(path, {"background": 0, "liver": 1, "tumour": (1, 3)})


def test_layers_are_no_image(tmp_path: Path) -> None:
    write(tmp_path / "a.nrrd", layers(1, 2), notes(("x", 0, 1), ("y", 1, 2)))
    with pytest.raises(ImageError, match="is a segmentation of Slicer with 2 layers, expected is an image"):
        read_image([tmp_path / "a.nrrd"])
    write(tmp_path / "vectors.nrrd", layers(1, 2), [])
    with pytest.raises(ImageError, match="2 numbers per voxel"):
        read_labels(tmp_path / "vectors.nrrd")
