"""Results of a pass over cases, kept about every minute until all that is made of them is written.

They lie beside what is made of them in a hidden folder of their own, a file for each time that something was kept: what
was written is not written again, however many cases there are. Each result has a key, which changes with the files of
its case, the options and the versions of the program and its libraries: a result of other ones is not found, and its
case is done again.
"""

import base64
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Sequence, Set
from functools import partial
from glob import escape
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, TypeAdapter

from seg25d.core.errors import RecordError, Seg25dError
from seg25d.core.files import write_text
from seg25d.core.leftovers import UNFINISHED_SUFFIX, shortened
from seg25d.core.parallel import map_cases
from seg25d.core.progress import keep_now_and_then, track
from seg25d.core.records import Record, digest, read_record
from seg25d.core.versions import library_versions

Item = TypeVar("Item")
Result = TypeVar("Result")
logger = logging.getLogger(__name__)
_FILES = "[0-9]*.json"
_ARRAY = {"array of", "shape", "base64"}
"""Keys of what stands for an array; no label is called so."""
_NUMBERS = "biuf"
"""Kinds of arrays (`numpy.dtype.kind`): truth values, whole and real numbers; no objects."""


class Unfinished(NamedTuple):
    """Where the results of a pass are kept, and what they depend on."""

    path: Path
    """The file that is made of them, which need not exist; whoever makes it holds its lock, or that of its folder."""
    kind: Any
    """Type of a result: of records, tuples with names, arrays of numbers, and what JSON has."""
    stamp: Callable[[Any], Any]
    """Plain JSON values that change when a file of an item does."""
    options: Any = None
    """Plain JSON values that all results depend on."""
    holds: Callable[[Any, Any], bool] | None = None
    """Whether the result of an item that was kept still holds, as where it tells of a written file; None: it does."""


class _Piece(Record):
    """What was kept at one time."""

    schema_version: Literal[1] = 1
    digest: str
    """Of `results`: what was changed since is not taken for a result."""
    results: dict[str, Any]
    """By key."""


def map_and_keep(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    description: str,
    unfinished: Unfinished | None,
    *,
    name: Callable[[Item], str],
    num_workers: int,
) -> Iterator[tuple[Item, Result]]:
    """Like `map_cases`, with progress; what an earlier process that was killed had kept is not done again.

    Args:
        function: As in `map_cases`.
        items: As in `map_cases`; each has a stamp of its own.
        description: What is done, such as "evaluating".
        unfinished: Where results are kept; None: nowhere.
        name: As in `map_cases`.
        num_workers: As in `map_cases`.

    Raises:
        Seg25dError: As `map_cases` does.
    """
    if unfinished is None:
        yield from track(map_cases(function, items, name=name, num_workers=num_workers), len(items), description)
        return
    folder = unfinished_folder(unfinished.path, description)
    basis = digest({"versions": library_versions(), "pass": description, "options": unfinished.options})
    # By identity, as items need not be hashable. Stamps are taken before files are read: what changes later counts.
    keys = {id(item): digest([basis, unfinished.stamp(item)]) for item in items}
    kept, todo = _read(folder, unfinished.kind, set(keys.values())), []
    for item in items:
        key = keys[id(item)]
        if key in kept and (unfinished.holds is None or unfinished.holds(item, kept[key])):
            yield item, kept.pop(key)
        else:
            todo.append(item)
    if len(todo) < len(items):
        logger.info("%s: %d of %d were done before it was cut off", description, len(items) - len(todo), len(items))
    done = track(map_cases(function, todo, name=name, num_workers=num_workers), len(todo), description)
    fresh: dict[str, Result] = {}
    for item, result in keep_now_and_then(done, partial(_keep, folder, fresh)):
        fresh[keys[id(item)]] = result
        yield item, result
    if fresh and folder.exists():  # not of passes that took less than a minute
        _keep(folder, fresh)


def unfinished_folder(path: Path, description: str) -> Path:
    """Where the results of a pass are until `path` is written."""
    return path.with_name(f".{shortened(path.name)}.{description.replace(' ', '_')}{UNFINISHED_SUFFIX}")


def forget_unfinished(path: Path) -> None:
    """Remove what was kept of all passes for a file, as it is written now."""
    beginning = f".{shortened(path.name)}."
    for folder in list(path.parent.glob(f"{escape(beginning)}*{UNFINISHED_SUFFIX}")):
        # Names of passes have no dots, those of files that begin as this one have more.
        if "." not in folder.name.removeprefix(beginning).removesuffix(UNFINISHED_SUFFIX):
            shutil.rmtree(folder, ignore_errors=True)


def _keep(folder: Path, fresh: dict[str, Any]) -> None:
    """Write results to a file of their own, and forget them: nothing is written twice."""
    results = json.loads(json.dumps(fresh, default=_plain))
    piece = {"schema_version": 1, "digest": digest(results), "results": results}
    try:
        write_text(folder / f"{time.time_ns() // 1000}.json", json.dumps(piece))
    except (Seg25dError, OSError) as error:  # the pass itself is none the worse
        logger.warning("what is done so far is not kept, and would be done again after a kill: %s", error)
        return
    fresh.clear()


def _plain(value: Any) -> Any:
    """What JSON can say of an array, a number of numpy or a record."""
    if isinstance(value, np.ndarray):
        encoded = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode("ascii")
        return {"array of": value.dtype.str, "shape": value.shape, "base64": encoded}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"expected records, arrays and JSON values, got {type(value).__name__}")


def _read(folder: Path, kind: Any, keys: Set[str]) -> dict[str, Any]:
    """The results that were kept with these keys; files that are damaged or do not fit are told, and left out."""
    table: Any = GenericAlias(dict, (str, kind))
    results = TypeAdapter[dict[str, Any]](table, config=ConfigDict(arbitrary_types_allowed=True))
    found: dict[str, Any] = {}
    for path in sorted(folder.glob(_FILES)):
        try:
            piece = read_record(path, _Piece)
            if digest(piece.results) != piece.digest:
                raise RecordError("it is damaged or was changed")
            found |= results.validate_python({key: _revived(piece.results[key]) for key in keys & piece.results.keys()})
        except (RecordError, OSError, ValueError, TypeError, SyntaxError, RecursionError) as error:
            reason = str(error).partition("\n")[0]
            logger.warning("what %s holds of an unfinished command is done again: %s", path, reason)
    return found


def _revived(value: Any) -> Any:
    """What `_plain` made JSON of, but for records and tuples, which follow from the type of the result."""
    if isinstance(value, list):
        return [_revived(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == _ARRAY:
        return _array(value)
    return {key: _revived(each) for key, each in value.items()}


def _array(value: dict[str, Any]) -> NDArray[Any]:
    dtype = np.dtype(str(value["array of"]))
    if dtype.kind not in _NUMBERS:
        raise RecordError(f"expected an array of numbers, got one of {dtype}")
    content = base64.b64decode(value["base64"], validate=True)
    return np.frombuffer(content, dtype).reshape(value["shape"]).copy()
