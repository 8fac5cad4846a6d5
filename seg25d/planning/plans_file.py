"""Reading and writing plans, configuration by configuration, so that an invalid one does not affect the others."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

from seg25d.core.errors import RecordError
from seg25d.core.files import read_json, write_json
from seg25d.core.records import parse_record
from seg25d.planning.plan import Plans, Unreadable

logger = logging.getLogger(__name__)


def read_plans(path: Path) -> Plans:
    """Read plans; a configuration that cannot be read is left out with a warning, see `Plans.unreadable`.

    Raises:
        RecordError: If the file is missing, is not JSON, or something else in it is wrong; names file and place.
    """
    value = read_json(path)
    configurations = value.get("configurations") if isinstance(value, dict) else None
    if not isinstance(configurations, dict):
        return parse_record(value, Plans, str(path))
    # The part that all configurations share must be valid in any case.
    plans = parse_record({**value, "configurations": {}}, Plans, str(path))
    readable, unreadable = {}, {}
    for name, each in configurations.items():
        try:
            alone = parse_record({**value, "configurations": {name: each}}, Plans, str(path))
            readable[name] = alone.configurations[name]
        except RecordError as error:
            unreadable[name] = Unreadable(each, str(error))
            _warn(f"configuration {name} is left out: {error}")
    return plans.model_copy(update={"configurations": readable}).with_unreadable(unreadable)


def save_plans(path: Path, plans: Plans) -> None:
    """Write plans, atomically; configurations that could not be read stay in the file as they are."""
    values: dict[str, Any] = plans.model_dump(mode="json")
    kept = {name: each.value for name, each in plans.unreadable.items() if name not in plans.configurations}
    write_json(path, {**values, "configurations": {**values["configurations"], **kept}})


@cache
def _warn(message: str) -> None:
    """Log a warning only once, as commands read the same file several times."""
    logger.warning("%s", message)
