"""Hostile and damaged models, records and arrays: each is read, or refused with one sentence; nothing else happens.

Every attempt changes one good file, and reads it as the product does, in a forked process with limits of memory and
time. Allowed are the exit statuses 0 and 2; nothing may be written but into the folder that is named for it, and no
temporary file may stay.
"""

import faulthandler
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import blosc2
import numpy as np
import torch
from fuzz_headers import SECONDS, Outcome, run_apart
from mutations import mutate
from safetensors.torch import load, save

from faults.attempts import Kind, Result
from faults.hostile import WORDS, change_json, change_value, hostile_value
from faults.small_model import CASE, MODEL, NAME, RUN, make, state_of
from seg25d.cli.common import run_guarded
from seg25d.cli.main import main
from seg25d.core.arrays import StoredArray
from seg25d.core.device import Execution
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder, RunFolder
from seg25d.data.conversion import Conversion
from seg25d.data.dataset import read_description, read_splits
from seg25d.evaluation.summary import Summary
from seg25d.inference.prediction_files import PredictionRecord, read_probabilities
from seg25d.inference.predictor import Predictor
from seg25d.planning.fingerprint import Fingerprint
from seg25d.planning.model_file import METADATA_KEY, load_header
from seg25d.planning.plans_file import read_plans
from seg25d.preprocessing.store import Store
from seg25d.selection.best import Best
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.durations import share_left
from seg25d.training.trainer import _go_on
from seg25d.training.transfer import PretrainedFile

HEADER = 4096
"""Bytes at the beginning of a file that are changed most of the time."""
CPU = Execution(torch.device("cpu"), torch.float32)
Read = Callable[[], int]


def prepare(folder: Path) -> None:
    """Write the good model, once, and load what the attempts need, so that their processes begin with it."""
    torch.set_num_threads(1)
    good = folder / "models"
    if not good.exists():
        unfinished = folder / "models.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        words = ("-i", str(unfinished / "images"), "-m", str(unfinished / "model.zip"), "--save-probabilities", *_ALONE)
        for out in ("first", "second"):
            if main(["predict", "-o", str(unfinished / out), *words]) != 0:
                raise RuntimeError("the good model does not predict")
        unfinished.rename(good)


_ALONE = ("--device", "cpu", "--num-processes", "0", "--quiet")


def attempt(
    change: Callable[[random.Random, Path, Path], Read], rng: random.Random, prepared: Path, folder: Path
) -> Result:
    """Change a file and read it.

    Args:
        change: Writes the changed file into a folder, given the random numbers, the good files and the folder, and
            gives what reads it.
        rng: Of this attempt.
        prepared: The folder of `prepare`.
        folder: An empty folder; what is read lies so deep in it that names with `..` stay inside.
    """
    torch.set_num_threads(1)
    inside = folder / "a" / "b" / "c" / "d"
    inside.mkdir(parents=True)
    read = change(rng, prepared / "models", inside)
    before = _tree(folder)
    outcome = run_apart(partial(_in_folder, inside, read))
    faults = _faults(outcome, before, _tree(folder), inside)
    words = "; ".join(faults) if faults else {0: "read", 2: "refused"}[outcome.status]
    return Result(not faults, words, f"status {outcome.status}, {outcome.seconds:.1f} s\n{outcome.text[-3000:]}")


def _in_folder(folder: Path, read: Read) -> int:
    os.chdir(folder)
    faulthandler.dump_traceback_later(SECONDS - 4, file=2)  # says where it hangs
    statuses: list[int] = []
    status = run_guarded(lambda: statuses.append(read()), debug=False)
    return status or statuses[0]


def _faults(outcome: Outcome, before: Mapping[str, str], after: Mapping[str, str], inside: Path) -> list[str]:
    """What is not as promised."""
    faults = [] if outcome.status in (0, 2) else [f"ended with {outcome.status}"]
    if "Traceback" in outcome.text or "bug of seg25d" in outcome.text:
        faults.append("traceback")
    if outcome.status == 2 and len(outcome.text) < 20:
        faults.append("no message")
    if any(letter in outcome.text for letter in "\x1b\x00\u202e\x9b"):
        faults.append("escapes printed")
    allowed = tuple(f"a/b/c/d/{name}" for name in ("workspace", "out"))
    changed = [name for name in {*before, *after} if before.get(name) != after.get(name)]
    if outside := [name for name in changed if not name.startswith(allowed)]:
        faults.append(f"changed {outside[0]}")
    if left := [name for name in after if "/.tmp-" in name]:
        faults.append(f"left {left[0]}")
    refused = outcome.status == 2 and "is installed" not in outcome.text
    if refused and any(name.endswith((".safetensors", ".zip")) for name in set(after) - set(before)):
        faults.append("installed what it refused")
    return faults


