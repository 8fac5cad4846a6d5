"""How far folds are, by their settings and logs; folds whose model is of an earlier, shorter length. Needs no torch."""

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from seg25d.core.errors import RecordError
from seg25d.core.files import read_json
from seg25d.core.lengths import share_done
from seg25d.core.workspace import FoldFolder, RunFolder

logger = logging.getLogger(__name__)


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a `log.jsonl`, each of which is a JSON object.

    Raises:
        RecordError: If the file is damaged.
    """
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path} is damaged ({error}); it is written again with the next epoch") from None
    if not all(isinstance(line, dict) for line in lines):
        raise RecordError(f"{path} is damaged (a line is no JSON object); it is written again with the next epoch")
    return lines


def warn_of_earlier_models(run: RunFolder, folds: Iterable[int | str]) -> None:
    """Warn of each fold that is being trained for longer than the model that is there, and used, was.

    Args:
        run: The run.
        folds: Its folds whose models are used.
    """
    for fold in folds:
        folder = run.fold(fold)
        share = _share_done(folder) if folder.model_final.exists() else None
        if share is not None and share < 1:
            logger.warning(
                "%s is being trained for longer, of which %s is done: the model of its earlier, shorter length is "
                "used; to finish it, give its `seg25d train` command again",
                *(folder.name, f"{share:.0%}"),
            )


def _share_done(folder: FoldFolder) -> float | None:
    """The share of its length that a fold is trained for; None where it is not known, as of installed models."""
    with suppress(RecordError, OSError):
        return share_done(read_json(folder.config), read_log(folder.log))
    return None
