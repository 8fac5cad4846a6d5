"""The preprocessed arrays of a data set at one spacing and normalisation: compressed, chunked, case by case.

Files of a case: `CASE.b2nd` (image), `CASE_labels.b2nd`, `CASE_reference.b2nd` (labels on the file's grid),
`CASE_locations.npz` and, written last, `CASE.json`: a case without it counts as missing.

Letters: C channels, D H W the model's grid.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import StoredArray, damaged, write_array
from seg25d.core.errors import InputError, RecordError
from seg25d.core.files import atomic_path
from seg25d.core.leftovers import TEMPORARY_PREFIX, remove_leftovers
from seg25d.core.names import CaseName
from seg25d.core.records import Record, read_record
from seg25d.core.types import IntArray
from seg25d.data.image_geometry import Geometry
from seg25d.preprocessing.grid import Grid

SCHEMA_VERSION = 1
_SUFFIXES = ("_labels", "_reference", "_locations")


class CaseRecord(Record):
    """Record of the preprocessing of one case."""

    schema_version: Literal[1] = 1
    case: CaseName
    geometry: Geometry
    """Geometry of the image file, for writing results."""
    grid: Grid
    """From the file's grid to the model's."""
    voxels: dict[str, int]
    """Voxels per internal class index (as text) on the model's grid, for classes that occur, without ignored voxels."""
    source_key: str
    """Digest of the files, labels and settings that the arrays were made from."""


class CaseArrays(NamedTuple):
    """The arrays of one case."""

    image: NDArray[np.float32]
    """(C, D, H, W), normalised, on the model's grid."""
    labels: NDArray[np.uint8]
    """(D, H, W), internal indices on the model's grid; IGNORE_INDEX where ignored."""
    reference: NDArray[np.uint8] | None
    """Internal indices on the whole canonical grid of the file; None where they are not needed for evaluation."""
    locations: Mapping[int, NDArray[np.int32]]
    """Voxels (n, 3) of `labels` per class that occurs, except background."""


