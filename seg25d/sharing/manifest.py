"""Content of an archive of models: its manifest, and the files that are allowed in it."""

import hashlib
import re
from collections.abc import Sequence
from typing import IO, Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field

from seg25d.core.limits import MAX_CHANNELS
from seg25d.core.names import check_name
from seg25d.core.records import Record
from seg25d.core.versions import library_versions
from seg25d.core.workspace import DATASET_NAME
from seg25d.data.labels import Labels
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.portable_model import GRAPH_SUFFIX

MANIFEST = "manifest.json"
BEST = "best.json"
FILES = (
    BEST,
    "RUN/plans.json",
    "RUN/dataset.json",
    "RUN/fingerprint.json",
    "RUN/crossval/summary.json",
    "RUN/crossval/predicted_dice.json",
    "RUN/FOLD/model_final.safetensors",
    "RUN/FOLD/coarse.safetensors",
    "RUN/FOLD/views/VIEW.safetensors",
    "RUN/FOLD/views/coarse/VIEW.safetensors",
)
"""The files of an archive beside its manifest, in the layout of `results/DATASET`: data only, no code. An archive for
use without torch has `.onnx` in the place of each `.safetensors`, and what it is in a `.json` beside."""
_PLACEHOLDERS = {
    "RUN": "[A-Za-z0-9][A-Za-z0-9_-]{,99}",
    "FOLD": "fold_(?:[0-9]{1,3}|all)",
    "VIEW": "[A-Za-z0-9][A-Za-z0-9_-]{,99}",
}
_CHUNK = 1 << 20


def _make_pattern(file: str) -> str:
    return re.sub("|".join(_PLACEHOLDERS), lambda match: _PLACEHOLDERS[match[0]], re.escape(file))


_MODELS = [file.removesuffix(".safetensors") for file in FILES if file.endswith(".safetensors")]
_PORTABLE = [f"{file}{suffix}" for file in _MODELS for suffix in (GRAPH_SUFFIX, ".json")]
_ALLOWED = re.compile("|".join(map(_make_pattern, (*FILES, *_PORTABLE))))


def is_allowed(path: str) -> bool:
    """Whether an archive may contain a file of this name."""
    return _ALLOWED.fullmatch(path) is not None


def _check_dataset_name(name: str) -> str:
    words = "the name of a data set must be DatasetNNN_Name, without path separators"
    if not DATASET_NAME.fullmatch(name):
        raise ValueError(words)
    try:
        return check_name(name)
    except ValueError as error:
        raise ValueError(f"{words}: {error}") from None


class Subject(NamedTuple):
    """Data set, channels and labels of models; the same for all models of an archive."""

    dataset_name: str
    channel_names: tuple[str, ...]
    labels: Labels

    @classmethod
    def of(cls, header: ModelHeader) -> "Subject":
        """The subject of a model."""
        return cls(header.dataset_name, header.description.channel_names, header.description.labels)


class ArchivedFile(Record):
    """A file of an archive with its size and hash."""

    path: str = Field(max_length=1000)
    bytes: int = Field(ge=0, lt=1 << 60)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """Description of an archive's content: `manifest.json`."""

    schema_version: Literal[1] = 1
    versions: dict[str, str] = Field(default_factory=library_versions)
    """Versions of the program and libraries that wrote the archive; every model has those of its training."""
    dataset_name: Annotated[str, AfterValidator(_check_dataset_name)]
    channel_names: tuple[str, ...] = Field(max_length=MAX_CHANNELS)
    labels: Labels
    licence: str | None = Field(default=None, max_length=1 << 20)
    """Full text of the licence of the models; None: none was given."""
    usage: tuple[str, ...] = Field(max_length=1000)
    """Commands to use the models, for people who open the archive."""
    files: tuple[ArchivedFile, ...]

    @property
    def subject(self) -> Subject:
        """The subject of the models."""
        return Subject(self.dataset_name, self.channel_names, self.labels)

    @property
    def paths(self) -> list[str]:
        """The names of all files."""
        return [file.path for file in self.files]

    @property
    def is_portable(self) -> bool:
        """Whether the models are graphs, for use without torch."""
        return any(path.endswith(GRAPH_SUFFIX) for path in self.paths)

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


def runs_of(paths: Sequence[str]) -> list[str]:
    """The runs that files of an archive belong to, sorted."""
    return sorted({path.split("/")[0] for path in paths if "/" in path})


def in_fold(path: str) -> bool:
    """Whether a file of an archive is in the folder of a fold, where models are."""
    return len(parts := path.split("/")) > 2 and parts[1].startswith("fold_")


def prediction_commands(dataset_name: str, paths: Sequence[str]) -> list[str]:
    """Commands to predict with installed models: one for the best ones, if they are included, and one for each run."""
    return _commands(f"seg25d predict -i IN -o OUT -d {dataset_name}", paths)


def usage(dataset_name: str, paths: Sequence[str]) -> tuple[str, ...]:
    """Commands to use the models of an archive; graphs are used as they are, without being installed."""
    if any(path.endswith(GRAPH_SUFFIX) for path in paths):
        return tuple(_commands("seg25d predict -i IN -o OUT -m FILE.onnx.zip", paths))
    return ("seg25d install_model FILE.zip", *prediction_commands(dataset_name, paths))


def _commands(command: str, paths: Sequence[str]) -> list[str]:
    return [command] * (BEST in paths) + [f"{command} -c {run}" for run in runs_of(paths)]


def copy_content(source: IO[bytes], target: IO[bytes], most: int | None = None) -> tuple[int, str]:
    """Copy the rest of a file.

    Args:
        source: File to read to its end.
        target: File to write to.
        most: Stop after more bytes than this; the returned size is then larger.

    Returns:
        The number of bytes, and their SHA-256.
    """
    size, content = 0, hashlib.sha256()
    while (most is None or size <= most) and (chunk := source.read(_CHUNK)):
        size += len(chunk)
        content.update(chunk)
        target.write(chunk)
    return size, content.hexdigest()
