"""Scores of a training that has ended, perhaps on another machine whose files appear late."""

import os
import time
from contextlib import suppress

from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.evaluation.summary import Summary

LATE_SECONDS = 60.0
"""How long a file of another machine may take to appear: NFS keeps what it knows of a folder so long (nfs(5),
`acdirmax`)."""


def late_scores(fold: FoldFolder) -> Summary:
    """Read the scores, waiting for them if need be.

    They are the quick ones, unless an earlier call has others by the same model.

    Raises:
        RecordError: If they are damaged, or do not appear.
    """
    quick, usual = (folder / "summary.json" for folder in (fold.validation_quick, fold.validation))
    until = time.monotonic() + LATE_SECONDS
    while not (quick.exists() or usual.exists()) and time.monotonic() < until:
        time.sleep(1.0)
        for folder in (quick.parent, usual.parent):
            with suppress(OSError):
                os.listdir(folder)  # noqa: PTH208 - has NFS look again
    return read_record(quick if quick.exists() else usual, Summary)
