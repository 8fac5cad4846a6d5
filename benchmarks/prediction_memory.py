"""Memory and time of predicting one case with many classes, with the networks planned for such data.

    python benchmarks/prediction_memory.py --configurations 2d si 3d --output benchmarks/results/prediction_memory.json

Every configuration runs in a separate process. The extra memory is the peak resident size during prediction, minus the
size before, when model and image exist and a first small prediction has loaded all libraries.
"""

import argparse
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from made_up import make_up_dataset

from seg25d.core.device import choose_execution
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.planner import plan_dataset

MEBIBYTE = 1 << 20


def measure(configuration: str, size: int, num_classes: int, gpu_memory_gb: float, mirroring: bool) -> dict[str, Any]:
    """Plan, make a model with random weights and predict noise."""
    fingerprint, description = make_up_dataset((size,) * 3, num_classes=num_classes)
    plans = plan_dataset(fingerprint, description, configurations=[configuration], gpu_memory_gb=gpu_memory_gb)
    [(name, plan)] = plans.configurations.items()
    header = ModelHeader(
        dataset_name=fingerprint.dataset_name, configuration=name, fold=0, plan=plan, description=description
    )
    execution = choose_execution("cpu")
    predictor = Predictor([header.build_model()], header, execution, PredictorOptions(mirroring=mirroring))
    rng = np.random.default_rng(0)
    image = rng.normal(20, 30, (1, size, size, size)).astype(np.float32)
    predictor.predict_array(image[:, :16, :32, :32], plan.spacing_mm)
    before = psutil.Process().memory_info().rss
    # Reset the peak size of this process.
    Path("/proc/self/clear_refs").write_text("5")
    begun = time.perf_counter()
    predictor.predict_array(image, plan.spacing_mm)
    seconds = time.perf_counter() - begun
    peak = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
    return {
        "configuration": name,
        "window": plan.window,
        "batch_size": predictor.batch_size,
        "num_parameters": plan.num_parameters,
        "dtype": str(execution.dtype),
        "extra_mib": round((peak - before) / MEBIBYTE),
        "seconds": round(seconds, 1),
        "highest_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    """Measure every configuration and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--configurations", nargs="+", default=["2d", "si", "3d"])
    parser.add_argument("--size", type=int, default=192, help="voxels along each axis")
    parser.add_argument("--num-classes", type=int, default=60)
    parser.add_argument("--gpu-memory-gb", type=float, default=8.0)
    parser.add_argument("--mirroring", action="store_true")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    shared = arguments.size, arguments.num_classes, arguments.gpu_memory_gb, arguments.mirroring
    results = []
    for configuration in arguments.configurations:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results.append(pool.apply(measure, (configuration, *shared)))
        print(json.dumps(results[-1]))
    if arguments.output:
        arguments.output.write_text(json.dumps({"arguments": vars(arguments) | {"output": None}, "results": results}))


if __name__ == "__main__":
    main()
