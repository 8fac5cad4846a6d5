"""Runs of other programs: there are no models of them, but predictions of the validation cases, to choose among."""

from typing import Literal

from pydantic import Field

from seg25d.core.records import Record, read_record
from seg25d.core.workspace import RunFolder


class ImportedRun(Record):
    """Where the probabilities in the folder of a run come from: `imported.json`, written when all of them are there."""

    schema_version: Literal[1] = 1
    program: str
    trainer: str
    plans: str
    configuration: str
    folds: tuple[int, ...] = Field(min_length=1)
    """From 0 on; the same as in `splits.json`."""
    num_cases: int
    threshold: float | None = None
    """See `Labels.from_probabilities`."""


def read_imported(run: RunFolder) -> ImportedRun | None:
    """What a run was imported from; None where it was not imported, or not to the end.

    Raises:
        RecordError: If the record is damaged.
    """
    return read_record(run.imported, ImportedRun) if run.imported.exists() else None
