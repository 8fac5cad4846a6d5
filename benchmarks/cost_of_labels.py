"""Processor seconds of what many labels cost while a data set is planned and preprocessed, of two checkouts.

nice -n 5 python benchmarks/cost_of_labels.py --before CHECKOUT [--shape 200 256 256] [--classes 60]

Made-up organs (`evaluation_of_many_classes.py`) go through the encoding of label values, the ceiling of projections,
the locations of the classes and the reading of values by `evaluate` without dataset.json, each checkout in processes of
its own with one thread, alternately; the smallest of the rounds counts. The results have to be the same; of ceilings
the largest difference is printed, as sums are rounded otherwise.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evaluation_of_many_classes import make_organs
from numpy.typing import NDArray

from seg25d.core.grids import count_voxels
from seg25d.data.labels import Labels
from seg25d.evaluation import pairs
from seg25d.preprocessing.locations import sample_locations
from seg25d.representations.projections.method import Projections

SPACING_MM = (0.8, 0.8, 0.8)
STEPS = ("encode", "ceiling", "locations", "values")


def steps(labels: NDArray[np.uint8], num_classes: int) -> dict[str, Callable[[], Any]]:
    """What is timed, by name; each gives numbers that are to be the same."""
    known = Labels(names={"background": 0, **{f"organ {value}": value for value in range(1, num_classes + 1)}})
    counts = count_voxels(labels)
    views: Any = Projections(axis=1, detector_axis=2, spacing_mm=SPACING_MM)  # 60 of them
    if hasattr(views, "ceiling_meter"):
        meter = views.ceiling_meter()
    else:  # as it was until November 2026
        torch.set_num_threads(1)

        def meter(labels: NDArray[np.uint8], classes: Any) -> Any:
            return views.mean_ceilings([torch.from_numpy(labels)], classes)

    return {
        "encode": lambda: int(known.encode(labels, "made up").sum(dtype=np.int64)),
        "ceiling": lambda: meter(labels, known.foreground),
        "locations": lambda: {
            str(value): int(voxels.sum()) for value, voxels in sample_locations(labels, counts, "case", 255).items()
        },
        "values": lambda: [int(each.sum(dtype=np.int64)) for each in pairs._compact(labels, labels, "case")[1:]],
    }


def measure(step: str, file: Path, num_classes: int) -> None:
    """Print the seconds of a step, the memory that it took beside the labels, and its numbers."""
    labels = np.load(file)
    run = steps(labels, num_classes)[step]
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    result = run()
    seconds = time.process_time() - start
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"seconds": seconds, "mib": mib, "result": result}))


def ask(checkout: Path, step: str, file: Path, num_classes: int) -> dict[str, Any]:
    """Measure a step in a process that takes seg25d from a checkout."""
    root = Path(__file__).parents[1]
    environment = os.environ | {"PYTHONPATH": f"{checkout}{os.pathsep}{root}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--step", step, "--file", str(file), "--classes", str(num_classes)]
    output = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True, check=True).stdout
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def compare(arguments: argparse.Namespace, file: Path) -> None:
    """Print a row per step: seconds and memory before and after, and the ratio."""
    labels = make_organs(max(arguments.shape), arguments.classes, np.random.default_rng(0))
    np.save(file, labels[tuple(slice(size) for size in arguments.shape)])
    print("| step | s before | s after | ratio | MiB before | MiB after |\n|---|---|---|---|---|---|")
    for step in STEPS:
        both: list[list[dict[str, Any]]] = [[], []]
        for _ in range(arguments.rounds):
            for found, checkout in zip(both, (arguments.before, Path(__file__).parents[1]), strict=True):
                found.append(ask(checkout.resolve(), step, file, arguments.classes))
        before, after = (min(found, key=lambda each: each["seconds"]) for found in both)
        cells = [f"{each['seconds']:.2f}" for each in (before, after)]
        cells += [f"{before['seconds'] / after['seconds']:.1f}", *(f"{each['mib']:.0f}" for each in (before, after))]
        print(f"| {step} | {' | '.join(cells)} |", flush=True)
        if step == "ceiling":
            known = [name for name, dice in before["result"].items() if dice is not None]
            largest = max(abs(before["result"][name] - after["result"][name]) for name in known)
            print(f"largest difference of a ceiling: {largest:.2g}", file=sys.stderr)
        elif before["result"] != after["result"]:
            raise SystemExit(f"{step}: the results differ")


def main() -> None:
    """Compare two checkouts, or measure one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--before", type=Path, help="the checkout to compare with")
    parser.add_argument("--shape", type=int, nargs=3, default=(200, 256, 256))
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        measure(arguments.step, arguments.file, arguments.classes)
    elif arguments.before is None:
        parser.error("--before is missing: expected the folder of a checkout, see `git worktree add --detach`")
    else:
        with tempfile.TemporaryDirectory() as folder:
            compare(arguments, Path(folder) / "labels.npy")


if __name__ == "__main__":
    main()
