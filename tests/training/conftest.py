"""A fold that trains in seconds: six small volumes with a bright cube, or with regions."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from seg25d.core.workspace import FoldFolder
from seg25d.data.dataset import Split
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.data.labels import Labels
from seg25d.networks.specs.unet import UNetSpec
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.normalization import ChannelNormalization
from seg25d.planning.plan import ConfigurationPlan
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.representations.super_image import SuperImage
from seg25d.training.config import TrainingConfig
from seg25d.training.trainer import FoldJob, train_fold

ORGAN = Labels(names={"background": 0, "organ": 1})
SHAPE = (7, 10, 9)


def write_case(store: Store, case: str, rng: np.random.Generator, num_classes: int = 2) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    corner = rng.integers(0, (3, 5, 4))
    for index in range(1, num_classes):
        low, high = corner + index - 1, corner + 5 - index
        labels[tuple(slice(*ends) for ends in zip(low, high, strict=True))] = index
    image = (labels + rng.normal(0, 0.3, SHAPE))[None].astype(np.float32)
    grid = Grid.plan(SHAPE, (1.0, 1.0, 1.0), tuple((0, size) for size in SHAPE), (1.0, 1.0, 1.0))
    direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    geometry = Geometry(shape=SHAPE, spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=direction)
    locations = {int(index): np.argwhere(labels == index).astype(np.int32) for index in np.unique(labels)}
    record = CaseRecord(case=case, geometry=geometry, grid=grid, voxels={}, source_key="test")
    store.write(record, CaseArrays(image, labels, labels, locations))


@pytest.fixture
def make_case() -> Callable[..., None]:
    return write_case


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("store"))
    rng = np.random.default_rng(1)
    for number in range(6):
        write_case(store, f"case_{number}", rng)
    return store


def _maker(tiny_store: Store, folder: Path) -> Callable[..., FoldJob]:
    def make(name: str, labels: Labels = ORGAN, store: Store = tiny_store, **settings: object) -> FoldJob:
        plan = ConfigurationPlan(
            spacing_mm=(1.0, 1.0, 1.0),
            normalization=(ChannelNormalization(channel="MRI", scheme="none"),),
            store="store",
            window=(6, 8, 8),
            batch_size=2,
            representation=SuperImage(grid=(3, 2)),
            network=UNetSpec(
                widths=(4, 8, 8), strides=((1, 1), (2, 2), (2, 2)), kernels=((3, 3),) * 3, num_supervised=2
            ),
            mirror_axes=(0, 1, 2),
            estimated_memory_gb=0.1,
            num_parameters=1,
            reasons={},
        )
        description = DatasetDescription(channel_names=("MRI",), labels=labels, file_ending=".nii.gz", num_training=6)
        header = ModelHeader(
            dataset_name="Dataset001_Tiny", configuration="si", fold=0, plan=plan, description=description
        )
        split = Split(train=tuple(f"case_{n}" for n in range(4)), val=("case_4", "case_5"))
        values = {"epochs": 3, "iterations_per_epoch": 4, "precision": "float32", "learning_rate": 0.01} | settings
        config = TrainingConfig.model_validate(values)
        return FoldJob(FoldFolder(root=folder / name), store, split, config, header, "cpu", 0)

    return make


@pytest.fixture
def make_job(tiny_store: Store, tmp_path: Path) -> Callable[..., FoldJob]:
    """Makes jobs in folders of their own; keywords change the settings."""
    return _maker(tiny_store, tmp_path)


@pytest.fixture(scope="session")
def whole(tiny_store: Store, tmp_path_factory: pytest.TempPathFactory) -> FoldJob:
    """A job with the usual settings that was trained without a stop; not to be changed."""
    job = _maker(tiny_store, tmp_path_factory.mktemp("whole"))("whole")
    train_fold(job)
    return job
