"""Data sets made from others, with cases that are kept back, and models that are trained and scored on them.

Plans are made for CPUs of the same speed wherever they are made, so that equal updates are equal everywhere.

Letters: C channels, D H W volume.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from case_scores import scores_of
from machines import CPU_GFLOPS, GPU_MEMORY_GB
from numpy.typing import NDArray
from over_seeds import Difference, difference
from result_tables import Row

from seg25d.cli.common import INTERRUPTED
from seg25d.cli.main import main as seg25d
from seg25d.core.files import read_json
from seg25d.core.records import read_record
from seg25d.core.types import FloatArray, Spacing
from seg25d.core.workspace import Workspace
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import read_image, read_labels, write_channel, write_labels
from seg25d.evaluation.summary import Summary
from seg25d.planning.plan import Plans
from seg25d.preprocessing.resample import resample_labels
from seg25d.runs.names import find_configuration

KEPT_BACK = 5
"""One patient, or case without a patient, in so many is kept back."""
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""Directions of the axes of all files that are written."""
FIRST_IDENTIFIER, LAST_IDENTIFIER = 900, 999
"""Data sets that are made get these numbers; names of folders have three digits."""
MEASURES = {"dice": 3, "hd95_mm": 2}
"""Scores that rows show, and their digits."""


class Volume(NamedTuple):
    """A case: image and labels on one grid."""

    image: FloatArray
    """(C, D, H, W)."""
    labels: NDArray[np.uint8]
    """(D, H, W), values of the label file."""
    spacing_mm: Spacing
    """(D, H, W)."""


class Source(NamedTuple):
    """A data set in nnU-Net's layout."""

    folder: Path
    description: dict[str, Any]
    """Content of `dataset.json`."""
    trained: list[str]
    """Cases to train on."""
    kept: list[str]
    """Cases that are kept back."""

    def read(self, case: str, in_plane: int = 1) -> Volume:
        """Read a case, averaged over so many voxels along H and W."""
        ending = self.description["file_ending"]
        paths = sorted((self.folder / "imagesTr").glob(f"{case}_[0-9][0-9][0-9][0-9]{ending}"))
        image, geometry = read_image(paths)
        labels, _ = read_labels(self.folder / "labelsTr" / f"{case}{ending}")
        return coarser_in_plane(Volume(image, labels.astype(np.uint8), geometry.canonical_spacing_mm), in_plane)

    def write(self, folder: Path, part: str, case: str, volume: Volume) -> None:
        """Write a case into a data set: `part` is Tr or Ts."""
        ending = self.description["file_ending"]
        depth, height, width = volume.labels.shape
        geometry = Geometry(
            shape=(depth, height, width), spacing_mm=volume.spacing_mm, origin_mm=(0.0, 0.0, 0.0), direction=UPRIGHT
        )
        for kind in ("images", "labels"):
            (folder / f"{kind}{part}").mkdir(parents=True, exist_ok=True)
        for number, channel in enumerate(volume.image):
            write_channel(folder / f"images{part}" / f"{case}_{number:04d}{ending}", channel, geometry)
        write_labels(folder / f"labels{part}" / f"{case}{ending}", volume.labels, geometry)


