"""Augmentation by the loaders and on the device that trains: is it the same, and which one keeps up?

`python benchmarks/gpu_augmentation.py --output FILE.json` makes up some volumes (smooth noise, a ball, two classes),
plans them, and does this for each configuration; FILE is written after each:

- the same windows both ways: differences of images and of labels where no noise was drawn, the strength of the noise
  where there was, and whether the device gives the same bits twice;
- windows per second that one process augments, and the device alone;
- trainings with `augmentation.place` as `loaders`, `device` and `auto`: updates per second, the share of the time spent
  waiting for batches, and the share in which the device is busy (the seconds of an update whose batch is there already,
  over those of an update in the training); what `auto` came to, whose reasons are printed.

About four minutes on a GPU with the settings that are the default. It needs what gpu_check.py needs. On a CPU
(`--device cpu --shape 12 24 24 --seconds 0.1 --training-seconds 2`) everything works the same, which tests the script.
"""

import argparse
import json
import logging
import math
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_variants import Updates, repeat
from made_up import make_up_dataset
from scipy.ndimage import gaussian_filter

from seg25d.core.device import Execution, choose_execution, device_name, give_freed_memory_back
from seg25d.core.files import write_json
from seg25d.core.parallel import available_cores
from seg25d.core.types import Shape
from seg25d.core.versions import library_versions
from seg25d.core.workspace import FoldFolder
from seg25d.data.dataset import Split
from seg25d.data.description import DatasetDescription
from seg25d.data.image_geometry import Geometry
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import ConfigurationPlan
from seg25d.planning.planner import plan_dataset
from seg25d.planning.recipe_rules import find_rules
from seg25d.preprocessing.grid import Grid
from seg25d.preprocessing.store import CaseArrays, CaseRecord, Store
from seg25d.training.augmentation import Augmentation, apply_intensity
from seg25d.training.checkpoint import load_checkpoint
from seg25d.training.config import TrainingConfig
from seg25d.training.device_augmentation import change_intensity
from seg25d.training.recipes import find_recipe
from seg25d.training.sampling import Regions, WindowSource
from seg25d.training.trainer import FoldJob, train_fold

Row = dict[str, Any]
NUM_CASES = 6
SETTLED = 0.5
"""Share of a training whose updates are not counted."""
COMPARED = 8
"""Batches that are compared."""
NOISES = 20
"""Seeds for which the noise of both ways is compared."""


@dataclass
class Check:
    """What all steps share."""

    store: Store
    description: DatasetDescription
    execution: Execution
    scratch: Path
    seconds: float
    training_seconds: float

    @property
    def split(self) -> Split:
        """Four cases to train on, two to validate on."""
        cases = tuple(self.store.cases())
        return Split(train=cases[:-2], val=cases[-2:])

    def source(self, plan: ConfigurationPlan, config: TrainingConfig, *, augments: bool) -> WindowSource:
        """Windows of the training cases, augmented in this process or not yet."""
        source = WindowSource(self.store, plan, config, {"train": self.split.train, "validate": self.split.val})
        source.augments = augments
        return source


def write_cases(store: Store, shape: Shape) -> None:
    """Write made-up cases that are preprocessed already."""
    rng = np.random.default_rng(0)
    middle = np.indices(shape) - np.array(shape)[:, None, None, None] / 2
    distance = np.sqrt((middle**2).sum(0)) / min(shape)
    for number in range(NUM_CASES):
        labels = (distance < 0.2 + 0.02 * number).astype(np.uint8) + (distance < 0.1).astype(np.uint8)
        noise = gaussian_filter(rng.normal(size=shape).astype(np.float32), 2)
        image = (labels + 3 * noise)[None].astype(np.float32)
        whole = (0, shape[0]), (0, shape[1]), (0, shape[2])
        grid = Grid.plan(shape, (1.0, 1.0, 1.0), whole, (1.0, 1.0, 1.0))
        direction = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
        geometry = Geometry(shape=shape, spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=direction)
        locations = {label: np.argwhere(labels == label)[::50].astype(np.int32) for label in (1, 2)}
        record = CaseRecord(case=f"case_{number:03d}", geometry=geometry, grid=grid, voxels={}, source_key="made up")
        store.write(record, CaseArrays(image, labels, None, locations))


