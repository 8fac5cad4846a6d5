"""Runs of other programs, of which only predictions of the validation cases are known, not the models."""

from typing import Literal

from pydantic import Field

from seg25d.core.limits import MAX_FOLDS, Fold
from seg25d.core.records import Record, read_record
from seg25d.core.workspace import RunFolder


class ImportedRun(Record):
    """Source of the probabilities in the folder of a run: `imported.json`, written when all of them are complete."""

    schema_version: Literal[1] = 1
    program: str
    trainer: str
    plans: str
    configuration: str
    folds: tuple[Fold, ...] = Field(min_length=1, max_length=MAX_FOLDS)
    """Numbers of the folds, from 0; the same as in `splits.json`."""
    num_cases: int
    threshold: float | None = None
    """See `Labels.from_probabilities`."""


def read_imported(run: RunFolder) -> ImportedRun | None:
    """Read the source of an imported run; None if it was not imported, or not completely.

    Raises:
        RecordError: If the record is damaged.
    """
    return read_record(run.imported, ImportedRun) if run.imported.exists() else None
