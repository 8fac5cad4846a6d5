"""Memory that stages with probabilities of many classes take, each in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is read from /proc"),
]

COMMON = """
import json, sys, numpy as np, torch
from pathlib import Path
from seg25d.core import arrays, npz
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import write_labels
from seg25d.data.labels import Labels
from seg25d.inference import probability_files, probability_maps
from seg25d.inference.probability_files import write_probabilities

# A volume of 4 MiB, and 244 MiB of probabilities: all that does not grow with the classes is made small.
arrays.BUFFER_BYTES = arrays.PART_BYTES = probability_files.PART_BYTES = 8 << 20
probability_maps.IN_MEMORY_BYTES = 0
torch.set_num_threads(1)
SHAPE = (64, 128, 128)
LABELS = Labels(names={"background": 0, **{f"class {number}": number for number in range(1, 61)}})
GEOMETRY = Geometry(shape=SHAPE, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
FOLDER = Path(sys.argv[1])


class MadeUp:
    shape = (61, *SHAPE)

    def __getitem__(self, key):
        # Of all probabilities, without them: a class has its share of the columns.
        volume = np.zeros(self.shape[1:], np.float32)
        volume[:, :, key[0] * 2 : key[0] * 2 + 2] = 1
        volume[:, :, 122:] = key[0] == 0
        return volume[key[1:]]


def measure(stage):
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    stage()
    print((resident("VmHWM") - before) / 1024)


def resident(name):
    return int(Path("/proc/self/status").read_text().split(f"{name}:")[1].split()[0])
"""
EXPORT = """
from seg25d.inference.export import export_slabs
from seg25d.inference.sliding_window import Slab
from seg25d.preprocessing.grid import Grid
axis = int(sys.argv[2])
grid = Grid.plan(SHAPE, (1.0,) * 3, tuple((0, size) for size in SHAPE), (1.0,) * 3)
plane = [size for number, size in enumerate(SHAPE) if number != axis]
scores = torch.randn(4, 61, *plane)


def stage():
    with (
        probability_maps.probability_map_writer(FOLDER / "kept.b2nd") as kept,
        probability_maps.passing_map_writer(FOLDER) as passing,
    ):
        slabs = (Slab(axis, start, scores) for start in range(0, SHAPE[axis], 4))
        export_slabs(slabs, grid, LABELS, [kept, passing])
        write_probabilities(FOLDER / "case.nii.gz", passing.array, GEOMETRY)


measure(stage)
"""
FUSE = """
from seg25d.core.records import write_record
from seg25d.ensembling.ensemble import ensemble_folders
from seg25d.ensembling.options import EnsembleOptions
from seg25d.inference.prediction_files import PredictionRecord
folders = [FOLDER / name for name in ("one", "two")]
for folder in (*folders, FOLDER / "truth"):
    write_labels(folder / "case.nii.gz", np.full(SHAPE, 1, np.uint8), GEOMETRY)
for folder in folders:
    write_probabilities(folder / "case.nii.gz", MadeUp(), GEOMETRY)
    write_record(folder / "prediction.json", PredictionRecord(model={"name": folder.name}, labels=LABELS))
fitted = {"fit_weights": FOLDER / "truth"} if sys.argv[2] == "fitted" else {}
options = EnsembleOptions(save_probabilities=True, num_processes=0, **fitted)
measure(lambda: ensemble_folders(folders, FOLDER / "out", options))
assert (FOLDER / "out" / "case.npz").exists()
"""
SCORE = """
from seg25d.selection.candidates import Ensemble
from seg25d.selection.scoring import CaseToScore, fused_labels
paths = tuple(FOLDER / f"{number}.b2nd" for number in range(2))
for path in paths:
    channels = (MadeUp()[channel, :] for channel in range(61))
    probability_maps.write_probability_channels(path, MadeUp.shape, channels)
item = CaseToScore(Ensemble(("a", "b")), "case", paths, None)
measure(lambda: fused_labels(item, LABELS))
"""
MOST_MIB = 120
"""Two thirds of this were measured for the stage that takes most, which reads two parts of 61 chunks."""


@pytest.mark.parametrize(
    ("script", "argument"),
    [*((EXPORT, axis) for axis in "012"), (FUSE, "equal"), (FUSE, "fitted"), (SCORE, "")],
    ids=["axial", "coronal", "sagittal", "fuse", "fit", "score"],
)
def test_memory_does_not_grow_with_the_classes(tmp_path: Path, script: str, argument: str) -> None:
    words = [sys.executable, "-c", COMMON + script, str(tmp_path), argument]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout.splitlines()[-1]) < MOST_MIB
