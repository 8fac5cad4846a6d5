"""Folders that segment in a browser: the page that `make web` built, the graphs of a model, and what the page asks."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import temporary_folder, write_text
from seg25d.core.workspace import RunFolder
from seg25d.planning.model_file import load_header
from seg25d.planning.portable_model import GRAPH_SUFFIX
from seg25d.portable.archive import write_folder
from seg25d.portable.page_model import MODEL, page_model
from seg25d.sharing.choice import ChosenModels, ExportOptions
from seg25d.sharing.manifest import BEST, Manifest

PAGE = "page.json"
FILES = "files.json"
"""List of the addresses that the page keeps for use without a network."""
SERVICE_WORKER = "service-worker.js"
RUNTIMES = "ort/"
"""Folder of ONNX Runtime; of its files those for graphics processors are kept once they have been loaded."""
BASIC_RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""What every browser can use, in a folder of its version there."""
VERSION = "__SEG25D_VERSION__"
"""What stands in the service worker, as built, in place of the digest of all files."""


def write_page(path: Path, folder: Path, models: ChosenModels, options: ExportOptions) -> Manifest:
    """Write a folder that any static server can serve; it is complete or absent.

    Args:
        path: The folder. One that this function wrote is replaced with `overwrite`.
        folder: `results/DATASET`.
        models: One run and its folds; with post-processing where they are the choice of `best.json`.
        options: Licence, weights, and whether to overwrite.

    Returns:
        The manifest of the models.

    Raises:
        InputError: If the page is not built, the folder exists, the models are not of one run, or need others to
            predict; see also `write_folder`.
    """
    _check_models(folder, models)
    if path.exists() and not (options.overwrite and (path / PAGE).is_file()):
        is_page = (path / PAGE).is_file()
        raise InputError(f"{path} exists already; choose another folder" + (" or --overwrite" * is_page))
    with as_file(files("seg25d.portable") / "page") as built, temporary_folder(path.parent, "page") as place:
        if not (built / "index.html").is_file():
            raise InputError(
                "--format web: the page is not built, which wheels of seg25d have; run `make web` in the repository "
                "(Node.js 20.19, or 22.12 and later, with npm)"
            )
        whole = place / "whole"
        shutil.copytree(built, whole)
        graphs = options.model_copy(update={"format": "onnx", "overwrite": False})
        manifest = write_folder(whole / MODEL, folder, models, graphs)
        names = sorted(file.path for file in manifest.files if file.path.endswith(GRAPH_SUFFIX))
        describe_page(whole, names, manifest.licence)
        if path.exists():
            path.rename(place / "old")
        whole.rename(path)
    return manifest


def describe_page(folder: Path, names: Sequence[str], licence: str | None) -> None:
    """Write `page.json`, and tell the service worker what to keep.

    Args:
        folder: The page as built, with the models in `model/`.
        names: Of the graphs in `model/`: one per fold of a run, and of fine models one coarse one more.
        licence: Of the models.
    """
    page = page_model(folder / MODEL, names, licence)
    write_text(folder / PAGE, page.model_dump_json(indent=2) + "\n")
    everything = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())
    runtime = [name for name in everything if name.startswith(RUNTIMES) and name.endswith(BASIC_RUNTIME)]
    kept = [name for name in everything if name in runtime or not name.startswith((f"{MODEL}/", RUNTIMES))]
    kept += [graph.address for graph in (*page.graphs, *(page.fine.graphs if page.fine else ()))]
    addresses = [name for name in kept if name != SERVICE_WORKER]
    write_text(folder / FILES, json.dumps(addresses, indent=0) + "\n")
    digest = hashlib.sha256()
    for name in everything:
        digest.update(name.encode())
        digest.update((folder / name).read_bytes())
    worker = folder / SERVICE_WORKER
    write_text(worker, worker.read_text(encoding="utf-8").replace(VERSION, digest.hexdigest()[:16]))


def _check_models(folder: Path, models: ChosenModels) -> None:
    """Refuse models that the page cannot use, before graphs are made of them."""
    if len(models.folds) != 1:
        names = ", ".join(models.folds)
        chosen = f" (the ensemble of {BEST}, for which there is {_instead(folder.name)})" if models.best else ""
        raise InputError(f"--format web takes the folds of one configuration, got {names}{chosen}; name one with -c")
    ((run, folds),) = models.folds.items()
    instead = _instead(folder.name, None if models.best else run)
    header = load_header(RunFolder(root=folder / run).fold(folds[0]).model_final)
    if header.plan.representation.fuses_views:
        raise InputError(
            f"--format web: {run} fuses views, which the page does not; export another configuration, or use {instead}"
        )


def _instead(dataset_name: str, run: str | None = None) -> str:
    """The commands that predict without torch with what the page cannot use."""
    archive = f"{run or dataset_name}.onnx.zip"
    return (
        f"`seg25d export_model {dataset_name}{f' -c {run}' if run else ''} --format onnx -o {archive}`, then "
        f"`seg25d predict -m {archive} -i IN -o OUT`"
    )
