"""Checks of a zip file's entries before any content is read: whether they can be those of an archive of models."""

import re
import stat
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipInfo

from seg25d.core.files import MAX_JSON_BYTES
from seg25d.sharing.manifest import MANIFEST, Manifest, is_allowed

MAX_RATIO = 200
"""Maximum ratio of an entry's unpacked and packed sizes. Weights are hardly compressed, long records by a factor of 20;
DEFLATE reaches 1032 (https://zlib.net/zlib_tech.html), which zip bombs use."""
MAX_RECORD_BYTES = 1 << 25
"""Of all records but scores: a fingerprint of 1,228 cases and 117 classes has about 10 MB. A record of wrong values
takes 150 times its size in memory until that is told."""
MAX_ENTRIES = 10_000
"""Files of an archive; 100 configurations with 5 folds of fused coarse-to-fine views have 3,900."""
_MOST_LETTERS = 200
_ENCRYPTED = 0x1 | 0x40 | 0x2000
"""Flags of encrypted content, strongly encrypted content and encrypted names (APPNOTE.TXT of zip, 4.4.4)."""


def entry_problems(entries: Sequence[ZipInfo], archive_bytes: int) -> list[str]:
    """Find reasons why entries cannot be those of an archive of models, one sentence each.

    Args:
        entries: Entries of the zip file.
        archive_bytes: Size of the zip file.
    """
    if len(entries) > MAX_ENTRIES:
        return [f"it has {len(entries):,} entries; at most {MAX_ENTRIES:,} are possible"]
    names = [entry.orig_filename for entry in entries]
    problems = [f"{_shown(entry.orig_filename)} {problem}" for entry in entries if (problem := _check_entry(entry))]
    problems += _find_duplicates(names)
    if sum(entry.compress_size for entry in entries) > archive_bytes:
        problems.append("the sizes of its entries are larger than the file")
    if MANIFEST not in names:
        problems.append(f"{MANIFEST} is missing: it was not written by `seg25d export_model`")
    return problems


def overlap_problems(entries: Sequence[ZipInfo]) -> list[str]:
    """Find entries whose bytes are those of others too, by which a small file holds much (bamsoftware.com, zipbomb).

    Args:
        entries: Entries as read from a file, where each has its place.
    """
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    return [
        f"{_shown(first.orig_filename)} overlaps {_shown(second.orig_filename)}"
        for first, second in pairwise(ordered)
        if first.header_offset + len(first.orig_filename.encode()) + first.compress_size > second.header_offset
    ]


def manifest_problems(entries: Sequence[ZipInfo], manifest: Manifest) -> list[str]:
    """Find differences between the entries and the manifest, one sentence each."""
    sizes = {entry.filename: entry.file_size for entry in entries if entry.filename != MANIFEST}
    declared = {file.path: file.bytes for file in manifest.files}
    problems = _find_duplicates(manifest.paths)
    problems += [f"{name!r} is not in its manifest" for name in sizes if name not in declared]
    problems += [f"{name!r} is missing" for name in declared if name not in sizes]
    return problems + [
        f"{name!r} has {size} bytes, and its manifest says {declared[name]}"
        for name, size in sizes.items()
        if declared.get(name, size) != size
    ]


def _shown(name: str) -> str:
    return repr(name if len(name) <= _MOST_LETTERS else f"{name[:_MOST_LETTERS]}...")


def _check_entry(entry: ZipInfo) -> str | None:
    name, kind = entry.orig_filename, stat.S_IFMT(entry.external_attr >> 16)
    limit = MAX_JSON_BYTES if name.endswith("/summary.json") else MAX_RECORD_BYTES
    limit = limit if name.endswith(".json") else entry.file_size
    tests = (
        (name.startswith("/"), "is an absolute path"),
        (re.match("[A-Za-z]:", name), "names a drive"),
        ("\\" in name, "has a backslash in its name"),
        (".." in name.split("/"), "leads out of its folder"),
        (kind not in (0, stat.S_IFREG), "is a link or a special file"),
        (name.endswith("/"), "is a folder; make the archive with `seg25d export_model`"),
        (entry.flag_bits & _ENCRYPTED, "is encrypted"),
        (name != MANIFEST and not is_allowed(name), "does not belong in an archive of models"),
        (entry.filename != name, "has a second name"),
        (entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED), "is compressed in an unusual way"),
        (entry.file_size > MAX_RATIO * entry.compress_size, f"unpacks to more than {MAX_RATIO} times its size"),
        (entry.file_size > limit, f"unpacks to more than the {limit >> 20} MiB that a record may have"),
    )
    return next((problem for failed, problem in tests if failed), None)


def _find_duplicates(names: Iterable[str]) -> list[str]:
    """Find names that occur twice, or that are the same on file systems which ignore capital letters."""
    counts = Counter(names)
    spellings = defaultdict(set)
    for name in counts:
        parts = name.split("/")
        for end in range(1, len(parts) + 1):
            path = "/".join(parts[:end])
            spellings[path.casefold()].add(path)
    problems = [f"{_shown(name)} occurs {count} times" for name, count in counts.items() if count > 1]
    return problems + [
        f"{' and '.join(map(_shown, sorted(same)))} differ in capital letters only"
        for same in spellings.values()
        if len(same) > 1
    ]
