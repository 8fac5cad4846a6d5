"""Which cases get a DICOM segmentation beside `CASE.ENDING`, and what it says: `CASE.dcm`."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from seg25d.core.errors import InputError
from seg25d.data.cases import Case, split_ending
from seg25d.data.description import DatasetDescription

logger = logging.getLogger(__name__)
SegmentationChoice: TypeAlias = Literal["auto", "binary", "labelmap", "none"]
"""The kind of DICOM segmentations; `auto`: binary, where the extra is installed that writes them."""
_NAMES = ("dataset", "configuration", "folds", "fusion", "postprocessing")
"""What describes a model; stamps of its files are left out."""


class Segmentations(NamedTuple):
    """The DICOM segmentations to write."""

    cases: frozenset[str]
    contents: Any
    """A `SegmentationContents`, or None."""


NO_SEGMENTATIONS = Segmentations(frozenset(), None)


def plan_segmentations(
    choice: SegmentationChoice,
    cases: Sequence[Case],
    out: Path,
    description: DatasetDescription,
    model: Mapping[str, Any],
) -> Segmentations:
    """Decide which cases get a segmentation: those whose first channel is a DICOM series.

    Args:
        choice: What is asked for.
        cases: The cases to predict.
        out: Folder for the results.
        description: Meaning of the labels.
        model: Description of the model, as in `prediction.json`.

    Raises:
        InputError: If a kind is asked for that cannot be written, or segmentations would lie among the slices.
    """
    if choice == "none":
        return NO_SEGMENTATIONS
    series = [case for case in cases if case.images[0].is_dir()]
    if not series:
        if choice != "auto":
            logger.warning("--dicom-seg %s has no effect, as no case is a DICOM series", choice)
        return NO_SEGMENTATIONS
    from seg25d.data import dicom_segmentation as segmentation  # noqa: PLC0415 - only DICOM needs what it loads

    kind: segmentation.Kind = "binary" if choice == "auto" else choice
    if choice == "auto" and not segmentation.is_installed():
        logger.info("no DICOM segmentations are written: they need `%s`", segmentation.INSTALL)
        return NO_SEGMENTATIONS
    segmentation.check_kind(kind, description.labels)
    among = [case for case in series if any(image.resolve() == out.resolve() for image in case.images)]
    if among:
        raise InputError(
            f"{out} is the folder of a DICOM series, and the DICOM segmentation would lie among its slices; choose "
            "another output folder, or --dicom-seg none"
        )
    contents = segmentation.SegmentationContents(
        kind=kind,
        labels=description.labels,
        codes=description.segment_codes,
        model=_name(model),
        parameters=_parameters(model),
    )
    return Segmentations(frozenset(case.name for case in series), contents)


def segmentation_path(target: Path) -> Path:
    """The file of the DICOM segmentation that belongs to a prediction."""
    return target.with_name(f"{split_ending(target)[0]}.dcm")


def _name(model: Mapping[str, Any]) -> str:
    """Such as `Dataset004_Hippocampus axial`."""
    members = model.get("ensemble") or [model]
    runs = " + ".join(str(member.get("configuration", "")) for member in members)
    return f"{model.get('dataset', '')} {runs}".strip()


def _parameters(model: Mapping[str, Any]) -> dict[str, str]:
    """How a model predicts, as texts."""
    members = model.get("ensemble")
    said = {name: model[name] for name in _NAMES if name in model}
    if members:
        said["ensemble"] = [{name: each[name] for name in (*_NAMES, "weight") if name in each} for each in members]
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in said.items()}
