"""The cases that a report shows: pictures of slices, area plots, and volumes for the viewer."""

import base64
import io
import itertools
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.errors import InputError
from seg25d.core.types import FloatArray, Spacing
from seg25d.data.cases import Case
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.evaluation.area_plot import AXES, AreaCurve, Axis, area_curve, coarsest_axis
from seg25d.evaluation.pairs import Pair, read_pair
from seg25d.evaluation.pictures import COLOURS, fullest_slice
from seg25d.report.results import TrainedRun
from seg25d.selection.ranking import case_means

MOST_RUNS = 5
"""Maximum number of runs whose predictions of a case are drawn side by side."""
PICTURE_PIXELS = 300
"""Minimum length of the longer side of a picture."""
MOST_CHANNELS = 3
MARGIN_MM = 15.0
"""Margin around true and predicted foreground, in pictures and viewer."""
VIEWER_VOXELS = 1_500_000
"""Maximum size of a case in the viewer; larger ones are subsampled to keep the file small."""
CONTOUR_PIXELS = 2


class Picture(NamedTuple):
    """A slice with contours."""

    title: str
    webp: str
    """The picture in WebP format, as base64."""
    description: str
    """Alternative text for people who cannot see the picture."""


class ShownCase(NamedTuple):
    """A case on the page."""

    name: str
    why: str
    """Reason for showing the case, such as "worst"."""
    run: str
    """Name of the run that the case was chosen for."""
    dice: float
    """Dice of this run."""
    where: str
    """Description of the slice in the pictures."""
    pictures: tuple[Picture, ...]
    areas: Mapping[str, AreaCurve]
    """Area curves: the truth first, then predictions by run."""
    along: str
    """Direction and distance of the slices."""
    viewer: dict[str, Any] | None
    """Volumes for the viewer; None if the viewer does not show the case."""


class _Loaded(NamedTuple):
    """Arrays of a case around its foreground, canonical (D, H, W), labels as internal indices."""

    channels: dict[str, FloatArray]
    """The first channels, by name."""
    truth: NDArray[np.uint8]
    predictions: dict[str, NDArray[np.uint8]]
    spacing_mm: Spacing
    start: tuple[int, ...] = (0, 0, 0)
    """Start of the crop in the whole case."""

    @property
    def image(self) -> FloatArray:
        """The first channel."""
        return next(iter(self.channels.values()))


