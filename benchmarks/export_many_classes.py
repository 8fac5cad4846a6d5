"""Time and extra memory of exporting scores of many classes to labels on the grid of the file.

python benchmarks/export_many_classes.py seg25d --output seg25d.json
ENVIRONMENT/bin/python benchmarks/export_many_classes.py nnunet --output nnunet.json

One case with smooth noise as scores; the file has twice the voxels along each axis, or those of `--file-shape`.
peers.py and clinical_size.py run it with both programs. The extra memory is the peak resident size during the export,
minus the size before, with scores and libraries loaded.
"""

# ruff: noqa: PLC0415 - each program has its own libraries

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

Shape = tuple[int, int, int]
BLOCK = 12
"""Side of the cubes of equal noise before smoothing, in voxels of the model's grid."""


def make_scores(num_classes: int, shape: Shape) -> torch.Tensor:
    """Scores (K, d, h, w) in float16, in which each class is largest somewhere."""
    coarse = [max(1, size // BLOCK) for size in shape]
    noise = torch.from_numpy(np.random.default_rng(0).normal(0, 5, (num_classes, *coarse)))
    scores = torch.empty(num_classes, *shape, dtype=torch.float16)
    for target, source in zip(scores, noise.float(), strict=True):
        target.copy_(torch.nn.functional.interpolate(source[None, None], size=shape, mode="trilinear")[0, 0])
    return scores


def of_seg25d(num_classes: int, full: Shape) -> Callable[[torch.Tensor], np.ndarray]:
    """The export of seg25d, plane by plane as from its sliding window."""
    from seg25d.data.labels import Labels
    from seg25d.inference.export import labels_from_slabs
    from seg25d.inference.sliding_window import Slab
    from seg25d.preprocessing.grid import Grid

    labels = Labels(names={"background": 0, **{f"class {number}": number for number in range(1, num_classes)}})

    def export(scores: torch.Tensor) -> np.ndarray:
        first, second, third = (wanted / there for wanted, there in zip(full, scores.shape[1:], strict=True))
        whole = ((0, full[0]), (0, full[1]), (0, full[2]))
        grid = Grid.plan(full, (1.0,) * 3, whole, (first, second, third))
        slabs = (Slab(0, start, scores[:, start : start + 1].movedim(1, 0)) for start in range(scores.shape[1]))
        return labels_from_slabs(slabs, grid, labels)

    return export


def of_nnunet(num_classes: int, full: Shape) -> Callable[[torch.Tensor], np.ndarray]:
    """The default export of nnU-Net: linear along all axes, then the largest score."""
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    names = {"background": 0, **{f"class {number}": number for number in range(1, num_classes)}}
    # The function and arguments in nnUNetPlans.json by default.
    resample = partial(resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None)
    configuration = SimpleNamespace(spacing=[2.0] * 3, resampling_fn_probabilities=resample)
    properties = {
        "spacing": [1.0] * 3,
        "shape_after_cropping_and_before_resampling": full,
        "shape_before_cropping": full,
        "bbox_used_for_cropping": [[0, length] for length in full],
    }
    plans = SimpleNamespace(transpose_forward=[0, 1, 2], transpose_backward=[0, 1, 2])
    manager = LabelManager(names, None)

    def export(scores: torch.Tensor) -> np.ndarray:
        labels: np.ndarray = convert_predicted_logits_to_segmentation_with_correct_shape(
            scores, plans, configuration, manager, properties
        )
        return labels

    return export


def main() -> None:
    """Export one case with one of the programs and write time and memory."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("program", choices=("seg25d", "nnunet"))
    parser.add_argument("--classes", type=int, default=60, help="with the background")
    parser.add_argument(
        "--shape", type=int, nargs=3, default=(96, 96, 96), metavar="N", help="voxels D H W of the model's grid"
    )
    parser.add_argument("--file-shape", type=int, nargs=3, metavar="N", help="of the file (default: twice as many)")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    shape: Shape = tuple(options.shape)
    full: Shape = tuple(options.file_shape or (2 * size for size in shape))
    make = of_seg25d if options.program == "seg25d" else of_nnunet
    # A small case first, to load all libraries.
    make(options.classes, (4 * BLOCK,) * 3)(make_scores(options.classes, (2 * BLOCK,) * 3))
    export, scores = make(options.classes, full), make_scores(options.classes, shape)
    before = resident("VmRSS")
    # Reset the peak size of this process.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    begun, begun_cpu = time.perf_counter(), time.process_time()
    labels = export(scores)
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - begun_cpu
    extra = resident("VmHWM") - before
    found = {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "extra_mib": extra / 1024,
        "shape": labels.shape,
        "classes": len(np.unique(labels)),
    }
    options.output.write_text(json.dumps(found), encoding="utf-8")
    print(found)


def resident(name: str) -> int:
    """Memory of this process in KiB, current (VmRSS) or peak (VmHWM)."""
    return int(Path("/proc/self/status").read_text(encoding="utf-8").split(f"{name}:")[1].split()[0])


if __name__ == "__main__":
    main()
