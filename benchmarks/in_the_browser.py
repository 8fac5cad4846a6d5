"""The page of `export_model --format web` in headless Chromium: seconds, memory, and Dice against `predict`.

python benchmarks/in_the_browser.py FOLDER PREDICTIONS IMAGE [IMAGE ...] [--screenshots DIR]

FOLDER is what was exported, PREDICTIONS what `seg25d predict` made of the same images by the same folds. IMAGE is a
NIfTI file, or a folder of DICOM files; channels of a case (CASE_0000, CASE_0001) are one IMAGE, separated by commas.
Memory is that of all of the browser's processes together, shared pages counted once (PSS), its largest value; that of
the empty page is told beside it.
"""

import argparse
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

from seg25d.data.cases import split_channel, split_ending
from seg25d.data.image_io import read_labels

FLAGS = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-first-run")
PATIENCE_MS = 3_600_000
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1400, "height": 1000}


class Quiet(SimpleHTTPRequestHandler):
    """What `python -m http.server` serves with."""

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder on a plain static server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}/"
        server.shutdown()
        thread.join()


class PeakMemory:
    """The largest memory of this process's children together, looked at ten times a second."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.bytes = max(self.bytes, browser_bytes())


def browser_bytes() -> int:
    """Memory of the browser's processes, those of the driver left out."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "chrom" in process.name():
                total += process.memory_full_info().pss
    return total


def dice(found: Path, wanted: Path) -> dict[str, float]:
    """Dice of each value that the prediction has."""
    ours, pythons = read_labels(found)[0], read_labels(wanted)[0]
    values = [int(value) for value in np.unique(pythons) if value]
    masks = {value: (ours == value, pythons == value) for value in values}
    return {str(value): float(2 * (a & b).sum() / (a.sum() + b.sum())) for value, (a, b) in masks.items()}


def segment(page: Page, image: str, predictions: Path, place: Path) -> dict[str, Any]:
    """Segment an image, and compare the result."""
    paths = [Path(part) for part in image.split(",")]
    is_folder = paths[0].is_dir()
    case = paths[0].name if is_folder else split_channel(split_ending(paths[0])[0])[0]
    before = browser_bytes()
    with PeakMemory() as memory:
        started = time.perf_counter()
        page.set_input_files("#folder" if is_folder else "#files", paths[0] if is_folder else paths)
        page.wait_for_selector("body[data-state=done], body[data-state=failed]", timeout=PATIENCE_MS)
        seconds = time.perf_counter() - started
    if page.locator("#problem").is_visible():
        return {"case": case, "problem": page.locator("#problem").text_content()}
    with page.expect_download() as download:
        page.locator("#save").click()
    found = place / f"{case}.nii.gz"
    download.value.save_as(found)
    wanted = next(path for path in predictions.glob(f"{case}.*") if split_ending(path)[1])
    return {
        "case": case,
        "seconds": round(seconds, 1),
        "peak_gb": round(memory.bytes / 1e9, 2),
        "empty_gb": round(before / 1e9, 2),
        "dice": dice(found, wanted),
        "engine": page.locator("#engine").text_content(),
    }


def take_pictures(page: Page, folder: Path, name: str) -> None:
    """Screenshots of the whole page as on a desktop and on a phone."""
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(Exception):  # without WebGL nothing is drawn
        page.wait_for_selector("body[data-shown=structures]", timeout=60_000)
    for kind, size in (("desktop", DESKTOP), ("phone", PHONE)):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{name}_{kind}.png", full_page=True)
    page.set_viewport_size(DESKTOP)  # type: ignore[arg-type]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line of JSON per image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("images", nargs="+")
    parser.add_argument("--screenshots", type=Path)
    options = parser.parse_args(arguments)
    chromium = next(path for name in ("chromium", "google-chrome") if (path := shutil.which(name)))
    with served(options.folder) as address, TemporaryDirectory() as place, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=FLAGS)
        page = browser.new_page(viewport=DESKTOP, accept_downloads=True)  # type: ignore[arg-type]
        page.goto(address)
        page.wait_for_selector("body[data-state=ready]", timeout=PATIENCE_MS)
        for image in options.images:
            row = segment(page, image, options.predictions, Path(place))
            print(json.dumps(row), flush=True)
            if options.screenshots:
                take_pictures(page, options.screenshots, row["case"])
        browser.close()


if __name__ == "__main__":
    main()
