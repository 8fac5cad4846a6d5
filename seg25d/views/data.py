"""Training data of a fusion network: around every object, the image and predictions of models that never saw the case.

Letters: C image channels, V views, M maps per view, D H W the region around the object.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from seg25d.core.grids import bounding_box, box_shape, box_slices, count_voxels, with_margin
from seg25d.core.names import CaseName, FileName
from seg25d.core.records import Record, digest
from seg25d.core.types import BoundingBox, Shape, Spacing
from seg25d.data.labels import IGNORE_INDEX, Labels
from seg25d.ensembling.fused_predictor import found_box, margin_voxels
from seg25d.ensembling.view_maps import fusion_input, view_maps
from seg25d.inference.predictor import Predictor
from seg25d.preprocessing.locations import sample_locations
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store


class FusionRecord(Record):
    """Record of the models that predict the training data of a fold's fusion network: `fusion_cases.json`."""

    schema_version: Literal[1] = 1
    held_out: tuple[CaseName, ...]
    """Validation cases of the fold; none for fold `all`."""
    predicted_by: dict[CaseName, FileName]
    """The set of models that predicts each training case."""
    trained_on: dict[FileName, tuple[CaseName, ...]]
    """The cases that the models of each set were trained on."""
    models: dict[FileName, str]
    """The `models_key` of each set."""


def models_key(models: Sequence[Path]) -> str:
    """Digest that changes when any of the model files changes."""
    return digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in models])


def case_key(store: Store, case: str, models: str) -> str:
    """Digest that changes when the case's arrays or the models that predict it change."""
    return digest({"case": store.record(case).source_key, "models": models})


class SetPredictors(NamedTuple):
    """The predictors of a set of models."""

    views: Sequence[Predictor]
    """One per view, in the order of the plan."""
    coarse: Sequence[Predictor]
    """The coarse models, if the views are fine models; else none."""


def write_case(source: Store, target: Store, case: str, predictors: SetPredictors, models: str) -> None:
    """Write the input and labels of a fusion network for a case.

    Args:
        source: Preprocessed arrays.
        target: Store to write to; the image has C + V M channels.
        case: Name of the case.
        predictors: Models that were not trained on it.
        models: Their `models_key`.
    """
    image = source.open_image(case)[:]
    labels = source.open_labels(case)[:]
    record = source.record(case)
    maps = view_maps(image, *predictors)
    box = region(labels, maps, predictors.views[0].labels, record.grid.spacing_mm)
    inside = box_slices(box)
    parts = fusion_input(image, maps, box)
    own = np.ascontiguousarray(labels[inside])
    counts = count_voxels(own)
    cut = record.model_copy(
        update={
            "grid": record.grid.model_copy(update={"shape": box_shape(box)}),
            "voxels": {str(index): int(counts[index]) for index in np.flatnonzero(counts) if index != IGNORE_INDEX},
            "source_key": case_key(source, case, models),
        }
    )
    locations = sample_locations(own, counts, case, IGNORE_INDEX)
    target.write(CaseRecord.model_validate(cut.model_dump()), CaseArrays(parts, own, None, locations))


def region(labels: NDArray[np.uint8], maps: Sequence[Tensor], names: Labels, spacing_mm: Spacing) -> BoundingBox:
    """The region to learn from: the box of the object and a margin (methods.md 4.3).

    Without an object, it is the box of the foreground that the views predict, or else the centre of the volume, so that
    the network also learns from background.

    Args:
        labels: (d, h, w), internal indices.
        maps: One map (M, d, h, w) per view.
        names: Meaning of labels and maps.
        spacing_mm: Spacing of the grid.
    """
    margin = margin_voxels(spacing_mm)
    shape: Shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    box = bounding_box((labels > 0) & (labels != IGNORE_INDEX))
    if box is not None:
        return with_margin(box, margin, shape)
    depth, height, width = ((size // 2, size // 2 + 1) for size in shape)
    return found_box(maps, names, margin) or with_margin((depth, height, width), margin, shape)
