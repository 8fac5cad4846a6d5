"""Peak memory of predicting the labels of a large volume with many classes, without that of a network.

    python benchmarks/memory_of_many_classes.py si --depth 120
    python benchmarks/memory_of_many_classes.py 3d --depth 500 --step-size 1

A network of four channels scores noise of DEPTH x 512 x 512 voxels, by windows of 24 x 512 x 512 (`si`) or 128 x 128 x
128 (`3d`). What is printed can be compared with other checkouts, also the digest of the labels.
"""

import argparse
import hashlib
import json
import resource
import time

import numpy as np
import torch

from seg25d.core.device import choose_execution
from seg25d.data.labels import Labels
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.sliding_window import WindowOptions, predict_slabs
from seg25d.networks.specs.unet import UNetSpec
from seg25d.preprocessing.grid import Grid
from seg25d.representations.super_image import SuperImage

SIZE = 512
WINDOWS = {"si": (24, SIZE, SIZE), "3d": (128, 128, 128)}


def make_model(kind: str, num_classes: int) -> torch.nn.Module:
    """A network that sees single voxels."""
    torch.manual_seed(0)
    dims = 2 if kind == "si" else 3
    spec = UNetSpec(widths=(4, 4), strides=((1,) * dims, (2,) * dims), kernels=((1,) * dims,) * 2)
    network = spec.build(1, num_classes)
    return SuperImage(grid=(5, 5)).lift(network) if kind == "si" else network


def main() -> None:
    """Predict one volume and print memory and time."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("kind", choices=WINDOWS)
    parser.add_argument("--depth", type=int, default=120)
    parser.add_argument("--num-classes", type=int, default=61, help="with the background")
    parser.add_argument("--step-size", type=float, default=0.5)
    parser.add_argument("--precision", default="float32")
    options = parser.parse_args()
    execution = choose_execution("cpu", options.precision)
    model = execution.place(make_model(options.kind, options.num_classes).eval())
    labels = Labels(names={"background": 0, **{f"class {number}": number for number in range(1, options.num_classes)}})
    shape, spacing = (options.depth, SIZE, SIZE), (1.0, 1.0, 1.0)
    image = torch.from_numpy(np.random.default_rng(0).standard_normal((1, *shape), np.float32))
    grid = Grid.plan(shape, spacing, ((0, options.depth), (0, SIZE), (0, SIZE)), spacing)
    windows = WindowOptions(WINDOWS[options.kind], step_size=options.step_size, autocast=execution.autocast())
    begun = time.process_time()
    found = labels_from_slabs(predict_slabs([model], image, options.num_classes, windows), grid, labels)
    figures = {
        "volume_mib": image.nbytes >> 20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "processor_seconds": round(time.process_time() - begun, 1),
        "labels": hashlib.sha256(found.tobytes()).hexdigest()[:12],
    }
    print(json.dumps(vars(options) | figures))


if __name__ == "__main__":
    main()
