"""What the page of a browser knows about its model, from the records beside the graphs.

The page knows no representations: windows, normalisation and labels are said in numbers.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field

from seg25d.core.grids import even_margin
from seg25d.core.limits import CommonShape
from seg25d.core.records import Record, read_record
from seg25d.core.types import Shape, Spacing
from seg25d.core.versions import library_versions
from seg25d.data.labels import Labels, logit
from seg25d.evaluation.pictures import COLOURS
from seg25d.inference.postprocessing import PostProcessing, threshold_values, value_beneath
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.portable_model import Grid, PortableModel, Regular, read_portable
from seg25d.sharing.content import read_best

MODEL = "model"
"""Folder beside the page with what an archive has."""
COARSE = "/coarse.onnx"
"""How names of coarse models end."""
Range = tuple[float, float]


class PageGraph(Record):
    """A graph of a fold."""

    file: str
    """Its name, seen from the page."""
    bytes: int
    integrity: str
    """`sha256-` and the digest in base64, which browsers check (W3C, Subresource Integrity)."""

    @property
    def address(self) -> str:
        """The address that the page loads it from, which changes with its content."""
        return f"{self.file}?{quote(self.integrity, safe='')}"


class PageWindows(Record):
    """What the sliding window of the page needs to know; the words are those of `PortableModel`."""

    window: tuple[int, int, int]
    outputs: int
    divisors: tuple[int, int, int]
    resizable_axes: tuple[int, ...]
    """`Graph.free_axes`: axes along which windows may have other sizes than planned."""
    convolved_axes: tuple[int, ...]
    """Axes along which the network convolves, so that windows may have any size."""
    mirror_axes: tuple[int, ...]
    step_size: tuple[float, float, float]
    free_axis: int | None
    context: int
    regular: Regular | None
    padded_with_lowest: bool
    repeated_axis: int | None
    batch_size: int
    grid: Grid | None
    """The second input of super images."""


class PageMeaning(Record):
    """Meaning of scores, see `Labels`."""

    values: tuple[int, ...]
    """Value of label files for each internal index."""
    paint: tuple[int, ...] | None
    """The internal index that each region is painted with, in the order of the scores; None: classes."""
    score_thresholds: tuple[float, ...] | None
    """Lowest scores of each region, or of the only class; None: above 0 for regions, the largest for classes."""


class PageStructure(Record):
    """A class or region that the page measures and shows."""

    name: str
    members: tuple[int, ...]
    """Internal indices that belong to it."""
    index: int
    """The one that it is painted with."""
    colour: str
    """As in the report, #rrggbb."""


class PageFine(Record):
    """The coarse models of a fine model, and how the two work together."""

    graphs: tuple[PageGraph, ...]
    """One per fold."""
    windows: PageWindows
    margin: Shape
    """Voxels around the object along (D, H, W)."""
    max_rounds: int
    stop_dice: float
    large_components: bool
    """Whether after each round small components become background, see `small_components`."""
    score_thresholds: tuple[float, ...] | None
    """Of both models, as in `PageMeaning`: those of post-processing are for the result alone."""


class PageComponents(Record):
    """What becomes of the components of a class or region, see `remove_components`."""

    members: tuple[int, ...]
    """Internal indices that belong to it."""
    beneath: int
    """The index that removed voxels get."""
    largest: bool
    """Whether only the largest component is kept."""
    smallest_mm3: float
    """Minimum volume of components."""


class PagePostProcessing(Record):
    """Steps after thresholds, see `PostProcessing`."""

    largest_foreground: bool
    components: tuple[PageComponents, ...]
    """In the order in which they are looked at."""
    steps: tuple[str, ...]
    """All that is done, thresholds too, in words."""

    @classmethod
    def of(cls, postprocessing: PostProcessing, labels: Labels) -> "PagePostProcessing":
        """The steps of a model with these labels."""
        largest, smallest = postprocessing.largest, postprocessing.smallest_mm3
        components = tuple(
            PageComponents(
                members=members,
                beneath=value_beneath(labels, name),
                largest=name in largest,
                smallest_mm3=smallest.get(name, 0.0),
            )
            for name, members in labels.foreground.items()
            if name in largest or name in smallest
        )
        return cls(
            largest_foreground=postprocessing.largest_foreground,
            components=components,
            steps=tuple(postprocessing.describe(labels)),
        )


class TrainedOn(Record):
    """Smallest and largest values of the training cases, along (D, H, W), by which the page doubts an image."""

    cases: int
    extent_mm: tuple[Range, Range, Range]
    spacing_mm: tuple[Range, Range, Range]

    @classmethod
    def of(cls, fingerprint: Fingerprint) -> "TrainedOn":
        """The ranges of a data set."""
        spacings = [case.spacing_mm for case in fingerprint.cases]
        extents = [
            tuple(size * step for size, step in zip(case.shape, case.spacing_mm, strict=True))
            for case in fingerprint.cases
        ]
        return cls(cases=fingerprint.num_cases, extent_mm=_ranges(extents), spacing_mm=_ranges(spacings))


