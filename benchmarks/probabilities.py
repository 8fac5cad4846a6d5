"""Time and memory of writing and fusing the probabilities of many classes.

    python benchmarks/probabilities.py export --classes 61 --shape 120 256 256 --folder FOLDER --output export.json

Stages, each in a process of its own: `export` (made-up scores, plane by plane, to `CASE.npz`), `keep` (to the `.b2nd`
of `find_best_configuration`), `fuse` (two folders of `CASE.npz` to one, which are made first) and `score` (two kept
files to the labels of their mean). The extra memory is the peak resident size minus the size before, when libraries and
scores exist; the seconds are those of the processor.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from export_many_classes import resident

from seg25d.core.records import write_record
from seg25d.core.types import Shape
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import write_labels
from seg25d.data.labels import Labels
from seg25d.ensembling.ensemble import ensemble_folders
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.export import export_slabs
from seg25d.inference.prediction_files import PredictionRecord
from seg25d.inference.probability_files import write_probabilities
from seg25d.inference.probability_maps import passing_map_writer, probability_map_writer
from seg25d.inference.sliding_window import Slab
from seg25d.preprocessing.grid import Grid
from seg25d.selection.candidates import Ensemble
from seg25d.selection.scoring import CaseToScore, fused_labels

MOST_SHIFT = 64
"""Pixels by which planes are shifted, as equal ones would be compressed better than those of an image."""


class Case:
    """Made-up scores of one case.

    Args:
        num_classes: With the background.
        shape: Voxels along (D, H, W).
        seed: Of the scores.
    """

    def __init__(self, num_classes: int, shape: Shape, seed: int = 0) -> None:
        self.shape = shape
        self.labels = make_labels(num_classes)
        self.geometry = Geometry(
            shape=shape, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)
        )
        self.grid = Grid.plan(shape, (1.0,) * 3, ((0, shape[0]), (0, shape[1]), (0, shape[2])), (1.0,) * 3)
        torch.manual_seed(seed)
        size = [length + MOST_SHIFT for length in shape[1:]]
        smooth = torch.nn.functional.interpolate(6 * torch.randn(1, num_classes, 8, 8), size=size, mode="bilinear")
        self.plane = smooth[0].add_(torch.randn(smooth.shape[1:]), alpha=0.3)

    def slabs(self) -> Iterator[Slab]:
        """As from the sliding window."""
        for index in range(self.shape[0]):
            rows, columns = (
                slice(shift, shift + size) for shift, size in zip(_shifts(index), self.shape[1:], strict=True)
            )
            yield Slab(0, index, self.plane[None, :, rows, columns])

    def export(self, folder: Path) -> None:
        """Write `case.npz` and the segmentation."""
        with passing_map_writer(folder) as writer:
            indices = export_slabs(self.slabs(), self.grid, self.labels, [writer])
            write_probabilities(folder / "case.nii.gz", writer.array, self.geometry)
        write_labels(folder / "case.nii.gz", indices, self.geometry)

    def keep(self, path: Path) -> None:
        """Write a `.b2nd`."""
        with probability_map_writer(path) as writer:
            export_slabs(self.slabs(), self.grid, self.labels, [writer])


def _shifts(index: int) -> tuple[int, int]:
    return 29 * index % MOST_SHIFT, 37 * index % MOST_SHIFT


def prepare(stage: str, num_classes: int, shape: Shape, folder: Path) -> Callable[[], object]:
    """Write what a stage reads, in another process; gives the stage."""
    if stage in ("export", "keep"):
        case = Case(num_classes, shape)
        return lambda: case.export(folder) if stage == "export" else case.keep(folder / "case.b2nd")
    places = [folder / name for name in ("one", "two")]
    process = get_context("spawn").Process(target=write_inputs, args=(stage, num_classes, shape, places))
    process.start()
    process.join()
    if stage == "score":
        labels = make_labels(num_classes)
        item = CaseToScore(Ensemble(("one", "two")), "case", tuple(place / "case.b2nd" for place in places), None)
        return lambda: fused_labels(item, labels)
    options = EnsembleOptions(save_probabilities=True, num_processes=0)
    return lambda: ensemble_folders(places, folder / "fused", options)


def write_inputs(stage: str, num_classes: int, shape: Shape, places: Sequence[Path]) -> None:
    """Write a prediction into each folder."""
    for seed, place in enumerate(places):
        case = Case(num_classes, shape, seed)
        case.export(place) if stage == "fuse" else case.keep(place / "case.b2nd")
        write_record(place / "prediction.json", PredictionRecord(model={"name": place.name}, labels=case.labels))


def make_labels(num_classes: int) -> Labels:
    """Classes, the background included."""
    return Labels(names={"background": 0, **{f"class {n}": n for n in range(1, num_classes)}})


def main() -> None:
    """Measure one stage."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("stage", choices=("export", "keep", "fuse", "score"))
    parser.add_argument("--classes", type=int, default=61, help="with the background")
    parser.add_argument("--shape", type=int, nargs=3, default=(120, 256, 256), help="voxels along D, H and W")
    parser.add_argument("--folder", type=Path, required=True, help="for what is written; it has to be empty")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    # A small case first, to load all libraries.
    prepare(options.stage, 2, (4, 8, 8), options.folder / "small")()
    shape = (options.shape[0], options.shape[1], options.shape[2])
    stage = prepare(options.stage, options.classes, shape, options.folder / "large")
    before = resident("VmRSS")
    # Reset the peak size of this process.
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    begun, wall = time.process_time(), time.perf_counter()
    stage()
    found = {
        "stage": options.stage,
        "gib": round(4 * options.classes * int(np.prod(shape)) / 2**30, 2),
        "cpu_seconds": round(time.process_time() - begun, 1),
        "seconds": round(time.perf_counter() - wall, 1),
        "extra_mib": round((resident("VmHWM") - before) / 1024),
        "peak_mib": round(resident("VmHWM") / 1024),
    }
    options.output.write_text(json.dumps(found), encoding="utf-8")
    print(found)


if __name__ == "__main__":
    main()
