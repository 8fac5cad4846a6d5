"""Hostile and damaged records, probabilities and stored arrays."""

import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import blosc2
import numpy as np
from mutations import mutate

from faults.hostile import change_json
from faults.reading import ALONE, Payload, Read
from faults.small_model import CASE, NAME, RUN
from seg25d.cli.main import main
from seg25d.core.arrays import StoredArray
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder
from seg25d.data.conversion import Conversion
from seg25d.data.dataset import read_description, read_splits
from seg25d.evaluation.summary import Summary
from seg25d.inference.prediction_files import PredictionRecord
from seg25d.inference.probability_files import read_probabilities
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.plans_file import read_plans
from seg25d.preprocessing.store import Store
from seg25d.selection.best import Best
from seg25d.training.config import TrainingConfig
from seg25d.training.durations import share_left

READERS: Mapping[str, Callable[[Path], object]] = {
    "best.json": lambda path: read_record(path, Best),
    f"{RUN}/plans.json": read_plans,
    f"{RUN}/dataset.json": read_description,
    f"{RUN}/fingerprint.json": lambda path: read_record(path, Fingerprint),
    f"{RUN}/splits.json": read_splits,
    f"{RUN}/crossval/summary.json": lambda path: read_record(path, Summary),
    f"{RUN}/fold_0/config.json": lambda path: read_record(path, TrainingConfig),
    f"{RUN}/fold_0/log.jsonl": lambda path: share_left(FoldFolder(root=path.parent), TrainingConfig()),
    "prediction.json": lambda path: read_record(path, PredictionRecord),
    "conversion.json": lambda path: read_record(path, Conversion),
    f"store/{CASE}.json": lambda path: Store(path.parent).record(CASE),
}
"""Records of a run and what reads each, by its place in the results of the data set."""


def change_record(rng: random.Random, good: Path, folder: Path) -> Read:
    """A record with changed values, or changed bytes; it is read, and the commands that meet it run."""
    results = folder / "workspace" / "results" / NAME
    shutil.copytree(good / "workspace" / "results" / NAME, results)
    shutil.copyfile(good / "first" / "prediction.json", results / "prediction.json")
    (results / "conversion.json").write_text(json.dumps({"kind": "dicom", "files": {"a.nii.gz": "0" * 32}}))
    shutil.copytree(good / "store", results / "store")
    name = rng.choice(list(READERS))
    path = results / name
    content = path.read_bytes()
    path.write_bytes(change_json(content, rng) if rng.random() < 0.7 else mutate(content, len(content), rng))
    return partial(_use_record, path, READERS[name], good, rng.choice(("info", "predict", "report", "read")))


def _use_record(path: Path, read: Callable[[Path], object], good: Path, command: str) -> int:
    words = {
        "info": ["info", "--workspace", "workspace"],
        "predict": [
            "predict",
            "-i",
            str(good / "images"),
            "-o",
            "out",
            "--workspace",
            "workspace",
            "-d",
            NAME,
            *ALONE,
        ],
        "report": ["report", NAME, "--workspace", "workspace"],
    }
    if command in words:
        return main(words[command])
    read(path)
    return 0


def change_npz(rng: random.Random, good: Path, folder: Path) -> Read:
    """Probabilities that are damaged, of another shape or type, or no probabilities."""
    for name in ("first", "second"):
        shutil.copytree(good / name, folder / name)
    path = folder / "first" / f"{CASE}.npz"
    probabilities = np.load(path)["probabilities"]
    if rng.random() < 0.5:
        content = path.read_bytes()
        path.write_bytes(mutate(content, rng.choice((300, len(content))), rng))
    else:
        path.write_bytes(_other_npz(probabilities, rng))
    return rng.choice((_use_npz, partial(_read_npz, path)))


def _other_npz(array: np.ndarray, rng: random.Random) -> bytes:
    """An archive with an array of another kind, or with a header that lies."""
    changed = array.copy()
    changed.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, -1.0, 2.0, 1e30))
    objects = np.empty(array.shape, object)
    objects.flat[0] = Payload()
    kinds = (changed, changed, objects, array[0], array[:1], array.astype(complex), array.astype("S4"), array > 0.5)
    chosen = rng.choice((*kinds, array.astype(np.float16), array[..., ::-1].T, np.zeros(0, np.float32)))
    header = io.BytesIO()
    np.save(header, chosen, allow_pickle=True)
    content = header.getvalue()
    if rng.random() < 0.4:
        shape = rng.choice(((3, 10**6, 10**6, 10**6), (-1, 5), (2**63, 1, 1, 1), (3, 2**31, 2, 2), (10**30,)))
        head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117).encode() + b"\n"
        content = b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(100)
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(rng.choice(("probabilities.npy",) * 9 + ("../probabilities.npy",)), content)
    return result.getvalue()


def _use_npz() -> int:
    return main(
        ["ensemble", "-i", "first", "second", "-o", "out", "--method", "mean", "--num-processes", "0", "--quiet"]
    )


def _read_npz(path: Path) -> int:
    read_probabilities(path)
    return 0


def change_b2nd(rng: random.Random, good: Path, folder: Path) -> Read:
    """A stored array that is damaged, or something else that blosc2 can store."""
    shutil.copytree(good / "store", folder / "store")
    path = folder / "store" / f"{CASE}{rng.choice(('', '_labels', '_reference'))}.b2nd"
    if rng.random() < 0.1:
        path.unlink()
        operand = blosc2.asarray(np.arange(9.0), urlpath=str(folder / "operand.b2nd"), mode="w")
        (operand + rng.randrange(9)).save(str(path), mode="w")
    elif rng.random() < 0.1:
        path = folder / "store" / f"{CASE}_locations.npz"
        content = path.read_bytes()
        path.write_bytes(mutate(content, len(content), rng))
    else:
        content = path.read_bytes()
        path.write_bytes(mutate(content, rng.choice((250, len(content))), rng))
    return partial(_use_store, path)


def _use_store(path: Path) -> int:
    store = Store(path.parent)
    for array in (store.open_image(CASE), store.open_labels(CASE)):
        _ = array[..., :2], array[...]
    store.read_reference(CASE)
    store.locations(CASE)
    StoredArray(path.with_suffix(".b2nd") if path.suffix == ".b2nd" else store._path(CASE), "make it again")
    return 0
