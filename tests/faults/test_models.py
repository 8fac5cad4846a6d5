"""A few attempts of the campaign with hostile models, records and arrays; more of them in `make test-all`."""

import importlib
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forked processes with limits of memory")
KINDS = ("model", "zip", "safetensors", "json", "npz", "b2nd", "checkpoint")
SEED = 7


@pytest.fixture(scope="session")
def models() -> ModuleType:
    return importlib.import_module("faults.models")


@pytest.fixture(scope="session")
def prepared(models: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prepared")
    models.prepare(folder)
    return folder


def try_them(models: ModuleType, name: str, prepared: Path, folder: Path, numbers: range) -> list[str]:
    """What did not end as promised."""
    kind = next(kind for kind in models.KINDS if kind.name == name)
    results = [
        kind.attempt(random.Random(f"{SEED} {name} {number}"), prepared, folder / str(number)) for number in numbers
    ]
    return [f"{result.outcome}: {result.detail}" for result in results if not result.as_promised]


@pytest.mark.parametrize("name", ["safetensors", "b2nd", "checkpoint"])
def test_damaged_files_are_read_or_refused(models: ModuleType, name: str, prepared: Path, tmp_path: Path) -> None:
    assert not try_them(models, name, prepared, tmp_path, range(3))


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_hostile_files_are_read_or_refused(models: ModuleType, name: str, prepared: Path, tmp_path: Path) -> None:
    assert not try_them(models, name, prepared, tmp_path, range(3, 30))


def test_what_goes_wrong_is_seen(models: ModuleType, prepared: Path, tmp_path: Path) -> None:
    """Files elsewhere, temporary files that stay, tracebacks and other exit statuses are failures."""
    reads = {
        "changed a/b/evil": lambda: Path("../../evil").write_text("x") * 0,
        "left a/b/c/d/out/.tmp-1-a": lambda: (Path("out").mkdir(), Path("out/.tmp-1-a").touch(), 0)[2],
        "ended with 1; traceback": lambda: 1 // 0,
        "ended with 1": lambda: 1,
        "no message": lambda: 2,
    }
    for number, (words, read) in enumerate(reads.items()):
        result = models.attempt(lambda *_, read=read: read, random.Random(0), prepared, tmp_path / str(number))
        assert not result.as_promised
        assert f"{result.outcome}: {result.detail}".startswith(words)
