"""What it costs to read images in a process of its own: verification and reading of good files, both ways in one run.

Wall time, and processor time of all processes, which says the same where other programs run beside.

python benchmarks/reading_apart.py                  # 200 files of 40 x 128 x 128 voxels
python benchmarks/reading_apart.py --files 20 --shape 160 512 512
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import psutil

from seg25d.core import parallel
from seg25d.core.apart import call_apart
from seg25d.data.dataset import find_inputs
from seg25d.data.image_io import read_image
from seg25d.data.phantom import write_phantom_dataset
from seg25d.data.verify import verify_dataset

ROUNDS = 3


def processor_seconds() -> float:
    """Of this process and all that come from it, those that have ended included."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in (own, *own.children(recursive=True)))


def seconds(task: Callable[[], object], *, apart: bool) -> tuple[float, float]:
    """Wall and processor time of a task in this process, with images read by a child or here."""
    (parallel._EXPENDABLE.discard if apart else parallel._EXPENDABLE.add)(os.getpid())
    started, before = time.perf_counter(), processor_seconds()
    task()
    taken = time.perf_counter() - started, processor_seconds() - before
    parallel._EXPENDABLE.discard(os.getpid())
    return taken


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the shortest times of each task both ways, which take turns, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--shape", type=int, nargs=3, default=(40, 128, 128))
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name, "raw", "Dataset900_Phantom")
        depth, height, width = options.shape
        write_phantom_dataset(root, num_training=options.files // 2, num_test=1, shape=(depth, height, width))
        cases = find_inputs(root / "imagesTr", 2, ".nii.gz")
        tasks: dict[str, Callable[[], object]] = {
            "read": lambda: [read_image(case.images) for case in cases],
            "verify, this process": lambda: verify_dataset(root, num_workers=0),
            "verify, 2 workers": lambda: verify_dataset(root, num_workers=2),
        }
        call_apart(os.getpid)  # its start is no part of the ratio, see the last line
        for task_name, task in tasks.items():
            times = np.array([[seconds(task, apart=apart) for apart in (False, True)] for _ in range(ROUNDS)])
            for kind, (here, apart) in zip(("wall", "processor"), times.min(axis=0).T, strict=True):
                words = f"here {here:7.2f} s, apart {apart:7.2f} s, ratio {apart / here:.3f}"
                print(f"{task_name:22} {kind:10} {words}", flush=True)


if __name__ == "__main__":
    main()
