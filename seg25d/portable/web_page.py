"""Folders that segment in a browser: the page that `make web` built, the graphs of a model, and what the page asks.

The page takes files of one image per channel. It knows no representations: `page.json` has what its window, its
normalisation and its labels need, from the records beside the graphs.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import as_file, files
from pathlib import Path
from typing import Literal

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.files import temporary_folder, write_text
from seg25d.core.limits import CommonShape
from seg25d.core.records import Record, read_record
from seg25d.core.types import Spacing
from seg25d.core.versions import library_versions
from seg25d.core.workspace import RunFolder
from seg25d.data.labels import Labels, logit
from seg25d.evaluation.pictures import COLOURS
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import load_header
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.portable_model import GRAPH_SUFFIX, PortableModel, Regular, read_portable
from seg25d.portable.archive import write_folder
from seg25d.sharing.choice import ChosenModels, ExportOptions
from seg25d.sharing.manifest import Manifest

PAGE = "page.json"
MODEL = "model"
"""Folder of what an archive has."""
FILES = "files.json"
"""List of the files that the page keeps for use without a network."""
SERVICE_WORKER = "service-worker.js"
RUNTIMES = "ort/"
"""Folder of ONNX Runtime; of its files those for graphics processors are kept once they have been loaded."""
BASIC_RUNTIME = tuple(
    f"{RUNTIMES}{name}"
    for name in ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
)
"""What every browser can use."""
VERSION = "__SEG25D_VERSION__"
"""What stands in the service worker, as built, in place of the digest of all files."""
Range = tuple[float, float]


class PageGraph(Record):
    """A graph of a fold."""

    file: str
    """Its name, seen from the page."""
    bytes: int


class PageWindows(Record):
    """What the sliding window of the page needs to know; the words are those of `PortableModel`."""

    window: tuple[int, int, int]
    outputs: int
    divisors: tuple[int, int, int]
    resizable_axes: tuple[int, ...]
    """`Graph.free_axes`: axes along which windows may have other sizes than planned."""
    mirror_axes: tuple[int, ...]
    step_size: tuple[float, float, float]
    free_axis: int | None
    context: int
    regular: Regular | None
    padded_with_lowest: bool
    batch_size: int


class PageMeaning(Record):
    """Meaning of scores, see `Labels`."""

    values: tuple[int, ...]
    """Value of label files for each internal index."""
    paint: tuple[int, ...] | None
    """The internal index that each region is painted with, in the order of the scores; None: classes."""
    score_threshold: float | None
    """Lowest score of foreground; None: above 0 for regions, the largest for classes."""


class PageStructure(Record):
    """A class or region that the page measures and shows."""

    name: str
    members: tuple[int, ...]
    """Internal indices that belong to it."""
    index: int
    """The one that it is painted with."""
    colour: str
    """As in the report, #rrggbb."""


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
    meaning: PageMeaning
    structures: tuple[PageStructure, ...]
    trained_on: TrainedOn | None
    """None where the run has no fingerprint."""
    licence: str | None
    versions: dict[str, str] = Field(default_factory=library_versions)


def write_page(path: Path, folder: Path, models: ChosenModels, options: ExportOptions) -> Manifest:
    """Write a folder that any static server can serve; it is complete or absent.

    Args:
        path: The folder. One that this function wrote is replaced with `overwrite`.
        folder: `results/DATASET`.
        models: One run and its folds.
        options: Licence, weights, and whether to overwrite.

    Returns:
        The manifest of the models.

    Raises:
        InputError: If the page is not built, the folder exists, the models are not of one run, or need others to
            predict; see also `write_folder`.
    """
    _check_models(folder, models)
    if path.exists() and not (options.overwrite and (path / PAGE).is_file()):
        is_page = (path / PAGE).is_file()
        raise InputError(f"{path} exists already; choose another folder" + (" or --overwrite" * is_page))
    with as_file(files("seg25d.portable") / "page") as built, temporary_folder(path.parent, "page") as place:
        if not (built / "index.html").is_file():
            raise InputError(
                "--format web: the page is not built, which wheels of seg25d have; run `make web` in the repository "
                "(Node.js 20.19 or later with npm)"
            )
        whole = place / "whole"
        shutil.copytree(built, whole)
        graphs = options.model_copy(update={"format": "onnx", "overwrite": False})
        manifest = write_folder(whole / MODEL, folder, models, graphs)
        names = sorted(file.path for file in manifest.files if file.path.endswith(GRAPH_SUFFIX))
        describe_page(whole, names, manifest.licence)
        if path.exists():
            path.rename(place / "old")
        whole.rename(path)
    return manifest


