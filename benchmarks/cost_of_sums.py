"""Seconds of a processor that the sums and the map of `predict --uncertainty` take.

    OMP_NUM_THREADS=1 python benchmarks/cost_of_sums.py

Made-up scores of one case, resampled to twice the voxels along each axis and made labels, plane by plane as from the
sliding window: labels alone, with the sums that predict the Dice, and with the map as well. The shortest of the rounds,
each of which does all three. Seconds are those of the process (`time.process_time`), so that others do not count.
"""

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from seg25d.data.labels import Labels
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.sliding_window import Slab
from seg25d.inference.uncertainty import Uncertainty
from seg25d.preprocessing.grid import Grid


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line per kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=60)
    parser.add_argument("--shape", type=int, nargs=3, default=(48, 256, 256), help="of the file, in voxels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    labels = Labels(names={"background": 0, **{f"class {number}": number for number in range(1, options.classes)}})
    depth, height, width = options.shape
    grid = Grid.plan((depth, height, width), (1.0,) * 3, ((0, depth), (0, height), (0, width)), (2.0,) * 3)
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(grid.shape[0], options.classes, *grid.shape[1:], generator=generator)
    kinds = {
        "labels": None,
        "with the sums": Uncertainty(labels),
        "with sums and map": Uncertainty(labels, with_map=True),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for _ in range(options.rounds):
        for kind, uncertainty in kinds.items():
            slabs = (Slab(0, start, scores[start : start + 1]) for start in range(len(scores)))
            begun = time.process_time()
            labels_from_slabs(slabs, grid, labels, None, uncertainty)
            seconds[kind].append(time.process_time() - begun)
    for kind, found in seconds.items():
        print(f"{kind:18} {min(found):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
