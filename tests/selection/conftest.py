"""A data set of two tiny cases and runs whose probabilities are there."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.workspace import RunFolder
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.selection.candidates import ValidatedRun
from seg25d.selection.scoring import Validation
from tests.selection.maps import write_probability_map

SHAPE = (2, 4, 4)
CASES = ("a", "b")


def _write_case(store: Store, case: str, truth: np.ndarray, key: str = "first") -> None:
    geometry = Geometry(shape=SHAPE, spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    grid = Grid.plan(SHAPE, (1.0, 1.0, 1.0), ((0, 2), (0, 4), (0, 4)), (1.0, 1.0, 1.0))
    record = CaseRecord(case=case, geometry=geometry, grid=grid, voxels={}, source_key=key)
    store.write(record, CaseArrays(np.zeros((1, *SHAPE), np.float32), truth, truth, {}))


@pytest.fixture
def write_case() -> Callable[..., None]:
    """Writes a case of a store, for its truth: (store, case, truth, key)."""
    return _write_case


@pytest.fixture
def truth() -> np.ndarray:
    """One organ."""
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 1:3, 1:3] = 1
    return truth


@pytest.fixture
def validation(tmp_path: Path, truth: np.ndarray) -> Validation:
    """Runs `good`, which is right, and `poor`, which misses half; a fold per case."""
    labels = Labels(names={"background": 0, "organ": 1})
    description = DatasetDescription(channel_names=("CT",), labels=labels, num_training=2, file_ending=".nii.gz")
    store = Store(tmp_path / "store")
    runs = {}
    for name, part in (("good", 4), ("poor", 2)):
        run = RunFolder(root=tmp_path / "results" / name)
        held_out = {fold: (case,) for fold, case in enumerate(CASES)}
        runs[name] = ValidatedRun(run, description, None, None, len(CASES), held_out, {0: "0", 1: "1"})
        found = np.where(np.arange(4) < part, truth, 0).astype(np.float32) * 0.8 + 0.1
        for case in CASES:
            write_probability_map(runs[name].probability_map(case), np.stack([1 - found, found]))
    for case in CASES:
        _write_case(store, case, truth)
    return Validation(runs, CASES, labels, store, tmp_path / "results" / "cross_validation", num_processes=0)