def _tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with size and time, and every folder."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        sizes = "" if stat.S_ISDIR(status.st_mode) else f"{status.st_size} {status.st_mtime_ns}"
        found[path.relative_to(folder).as_posix()] = sizes
    return found


def change_model(rng: random.Random, good: Path, folder: Path) -> Read:
    """An archive with hashes that fit: header, a record or the weights of the model changed, or files renamed."""
    with zipfile.ZipFile(good / "model.zip") as file:
        files = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(files.pop("manifest.json"))
    kind = rng.randrange(10)
    if kind < 5:
        files[MODEL] = _with_header(files[MODEL], rng)
    elif kind < 7:
        files[MODEL] = _with_weights(files[MODEL], rng)
    elif kind < 9:
        name = rng.choice([name for name in files if name.endswith(".json")])
        files[name] = change_json(files[name], rng)
    else:
        name = rng.choice(list(files))
        files[rng.choice((*WORDS, f"../{name}", f"/{name}", f"x/{name}")) or "x"] = files.pop(name)
    manifest["files"] = [
        {"path": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]
    if rng.random() < 0.15:
        manifest = change_value(manifest, rng)
    _write_zip(folder / "model.zip", {**files, "manifest.json": json.dumps(manifest).encode()}, rng)
    return partial(_use_archive, good, rng.random() < 0.5)


def _write_zip(path: Path, files: Mapping[str, bytes], rng: random.Random) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as file:
        warnings.simplefilter("ignore")
        for name, content in files.items():
            with_zero = name.replace("\x00", "?")
            entry = zipfile.ZipInfo(with_zero[:60_000] or "x")
            entry.compress_type = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
            file.writestr(entry, content)


def _use_archive(good: Path, install: bool) -> int:
    """Install and predict, or predict from the archive."""
    predict = ["predict", "-i", str(good / "images"), "-o", "out", "--workspace", "workspace", *_ALONE]
    if not install:
        return main([*predict, "-m", "model.zip"])
    status = main(["install_model", "model.zip", "--workspace", "workspace"])
    return status if status != 0 else main([*predict, "-d", NAME])


def _with_header(content: bytes, rng: random.Random) -> bytes:
    """A model file with another header, and the same weights."""
    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    header = json.loads(head["__metadata__"][METADATA_KEY])
    if rng.random() < 0.2:
        header["description"]["file_ending"] = rng.choice(WORDS)
    header = change_value(header, rng)
    head["__metadata__"][METADATA_KEY] = json.dumps(header)
    return _joined(json.dumps(head).encode("utf-8", "replace"), content[8 + size :])


def _joined(head: bytes, data: bytes) -> bytes:
    head += b" " * (-len(head) % 8)
    return len(head).to_bytes(8, "little") + head + data


def _with_weights(content: bytes, rng: random.Random) -> bytes:
    """A model file with NaN, or with weights of other shape, type or name."""
    size = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + size])["__metadata__"]
    weights = load(content)
    name = rng.choice(list(weights))
    kind = rng.randrange(6)
    if kind < 3:
        value = rng.choice((float("nan"), float("inf"), float("-inf"), 3e38))
        weights[name] = weights[name].clone()
        weights[name].view(-1)[rng.randrange(weights[name].numel())] = value
    elif kind == 3:
        del weights[name]
    elif kind == 4:
        weights[rng.choice((*WORDS[:20], "more"))] = torch.zeros(3)
    else:
        dtype = rng.choice((torch.float64, torch.bfloat16, torch.int8, torch.complex64, torch.float8_e4m3fn))
        weights[name] = rng.choice((weights[name].to(dtype), weights[name][:0], weights[name][None]))
    return save({key.replace("\x00", "?"): value.contiguous() for key, value in weights.items()}, metadata)


