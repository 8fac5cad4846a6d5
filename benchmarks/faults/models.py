"""Hostile and damaged models, records and arrays: each is read, or refused with one sentence; nothing else happens.

Every attempt changes one good file, and reads it as the product does, in a forked process with limits of memory and
time. Allowed are the exit statuses 0 and 2; nothing may be written but into the folder that is named for it, and no
temporary file may stay.
"""

import hashlib
import importlib
import json
import pickle
import random
import shutil
import stat
import warnings
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from mutations import mutate
from safetensors.torch import load, save

from faults.attempts import Kind
from faults.hostile import WORDS, change_json, change_value, hostile_value
from faults.reading import ALONE, Payload, Read, attempt
from faults.records import change_b2nd, change_npz, change_record
from faults.small_model import MODEL, NAME, RUN, make, state_of
from seg25d.cli.main import main
from seg25d.core.device import Execution
from seg25d.core.workspace import FoldFolder, RunFolder
from seg25d.inference.predictor import Predictor
from seg25d.planning.model_file import METADATA_KEY, load_header
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.trainer import _go_on
from seg25d.training.transfer import PretrainedFile

HEADER = 4096
"""Bytes at the beginning of a file that are changed most of the time."""
CPU = Execution(torch.device("cpu"), torch.float32)


def prepare(folder: Path) -> None:
    """Write the good model, once, and load what the attempts need, so that their processes begin with it."""
    torch.set_num_threads(1)
    for module in ("api", "runs.information", "report.write", "ensembling.ensemble", "selection.predict_validation"):
        importlib.import_module(f"seg25d.{module}")  # what commands load
    good = folder / "models"
    if not good.exists():
        unfinished = folder / "models.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        words = ("-i", str(unfinished / "images"), "-m", str(unfinished / "model.zip"), "--save-probabilities", *ALONE)
        for out in ("first", "second"):
            if main(["predict", "-o", str(unfinished / out), *words]) != 0:
                raise RuntimeError("the good model does not predict")
        unfinished.rename(good)


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
    predict = ["predict", "-i", str(good / "images"), "-o", "out", "--workspace", "workspace", *ALONE]
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


def change_checkpoint(rng: random.Random, good: Path, folder: Path) -> Read:
    """A checkpoint that is damaged, holds something else, or would run code."""
    run = RunFolder(root=good / "workspace" / "results" / NAME / RUN)
    fold = FoldFolder(root=folder)
    if rng.random() < 0.4:
        content = run.fold(0).checkpoint.read_bytes()
        fold.checkpoint.write_bytes(mutate(content, rng.choice((HEADER, len(content))), rng))
    elif rng.random() < 0.1:
        fold.checkpoint.write_bytes(pickle.dumps(Payload()))
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
