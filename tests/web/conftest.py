"""The page's TypeScript under node, and its folder in Chromium; both need `make web` and are skipped without."""

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ROOT = Path(__file__).parents[2]
CHECKS = ROOT / "web" / "build" / "checks" / "checks.mjs"
PAGE = ROOT / "seg25d" / "portable" / "page" / "index.html"
NODE = shutil.which("node")
SOURCES = (
    *("web/src", "web/checks", "web/public", "web/licences", "web/index.html", "web/package-lock.json"),
    *("web/vite.config.ts", "web/vite.checks.config.ts", "seg25d/report/assets/report.css"),
)
"""What page and checks are built of."""
TYPES = {"Float32Array": np.float32, "Uint8Array": np.uint8}


class Checks:
    """The page's TypeScript on jobs, see web/checks/main.ts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.jobs: list[dict[str, Any]] = []

    def add(self, task: str, arrays: Sequence[NDArray[Any]] = (), **arguments: Any) -> None:
        names = []
        for number, array in enumerate(arrays):
            names.append(f"job_{len(self.jobs)}_{number}.bin")
            (self.folder / names[-1]).write_bytes(np.ascontiguousarray(array, "<f4").tobytes())
        self.jobs.append({"task": task, "arrays": names, **arguments})

    def run(self) -> list[Any]:
        """The answers to all jobs, arrays flat."""
        assert NODE is not None
        (self.folder / "jobs.json").write_text(json.dumps(self.jobs))
        subprocess.run([NODE, str(CHECKS), str(self.folder)], check=True)
        answers = json.loads((self.folder / "answers.json").read_text())
        return [self._array(answer) for answer in answers]

    def _array(self, answer: Any) -> Any:
        if not isinstance(answer, dict) or "file" not in answer:
            return answer
        return np.frombuffer((self.folder / answer["file"]).read_bytes(), TYPES[answer["type"]])


def check_fresh(built: Path) -> None:
    """Fail where what was built is older than its sources, as tests of it would say nothing about them."""
    files = [path for name in SOURCES for path in (ROOT / name, *(ROOT / name).rglob("*")) if path.is_file()]
    newest = max(files, key=lambda path: path.stat().st_mtime)
    if newest.stat().st_mtime > built.stat().st_mtime:
        where = newest.relative_to(ROOT)
        pytest.fail(f"the page was built before {where} was written; run `make web` (needs Node.js)", pytrace=False)


@pytest.fixture
def checks(tmp_path: Path) -> Checks:
    if NODE is None or not CHECKS.is_file():
        pytest.skip("the page is not built: make web (needs Node.js)")
    check_fresh(CHECKS)
    return Checks(tmp_path)


@pytest.fixture(scope="session")
def built_page() -> Path:
    if not PAGE.is_file():
        pytest.skip("the page is not built: make web (needs Node.js)")
    check_fresh(PAGE)
    return PAGE.parent
