"""What a folder of converted files was made from: a conversion that was cut off goes on, and no other is lost."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field

from seg25d.core.errors import InputError
from seg25d.core.records import Record, digest, read_record

RECORD_NAME = "conversion.json"
Kind = Literal["msd", "dicom", "nnunet-results"]


class Conversion(Record):
    """The files that a conversion makes. It is written before the first of them, when everything has been checked."""

    schema_version: Literal[1] = 1
    kind: Kind
    files: dict[str, str]
    """Per file, by its path in the folder, the digest of what it is made from."""
    changes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Per file what was changed on the way, in sentences; files that are as they were are not named."""


def read_conversion(folder: Path, kind: Kind) -> Conversion | None:
    """The conversion that a folder was made by; None where it says nothing of one.

    Raises:
        RecordError: If the record is damaged.
        InputError: If it speaks of a conversion of another kind.
    """
    path = folder / RECORD_NAME
    if not path.exists():
        return None
    conversion = read_record(path, Conversion)
    if conversion.kind != kind:
        raise InputError(f"{folder} was made by `convert --from {conversion.kind}`; choose another folder")
    return conversion


def source_digest(paths: Iterable[Path]) -> str:
    """A digest of name, size and time of change of files; it changes when a file does.

    Raises:
        OSError: If a file is missing.
    """
    return digest([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths])