def find_source(data: Path, number: int) -> Source:
    """Find a data set, and which of its cases are kept back: those of every fifth patient, or every fifth one.

    Raises:
        SystemExit: If there is none of this number, or several.
    """
    folders = sorted(data.glob(f"Dataset{number:03d}_*"))
    if len(folders) != 1:
        found = ", ".join(folder.name for folder in folders) or "none"
        raise SystemExit(f"error: expected one folder Dataset{number:03d}_NAME in {data}, got {found}")
    (folder,) = folders
    description = read_json(folder / "dataset.json")
    ending = description["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in (folder / "labelsTr").glob(f"*{ending}"))
    path = folder / "patients.json"
    known = read_json(path) if path.exists() else {}
    patients = {case: known.get(case, case) for case in cases}
    apart = set(sorted(set(patients.values()))[::KEPT_BACK])
    trained = [case for case in cases if patients[case] not in apart]
    return Source(folder, description, trained, [case for case in cases if patients[case] in apart])


def coarser_in_plane(volume: Volume, factor: int) -> Volume:
    """The mean of so many voxels along H and W, of labels the most frequent one; what is left over is cut off."""
    if factor == 1:
        return volume
    depth, height, width = volume.labels.shape
    rows, columns = height // factor, width // factor
    image = volume.image[:, :, : rows * factor, : columns * factor]
    blocks = image.reshape(len(image), depth, rows, factor, columns, factor)
    labels = np.ascontiguousarray(volume.labels[:, : rows * factor, : columns * factor])
    thickness, high, wide = volume.spacing_mm
    return Volume(
        blocks.mean((3, 5), dtype=np.float32),
        resample_labels(labels, (depth, rows, columns)),
        (thickness, high * factor, wide * factor),
    )


def check_seeds(seeds: Sequence[int], num_datasets: int) -> None:
    """Check that there are numbers for all data sets that are made, before the first training.

    Args:
        seeds: Of the trainings.
        num_datasets: That are made for each seed.

    Raises:
        SystemExit: If a seed is too large, or negative.
    """
    most = (LAST_IDENTIFIER + 1 - FIRST_IDENTIFIER) // num_datasets - 1
    if wrong := [seed for seed in seeds if not 0 <= seed <= most]:
        raise SystemExit(f"error: expected seeds from 0 to {most}, got {wrong[0]}")


def succeeds(what: str, make: Callable[[], object]) -> bool:
    """Whether a training can be made; one that fails is told, and does not stop those after it."""
    try:
        make()
    except RuntimeError as error:
        print(f"failed: {what}: {error}", file=sys.stderr, flush=True)
        return False
    return True


def run(workspace: Path, *words: str) -> None:
    """Run a command of seg25d in this process.

    Raises:
        RuntimeError: If it fails; its message is on standard error.
        KeyboardInterrupt: If it was stopped by Ctrl-C, as nothing after it is wanted then.
    """
    status = seg25d([*words, "--workspace", str(workspace), "--quiet"])
    if status == INTERRUPTED:
        raise KeyboardInterrupt
    if status != 0:
        raise RuntimeError(f"seg25d {' '.join(words)} ended with {status}")


def train(workspace: Path, identifier: str, configuration: str, iterations: int, seed: int) -> Row:
    """Plan, preprocess and train one model on all cases of a data set; a training that was cut off goes on.

    Returns:
        What an update sees, which the planner chooses by the size of the data set: `window` and `batch_size`.
    """
    planned = ("--gpu-memory-gb", str(GPU_MEMORY_GB), "--cpu-gflops", str(CPU_GFLOPS))
    run(workspace, "plan_and_preprocess", "-d", identifier, "-c", configuration, *planned)
    length = ("--iterations", str(iterations), "--seed", str(seed))
    run(workspace, "train", identifier, configuration, "all", *length)
    place = Workspace.resolve(workspace)
    plans = read_record(place.preprocessed_dataset(place.dataset_name(identifier)).plans(), Plans)
    _, plan = find_configuration(plans, configuration)
    return {"window": list(plan.window), "batch_size": plan.batch_size}


def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
    """Segment images with the model of `train`."""
    model = ("-d", identifier, "-c", configuration, "-f", "all")
    run(workspace, "predict", "-i", str(images), "-o", str(out), *model, "--overwrite")


def score(workspace: Path, truth: Path, out: Path) -> Row:
    """Compare segmentations with the truth; see `scores_of`."""
    run(workspace, "evaluate", str(truth), str(out))
    return scores_of([read_record(out / "summary.json", Summary)])


def compared(trainings: Sequence[Row], others: Sequence[Row], score: str) -> Difference | None:
    """The difference of a score between trainings, one or more, and others of the same cases; patients count once."""
    mine, their = ([each["scores"][score] for each in some] for some in (trainings, others))
    return difference(mine, their, cases=trainings[0]["cases"])
