"""What a folder of predictions holds beside the segmentations: `prediction.json`, and probabilities on request."""

import logging
import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from seg25d.core.errors import CaseFailures, InputError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.records import Record, read_record, write_record
from seg25d.core.versions import library_versions
from seg25d.data.cases import split_ending
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels

logger = logging.getLogger(__name__)
RECORD_NAME = "prediction.json"
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, TypeError, ValueError)


class PredictionRecord(Record):
    """How the segmentations in a folder were made: `prediction.json`."""

    schema_version: Literal[1] = 1
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the last call."""
    versions: dict[str, str] = Field(default_factory=library_versions)
    model: dict[str, Any]
    """Data set, configuration and model files: predictions of another model are no predictions of this one."""
    labels: Labels | None = None
    """What the values of the segmentations and the channels of the probabilities mean; null if it is not known."""
    threshold: float | None = None
    """Probability from which on a voxel is foreground, see `Labels.from_probabilities`; null: the likeliest class."""
    seconds: dict[str, float | None] = Field(default_factory=dict)
    """Per case, to read, compute and write it; null where the command was cut off before it could say so."""

    def same_model(self, other: "PredictionRecord") -> bool:
        """Whether both speak of one model, also if one was read from a file (where tuples have become lists)."""
        return bool(self.model_dump(mode="json")["model"] == other.model_dump(mode="json")["model"])


def earlier_seconds(
    record: PredictionRecord, path: Path, done: Sequence[str], *, overwrite: bool
) -> dict[str, float | None]:
    """The seconds of cases that an earlier call predicted with the same model.

    Args:
        record: Of this call.
        path: The `prediction.json`, there or not.
        done: Cases that are there.
        overwrite: Whether predictions of another model may be lost.

    Raises:
        InputError: If the folder holds predictions of another model or of another program and is not to be overwritten.
    """
    if not path.exists():
        if done:
            raise InputError(
                f"{path.parent} holds {done[0]} and no prediction.json: it was not predicted here; "
                "choose another folder or --overwrite"
            )
        return {}
    try:
        earlier = read_record(path, PredictionRecord)
    except RecordError as error:
        logger.warning("%s; writing it again", error)
        return dict.fromkeys(done)
    if not earlier.same_model(record):
        if not overwrite:
            raise InputError(f"{path.parent} holds predictions of another model; choose another folder or --overwrite")
        return {}
    return dict.fromkeys(done) | earlier.seconds


def begin_record(record: PredictionRecord, path: Path) -> None:
    """Write the record unless one of the same model is there; called before the first case is written.

    Several processes may do so at once: whoever counts the cases writes the record after each of them.
    """
    try:
        if path.exists() and read_record(path, PredictionRecord).same_model(record):
            return
    except RecordError:
        pass  # `earlier_seconds` has told of it
    write_record(path, record)


def write_probabilities(target: Path, probabilities: NDArray[np.float32], geometry: Geometry) -> None:
    """Write `CASE.npz`, and `CASE.pkl` with what nnU-Net's `SimpleITKIO.write_seg` and its ensembling look up.

    Args:
        target: The segmentation that they belong to.
        probabilities: (K, D, H, W) in canonical axes; the file has (K, z, y, x).
        geometry: Of the segmentation.
    """
    path = probabilities_path(target)
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, probabilities=geometry.from_canonical(probabilities))
    properties = {
        "sitk_stuff": {
            "spacing": geometry.spacing_mm[::-1],
            "origin": geometry.origin_mm,
            "direction": geometry.direction,
        },
        "spacing": list(geometry.spacing_mm),
        "shape_before_cropping": geometry.shape,
        "bbox_used_for_cropping": [[0, size] for size in geometry.shape],
        "shape_after_cropping_and_before_resampling": geometry.shape,
    }
    with atomic_path(path.with_suffix(".pkl")) as temporary:
        temporary.write_bytes(pickle.dumps(properties))


def probabilities_path(target: Path) -> Path:
    """The file of the probabilities that belong to a segmentation."""
    return target.with_name(f"{split_ending(target)[0]}.npz")


def read_probabilities(path: Path) -> NDArray[np.floating[Any]]:
    """Read `CASE.npz`, as seg25d and nnU-Net write it; nothing in it can run code.

    Returns:
        (K, z, y, x) in the axes of the file that they belong to.

    Raises:
        InputError: If the file is missing or damaged, or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            probabilities: NDArray[np.floating[Any]] = archive["probabilities"]
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; predict with --save-probabilities") from None
    except _DAMAGED as error:
        raise InputError(_damaged(path, error)) from None
    if probabilities.ndim != 4 or probabilities.dtype.kind != "f":
        raise InputError(_damaged(path, f"shape {probabilities.shape} of {probabilities.dtype}"))
    return probabilities


def probabilities_shape(path: Path) -> tuple[int, ...]:
    """The shape of the probabilities in `CASE.npz`, (K, z, y, x), without reading them.

    Raises:
        InputError: If the file is damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open("probabilities.npy") as file:
            first = np.lib.format.read_magic(file) == (1, 0)
            read_header = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shape: tuple[int, ...] = read_header(file)[0]
    except _DAMAGED as error:
        raise InputError(_damaged(path, error)) from None
    return shape


def report_failures(failures: Mapping[str, Exception], num_cases: int, done: str = "predicted") -> None:
    """Raise one error for all failed cases; do nothing if there are none.

    Args:
        failures: The error per case.
        num_cases: Cases in all, those included that were there already.
        done: What was to be done with them.

    Raises:
        InputError: If all cases failed, and all for a fault of the input.
        CaseFailures: If some failed, or for a fault of ours.
    """
    if not failures:
        return
    messages = {case: str(error) or repr(error) for case, error in failures.items()}
    if len(failures) == num_cases and all(isinstance(error, InputError) for error in failures.values()):
        listed = "\n".join(f"  {case}: {message}" for case, message in messages.items())
        raise InputError(f"no case can be {done}:\n{listed}")
    raise CaseFailures(messages)


def _damaged(path: Path, detail: object) -> str:
    return f"{path} is not a file with `probabilities` (K, z, y, x) ({detail}); predict the case again"
