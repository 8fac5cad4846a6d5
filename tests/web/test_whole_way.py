"""From a NIfTI file to a label file under node, with a network that numpy has, too: Python's way gives the same."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import torch
from numpy.typing import NDArray
from scipy import ndimage

from seg25d.core.device import Execution
from seg25d.data.description import DatasetDescription
from seg25d.data.image_io import read_geometry, read_image, read_labels, write_labels
from seg25d.data.image_nifti import read_nifti_header
from seg25d.data.labels import Labels
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.fine_predictor import FinePredictor
from seg25d.inference.postprocessing import PostProcessing, remove_components
from seg25d.inference.predictor import Predictor
from seg25d.inference.sliding_window import WindowOptions, predict_slabs
from seg25d.networks.unet import UNetSpec
from seg25d.planning.coarse_to_fine import FineConfig
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.portable.page_model import PagePostProcessing
from seg25d.preprocessing.preprocess import preprocess_image
from seg25d.representations.base import RegularSteps
from seg25d.representations.volume import Volume
from tests.web.bgzip import bgzip

LABELS = Labels(names={"background": 0, "organ": 2, "lesion": 300})
WEIGHTS = [[0.1, -0.3], [0.9, 0.2], [-0.7, 0.8]]
ORIENTATIONS = ("LPS", "RAS", "ASL", "PIR", "SRP", "IAL")


def write_random(path: Path, rng: np.random.Generator, orientation: str = "LPS", kind: str = "int16") -> None:
    """An image with a border of zeros, oblique, in a given order of its axes."""
    values = np.zeros((14, 20, 22))
    values[1:, 2:-1, 3:] = rng.normal(100, 300, (13, 17, 19))
    image = SimpleITK.GetImageFromArray(values.astype(kind))
    image.SetSpacing((0.8, 0.9, 2.1))
    image.SetOrigin((-17.25, 12.5, 100.75))
    turn = 0.2
    image.SetDirection((np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1))
    SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, orientation), str(path))


def set_header(path: Path, offset: int, kind: str, *values: float) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + np.dtype(kind).itemsize * len(values)] = np.array(values, kind).tobytes()
    path.write_bytes(bytes(content))


class StandIn(torch.nn.Module):
    """What `standIn` of web/checks/main.ts computes."""

    def __init__(self, weights: list[list[float]], axis: int | None) -> None:
        super().__init__()
        self.weights = torch.tensor(weights)
        self.axis = axis

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        if self.axis is None:
            height, width = volume.shape[3:]
            place = 1 + torch.arange(height)[:, None] / height + torch.arange(width) / width
            mixed = volume * place
        else:
            dim = 2 + self.axis
            size = volume.shape[dim]
            places = torch.arange(size)
            before = volume.index_select(dim, (places - 1).clamp_min(0))
            after = volume.index_select(dim, (places + 1).clamp_max(size - 1))
            mixed = volume + 0.5 * before - 0.25 * after
        return torch.einsum("kc,bcdhw->bkdhw", self.weights, mixed)


def page_model(channels: int, rules: dict[str, Any]) -> dict[str, Any]:
    scheme = ChannelNormalization(channel="MRI", scheme="zscore")
    return {
        "channels": [scheme.model_dump()] * channels,
        "spacing_mm": [3.0, 1.1, 1.0],
        "common_shape": None,
        "windows": rules,
        "fine": None,
        "meaning": {"values": LABELS.values, "paint": None, "score_thresholds": None},
        "postprocessing": None,
        "structures": [
            {"name": "organ", "members": [1], "index": 1, "colour": "#e6550d"},
            {"name": "lesion", "members": [2], "index": 2, "colour": "#31a354"},
        ],
        "trained_on": None,
    }


def rules(**others: Any) -> dict[str, Any]:
    return {
        "window": [4, 8, 12],
        "outputs": 3,
        "divisors": [1, 4, 4],
        "resizable_axes": [],
        "convolved_axes": [1, 2],
        "mirror_axes": [0, 2],
        "step_size": [0.5, 0.5, 0.5],
        "free_axis": None,
        "context": 0,
        "regular": None,
        "padded_with_lowest": False,
        "repeated_axis": None,
        "batch_size": 2,
        "grid": None,
    } | others


def predict(paths: list[Path], options: WindowOptions, axis: int | None, folds: int) -> NDArray[np.uint8]:
    image, geometry = read_image(paths)
    scheme = ChannelNormalization(channel="MRI", scheme="zscore")
    plan: Any = Plan(tuple([scheme] * len(paths)))
    sampled, grid = preprocess_image(image, geometry.canonical_spacing_mm, plan)
    models = [StandIn(weights_of(len(paths), fold), axis) for fold in range(folds)]
    slabs = predict_slabs(models, torch.from_numpy(sampled), 3, options)
    return labels_from_slabs(slabs, grid, LABELS)


class Plan:
    spacing_mm = (3.0, 1.1, 1.0)
    common_shape = None
    store = ""

    def __init__(self, normalization: tuple[ChannelNormalization, ...]) -> None:
        self.normalization = normalization


def weights_of(channels: int, fold: int) -> list[list[float]]:
    return [[value * (1 + fold) - 0.1 * fold for value in row[:channels]] for row in WEIGHTS]


WAYS = {
    "windows": (rules(), WindowOptions(window=(4, 8, 12), mirror_axes=(0, 2)), None),
    "slices": (
        rules(window=[2, 8, 12], free_axis=0, context=1, step_size=[0.5, 0.5, 0.5], resizable_axes=[0]),
        # Two windows of two slices become one of four: the step leaves each slice its neighbours.
        WindowOptions(window=(4, 8, 12), step_size=(0.5, 0.5, 0.5), mirror_axes=(0, 2)),
        0,
    ),
    "stacks": (
        rules(regular={"axis": 0, "step": 3, "flush": False}, padded_with_lowest=True),
        WindowOptions(window=(4, 8, 12), mirror_axes=(0, 2), regular=RegularSteps(0, 3, 3), padded_with_lowest=True),
        None,
    ),
    "stacks that end with the volume": (
        rules(regular={"axis": 1, "step": 8, "flush": True}),
        WindowOptions(window=(4, 8, 12), mirror_axes=(0, 2), regular=RegularSteps(1, 8, 8, flush=True)),
        None,
    ),
    **{
        f"mixed slices of a volume that is too short along {axis}": (
            rules(window=window, mirror_axes=[], repeated_axis=axis),
            WindowOptions(window=window, repeated_axis=axis),
            axis,
        )
        for axis, window in enumerate([(16, 24, 12), (4, 24, 32), (16, 8, 32)])
    },
    "a window larger than the volume": (
        rules(window=[16, 24, 32], mirror_axes=[]),
        WindowOptions(window=(16, 24, 32)),
        None,
    ),
}


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("way", WAYS)
def test_the_page_segments_as_python_does(way, channels, checks, rng, tmp_path):
    window_rules, options, axis = WAYS[way]
    paths = [tmp_path / f"case_{channel:04d}.nii.gz" for channel in range(channels)]
    for path in paths:
        write_random(path, rng, "PIR")
    weights = [weights_of(channels, fold) for fold in range(2)]
    checks.add(
        "segment",
        files=[path.name for path in paths],
        model=page_model(channels, window_rules),
        weights=weights,
        axis=axis,
        out="found.nii",
    )
    answer = checks.run()[0]
    wanted = predict(paths, options, axis, folds=2)
    values, geometry = read_labels(tmp_path / "found.nii")
    indices = LABELS.encode(values, "found")
    assert (indices == wanted).mean() > 0.9995
    assert geometry == read_geometry(paths[0])
    voxel_ml = 0.8 * 0.9 * 2.1 / 1000
    for structure, index in zip(answer["structures"], (1, 2), strict=True):
        assert structure["voxels"] == (indices == index).sum()
        assert structure["millilitres"] == pytest.approx(structure["voxels"] * voxel_ml, rel=1e-6)


def test_components_are_removed_from_the_whole_image(checks, rng, tmp_path):
    write_random(tmp_path / "a.nii.gz", rng, "PIR")
    steps = PostProcessing(largest=("2",), smallest_mm3={"300": 12.0})
    model = page_model(1, rules()) | {"postprocessing": PagePostProcessing.of(steps, LABELS).model_dump()}
    checks.add("segment", files=["a.nii.gz"], model=model, weights=[weights_of(1, 0)], axis=None, out="found.nii")
    checks.run()
    options = WindowOptions(window=(4, 8, 12), mirror_axes=(0, 2))
    all_components = predict([tmp_path / "a.nii.gz"], options, None, folds=1)
    values, geometry = read_labels(tmp_path / "found.nii")
    wanted = remove_components(all_components, LABELS, geometry.canonical_spacing_mm, steps)
    assert (wanted != all_components).any()
    assert (LABELS.encode(values, "found") == wanted).mean() > 0.999


def write_blob(path: Path, rng: np.random.Generator, *, specked: bool = False) -> None:
    """A bright ball in noise, away from the middle, perhaps with a speck beside it."""
    places = np.indices((16, 40, 44)) - np.array([6, 14, 28])[:, None, None, None]
    values = rng.normal(100, 5, places.shape[1:]) + 400 * (np.square(places).sum(0) < 40)
    if specked:
        values[6:8, 22:24, 27:30] = 500
    image = SimpleITK.GetImageFromArray(values.astype(np.float32))
    image.SetSpacing((1.0, 1.1, 3.0))
    SimpleITK.WriteImage(image, str(path))


FINE_WEIGHTS = [[0.0], [0.9], [0.5]]


def fine_rules(windows: dict[str, Any], **others: Any) -> dict[str, Any]:
    settings = {"margin": [1, 3, 3], "max_rounds": 2, "stop_dice": 1.0, "large_components": False}
    return {"graphs": [], "windows": windows, "score_thresholds": None} | settings | others


def fine_predictor(settings: FineConfig) -> FinePredictor:
    """Coarse and fine models that take for the organ what is brighter than the mean of their image."""
    network = UNetSpec(widths=(4, 6), strides=((1, 1, 1), (1, 2, 2)), kernels=((3, 3, 3), (3, 3, 3)))
    plan = ConfigurationPlan(
        spacing_mm=(3.0, 1.1, 1.0),
        normalization=(ChannelNormalization(channel="MRI", scheme="zscore"),),
        store="store",
        window=(4, 8, 12),
        batch_size=1,
        representation=Volume(),
        network=network,
        mirror_axes=(1,),
        estimated_memory_gb=0.1,
        num_parameters=1,
        reasons={},
    )
    description = DatasetDescription(channel_names=("MRI",), labels=LABELS, file_ending=".nii.gz", num_training=1)
    header = ModelHeader(
        dataset_name="Dataset007_Tiny", configuration="3d", fold=0, plan=plan, description=description, fine=settings
    )
    execution, models = Execution(torch.device("cpu"), torch.float32), [StandIn(FINE_WEIGHTS, None)]
    coarse = Predictor(models, header.model_copy(update={"fine": None}), execution)
    return FinePredictor(models, header, execution, coarse=coarse)


@pytest.mark.parametrize("large_components", [False, True])
@pytest.mark.parametrize("stop_dice", [0.5, 1.0])
def test_coarse_to_fine(stop_dice, large_components, checks, rng, tmp_path):
    write_blob(tmp_path / "a.nii", rng, specked=True)
    settings = FineConfig(margin=3, max_rounds=3, stop_dice=stop_dice, large_components=large_components)
    windows = rules(divisors=[1, 2, 2], resizable_axes=[0, 1, 2], mirror_axes=[1])
    model = page_model(1, windows)
    model["fine"] = fine_rules(windows, max_rounds=3, stop_dice=stop_dice, large_components=large_components)
    weights = {"weights": [FINE_WEIGHTS], "coarse_weights": [FINE_WEIGHTS], "axis": None}
    checks.add("segment", files=["a.nii"], model=model, out="found.nii", **weights)
    checks.run()
    image, geometry = read_image([tmp_path / "a.nii"])
    wanted = fine_predictor(settings).predict_array(image, geometry.canonical_spacing_mm)
    assert 0 < (wanted == 1).sum() < wanted.size / 2
    assert (ndimage.label(wanted == 1)[1] == 1) == large_components
    found = LABELS.encode(read_labels(tmp_path / "found.nii")[0], "found")
    assert (found == wanted).mean() > 0.9995


MACHINES = {
    "desktop": ({"userAgent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/140", "deviceMemory": 4}, 2.4),
    "unknown": ({"userAgent": "Mozilla/5.0 (X11; Linux x86_64) Gecko Firefox/140"}, 4.8),
    "Macintosh": ({"userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari", "maxTouchPoints": 0}, 4.8),
    "iPad": ({"userAgent": "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Safari", "maxTouchPoints": 5}, 1.8),
    "iPhone": ({"userAgent": "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0) Mobile Safari", "maxTouchPoints": 5}, 1.8),
    "Android of 8 GB": ({"userAgent": "Mozilla/5.0 (Linux; Android 16) Chrome/140 Mobile", "deviceMemory": 8}, 1.8),
    "Android of 2 GB": ({"userAgent": "Mozilla/5.0 (Linux; Android 16) Chrome/140 Mobile", "deviceMemory": 2}, 1.2),
    "Windows with touch": ({"userAgent": "Mozilla/5.0 (Windows NT 10.0) Firefox/140", "maxTouchPoints": 10}, 4.8),
}


@pytest.mark.parametrize("machine", MACHINES)
def test_what_a_page_may_take(machine, checks):
    said, gib = MACHINES[machine]
    checks.add("budget", machine=said)
    assert checks.run()[0] / 2**30 == pytest.approx(gib)


THROWN = {
    6789320: True,
    "std::bad_alloc": True,
    "Array buffer allocation failed": True,
    "no available backend found": False,
}
"""What onnxruntime-web and browsers throw: numbers are addresses of exceptions."""


def test_what_is_thrown_where_memory_is_short(checks):
    checks.add("lacks_memory", thrown=list(THROWN))
    assert checks.run()[0] == list(THROWN.values())


@pytest.mark.parametrize("channels", [1, 2])
def test_each_axis_of_resampling_is_told(channels, checks, rng, tmp_path):
    paths = [tmp_path / f"case_{channel:04d}.nii.gz" for channel in range(channels)]
    for path in paths:
        write_random(path, rng)
    model = page_model(channels, rules())
    names = [path.name for path in paths]
    checks.add("segment", files=names, model=model, weights=[weights_of(channels, 0)], axis=None, out="found.nii")
    shares = [share for phase, share in checks.run()[0]["shares"] if phase == "preparing"]
    steps = np.arange(1, 3 * channels + 1) / (3 * channels)
    np.testing.assert_allclose(sorted(set(np.round(shares, 6))), [0, *steps], atol=1e-6)
    assert shares == sorted(shares)


def test_less_memory_first_costs_the_picture_and_then_the_result(checks, rng, tmp_path):
    write_blob(tmp_path / "a.nii", rng)
    model = page_model(1, rules(divisors=[1, 2, 2]))
    for budget in range(300_000, 1_400_000, 20_000):
        checks.add(
            "segment", files=["a.nii"], model=model, weights=[WEIGHTS], axis=None, out="found.nii", budget=budget
        )
    found = [what_became(answer) for answer in checks.run()]
    assert [kind for kind, _ in itertools.groupby(found)] == ["no volume", "no picture", "all"]


def test_a_crop_for_which_there_is_no_room_is_refused(checks, rng, tmp_path):
    write_blob(tmp_path / "a.nii", rng)
    windows = rules(divisors=[1, 2, 2])
    model = page_model(1, windows)
    model["fine"] = fine_rules(windows)
    weights = {"weights": [FINE_WEIGHTS], "coarse_weights": [FINE_WEIGHTS], "axis": None}
    for budget in (500_000, 900_000, 4_000_000):
        checks.add("segment", files=["a.nii"], model=model, out="found.nii", budget=budget, **weights)
    assert [what_became(answer) for answer in checks.run()] == ["no volume", "no crop", "all"]


def what_became(answer: dict[str, Any]) -> str:
    if "error" in answer:
        assert "too large for this machine" in answer["error"]
        return "no crop" if "the fine model is to look at a crop of" in answer["error"] else "no volume"
    return "all" if answer["isShown"] else "no picture"


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_voxels_and_their_order(kind, checks, rng, tmp_path):
    for orientation in ORIENTATIONS:
        write_random(tmp_path / f"{orientation}.nii.gz", rng, orientation, kind)
        checks.add("voxels", file=f"{orientation}.nii.gz")
    for orientation, found in zip(ORIENTATIONS, checks.run(), strict=True):
        image, _ = read_image([tmp_path / f"{orientation}.nii.gz"])
        np.testing.assert_array_equal(found.reshape(image.shape[1:]), image[0], err_msg=orientation)


def test_files_of_bgzip(checks, rng, tmp_path):
    path = tmp_path / "image.nii"
    write_random(path, rng)
    whole = bgzip(path.read_bytes())
    (tmp_path / "whole.nii.gz").write_bytes(whole)
    (tmp_path / "cut.nii.gz").write_bytes(whole[:2000])
    (tmp_path / "damaged.nii.gz").write_bytes(whole[:2000] + bytes(1) + whole[2001:])
    for name in ("whole", "cut", "damaged"):
        checks.add("voxels", file=f"{name}.nii.gz")
    found, cut, damaged = checks.run()
    image, _ = read_image([tmp_path / "whole.nii.gz"])
    np.testing.assert_array_equal(found, image.ravel())
    assert "damaged or cut off" in cut["error"]
    assert "damaged or cut off" in damaged["error"]


def test_slope_and_intercept(checks, rng, tmp_path):
    path = tmp_path / "scaled.nii"
    write_random(path, rng)
    set_header(path, 112, "<f4", 0.37, -1024.5)
    checks.add("voxels", file=path.name)
    image, _ = read_image([path])
    np.testing.assert_allclose(checks.run()[0], image.ravel(), rtol=1e-6)


HEADERS = {
    "as written": (),
    "no sform": ((254, "<i2", 0),),
    "no qform": ((252, "<i2", 0),),
    "neither": ((252, "<i2", 0), (254, "<i2", 0)),
    "aligned sform": ((254, "<i2", 2),),
    "another sform of the scanner": ((254, "<i2", 1), (280, "<f4", 0, -0.9, 0, 5, 0.8, 0, 0, 6, 0, 0, 2.1, 7)),
    "another sform, aligned": ((254, "<i2", 2), (280, "<f4", 0, -0.9, 0, 5, 0.8, 0, 0, 6, 0, 0, 2.1, 7)),
    "micrometres": ((123, "<u1", 3), (76, "<f4", 1, 800, 900, 2100)),
    "turned round": ((76, "<f4", -1),),
    "sform alone, flipped": ((252, "<i2", 0), (280, "<f4", 0.8, 0, 0, 1, 0, -0.9, 0, 2, 0, 0, -2.1, 3)),
}


@pytest.mark.parametrize("change", HEADERS)
def test_grids_of_headers(change, checks, rng, tmp_path):
    for orientation in ORIENTATIONS:
        path = tmp_path / f"{orientation}.nii"
        write_random(path, rng, orientation)
        for offset, kind, *values in HEADERS[change]:
            set_header(path, offset, kind, *values)
        checks.add("header", file=path.name)
    for orientation, found in zip(ORIENTATIONS, checks.run(), strict=True):
        geometry = read_geometry(tmp_path / f"{orientation}.nii")
        assert tuple(found["orientation"]["shape"]) == geometry.canonical_shape, orientation
        assert found["orientation"]["spacing"] == pytest.approx(geometry.canonical_spacing_mm, rel=1e-6)
        assert np.ravel(found["direction"]) == pytest.approx(geometry.direction, abs=1e-5), orientation
        assert found["origin"] == pytest.approx(geometry.origin_mm, rel=1e-5, abs=1e-4), orientation


def test_label_files_have_the_geometry_of_their_image(checks, rng, tmp_path):
    path = tmp_path / "image.nii.gz"
    write_random(path, rng, "SRP", "float32")
    geometry = read_geometry(path)
    indices = rng.integers(0, 3, geometry.canonical_shape).astype(np.uint8)
    for number, values in enumerate(([0, 1, 2], [0, 2, 300], [0, 5, 70_000])):
        checks.add("write", [indices], file=path.name, values=values, out=f"{number}.nii")
    checks.run()
    for number, values in enumerate(([0, 1, 2], [0, 2, 300], [0, 5, 70_000])):
        found, its = read_labels(tmp_path / f"{number}.nii")
        np.testing.assert_array_equal(found, np.array(values)[indices])
        assert its == geometry
        assert found.dtype == [np.uint8, np.uint16, np.int32][number]
    write_labels(tmp_path / "python.nii", indices, geometry)
    ours, pythons = (read_nifti_header(tmp_path / name) for name in ("0.nii", "python.nii"))
    assert ours is not None
    assert pythons is not None
    assert ours.geometry() == pythons.geometry()


def test_big_endian_files(checks, rng, tmp_path):
    write_random(tmp_path / "little.nii", rng)
    content = (tmp_path / "little.nii").read_bytes()
    header = read_nifti_header(tmp_path / "little.nii")
    assert header is not None
    fields = [(0, "i"), (40, "8h"), (68, "4h"), (76, "8f"), (108, "3f"), (252, "2h"), (256, "18f")]
    swapped = bytearray(content)
    for offset, fmt in fields:
        count, kind = int(fmt[:-1] or 1), {"i": "i4", "h": "i2", "f": "f4"}[fmt[-1]]
        size = count * np.dtype(kind).itemsize
        field = np.frombuffer(content[offset : offset + size], "<" + kind)
        swapped[offset : offset + size] = field.byteswap().tobytes()
    swapped[352:] = np.frombuffer(content[352:], "<i2").byteswap().tobytes()
    (tmp_path / "big.nii").write_bytes(bytes(swapped))
    for name in ("little.nii", "big.nii"):
        checks.add("voxels", file=name)
        checks.add("header", file=name)
    voxels, grid, big_voxels, big_grid = checks.run()
    np.testing.assert_array_equal(big_voxels, voxels)
    assert big_grid == grid


def spoil(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "no image":
        path.write_bytes(b"something else " * 50)
    elif kind == "flipped bytes":
        path.write_bytes(content[:2000] + bytes(255 - byte for byte in content[2000:2100]) + content[2100:])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("empty", "the file is empty"),
        ("cut off", "damaged or cut off"),
        ("no image", "is not a NIfTI image"),
        ("flipped bytes", "damaged or cut off"),
    ],
)
def test_damaged_files_are_told(kind, message, checks, rng, tmp_path):
    write_random(tmp_path / "image.nii.gz", rng)
    spoil(tmp_path / "image.nii.gz", kind)
    checks.add("voxels", file="image.nii.gz")
    error = checks.run()[0]["error"]
    assert error.startswith("image.nii.gz: ")
    assert message in error


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (((40, "<i2", 2),), "the file is 2D, expected is a 3D volume"),
        (((40, "<i2", 4, 22, 20, 14, 3),), "the file is 4D (22 x 20 x 14 x 3), expected is 3D"),
        (((42, "<i2", 0),), "its size is 0 x 20 x 14"),
        (((70, "<i2", 128),), "several numbers per voxel"),
        (((70, "<i2", 32),), "complex numbers"),
        (((70, "<i2", 1),), "is not known"),
        (((80, "<f4", 0.0),), "the spacing is 0 x"),
        (((108, "<f4", 7.0),), "begin at byte 7"),
        (((344, "S4", b"ni1"),), "pair .hdr and .img"),
        (((0, "<i4", 540),), "NIfTI-2, expected is NIfTI-1. Convert it, for instance in Python: image = nibabel.load"),
        (((42, "<i2", 30),), "truncated"),
        (((254, "<i2", 1), (252, "<i2", 0), (280, "<f4", *[0] * 12)), "spans no volume"),
    ],
)
def test_headers_that_cannot_be_used_are_told(changes, message, checks, rng, tmp_path):
    write_random(tmp_path / "image.nii", rng)
    for offset, kind, *values in changes:
        set_header(tmp_path / "image.nii", offset, kind, *values)
    checks.add("voxels", file="image.nii")
    assert message in checks.run()[0]["error"]


def test_voxels_that_are_no_numbers_are_told(checks, rng, tmp_path):
    write_random(tmp_path / "image.nii", rng, kind="float32")
    set_header(tmp_path / "image.nii", 352, "<f4", np.nan, np.inf)
    checks.add("voxels", file="image.nii")
    assert "2 voxels are no numbers" in checks.run()[0]["error"]


def test_channels_of_other_grids_and_too_few_files_are_told(checks, rng, tmp_path):
    write_random(tmp_path / "a.nii.gz", rng)
    write_random(tmp_path / "b.nii.gz", rng, "RAS")
    common = {"model": page_model(2, rules()), "weights": [WEIGHTS], "axis": None, "out": "x.nii"}
    checks.add("segment", files=["a.nii.gz", "b.nii.gz"], **common)
    checks.add("segment", files=["a.nii.gz"], **common)
    other, few = checks.run()
    assert "b.nii.gz: its grid differs from that of a.nii.gz" in other["error"]
    assert "The model takes 2 file(s), one per channel (MRI, MRI); got 1" in few["error"]


@pytest.mark.parametrize(
    ("window", "message"), [([4, 8, 12], "passes of windows"), ([400, 800, 1200], "too large for this machine")]
)
def test_a_spacing_that_makes_a_volume_too_large_is_told(window, message, checks, rng, tmp_path):
    write_random(tmp_path / "a.nii", rng)
    set_header(tmp_path / "a.nii", 80, "<f4", 800.0, 900.0, 2100.0)
    set_header(tmp_path / "a.nii", 254, "<i2", 0)
    model = page_model(1, rules(window=window))
    checks.add("segment", files=["a.nii"], model=model, weights=[WEIGHTS], axis=None, out="x.nii")
    error = checks.run()[0]["error"]
    assert message in error
    assert "spacing" in error


def test_channels_are_clipped_to_windows_of_dicom_headers_and_their_lack_is_told(checks, rng, tmp_path):
    write_random(tmp_path / "a.nii", rng)
    window = ChannelNormalization(channel="ct_window:dicom", scheme="ct_window_dicom", lower=-1350, upper=150)
    planned, of_header = page_model(1, rules()), page_model(1, rules())
    planned["channels"] = [window.model_dump()]
    of_header["channels"] = [window.model_copy(update={"lower": -20.0, "upper": 300.5}).model_dump()]
    common: dict[str, Any] = {"files": ["a.nii"], "weights": [WEIGHTS], "axis": None, "is_dicom": True}
    checks.add("segment", model=planned, out="read.nii", window=[-20, 300.5], **common)
    checks.add("segment", model=planned, out="lacking.nii", window=None, **common)
    checks.add("segment", model=of_header, out="wanted.nii", **common | {"is_dicom": False})
    read, lacking, nifti = checks.run()
    assert "The headers of the DICOM files have no window for ct_window:dicom" in lacking["doubts"][-1]
    assert "-1350 .. 150" in lacking["doubts"][-1]
    assert read["doubts"] == nifti["doubts"] == lacking["doubts"][:-1]
    files = [(tmp_path / name).read_bytes() for name in ("read.nii", "wanted.nii", "lacking.nii")]
    assert files[0] == files[1] != files[2]


def test_images_unlike_those_of_training_are_doubted(checks, rng, tmp_path):
    write_random(tmp_path / "a.nii", rng)
    ranges = {"extent_mm": [[100, 120], [20, 25], [10, 30]], "spacing_mm": [[2, 3], [0.9, 1], [0.1, 0.2]]}
    model = page_model(1, rules()) | {"trained_on": {"cases": 3, **ranges}}
    model["channels"] = [ChannelNormalization(channel="CT", scheme="ct_window", lower=5000, upper=9000).model_dump()]
    checks.add("segment", files=["a.nii"], model=model, weights=[WEIGHTS], axis=None, out="x.nii")
    doubts = checks.run()[0]["doubts"]
    assert len(doubts) == 3
    assert "long from head to foot; the training cases were 100 mm to 120 mm" in doubts[0]
    assert "Its voxels are 0.8 mm from right to left" in doubts[1]
    assert "Are they Hounsfield units?" in doubts[2]
