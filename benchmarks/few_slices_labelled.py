r"""One labelled slice in four against all, and against as many labelled slices in a quarter of the cases.

Every arm trains with the same number of updates; slices without labels have the `ignore` label. A fifth of the cases is
kept back, with all of its labels, and gives the scores. Seeds are those of the trainings, of the choice of slices and
of the choice of cases; the cases that are kept back stay the same.

    python benchmarks/few_slices_labelled.py --data FOLDER_OF_DATASETS --datasets 4 27 --configurations 2d stack \
        --iterations 300 --seeds 0 1 2 --workspace WORKSPACE -o FILE.json

What is trained or scored already is kept: the same command goes on.
"""

import argparse
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from seg25d.cli.main import main as seg25d
from seg25d.core.files import read_json, write_json
from seg25d.data.image_io import read_labels, write_labels

EVERY = 4
"""One slice in so many is labelled, and one case in so many has labels."""
KEPT_BACK = 5
"""One case in so many is kept back."""
ARMS = ("all labels", "one slice in four", "one case in four")


def write_dataset(source: Path, folder: Path, arm: str, seed: int) -> None:
    """Write a data set of nnU-Net's layout with the labels of an arm, and the cases that are kept back as its tests."""
    rng = np.random.default_rng(seed)
    description = read_json(source / "dataset.json")
    ending = description["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").glob(f"*{ending}"))
    kept, trained = cases[::KEPT_BACK], [case for index, case in enumerate(cases) if index % KEPT_BACK]
    if arm == "one case in four":
        trained = sorted(rng.choice(trained, max(2, len(trained) // EVERY), replace=False).tolist())
    ignored = max(value for value in description["labels"].values() if isinstance(value, int)) + 1
    if arm == "one slice in four":
        description["labels"]["ignore"] = ignored
    description["numTraining"] = len(trained)
    for part, its in (("Tr", trained), ("Ts", kept)):
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for case in its:
            for image in (source / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9]{ending}"):
                shutil.copy(image, folder / f"images{part}" / image.name)
            path = source / "labelsTr" / f"{case}{ending}"
            labels, geometry = read_labels(path)
            if part == "Tr" and arm == "one slice in four":
                hidden = np.arange(len(labels)) % EVERY != rng.integers(EVERY)
                labels = np.where(hidden[:, None, None], ignored, labels).astype(labels.dtype)
            write_labels(folder / f"labels{part}" / path.name, labels, geometry)
    write_json(folder / "dataset.json", description)


def mean_dice(workspace: Path, source: Path, arm: int, seed: int, configuration: str, iterations: int) -> float:
    """Train one arm with one seed and score the cases that are kept back: the mean over labels and cases."""
    identifier = f"{900 + len(ARMS) * seed + arm}"
    name = f"Dataset{identifier}_{source.name.split('_', 1)[1]}"
    raw = workspace / "raw" / name
    if not (raw / "dataset.json").exists():
        write_dataset(source, raw, ARMS[arm], seed)
    common = ("--workspace", str(workspace), "--quiet")
    out = workspace / "predicted" / f"{name} {configuration}"
    commands: list[tuple[str, ...]] = [
        ("plan_and_preprocess", "-d", identifier, "-c", configuration),
        ("train", identifier, configuration, "all", "--iterations", str(iterations), "--seed", str(seed)),
        ("predict", "-i", str(raw / "imagesTs"), "-o", str(out), "-d", identifier, "-c", configuration, "-f", "all"),
        ("evaluate", str(raw / "labelsTs"), str(out)),
    ]
    for command in commands:
        if (status := seg25d([*command, *common])) != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {status}")
    summary: dict[str, Any] = read_json(out / "summary.json")
    return float(summary["foreground_mean"]["dice"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row per data set, configuration and arm: the mean over seeds, and each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets in nnU-Net's layout")
    parser.add_argument("--datasets", type=int, nargs="+", required=True)
    parser.add_argument("--configurations", nargs="+", default=["2d"])
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("-o", type=Path, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    for number in options.datasets:
        (source,) = options.data.glob(f"Dataset{number:03d}_*")
        for configuration in options.configurations:
            for arm, name in enumerate(ARMS):
                each = [
                    mean_dice(options.workspace / source.name, source, arm, seed, configuration, options.iterations)
                    for seed in options.seeds
                ]
                rows.append({"dataset": source.name, "configuration": configuration, "arm": name, "dice": each})
                spread = ", ".join(f"{value:.4f}" for value in each)
                print(
                    f"{source.name:26} {configuration:8} {name:20} {statistics.fmean(each):.4f}  ({spread})", flush=True
                )
                if options.o:
                    write_json(options.o, {"iterations": options.iterations, "seeds": options.seeds, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