def choose_cases(run: TrainedRun) -> dict[str, str]:
    """Choose the cases to show, with reasons: the worst, the median and the best ones by mean Dice, in this order."""
    known = {case: value for case, value in case_means(run.summary).items() if value is not None}
    ordered = sorted(known, key=lambda case: (known[case], case))
    if not ordered:
        return {}
    # If there are few cases, later reasons replace earlier ones.
    words = dict(zip(ordered, ("worst", "second worst", "third worst"), strict=False))
    return words | {ordered[len(ordered) // 2]: "median"} | {ordered[-1]: "best"} | {ordered[0]: "worst"}


def class_colours(labels: Labels) -> list[tuple[str, str]]:
    """Name and colour of every class in pictures and viewer; for regions, of the value that they are painted with."""
    if labels.has_regions:
        names = dict(zip(labels.regions_class_order or (), labels.foreground, strict=True))
    else:
        names = {value: name for name, value in labels.names.items() if isinstance(value, int)}
    foreground = enumerate(labels.values[1:])
    return [(names.get(value, str(value)), COLOURS[index % len(COLOURS)]) for index, value in foreground]


def show_case(
    case: Case, why: str, runs: Sequence[TrainedRun], description: DatasetDescription, in_viewer: bool
) -> ShownCase:
    """Read and draw a case.

    Args:
        case: The case, with images and truth.
        why: Reason for showing it.
        runs: Runs that have predicted it, first the one that it was chosen for.
        description: Meaning of channels and values.
        in_viewer: Whether the viewer shows it.

    Raises:
        InputError: If the prediction of the first run is missing, or the grids of truth and predictions differ.
        ImageError: If a file cannot be read.
    """
    shown = [run for run in runs if run.prediction(case.name).exists()][:MOST_RUNS]
    if runs[0] not in shown:
        raise InputError(f"{runs[0].prediction(case.name)} is missing; run `seg25d train` with the fold again")
    whole = _load(case, shown, description)
    axis = coarsest_axis(whole.spacing_mm)
    number = AXES.index(axis)
    others = tuple(other for other in range(3) if other != number)
    counts = whole.truth != IGNORE_INDEX
    true_areas = ((whole.truth > 0) & counts).sum(axis=others)
    curves = {"truth": area_curve(true_areas)}
    curves |= {
        name: area_curve(((labelled > 0) & counts).sum(axis=others), true_areas)
        for name, labelled in whole.predictions.items()
    }
    cropped = _crop_to_foreground(whole)
    index = _choose_slice(cropped, number)
    where = f"{axis} slice {cropped.start[number] + index}"
    dice = case_means(runs[0].summary)[case.name]
    assert dice is not None, "cases without Dice are not chosen"
    return ShownCase(
        name=case.name,
        why=why,
        run=runs[0].name,
        dice=dice,
        where=where,
        pictures=_draw_pictures(cropped, axis, index, f"{where} of {case.name}"),
        areas=curves,
        along=f"{axis} slice, {whole.spacing_mm[number]:.3g} mm apart",
        viewer=_viewer_case(cropped, case.name, why, dice, runs[0].name) if in_viewer else None,
    )


def _load(case: Case, runs: Sequence[TrainedRun], description: DatasetDescription) -> _Loaded:
    from seg25d.data.image_io import read_image  # noqa: PLC0415 - loads SimpleITK

    assert case.label is not None, "validation cases have labels"
    image, geometry = read_image(case.images[:MOST_CHANNELS])
    channels = dict(zip(description.channel_names, image, strict=False))
    pairs = {run.name: Pair(case.name, case.label, run.prediction(case.name)) for run in runs}
    read = {name: read_pair(description.labels, pair) for name, pair in pairs.items()}
    predictions = {name: segmentations.prediction for name, segmentations in read.items()}
    return _Loaded(channels, next(iter(read.values())).reference, predictions, geometry.canonical_spacing_mm)


def _crop_to_foreground(case: _Loaded) -> _Loaded:
    """Crop a case to true and predicted foreground with a margin."""
    anything = (case.truth > 0) & (case.truth != IGNORE_INDEX)
    for labels in case.predictions.values():
        anything |= labels > 0
    if not anything.any():
        return case
    box = []
    for axis, spacing in enumerate(case.spacing_mm):
        found = np.flatnonzero(anything.any(axis=tuple(other for other in range(3) if other != axis)))
        margin = round(MARGIN_MM / spacing)
        box.append(slice(max(0, int(found[0]) - margin), int(found[-1]) + margin + 1))
    part = tuple(box)
    cut = {name: labels[part] for name, labels in case.predictions.items()}
    channels = {name: image[part] for name, image in case.channels.items()}
    return _Loaded(channels, case.truth[part], cut, case.spacing_mm, tuple(each.start for each in box))


def _choose_slice(case: _Loaded, axis: int) -> int:
    """Choose the slice that shows most of the truth, see `fullest_slice`."""
    truth = np.where(case.truth == IGNORE_INDEX, 0, case.truth)
    shown = truth if truth.any() else next(iter(case.predictions.values()))
    return fullest_slice(np.moveaxis(shown, axis, 0))


def _draw_pictures(case: _Loaded, axis: Axis, index: int, where: str) -> tuple[Picture, ...]:
    """Draw a slice without and with contours."""
    number = AXES.index(axis)
    truth = np.where(case.truth == IGNORE_INDEX, 0, case.truth)
    height, width = (spacing for other, spacing in enumerate(case.spacing_mm) if other != number)
    flipped = axis != "axial"
    pictures = []
    for title, labels in {**dict.fromkeys(case.channels), "truth": truth, **case.predictions}.items():
        contoured = None if labels is None else np.take(labels, index, number)
        image = case.channels[title] if labels is None else case.image
        picture = _paint(np.take(image, index, number), contoured, height / width)
        what = f"{title}, without contours" if labels is None else f"with the contours of {title}"
        pictures.append(Picture(title, _encode_webp(picture[::-1] if flipped else picture), f"{where}, {what}"))
    return tuple(pictures)


def _paint(image: FloatArray, labels: NDArray[np.uint8] | None, aspect: float) -> NDArray[np.uint8]:
    """Draw a slice in grey, enlarged to square pixels, with the contours of labels: (h, w, 3)."""
    lower, upper = np.percentile(image, (1, 99))
    grey = np.clip((image - lower) / max(upper - lower, 1e-6), 0, 1)
    factor = max(1, -(-PICTURE_PIXELS // max(round(image.shape[0] * aspect), image.shape[1])))
    rows = (np.arange(max(1, round(image.shape[0] * factor * aspect))) / (factor * aspect)).astype(int)
    columns = np.arange(image.shape[1] * factor) // factor
    rows = np.minimum(rows, image.shape[0] - 1)
    painted = np.repeat((255 * grey).astype(np.uint8)[rows][:, columns, None], 3, axis=2)
    if labels is not None:
        enlarged = labels[rows][:, columns]
        # Filled up with background, so that what reaches the border of the picture has its outline there.
        padded = np.pad(enlarged, CONTOUR_PIXELS)
        edge = np.zeros(enlarged.shape, bool)
        for down, right in itertools.product(range(2 * CONTOUR_PIXELS + 1), repeat=2):
            edge |= padded[down:, right:][: edge.shape[0], : edge.shape[1]] != enlarged
        edge &= enlarged > 0
        for value in np.unique(enlarged[edge]):
            painted[edge & (enlarged == value)] = _rgb(int(value))
    return painted


def _encode_webp(picture: NDArray[np.uint8]) -> str:
    """Encode a picture as base64 WebP, which for a slice of 512 x 512 voxels takes a fifth of PNG."""
    from matplotlib.image import imsave  # noqa: PLC0415 - slow to import

    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(picture), format="webp", pil_kwargs={"quality": 85})
    return base64.b64encode(file.getvalue()).decode()


def _viewer_case(case: _Loaded, name: str, why: str, dice: float, run: str) -> dict[str, Any]:
    """Prepare image, truth, prediction and their difference for the viewer."""
    step = 1
    while case.image[::step, ::step, ::step].size > VIEWER_VOXELS:
        step += 1
    thin = (slice(None, None, step),) * 3
    truth, prediction = case.truth[thin], case.predictions[run][thin]
    counts = truth != IGNORE_INDEX
    truth = np.where(counts, truth, 0)
    lower, upper = np.percentile(case.image, (0.5, 99.5))
    image = (255 * np.clip((case.image[thin] - lower) / max(upper - lower, 1e-6), 0, 1)).astype(np.uint8)
    difference = np.zeros(truth.shape, np.uint8)
    difference[(truth == prediction) & (truth > 0)] = 1
    difference[(truth != prediction) & (truth > 0)] = 2
    difference[(truth != prediction) & (truth == 0) & counts] = 3
    spacing_mm = tuple(step * each for each in case.spacing_mm)
    classes = max(int(truth.max()), int(prediction.max()), 1)
    colours = _colour_table([_rgb(value) for value in range(1, classes + 1)])
    right_and_wrong = _colour_table([(120, 120, 120), _rgb(1), _rgb(4)])
    subsampled = f", one of {step} voxels along each axis" if step > 1 else ""
    return {
        "name": name,
        "caption": f"{name}: {why}, Dice {dice:.3f} by {run}; the part with foreground{subsampled}",
        "volumes": {
            "image": {"nifti": _encode_nifti(image, spacing_mm), "range": [0, 255]},
            "truth": {"nifti": _encode_nifti(truth, spacing_mm), "labels": colours},
            "prediction": {"nifti": _encode_nifti(prediction, spacing_mm), "labels": colours},
            "difference": {"nifti": _encode_nifti(difference, spacing_mm), "labels": right_and_wrong},
        },
    }


def _encode_nifti(array: NDArray[np.uint8], spacing_mm: Sequence[float]) -> str:
    from seg25d.data.image_io import write_labels  # noqa: PLC0415 - loads SimpleITK

    depth, height, width = array.shape
    along_d, along_h, along_w = spacing_mm
    geometry = Geometry(
        shape=(depth, height, width),
        spacing_mm=(along_d, along_h, along_w),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_labels(path, np.ascontiguousarray(array), geometry)
        return base64.b64encode(path.read_bytes()).decode()


def _colour_table(colours: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
    """Colours of labels 1, 2, ... in the format of NiiVue; 0 is transparent."""
    flat = [0, 0, 0, 0] + [number for colour in colours for number in (*colour, 255)]
    return {"lut": flat, "min": 0, "max": len(colours), "labels": [str(value) for value in range(len(colours) + 1)]}


def _rgb(value: int) -> tuple[int, int, int]:
    text = COLOURS[(value - 1) % len(COLOURS)]
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