class PageModel(Record):
    """What the page knows about its model."""

    schema_version: Literal[1] = 1
    dataset_name: str
    configuration: str
    folds: tuple[str, ...]
    channels: tuple[ChannelNormalization, ...]
    """Normalisation of each channel, in their order."""
    spacing_mm: Spacing
    common_shape: CommonShape | None
    graphs: tuple[PageGraph, ...]
    """One per fold; their scores are averaged."""
    input: str
    output: str
    windows: PageWindows
    fine: PageFine | None
    """The coarse models, where the graphs are fine models."""
    meaning: PageMeaning
    postprocessing: PagePostProcessing | None
    """That of `best.json`; None: there is none, or the models were named one by one."""
    structures: tuple[PageStructure, ...]
    trained_on: TrainedOn | None
    """None where the run has no fingerprint."""
    licence: str | None
    versions: dict[str, str] = Field(default_factory=library_versions)


def page_model(folder: Path, names: Sequence[str], licence: str | None) -> PageModel:
    """What the page has to know about graphs.

    Args:
        folder: With the graphs, the records beside them, the fingerprint of their run and perhaps `best.json`, as in an
            archive.
        names: Of the graphs: one per fold of a run, and of fine models one coarse one more.
        licence: Of the models.

    Raises:
        ModelError: If a record is missing or damaged.
    """
    finals = [name for name in names if not name.endswith(COARSE)]
    first = read_portable(folder / finals[0])
    fingerprint = folder / names[0].split("/", maxsplit=1)[0] / "fingerprint.json"
    header, labels = first.header, first.header.description.labels
    best = read_best(folder)
    postprocessing = PostProcessing() if best is None else best.postprocessing
    return PageModel(
        dataset_name=header.dataset_name,
        configuration=header.configuration,
        folds=tuple(str(read_portable(folder / name).header.fold) for name in finals),
        channels=header.plan.normalization,
        spacing_mm=header.plan.spacing_mm,
        common_shape=header.plan.common_shape,
        graphs=_graphs(folder, finals),
        input=first.graph.input,
        output=first.graph.output,
        windows=_windows(first),
        fine=_fine(folder, names, header),
        meaning=_meaning(labels, _score_thresholds(header, postprocessing)),
        postprocessing=None if postprocessing.does_nothing else PagePostProcessing.of(postprocessing, labels),
        structures=tuple(_structures(labels)),
        trained_on=TrainedOn.of(read_record(fingerprint, Fingerprint)) if fingerprint.is_file() else None,
        licence=licence,
    )


def _graphs(folder: Path, names: Sequence[str]) -> tuple[PageGraph, ...]:
    return tuple(_graph(folder, name) for name in names)


def _graph(folder: Path, name: str) -> PageGraph:
    path = folder / name
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    integrity = f"sha256-{base64.b64encode(digest).decode('ascii')}"
    return PageGraph(file=f"{MODEL}/{name}", bytes=path.stat().st_size, integrity=integrity)


def _fine(folder: Path, names: Sequence[str], header: ModelHeader) -> PageFine | None:
    settings, coarse = header.fine, [name for name in names if name.endswith(COARSE)]
    if settings is None:
        return None
    return PageFine(
        graphs=_graphs(folder, coarse),
        windows=_windows(read_portable(folder / coarse[0])),
        margin=even_margin(settings.margin, header.plan.spacing_mm),
        max_rounds=settings.max_rounds,
        stop_dice=settings.stop_dice,
        large_components=settings.large_components,
        score_thresholds=_score_thresholds(header, PostProcessing()),
    )


def _windows(model: PortableModel) -> PageWindows:
    graph, windows = model.graph, model.windows
    return PageWindows(
        window=graph.window,
        outputs=graph.outputs,
        divisors=graph.divisors,
        resizable_axes=graph.free_axes,
        convolved_axes=model.header.plan.representation.network_axes,
        mirror_axes=windows.mirror_axes,
        step_size=windows.step_size,
        free_axis=windows.free_axis,
        context=windows.context,
        regular=windows.regular,
        padded_with_lowest=windows.padded_with_lowest,
        repeated_axis=windows.repeated_axis,
        batch_size=windows.batch_size,
        grid=graph.grid,
    )


def _score_thresholds(header: ModelHeader, postprocessing: PostProcessing) -> tuple[float, ...] | None:
    """Those of post-processing, else that of training for all regions."""
    labels = header.description.labels
    thresholds = threshold_values(postprocessing, labels)
    if thresholds is None and header.threshold is not None:
        thresholds = (header.threshold,) * len(labels.foreground)
    return None if thresholds is None else tuple(map(logit, thresholds))


def _meaning(labels: Labels, score_thresholds: tuple[float, ...] | None) -> PageMeaning:
    order = labels.regions_class_order if labels.has_regions else None
    return PageMeaning(
        values=labels.values,
        paint=None if order is None else tuple(labels.values.index(value) for value in order),
        score_thresholds=score_thresholds,
    )


def _structures(labels: Labels) -> Iterator[PageStructure]:
    painted = [labels.values.index(value) for value in labels.regions_class_order or ()] if labels.has_regions else None
    for number, (key, members) in enumerate(labels.foreground.items()):
        index = members[0] if painted is None else painted[number]
        colour = COLOURS[(index - 1) % len(COLOURS)]
        yield PageStructure(name=labels.name_of(key), members=members, index=index, colour=colour)


def _ranges(rows: Sequence[Sequence[float]]) -> tuple[Range, Range, Range]:
    depth, height, width = ((min(column), max(column)) for column in zip(*rows, strict=True))
    return depth, height, width
