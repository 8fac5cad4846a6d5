"""What an archive of models holds: its manifest, and the only files that may be in it."""

import hashlib
import re
from collections.abc import Sequence
from typing import IO, Annotated, Literal, NamedTuple, TypeAlias

from pydantic import AfterValidator, Field

from seg25d.core.records import Record
from seg25d.core.versions import library_versions
from seg25d.core.workspace import DATASET_NAME
from seg25d.data.labels import Labels
from seg25d.planning.model_file import ModelHeader

MANIFEST = "manifest.json"
BEST = "best.json"
FILES = (
    BEST,
    "RUN/plans.json",
    "RUN/dataset.json",
    "RUN/fingerprint.json",
    "RUN/crossval/summary.json",
    "RUN/FOLD/model_final.safetensors",
    "RUN/FOLD/coarse.safetensors",
    "RUN/FOLD/views/VIEW.safetensors",
    "RUN/FOLD/views/coarse/VIEW.safetensors",
)
"""The files of an archive beside its manifest, as they lie under `results/DATASET`: data, nothing that can run."""
_PLACEHOLDERS = {
    "RUN": "[A-Za-z0-9][A-Za-z0-9_-]*",
    "FOLD": "fold_(?:[0-9]+|all)",
    "VIEW": "[A-Za-z0-9][A-Za-z0-9_-]*",
}
_CHUNK = 1 << 20


def _pattern(file: str) -> str:
    return re.sub("|".join(_PLACEHOLDERS), lambda match: _PLACEHOLDERS[match[0]], re.escape(file))


_ALLOWED = re.compile("|".join(map(_pattern, FILES)))


def is_allowed(path: str) -> bool:
    """Whether an archive may hold a file of this name."""
    return _ALLOWED.fullmatch(path) is not None


def _check_dataset_name(name: str) -> str:
    if not DATASET_NAME.fullmatch(name) or not name.isprintable() or set(name) & set('/\\:*?"<>|'):
        raise ValueError("the name of a data set is DatasetNNN_Name, without separators of folders")
    return name


FileName: TypeAlias = Annotated[str, AfterValidator(_check_dataset_name)]
"""The name of a data set that becomes the name of a folder."""


class Subject(NamedTuple):
    """What models segment; those of one archive have it in common."""

    dataset_name: str
    channel_names: tuple[str, ...]
    labels: Labels

    @classmethod
    def of(cls, header: ModelHeader) -> "Subject":
        """What a model segments."""
        return cls(header.dataset_name, header.description.channel_names, header.description.labels)


class ArchivedFile(Record):
    """A file of an archive and how to know it again."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """What an archive holds: `manifest.json`."""

    schema_version: Literal[1] = 1
    versions: dict[str, str] = Field(default_factory=library_versions)
    """Versions of what wrote the archive, program and libraries; every model says those of its training."""
    dataset_name: FileName
    channel_names: tuple[str, ...]
    labels: Labels
    licence: str | None = None
    """What others may do with the models, in full; None: nobody said it."""
    usage: tuple[str, ...]
    """What to type, for people who look into the archive."""
    files: tuple[ArchivedFile, ...]

    @property
    def subject(self) -> Subject:
        """What the models segment."""
        return Subject(self.dataset_name, self.channel_names, self.labels)

    @property
    def paths(self) -> list[str]:
        """The names of all files."""
        return [file.path for file in self.files]

    @property
    def num_bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)


def runs_of(paths: Sequence[str]) -> list[str]:
    """The runs to which files of an archive belong, sorted."""
    return sorted({path.split("/")[0] for path in paths if "/" in path})


def prediction_commands(dataset_name: str, paths: Sequence[str]) -> list[str]:
    """What to type to predict with the models once they are installed: a line per run, and for the chosen ones."""
    command = f"seg25d predict -i IN -o OUT -d {dataset_name}"
    return [command] * (BEST in paths) + [f"{command} -c {run}" for run in runs_of(paths)]


def copy_content(source: IO[bytes], target: IO[bytes], most: int | None = None) -> tuple[int, str]:
    """Copy what is left of a file.

    Args:
        source: Read to its end.
        target: Where to write it.
        most: Stop beyond so many bytes; the size that comes back is larger then.

    Returns:
        How many bytes there are, and their SHA-256.
    """
    size, content = 0, hashlib.sha256()
    while (most is None or size <= most) and (chunk := source.read(_CHUNK)):
        size += len(chunk)
        content.update(chunk)
        target.write(chunk)
    return size, content.hexdigest()