class Store:
    """The folder of the preprocessed arrays.

    Args:
        folder: May not exist yet.
        further: Folders of cases that are read beside those in `folder`.
    """

    def __init__(self, folder: Path, further: Sequence[Path] = ()) -> None:
        self.folder = folder
        self.further = tuple(further)

    def cases(self) -> list[str]:
        """Names of the complete cases, sorted; empty if the folder is missing."""
        # A killed process may have left a temporary file with that ending.
        names = {path.stem for folder in (self.folder, *self.further) for path in folder.glob("*.json")}
        return sorted(name for name in names if not name.startswith(TEMPORARY_PREFIX))

    def write(self, record: CaseRecord, arrays: CaseArrays) -> None:
        """Write a case, replacing an older one of that name; it counts as missing until all of it is written."""
        case = record.case
        self._record_path(case).unlink(missing_ok=True)
        write_array(self._path(case), arrays.image)
        write_array(self._path(case, "_labels"), arrays.labels)
        if arrays.reference is not None:
            write_array(self._path(case, "_reference"), arrays.reference)
        with atomic_path(self.folder / f"{case}_locations.npz", durable=False) as temporary:
            named: dict[str, Any] = {str(index): voxels for index, voxels in arrays.locations.items()}
            np.savez(temporary, **named)
        # A power cut may cost the last cases: an empty record counts as none, and a flush would cost half of the time.
        with atomic_path(self._record_path(case), durable=False) as temporary:
            temporary.write_text(record.model_dump_json(indent=2) + "\n", encoding="utf-8")

    def has(self, case: str, source_key: str, *, reference: bool = False) -> bool:
        """Whether the case is complete and was made from exactly these files and settings.

        Args:
            case: Its name.
            source_key: Digest of the files and settings.
            reference: Whether it has a reference.
        """
        try:
            is_current = self.record(case).source_key == source_key
        except RecordError:
            return False
        endings = (".b2nd", "_labels.b2nd", "_locations.npz", *(["_reference.b2nd"] if reference else []))
        home = self._home(case)
        return is_current and all((home / f"{case}{ending}").exists() for ending in endings)

    def record(self, case: str) -> CaseRecord:
        """Read the record of a case.

        Raises:
            RecordError: If the case is missing or its record is damaged.
        """
        path = self._record_path(case)
        if not path.exists():
            raise self._missing_case_error(case)
        return read_record(path, CaseRecord)

    def written_ns(self, case: str) -> int:
        """Time in nanoseconds at which the arrays of a case were written, to date files derived from them.

        Raises:
            RecordError: If the case is missing.
        """
        try:
            return self._record_path(case).stat().st_mtime_ns
        except FileNotFoundError:
            raise self._missing_case_error(case) from None

    def open_image(self, case: str) -> StoredArray:
        """The image (C, D, H, W) float32, to read windows from."""
        return self._open(case)

    def open_labels(self, case: str) -> StoredArray:
        """The labels (D, H, W) uint8, internal indices, to read windows from."""
        return self._open(case, "_labels")

    def read_reference(self, case: str) -> NDArray[np.uint8]:
        """The labels (internal indices) on the whole canonical grid of the file, for evaluation."""
        return self._open(case, "_reference")[...]

    def locations(self, case: str) -> dict[int, IntArray]:
        """Read at most 10,000 voxels (n, 3), along (D, H, W), of each class that occurs, except background.

        Raises:
            RecordError: If the file is missing or damaged.
        """
        return self.open_locations(case).read()

    def open_locations(self, case: str) -> "Locations":
        """The same, of which a class is read when it is asked for."""
        return Locations(self._home(case) / f"{case}_locations.npz", _advise_deletion(self._record_path(case)))

    def remove(self, cases: Iterable[str]) -> None:
        """Remove cases; the record first, so that an incomplete case never counts as complete."""
        for case in cases:
            self._record_path(case).unlink(missing_ok=True)
            for suffix in ("", "_labels", "_reference"):
                self._path(case, suffix).unlink(missing_ok=True)
            (self.folder / f"{case}_locations.npz").unlink(missing_ok=True)

    def remove_leftovers(self) -> None:
        """Remove temporary files of processes that were killed."""
        remove_leftovers(self.folder)

    def _missing_case_error(self, case: str) -> RecordError:
        return RecordError(f"{self.folder} has no case {case}; run plan_and_preprocess again")

    def _open(self, case: str, suffix: str = "") -> StoredArray:
        return StoredArray(self._path(case, suffix), _advise_deletion(self._record_path(case)))

    def _path(self, case: str, suffix: str = "") -> Path:
        return self._home(case) / f"{case}{suffix}.b2nd"

    def _record_path(self, case: str) -> Path:
        return self._home(case) / f"{case}.json"

    def _home(self, case: str) -> Path:
        """Find the folder that has the case; `folder` if none has it."""
        return next((each for each in (self.folder, *self.further) if (each / f"{case}.json").exists()), self.folder)


class Locations(Mapping[int, IntArray]):
    """Voxels (n, 3) by class, as `Store.locations` has them; the file is opened for each class that is read.

    Args:
        path: The file.
        cure: What to do where it is damaged.

    Raises:
        RecordError: When something is asked for, if the file is missing or damaged.
    """

    def __init__(self, path: Path, cure: str) -> None:
        self.path, self.cure = path, cure

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that occur, of which no voxels are read."""
        with self._archive() as archive:
            return tuple(map(int, archive.files))

    def read(self) -> dict[int, IntArray]:
        """Read all classes."""
        with self._archive() as archive:
            return {int(name): archive[name] for name in archive.files}

    @contextmanager
    def _archive(self) -> Iterator[Any]:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                yield archive
        except Exception as error:  # zipfile, zlib and numpy each raise their own exceptions for a damaged file
            raise damaged(self.path, self.cure, error) from None

    def __getitem__(self, index: int) -> IntArray:
        """Read the voxels of a class."""
        if index not in self.classes:
            raise KeyError(index)
        with self._archive() as archive:
            voxels: IntArray = archive[str(index)]
            return voxels

    def __iter__(self) -> Iterator[int]:
        """The classes."""
        return iter(self.classes)

    def __len__(self) -> int:
        """How many classes there are."""
        return len(self.classes)


def check_case_names(cases: Sequence[str]) -> None:
    """Check that no two cases would share a file.

    Raises:
        InputError: If the name of a case is that of another one plus an ending that the store uses.
    """
    known = set(cases)
    clashes = [case for case in cases for suffix in _SUFFIXES if case.removesuffix(suffix) in known - {case}]
    if clashes:
        raise InputError(
            f"{', '.join(clashes)}: another case has the same name without {' or '.join(_SUFFIXES)}, which names files "
            "of preprocessed cases; rename one of the two"
        )


def _advise_deletion(record: Path) -> str:
    return f"delete {record} and run plan_and_preprocess again"
