"""Exact comparison of the content of two workspaces, file by file and value by value (for same_bits.py)."""

import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

LEFT_OUT = re.compile(r"seconds|second$|memory_gb$|data_wait|versions?$|^time|^reasons$|_version$|^digest$")
"""Keys of JSON files with times, machines, versions or reasons in words, and digests of model files, which include
versions (the content of model files is compared)."""
PLANNED_MEMORY = "estimated_memory_gb"
"""A key that is compared although it matches `LEFT_OUT`: it is a decision, not a measurement."""
COLUMNS = {
    "plan": ("preprocessed/*",),
    "settings": ("results/*/config.json", "results/*/split.json", "results/*/plans*.json"),
    "losses": ("results/*/log.jsonl",),
    "weights": ("results/*/model_*.safetensors",),
    "validation": ("results/*/validation/*",),
    "prediction": ("predictions/*",),
}
"""Columns of the comparison and their files; `*` also matches folders."""
ENDINGS = (".json", ".jsonl", ".safetensors", ".npz", ".b2nd", ".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".raw")
NO_CONTENT = ("prediction.json", "verified.json")
"""Files without content to compare: with arguments, times and states of files."""


@dataclass(frozen=True)
class Outcome:
    """Result of the comparison of files of one kind."""

    num_values: int
    """Number of equal values up to the first difference."""
    difference: str | None
    """Description of the first difference."""


def column_of(path: str) -> str | None:
    """The column of a file, or None if it has nothing to compare.

    Args:
        path: Relative to the workspace, with `/`.
    """
    name = path.rpartition("/")[2]
    if not name.endswith(ENDINGS) or name in NO_CONTENT:
        return None
    return next((column for column, patterns in COLUMNS.items() if any(fnmatch(path, each) for each in patterns)), None)


def compare_files(roots: tuple[Path, Path], files: Iterable[str]) -> dict[str, Outcome]:
    """Compare files of two workspaces.

    Args:
        roots: The workspaces.
        files: Relative paths of the files to compare; a file that only one workspace has is a difference.

    Returns:
        The outcome by column, in the order of `COLUMNS`, for columns with files.
    """
    outcomes = {}
    for column in COLUMNS:
        if paths := sorted({path for path in files if column_of(path) == column}):
            outcomes[column] = _compare(roots, paths)
    return outcomes


def _compare(roots: tuple[Path, Path], paths: Sequence[str]) -> Outcome:
    num_values = 0
    for path in paths:
        there = [(root / path).exists() for root in roots]
        if not all(there):
            return Outcome(num_values, f"{path}: only {'before' if there[0] else 'after'}")
        first, second = (dict(values_of(root / path)) for root in roots)
        for place in sorted(first.keys() | second.keys()):
            if place not in first or place not in second:
                return Outcome(num_values, f"{path}: {place}: only {'before' if place in first else 'after'}")
            if difference := difference_of(first[place], second[place]):
                return Outcome(num_values, f"{path}: {place}: {difference}")
            num_values += 1
    return Outcome(num_values, None)


def difference_of(before: Any, after: Any) -> str | None:
    """Describe how two values differ; None if they are equal to the last bit (NaN is equal to itself)."""
    if not isinstance(before, np.ndarray) or not isinstance(after, np.ndarray):
        return None if repr(before) == repr(after) else f"{before!r} became {after!r}"
    if (before.dtype, before.shape) != (after.dtype, after.shape):
        return f"{before.dtype} {before.shape} became {after.dtype} {after.shape}"
    if before.tobytes() == after.tobytes():
        return None
    differing = int(np.count_nonzero(before != after))
    words = f"{differing} of {before.size} values differ"
    if before.dtype == np.uint8 or not np.issubdtype(before.dtype, np.number):
        return words
    return f"{words}, by {np.nanmax(np.abs(before.astype(float) - after.astype(float))):.3g} at most"


def values_of(path: Path) -> Iterator[tuple[str, Any]]:
    """Yield the values in a file, each with its place: numbers, words or arrays."""
    if path.suffix == ".json":
        yield from _leaves(json.loads(path.read_text(encoding="utf-8")), "")
    elif path.suffix == ".jsonl":
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield from _leaves(json.loads(line), f"line {number}")
    elif path.suffix == ".safetensors":
        yield from _tensors(path.read_bytes())
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            yield from arrays.items()
    else:
        content = path.read_bytes()
        yield "bytes", np.frombuffer(gzip.decompress(content) if path.suffix == ".gz" else content, dtype=np.uint8)


def _leaves(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            if key == PLANNED_MEMORY or not LEFT_OUT.search(key):
                yield from _leaves(each, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        yield f"{place} length", len(value)
        for index, each in enumerate(value):
            yield from _leaves(each, f"{place}[{index}]")
    else:
        yield place, value


def _tensors(content: bytes) -> Iterator[tuple[str, Any]]:
    """Yield the tensors of a safetensors file: eight bytes with the size of the header, the header, the data."""
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:start]).items():
        if name != "__metadata__":
            begin, end = (start + offset for offset in entry["data_offsets"])
            kind = {"F32": np.float32, "F64": np.float64, "I64": np.int64}.get(entry["dtype"], np.uint8)
            yield f"{name} {entry['dtype']} {entry['shape']}", np.frombuffer(content[begin:end], dtype=kind)
