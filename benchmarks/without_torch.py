"""What prediction without torch costs and saves: Dice, sizes, seconds and memory of graphs beside torch's.

    python benchmarks/without_torch.py --workspace WORKSPACE --runs Dataset004_Hippocampus/axial ... -o FILE.json

A run is `DATASET/RUN`, a folder of results with a trained fold, whose validation cases are predicted by torch and by
graphs with weights in float32, float16 and int8, by the same commands on the CPU. `--light PYTHON` is the Python of an
environment that has no torch, for the graphs (`make build/light/.ready` makes build/light/bin/python); else they are
predicted where torch is installed, too. The code is that of this checkout in both. For each way:

- `dice` against the truth, `dice_against_torch` against torch's predictions: means over the foreground;
- `archive_mb` and `export_s`, size of the archive and seconds of its export (of the first graphs with those in which
  ONNX is loaded);
- `start_s`, seconds of a command for one case without those of the case: of the second such command, when libraries
  have been read from the disk;
- `case_s`, seconds of a case by the clock: those of a command for all cases without `start_s`, divided by their number.
  Cases are read and written while others are computed, so that the seconds in `prediction.json`, added up, are more;
- `cpu_s`, processor seconds of that command;
- `memory_gb`, peak memory of all its processes together, without mapped files, see `measured.py`.

Seconds are by the clock: nothing else should run. What FILE.json has already is not measured again.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from measured import measure

from seg25d import api
from seg25d.core.device import choose_execution
from seg25d.core.files import read_json, write_json
from seg25d.core.processor import this_processor
from seg25d.core.versions import library_versions
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_splits
from seg25d.data.description import read_description
from seg25d.portable.export import check_packages

TORCH = "torch"
WEIGHTS = ("float32", "float16", "int8")
CHECKOUT = str(Path(api.__file__).parents[1])
LIGHT = "build/light/bin/python, which `make build/light/.ready` makes"
QUESTION = (
    "import json; from importlib.metadata import version; from importlib.util import find_spec; "
    "from seg25d.core.versions import library_versions; "
    "print(json.dumps([bool(find_spec('torch')), library_versions() | {'onnxruntime': version('onnxruntime')}]))"
)
"""What a Python without torch is asked: whether that is so, and which versions it has."""
LINES_OF_LOG = 20
"""Lines of a failed command that are shown."""


class Interpreter(NamedTuple):
    """A Python that predicts."""

    path: str
    variables: Mapping[str, str]
    versions: Mapping[str, str]


def this_interpreter() -> Interpreter:
    """The Python that runs this, with all that it finds."""
    others = [str(Path(each).absolute()) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]
    versions = library_versions() | {"onnxruntime": version("onnxruntime")}
    return Interpreter(sys.executable, os.environ | {"PYTHONPATH": os.pathsep.join([CHECKOUT, *others])}, versions)


def light_interpreter(path: Path) -> Interpreter:
    """A Python of another environment, which is asked whether it can predict and has no torch."""
    # Of what this Python finds elsewhere it gets nothing but our code: that may have torch.
    variables = os.environ | {"PYTHONPATH": CHECKOUT}
    if not path.exists():
        raise SystemExit(f"error: {path} does not exist; take {LIGHT}")
    python = str(path.absolute())  # not what a link leads to: it is how a virtual environment is known
    asked = subprocess.run([python, "-c", QUESTION], capture_output=True, text=True, check=False, env=variables)
    if asked.returncode != 0:
        raise SystemExit(f"error: {python} cannot predict by graphs; take {LIGHT}:\n{asked.stderr}")
    has_torch, versions = json.loads(asked.stdout)
    if has_torch:
        raise SystemExit(f"error: {python} has torch, expected a Python without it; take {LIGHT}")
    return Interpreter(python, variables, versions)


def find_run(workspace: Workspace, name: str) -> tuple[str, RunFolder, str]:
    """Find the data set, the run and its first fold of `DATASET/RUN`, before anything is measured."""
    identifier, _, run_name = name.partition("/")
    dataset = workspace.dataset_name(identifier)
    run = workspace.run(dataset, run_name or "none")
    folds = [fold for fold in run.trained_folds() if fold.isdecimal()]
    if not folds:
        trained = run.root.parent.glob("*/fold_[0-9]*/model_final.safetensors")
        there = ", ".join(sorted({path.parents[1].name for path in trained})) or "none"
        raise SystemExit(f"error: {name} has no trained fold; runs of {dataset} that have: {there}")
    return dataset, run, folds[0]


def link_cases(workspace: Workspace, dataset: str, cases: Sequence[str], place: Path) -> tuple[Path, Path]:
    """Make folders of the images and of the true labels of some training cases; give both."""
    raw, folders = workspace.raw_dataset(dataset), (place / "images", place / "labels")
    kinds = (("imagesTr", "_[0-9][0-9][0-9][0-9].*"), ("labelsTr", ".*"))
    for folder, (source, pattern) in zip(folders, kinds, strict=True):
        folder.mkdir(parents=True)
        for case in cases:
            files = sorted((raw / source).glob(f"{case}{pattern}"))
            if not files:
                raise SystemExit(f"error: {raw / source} has no {case}, a validation case of the fold")
            for file in files:
                (folder / file.name).symlink_to(file.resolve())
                file.read_bytes()  # so that the first way finds it in memory, as the others do
    return folders


def export(workspace: Workspace, run: RunFolder, fold: str, way: str, path: Path) -> dict[str, float]:
    """Write the archive of a fold; give its size and the seconds that it took."""
    choice: dict[str, Any] = {} if way == TORCH else {"format": "onnx", "weights": way}
    begun = time.perf_counter()
    options = api.ExportOptions(configurations=(run.root.name,), folds=(fold,), **choice)
    api.export_model(workspace, run.root.parent.name, path, options)
    return {"archive_mb": round(path.stat().st_size / 1e6, 2), "export_s": round(time.perf_counter() - begun, 1)}


def predict(python: Interpreter, images: Path, archive: Path, out: Path) -> dict[str, float]:
    """Predict a folder by a command; give what `measure` does, and `cases_s`, the seconds of its cases added up."""
    command = [python.path, "-m", "seg25d", "predict", "-i", str(images), "-o", str(out), "-m", str(archive)]
    log = out.with_suffix(".log")
    # In a folder without code: `python -m` would take that of the current one.
    found = measure([*command, "--device", "cpu"], python.variables, log, folder=out.parent)
    if found["status"] != 0:
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-LINES_OF_LOG:])
        raise SystemExit(f"error: {' '.join(command)} ended with status {found['status']}:\n{last}")
    seconds = [each for each in read_json(out / "prediction.json")["seconds"].values() if each is not None]
    return found | {"cases_s": sum(seconds)}


def measure_way(python: Interpreter, first: Path, images: Path, archive: Path, out: Path) -> dict[str, float]:
    """Predict one case twice, then all; give seconds and memory."""
    for name in ("cold", "warm"):
        one = predict(python, first, archive, out.with_name(f"{out.name}_{name}"))
    every, start = predict(python, images, archive, out), one["wall_s"] - one["cases_s"]
    num_cases = len(read_json(out / "prediction.json")["seconds"])
    return {
        "start_s": round(start, 2),
        "case_s": round((every["wall_s"] - start) / num_cases, 3),
        "cpu_s": round(every["cpu_s"], 1),
        "memory_gb": round(every["memory_of_all_gb"], 3),
    }


def compare(
    workspace: Workspace, run: RunFolder, fold: str, pythons: Mapping[str, Interpreter], num_cases: int | None
) -> dict[str, Any]:
    """Measure all ways on the validation cases of a fold."""
    cases, dataset = read_splits(run.splits)[int(fold)].val[:num_cases], run.root.parent.name
    labels = read_description(run.dataset).labels
    found: dict[str, Any] = {"fold": fold, "num_cases": len(cases), "ways": {}}
    with TemporaryDirectory(prefix="seg25d-") as name:
        place = Path(name)
        first, _ = link_cases(workspace, dataset, cases[:1], place / "first")
        images, truth = link_cases(workspace, dataset, cases, place / "all")
        for way in (TORCH, *WEIGHTS):
            archive, out = place / f"{way}.zip", place / way
            figures: dict[str, float | None] = {**export(workspace, run, fold, way, archive)}
            figures |= measure_way(pythons[way], first, images, archive, out)
            for key, reference in (("dice", truth), ("dice_against_torch", place / TORCH)):
                output = place / f"{way}_{key}.json"
                summary = api.evaluate(reference, out, output=output, num_processes=1, labels=labels)
                figures[key] = summary.foreground_mean.dice
            found["ways"][way] = figures
            print(f"{dataset}/{run.root.name} {way}: {figures}", flush=True)
    return found


def main() -> None:
    """Compare the ways for every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True, metavar="DATASET/RUN")
    parser.add_argument("--light", type=Path, metavar="PYTHON", help="Python of an environment without torch")
    parser.add_argument("--num-cases", type=int, metavar="N", help="cases of each run (default: all of the fold)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    check_packages()
    workspace = Workspace.resolve(options.workspace, {})
    runs = [find_run(workspace, run) for run in options.runs]
    ours = this_interpreter()
    graphs = light_interpreter(options.light) if options.light else ours
    pythons = {TORCH: ours} | dict.fromkeys(WEIGHTS, graphs)
    machine = {
        "cpu": this_processor().description,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "torch": str(choose_execution("cpu")),
        "versions": {"torch": dict(ours.versions), "graphs": dict(graphs.versions)},
    }
    content = read_json(options.output) if options.output.exists() else {"runs": {}}
    for dataset, run, fold in runs:
        name = f"{dataset}/{run.root.name}"
        if name in content["runs"]:
            print(f"{name} is in {options.output} already; remove it there to measure it again", flush=True)
            continue
        content["runs"][name] = compare(workspace, run, fold, pythons, options.num_cases) | {"machine": machine}
        write_json(options.output, content)


if __name__ == "__main__":
    main()