def compare(check: Check, plan: ConfigurationPlan, config: TrainingConfig) -> Row:
    """Make the same windows both ways; both come as tensors of the CPU."""
    device = check.execution.device
    here, there = (check.source(plan, config, augments=augments) for augments in (True, False))
    differences, labels, same_bits = [], [], True
    for number in range(COMPARED):
        theirs, regions = here["train", number], there["train", number]
        assert isinstance(theirs, tuple), theirs
        assert isinstance(regions, Regions), regions
        ours, again = (there.finish_batch(regions, device) for _ in range(2))
        same_bits &= all(torch.equal(one, other) for one, other in zip(ours, again, strict=True))
        for place, drawn in enumerate(regions.drawn):
            labels.append(float((ours[1][place].cpu() != theirs[1][place]).float().mean()))
            if all(name != "noise" for name, _, _ in drawn.augmentation.intensity):
                differences.append(float((ours[0][place].cpu() - theirs[0][place]).abs().max()))
    return {
        "windows": len(labels),
        "without_noise": len(differences),
        "largest_difference": max(differences, default=math.nan),
        "labels_that_differ": float(np.mean(labels)),
        "same_bits_again": same_bits,
        "noise": compare_noise(plan.window, device),
    }


def compare_noise(window: Shape, device: torch.device) -> Row:
    """Compare the noise of both ways for the same seeds: deviation, mean, correlation of neighbours."""
    still = np.zeros((1, *window), np.float32)
    ratios, means, neighbours = [], [], []
    for seed in range(NOISES):
        drawn = Augmentation(intensity=(("noise", 0, seed),))
        theirs = apply_intensity(still.copy(), drawn)
        ours = change_intensity(torch.from_numpy(still).to(device), drawn).cpu().numpy()
        ratios.append(float(ours.std() / theirs.std()))
        means.append(float(abs(ours.mean()) / ours.std()))
        neighbours.append(abs(float(np.corrcoef(ours.ravel()[1:], ours.ravel()[:-1])[0, 1])))
    return {
        "deviation_to_that_of_loaders": [min(ratios), max(ratios)],
        "largest_mean_in_deviations": max(means),
        "largest_correlation_of_neighbours": max(neighbours),
        "expected_of_both": 3 / math.sqrt(math.prod(window)),
    }


