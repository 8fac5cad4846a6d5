"""Damaged image files, made of good ones at random: each is read right, or refused in one sentence."""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fuzz_dicom import KINDS as ENCODINGS
from fuzz_dicom import good_series, mutated_series, read_series
from fuzz_headers import FORMATS, WRONG, good_files, mutated_file, read_everywhere, run_apart
from fuzz_pictures import FORMATS as PICTURES
from fuzz_pictures import good_pictures, mutated_picture, read_picture_everywhere

from faults.attempts import Kind, Result
from seg25d.core.errors import InputError

OUTCOMES = {0: "read", InputError.exit_status: "refused", WRONG: "read wrongly"}


def _result(read: Callable[[Path], int], path: Path) -> Result:
    """What became of a file that was read in a process with limits of memory and time."""
    outcome = run_apart(partial(read, path))
    words = OUTCOMES.get(outcome.status, f"status {outcome.status}")
    return Result(outcome.status in (0, InputError.exit_status), words, f"{path.name}: {outcome.text[-500:]}")


def _good(prepared: Path, name: str) -> Path:
    folder = prepared / "files" / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _volume_kind(ending: str) -> Kind:
    def attempt(rng: random.Random, prepared: Path, folder: Path) -> Result:
        sources = good_files(_good(prepared, ending), ending)
        return _result(read_everywhere, mutated_file(sources, ending, rng, folder))

    return Kind(f"file {ending}", lambda prepared: None, attempt)


def _picture_kind(ending: str) -> Kind:
    def attempt(rng: random.Random, prepared: Path, folder: Path) -> Result:
        sources = good_pictures(_good(prepared, ending), ending)
        return _result(read_picture_everywhere, mutated_picture(sources, ending, rng, folder))

    return Kind(f"file {ending}", lambda prepared: None, attempt)


def _prepare_series(prepared: Path) -> None:
    for encoding in ENCODINGS:
        if not (_good(prepared, "dicom") / encoding).exists():
            good_series(prepared / "files" / "dicom" / encoding, encoding)


def _attempt_series(rng: random.Random, prepared: Path, folder: Path) -> Result:
    series = folder / "series"
    mutated_series(prepared / "files" / "dicom" / rng.choice(ENCODINGS), rng, series)
    return _result(read_series, series)


KINDS = (
    *(_volume_kind(ending) for ending in FORMATS),
    Kind("file dicom", _prepare_series, _attempt_series),
    *(_picture_kind(ending) for ending in PICTURES),
)
