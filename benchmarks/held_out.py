"""Data sets made from others, with cases that are kept back, and models that are trained and scored on them.

Plans are made for CPUs of the same speed wherever they are made, so that equal updates are equal everywhere.

Letters: C channels, D H W volume.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from case_scores import scores_of
from numpy.typing import NDArray
from result_tables import Row

from seg25d.cli.main import main as seg25d
from seg25d.core.files import read_json
from seg25d.core.records import read_record
from seg25d.core.types import FloatArray, Spacing
from seg25d.data.image_geometry import Geometry
from seg25d.data.image_io import read_image, read_labels, write_channel, write_labels
from seg25d.evaluation.summary import Summary
from seg25d.preprocessing.resample import resample_labels

KEPT_BACK = 5
"""One patient, or case without a patient, in so many is kept back."""
CPU_GFLOPS = 100
"""Speed of the CPUs that all plans are made for, about that of two cores."""
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
"""Directions of the axes of all files that are written."""


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
    """Find a data set, and which of its cases are kept back: those of every fifth patient, or every fifth one."""
    (folder,) = data.glob(f"Dataset{number:03d}_*")
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


def run(workspace: Path, *words: str) -> None:
    """Run a command of seg25d in this process.

    Raises:
        RuntimeError: If it fails; its message is on standard error.
    """
    if (status := seg25d([*words, "--workspace", str(workspace), "--quiet"])) != 0:
        raise RuntimeError(f"seg25d {' '.join(words)} ended with {status}")


def train(workspace: Path, identifier: str, configuration: str, iterations: int, seed: int) -> None:
    """Plan, preprocess and train one model on all cases of a data set."""
    planned = ("--gpu-memory-gb", "8", "--cpu-gflops", str(CPU_GFLOPS))
    run(workspace, "plan_and_preprocess", "-d", identifier, "-c", configuration, *planned)
    length = ("--iterations", str(iterations), "--seed", str(seed))
    run(workspace, "train", identifier, configuration, "all", *length)


def predict(workspace: Path, identifier: str, configuration: str, images: Path, out: Path) -> None:
    """Segment images with the model of `train`."""
    model = ("-d", identifier, "-c", configuration, "-f", "all")
    run(workspace, "predict", "-i", str(images), "-o", str(out), *model, "--overwrite")


def score(workspace: Path, truth: Path, out: Path) -> Row:
    """Compare segmentations with the truth; see `scores_of`."""
    run(workspace, "evaluate", str(truth), str(out))
    return scores_of([read_record(out / "summary.json", Summary)])
