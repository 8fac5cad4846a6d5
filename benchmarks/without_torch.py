"""What prediction without torch costs and saves: Dice, sizes, seconds and memory of graphs beside torch's.

    python benchmarks/without_torch.py --workspace WORKSPACE --runs Dataset004_Hippocampus/axial ... -o FILE.json

A run is `DATASET/CONFIGURATION` with a trained fold, whose validation cases are predicted by torch and by graphs with
weights in float32, float16 and int8, by the same commands. `--light PYTHON` is the Python of an environment that has no
torch, for the graphs; else they are predicted where torch is installed, too. For each way:

- Dice against the truth, and against torch's predictions: means over the foreground;
- size of the archive and seconds of its export;
- seconds of a case, as `prediction.json` has them; seconds of the start: those of the command without its cases';
- peak memory of all processes together, without mapped files, see `measured.py`.

Seconds are by the clock: nothing else should run. What FILE.json has already is not measured again.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

from measured import measure

from seg25d import api
from seg25d.core.files import read_json, write_json
from seg25d.core.processor import this_processor
from seg25d.core.versions import library_versions
from seg25d.core.workspace import RunFolder, Workspace
from seg25d.data.dataset import read_splits

TORCH = "torch"
WEIGHTS = ("float32", "float16", "int8")


def link_cases(workspace: Workspace, dataset: str, cases: Sequence[str], place: Path) -> tuple[Path, Path]:
    """Make folders of the images and of the true labels of some training cases; give both."""
    raw, folders = workspace.raw_dataset(dataset), (place / "images", place / "labels")
    kinds = (("imagesTr", "_[0-9][0-9][0-9][0-9].*"), ("labelsTr", ".*"))
    for folder, (source, pattern) in zip(folders, kinds, strict=True):
        folder.mkdir(parents=True)
        for case in cases:
            files = sorted((raw / source).glob(f"{case}{pattern}"))
            assert files, f"{raw / source} has no {case}"
            for file in files:
                (folder / file.name).symlink_to(file.resolve())
    (folders[1] / "dataset.json").symlink_to((raw / "dataset.json").resolve())
    return folders


def export(workspace: Workspace, run: RunFolder, fold: str, way: str, path: Path) -> dict[str, float]:
    """Write the archive of a fold; give its size and the seconds that it took."""
    choice: dict[str, Any] = {} if way == TORCH else {"format": "onnx", "weights": way}
    begun = time.perf_counter()
    options = api.ExportOptions(configurations=(run.root.name,), folds=(fold,), **choice)
    api.export_model(workspace, run.root.parent.name, path, options)
    return {"archive_mb": round(path.stat().st_size / 1e6, 2), "export_s": round(time.perf_counter() - begun, 1)}


def predict(python: str, images: Path, archive: Path, out: Path) -> dict[str, float]:
    """Predict a folder by a command; give seconds and memory."""
    command = [python, "-m", "seg25d", "predict", "-i", str(images), "-o", str(out), "-m", str(archive)]
    places = [str(Path(api.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment: Mapping[str, str] = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    found = measure([*command, "--device", "cpu"], environment, out.with_suffix(".log"))
    if found["status"] != 0:
        raise SystemExit(f"error: {' '.join(command)} ended with status {found['status']}; see {out}.log")
    seconds = [each for each in read_json(out / "prediction.json")["seconds"].values() if each is not None]
    return {
        "case_s": round(fmean(seconds), 3),
        "start_s": round(found["wall_s"] - sum(seconds), 2),
        "cpu_s": round(found["cpu_s"], 1),
        "memory_gb": round(found["memory_of_all_gb"], 3),
    }


def compare(workspace: Workspace, run: RunFolder, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways on the validation cases of the first trained fold of a run."""
    fold = run.trained_folds()[0]
    cases = read_splits(run.splits)[int(fold)].val[: options.num_cases]
    found: dict[str, Any] = {"fold": fold, "num_cases": len(cases), "ways": {}}
    with TemporaryDirectory(prefix="seg25d-") as name:
        place = Path(name)
        images, labels = link_cases(workspace, run.root.parent.name, cases, place)
        for way in (TORCH, *WEIGHTS):
            archive, out = place / f"{way}.zip", place / way
            figures: dict[str, float | None] = {**export(workspace, run, fold, way, archive)}
            python = sys.executable if way == TORCH else options.light or sys.executable
            figures |= predict(python, images, archive, out)
            for key, reference in (("dice", labels), ("dice_against_torch", place / TORCH)):
                summary = api.evaluate(reference, out, output=place / f"{way}_{key}.json", num_processes=1)
                figures[key] = summary.foreground_mean.dice
            found["ways"][way] = figures
            print(f"{run.root.parent.name}/{run.root.name} {way}: {figures}", flush=True)
    return found


def main() -> None:
    """Compare the ways for every run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--runs", nargs="+", required=True, metavar="DATASET/CONFIGURATION")
    parser.add_argument("--light", metavar="PYTHON", help="Python of an environment without torch")
    parser.add_argument("--num-cases", type=int, metavar="N", help="cases of each run (default: all of the fold)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    options = parser.parse_args()
    workspace = Workspace.resolve(options.workspace, {})
    content = read_json(options.output) if options.output.exists() else {"runs": {}}
    content["machine"] = {"cpu": this_processor().description, "cores": os.cpu_count(), "versions": library_versions()}
    for run in options.runs:
        dataset, _, configuration = run.partition("/")
        if run not in content["runs"]:
            content["runs"][run] = compare(workspace, workspace.run(dataset, configuration), options)
            write_json(options.output, content)


if __name__ == "__main__":
    main()