def speeds(check: Check, plan: ConfigurationPlan, config: TrainingConfig) -> Row:
    """Windows per second: one process with and without augmentation, and the augmentation on the device alone."""
    device, found = check.execution.device, {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a loader
    for augments in (True, False):
        source, number, begun = check.source(plan, config, augments=augments), 0, time.perf_counter()
        while (spent := time.perf_counter() - begun) < check.seconds or number < 2:
            source["train", number]
            number += 1
        found["loader_augments" if augments else "loader_reads"] = number * plan.batch_size / spent
    torch.set_num_threads(threads)
    source = check.source(plan, config, augments=False)
    batches = [batch for number in range(COMPARED) if isinstance(batch := source["train", number], Regions)]
    if device.type == "cuda":
        batches = [
            batch._replace(images=batch.images.pin_memory(), labels=batch.labels.pin_memory()) for batch in batches
        ]
    seconds = repeat(lambda: [source.finish_batch(batch, device) for batch in batches], device, check.seconds)
    return found | {"device_augments": len(batches) * plan.batch_size / seconds}


def train(check: Check, name: str, plan: ConfigurationPlan, config: TrainingConfig, update_s: float) -> Row:
    """Train for a while, with the augmentation where the settings say."""
    place = config.augmentation.place
    header = ModelHeader(
        dataset_name="Dataset999_MadeUp", configuration=name, fold="0", plan=plan, description=check.description
    )
    folder = FoldFolder(root=check.scratch / name / place / "fold_0")
    train_fold(FoldJob(folder, check.store, check.split, config, header, str(check.execution.device)))
    log = [json.loads(line) for line in folder.log.read_text(encoding="utf-8").splitlines()]
    before = [0, *(line["iteration"] for line in log)]
    # The second half, when `auto` has decided; an epoch's figures count for each of its updates.
    counted = [(line, line["iteration"] - begun) for line, begun in zip(log, before, strict=False)]
    counted = [(line, number) for line, number in counted if line["progress"] > SETTLED]
    seconds = sum(line["seconds_per_iteration"] * number for line, number in counted)
    waiting = sum(line["data_wait_share"] * line["seconds_per_iteration"] * number for line, number in counted)
    updates_per_s = sum(number for _, number in counted) / seconds
    return {
        "updates_per_s": updates_per_s,
        "data_wait_share": waiting / seconds,
        "busy_share": update_s * updates_per_s,
        "peak_memory_gb": log[-1]["peak_memory_gb"],
        "auto_came_to": load_checkpoint(folder.checkpoint)["augmented_on"],
    }


def check_configuration(check: Check, name: str, plan: ConfigurationPlan) -> Row:
    """Do all of it for one configuration."""
    default = find_recipe("default").model_copy(
        update={"time_budget_seconds": check.training_seconds, "validation_windows": 2, "iterations_per_epoch": 10**6}
    )
    row: Row = {"name": name, "window": plan.window, "batch_size": plan.batch_size}
    row["comparison"] = compare(check, plan, default)
    row["windows_per_s"] = speeds(check, plan, default)
    header = ModelHeader(
        dataset_name="Dataset999_MadeUp", configuration=name, fold="0", plan=plan, description=check.description
    )
    batch = check.source(plan, default, augments=True)["train", 0]
    assert isinstance(batch, tuple), batch
    assert not isinstance(batch, Regions), "augmented"
    row["update_s"] = Updates(header, default, check.execution, batch, check.seconds).measure("fast")
    for place in ("loaders", "device", "auto"):
        give_freed_memory_back()
        augmentation = default.augmentation.model_copy(update={"place": place})
        config = default.model_copy(update={"augmentation": augmentation})
        row[f"training_{place}"] = train(check, name, plan, config, row["update_s"])
    return row


def main() -> None:
    """Check each configuration and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--configurations", nargs="+", default=["3d", "2d", "stack"])
    parser.add_argument("--shape", type=int, nargs=3, default=(128, 192, 192), metavar=("D", "H", "W"))
    parser.add_argument("--gpu-memory-gb", type=float, default=8.0, help="of the plans (default: 8)")
    parser.add_argument("--seconds", type=float, default=3.0, help="per measurement (default: 3)")
    parser.add_argument("--training-seconds", type=float, default=20.0, help="per training (default: 20)")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, required=True, help="FILE.json")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    execution, shape = choose_execution(options.device, options.precision), tuple(options.shape)
    fingerprint, description = make_up_dataset(shape, num_classes=2, num_cases=NUM_CASES, channel="MRI")
    plans = plan_dataset(
        fingerprint,
        description,
        configurations=options.configurations,
        rules=find_rules("default"),
        gpu_memory_gb=options.gpu_memory_gb,
    )
    machine = {
        "device": device_name(execution.device),
        "precision": str(execution.dtype),
        "cores": available_cores(),
        "versions": library_versions(),
    }
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(Path(scratch) / "store")
        write_cases(store, shape)
        check = Check(store, description, execution, Path(scratch), options.seconds, options.training_seconds)
        for name, plan in plans.configurations.items():
            rows.append(check_configuration(check, name, plan))
            print(json.dumps(rows[-1], indent=1), flush=True)
            write_json(options.output, {"machine": machine, "shape": shape, "rows": rows})


if __name__ == "__main__":
    main()
