"""Frozen, validated records and their JSON files."""

import hashlib
import json
import reprlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import CoreSchema, core_schema

from seg25d.core.errors import RecordError
from seg25d.core.files import read_json, write_json


class Record(BaseModel):
    """A frozen record; an unknown key or a value of the wrong type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


MOST_COUNTED = 100_000
"""Mistakes up to which pydantic is asked for all of them, which it makes at once: 1.1 GB for two million."""
MOST_LISTED = 20
"""Wrong places in an error."""
AnyRecord = TypeVar("AnyRecord", bound=Record)


class ByName:
    """Annotation of a field that takes any record of a table; its key `name` says which.

    Args:
        kind: What such a record is, for messages.
        records: Gives the table, anew each time: it may have grown.
    """

    def __init__(self, kind: str, records: Callable[[], Mapping[str, Any]]) -> None:
        self.kind = kind
        self.records = records

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        """A record is kept, a dictionary is read as the record that it names; both are written as what they are."""
        del source, handler
        return core_schema.no_info_plain_validator_function(self._validate)

    def _validate(self, value: Any) -> Any:
        name = value.get("name") if isinstance(value, dict) else getattr(value, "name", None)
        known = self.records()
        if not isinstance(name, str) or name not in known:
            told = "no name" if name is None else f"the name {name!r}"
            raise ValueError(f"there is no {self.kind} with {told}; known: {', '.join(known)}")
        return known[name].model_validate(value)


def parse_record(value: Any, record_type: type[AnyRecord], origin: str) -> AnyRecord:
    """Make a record of plain JSON values.

    Args:
        value: Dictionaries, lists, strings and numbers.
        record_type: The record to make.
        origin: Where the value comes from, for the error message.

    Raises:
        RecordError: If the value does not fit; names every wrong place.
    """
    try:
        return record_type.model_validate(value)
    except ValidationError as error:
        if error.error_count() > MOST_COUNTED:
            raise RecordError(
                f"{origin} is not valid: {error.error_count()} of its values are wrong; get it or make it again"
            ) from None
        lines = [
            f"  {'.'.join(str(part)[:60] for part in issue['loc']) or '(top)'}: {issue['msg']}"
            + ("" if issue["type"] == "missing" else f", got {_shown(issue['input'])}")
            for issue in error.errors()[:MOST_LISTED]
        ]
        lines += [f"  ... and {error.error_count() - MOST_LISTED} more"] * (error.error_count() > MOST_LISTED)
        raise RecordError(f"{origin} is not valid:\n" + "\n".join(lines)) from None


def _shown(value: Any) -> str:
    """The beginning of a value; of what is nested, a part."""
    plain = value is None or isinstance(value, str | int | float)
    return (str(value) if plain else reprlib.repr(value))[:80]


def read_record(path: Path, record_type: type[AnyRecord]) -> AnyRecord:
    """Read a record from its JSON file.

    Raises:
        RecordError: If the file is missing, is not JSON or does not fit; names file and place.
    """
    return parse_record(read_json(path), record_type, str(path))


def write_record(path: Path, record: Record) -> None:
    """Write a record to its JSON file, atomically."""
    write_json(path, record.model_dump(mode="json"))


def digest(value: Any, length: int = 32) -> str:
    """The first letters of the SHA-256 of plain JSON values; the order of keys does not count.

    Args:
        value: Dictionaries, lists, strings and numbers.
        length: How many hexadecimal letters, at most 64.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]
