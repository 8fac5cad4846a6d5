"""Record of the sources of converted files, to resume an interrupted conversion and never overwrite another one."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.names import InnerPath
from seg25d.core.records import Record, digest, read_record

RECORD_NAME = "conversion.json"
Kind = Literal["msd", "dicom", "nnunet-results", "slices"]


class Conversion(Record):
    """The files that a conversion makes. Written after all checks have passed, before the first of these files."""

    schema_version: Literal[1] = 1
    kind: Kind
    files: dict[InnerPath, str]
    """Digest of the source of each file, by the file's path in the folder."""
    changes: dict[InnerPath, tuple[str, ...]] = Field(default_factory=dict)
    """Changes made on the way, in sentences, of each file that has any."""


def read_conversion(folder: Path, kind: Kind) -> Conversion | None:
    """The record of the conversion that made a folder; None if the folder has no such record.

    Raises:
        RecordError: If the record is damaged.
        InputError: If it was a conversion of another kind.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    conversion = read_record(path, Conversion)
    if conversion.kind != kind:
        raise InputError(f"{folder} was made by `convert --from {conversion.kind}`; choose another folder")
    return conversion


def has_begun(target: Path, conversion: Conversion) -> bool:
    """Whether the folder of a data set holds a complete or incomplete result of the same conversion.

    Returns:
        False if it is empty, or not there.

    Raises:
        RecordError: If the record of an earlier conversion is damaged.
        InputError: If it holds anything else.
    """
    earlier = read_conversion(target, conversion.kind)
    if earlier == conversion:
        return True
    if target.is_dir() and any(not path.name.startswith(".") for path in target.iterdir()):
        what = "a data set that was not converted from it" if earlier is None else "a conversion of other files"
        raise InputError(
            f"{target} holds {what}: nothing is overwritten; remove or rename that folder, or choose another number "
            "with -d"
        )
    return False


def source_digest(paths: Iterable[Path]) -> str:
    """Digest of name, size and modification time of files, which changes when a file changes.

    Raises:
        OSError: If a file is missing.
    """
    return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths])