def describe_page(folder: Path, names: Sequence[str], licence: str | None) -> None:
    """Write `page.json`, and tell the service worker what to keep.

    Args:
        folder: The page as built, with the models in `model/`.
        names: Of the graphs in `model/`, one per fold of a run.
        licence: Of the models.
    """
    page = page_model(folder / MODEL, names, licence)
    write_text(folder / PAGE, page.model_dump_json(indent=2) + "\n")
    everything = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    needed = {*BASIC_RUNTIME, *(graph.file for graph in page.graphs)}
    kept = [name for name in everything if name in needed or not name.startswith((f"{MODEL}/", RUNTIMES))]
    write_text(folder / FILES, json.dumps([name for name in kept if name != SERVICE_WORKER], indent=0) + "\n")
    digest = hashlib.sha256()
    for name in everything:
        digest.update(name.encode())
        digest.update((folder / name).read_bytes())
    worker = folder / SERVICE_WORKER
    write_text(worker, worker.read_text(encoding="utf-8").replace(VERSION, digest.hexdigest()[:16]))


def page_model(folder: Path, names: Sequence[str], licence: str | None) -> PageModel:
    """What the page has to know about graphs.

    Args:
        folder: With the graphs, the records beside them and the fingerprint of their run, as in an archive.
        names: Of the graphs, one per fold of a run.
        licence: Of the models.

    Raises:
        ModelError: If a record is missing or damaged.
    """
    first = read_portable(folder / names[0])
    fingerprint = folder / names[0].split("/", maxsplit=1)[0] / "fingerprint.json"
    header, labels = first.header, first.header.description.labels
    return PageModel(
        dataset_name=header.dataset_name,
        configuration=header.configuration,
        folds=tuple(str(read_portable(folder / name).header.fold) for name in names),
        channels=header.plan.normalization,
        spacing_mm=header.plan.spacing_mm,
        common_shape=header.plan.common_shape,
        graphs=tuple(PageGraph(file=f"{MODEL}/{name}", bytes=(folder / name).stat().st_size) for name in names),
        input=first.graph.input,
        output=first.graph.output,
        windows=_windows(first),
        meaning=_meaning(labels, header.threshold),
        structures=tuple(_structures(labels)),
        trained_on=TrainedOn.of(read_record(fingerprint, Fingerprint)) if fingerprint.is_file() else None,
        licence=licence,
    )


def _windows(model: PortableModel) -> PageWindows:
    graph, windows = model.graph, model.windows
    return PageWindows(
        window=graph.window,
        outputs=graph.outputs,
        divisors=graph.divisors,
        resizable_axes=graph.free_axes,
        mirror_axes=windows.mirror_axes,
        step_size=windows.step_size,
        free_axis=windows.free_axis,
        context=windows.context,
        regular=windows.regular,
        padded_with_lowest=windows.padded_with_lowest,
        batch_size=windows.batch_size,
    )


def _meaning(labels: Labels, threshold: float | None) -> PageMeaning:
    order = labels.regions_class_order if labels.has_regions else None
    return PageMeaning(
        values=labels.values,
        paint=None if order is None else tuple(labels.values.index(value) for value in order),
        score_threshold=None if threshold is None else logit(threshold),
    )


def _structures(labels: Labels) -> Iterator[PageStructure]:
    painted = [labels.values.index(value) for value in labels.regions_class_order or ()] if labels.has_regions else None
    for number, (key, members) in enumerate(labels.foreground.items()):
        index = members[0] if painted is None else painted[number]
        colour = COLOURS[(index - 1) % len(COLOURS)]
        yield PageStructure(name=labels.name_of(key), members=members, index=index, colour=colour)


def _check_models(folder: Path, models: ChosenModels) -> None:
    """Refuse models that the page cannot use, before graphs are made of them."""
    if models.best or len(models.folds) != 1:
        names = ", ".join(models.folds)
        raise InputError(f"--format web takes the folds of one configuration, got {names}; name one with -c")
    ((run, folds),) = models.folds.items()
    header = load_header(RunFolder(root=folder / run).fold(folds[0]).model_final)
    if header.plan.representation.fuses_views or header.fine is not None:
        kind = "views that are fused" if header.plan.representation.fuses_views else "coarse-to-fine models"
        raise InputError(
            f"--format web: {run} consists of {kind}, which the page does not know; export another configuration, or "
            "use --format onnx"
        )


def _ranges(rows: Sequence[Sequence[float]]) -> tuple[Range, Range, Range]:
    depth, height, width = ((min(column), max(column)) for column in zip(*rows, strict=True))
    return depth, height, width