def change_zip(rng: random.Random, good: Path, folder: Path) -> Read:
    """An archive with changed bytes, mostly in the list of its entries, or with one entry too many."""
    content = (good / "model.zip").read_bytes()
    if rng.random() < 0.2:
        (folder / "model.zip").write_bytes(content)
        _add_entry(folder / "model.zip", rng)
        return partial(_use_archive, good, True)
    place = content.rindex(b"PK\x05\x06")
    start = int.from_bytes(content[place + 16 : place + 20], "little")
    if rng.random() < 0.7:
        tail = content[start:]
        content = content[:start] + mutate(tail, len(tail), rng)
    else:
        content = mutate(content, HEADER, rng)
    (folder / "model.zip").write_bytes(content)
    return partial(_use_archive, good, rng.random() < 0.5)


def _add_entry(path: Path, rng: random.Random) -> None:
    """Append what does not belong: links, folders, names elsewhere, bombs, the same once more."""
    kinds = (stat.S_IFLNK | 0o777, stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o644)
    names = (
        *(word[:200].replace("\x00", "?") for word in WORDS if word),
        MODEL,
        "3d/",
        "3D/plans.json",
        "manifest.json",
    )
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        warnings.simplefilter("ignore")
        for _ in range(rng.choice((1, 1, 2, 20_000))):
            entry = zipfile.ZipInfo(rng.choice(names))
            entry.external_attr = rng.choice(kinds) << 16
            entry.flag_bits |= rng.choice((0, 0, 1))
            file.writestr(entry, rng.choice((b"", b"/etc/passwd", bytes(200_000))))


def change_safetensors(rng: random.Random, good: Path, folder: Path) -> Read:
    """A model file with changed bytes or a changed list of tensors."""
    content = (good / "workspace" / "results" / NAME / MODEL).read_bytes()
    size = int.from_bytes(content[:8], "little")
    if rng.random() < 0.4:
        content = mutate(content, 8 + size, rng)
    elif rng.random() < 0.5:
        content = _with_header(content, rng)
    else:
        content = _joined(change_json(content[8 : 8 + size], rng), content[8 + size :])
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return partial(_use_model, path)


def _use_model(path: Path) -> int:
    load_header(path)
    PretrainedFile.read(path)
    Predictor.load([path], CPU)
    return 0


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
            *_ALONE,
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
    objects.flat[0] = _Payload()
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


class _Payload:
    """Writes a file outside when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch ../payload_ran",)


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


def change_checkpoint(rng: random.Random, good: Path, folder: Path) -> Read:
    """A checkpoint that is damaged, holds something else, or would run code."""
    run = RunFolder(root=good / "workspace" / "results" / NAME / RUN)
    fold = FoldFolder(root=folder)
    if rng.random() < 0.4:
        content = run.fold(0).checkpoint.read_bytes()
        fold.checkpoint.write_bytes(mutate(content, rng.choice((HEADER, len(content))), rng))
    elif rng.random() < 0.1:
        fold.checkpoint.write_bytes(pickle.dumps(_Payload()))
    else:
        state = torch.load(run.fold(0).checkpoint, weights_only=True)
        torch.save(_other_state(state, rng), fold.checkpoint)
    return partial(_use_checkpoint, run, fold)


def _other_state(state: Any, rng: random.Random) -> Any:
    """The content of a checkpoint with an entry, or one inside of it, replaced."""
    place = state
    key = rng.choice(list(state))
    while isinstance(place[key], dict | list) and place[key] and rng.random() < 0.7:
        place = place[key]
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
    old = place[key]
    if torch.is_tensor(old) and rng.random() < 0.7:
        place[key] = rng.choice((old * float("nan"), old[None], old.to(torch.float16), old.int(), old.reshape(-1)[:1]))
    elif rng.random() < 0.2 and isinstance(place, dict):
        del place[key]
    else:
        place[key] = hostile_value(rng, old)
    return state if rng.random() < 0.95 else hostile_value(rng)


def _use_checkpoint(run: RunFolder, fold: FoldFolder) -> int:
    content = load_checkpoint(fold.checkpoint)
    state = state_of(run)
    _go_on(state, SimpleNamespace(folder=fold), content)  # type: ignore[arg-type]
    for parameter in state.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    return 0


CHANGES = {
    "model": change_model, "zip": change_zip, "safetensors": change_safetensors, "json": change_record,
    "npz": change_npz, "b2nd": change_b2nd, "checkpoint": change_checkpoint,
}  # fmt: skip
KINDS = tuple(Kind(name, prepare, partial(attempt, change)) for name, change in CHANGES.items())
