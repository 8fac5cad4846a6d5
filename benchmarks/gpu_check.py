"""One call for a GPU machine: memory as planned and as measured, speed of training and prediction, waiting for data.

python benchmarks/gpu_check.py --dataset 4 --output benchmarks/results/gpu_check.json

Needs the preprocessed data set, torch and a device: neither SimpleITK nor raw images nor a network. Every configuration
of the plans takes about `--seconds` per variant (default: 5), so that all of them are done in well under ten minutes:

- updates of training on windows of the data set that lie on the device, in float32, in the device's fast type, and with
  the layout and the compiler that are tried; the share of what a large matrix product reaches there says how much of
  the device is used;
- a short run of `train` itself: waiting for data, and the peak of memory beside the planned one;
- prediction of a case of middle size, without mirroring.

On a CPU everything works the same and shows that the script does.
"""

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from contest import Row, Table, settings_of, write_tables
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from seg25d.core.device import Execution, choose_execution
from seg25d.core.records import read_record
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.dataset import Split, read_description, read_splits
from seg25d.data.description import DatasetDescription
from seg25d.ensembling.fused_predictor import load_predictor
from seg25d.inference.predictor import PredictorOptions
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import Store
from seg25d.training.config import TrainingConfig
from seg25d.training.losses import DiceCrossEntropy
from seg25d.training.recipes import find_recipe
from seg25d.training.sampling import WindowSource
from seg25d.training.state import new_state
from seg25d.training.trainer import FoldJob, train_fold


@dataclass(frozen=True)
class Place:
    """What all configurations share."""

    dataset_name: str
    folder: Path
    """Of the preprocessed data set."""
    description: DatasetDescription
    execution: Execution
    seconds: float
    scratch: Path
    """For what is trained."""


MATRIX = 4096
"""Side of the matrix product that stands for what the device can do."""
WARM_UP = 3
"""Updates that are not counted: algorithms are chosen, kernels are made."""
TRAINED_UPDATES = 200
"""At most, of the short training."""


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def repeat(step: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """Seconds of a step, the mean over as many as fit into the time."""
    for _ in range(WARM_UP):
        step()
    wait(device)
    started, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or count == 0:
        step()
        wait(device)
        count += 1
    return spent / count if count else math.nan


def matrix_throughput(execution: Execution, seconds: float) -> float:
    """Operations per second of a large matrix product."""
    side = MATRIX if execution.device.type == "cuda" else MATRIX // 4
    left, right = (torch.randn(side, side, device=execution.device, dtype=execution.dtype) for _ in range(2))
    return 2 * side**3 / repeat(lambda: left @ right, execution.device, seconds)


def flops_of_update(plan: ConfigurationPlan, description: DatasetDescription) -> float:
    """Operations of a forward and a backward pass of a batch, counted on tensors without data."""
    channels, outputs = len(description.channel_names), description.labels.num_outputs
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = plan.build_model(channels, outputs).train()
        scores = model(torch.empty(plan.batch_size, channels, *plan.window))
        total = sum(each.sum() * weight for each, weight in scores) if isinstance(scores, list) else scores.sum()
        total.backward()
    return float(counter.get_total_flops())


def updates(
    header: ModelHeader, config: TrainingConfig, execution: Execution, batch: tuple[Tensor, Tensor], seconds: float
) -> dict[str, Callable[[], float]]:
    """What measures an update of each variant, by its name."""
    plain = Execution(execution.device, torch.float32)

    def measured(chosen: Execution, *, contiguous: bool = False, compiled: bool = False) -> float:
        state = new_state(header.build_model(), config, chosen)
        if contiguous:
            for parameter in state.model.parameters():
                parameter.data = parameter.data.contiguous()
        model: nn.Module = torch.compile(state.model) if compiled else state.model  # type: ignore[assignment]
        images, target = (each.to(chosen.device) for each in batch)
        loss_function = DiceCrossEntropy(header.description.labels)

        def step() -> None:
            with chosen.autocast():
                outputs = model(images)
            loss = loss_function(outputs if isinstance(outputs, list) else [(outputs, 1.0)], target)
            state.optimizer.zero_grad(set_to_none=True)
            state.scaler.scale(loss).backward()
            state.scaler.step(state.optimizer)
            state.scaler.update()

        model.train()
        return repeat(step, chosen.device, seconds)

    variants: dict[str, Callable[[], float]] = {"float32": lambda: measured(plain)}
    if execution.dtype != torch.float32:
        variants["fast"] = lambda: measured(execution)
    variants["contiguous"] = lambda: measured(execution, contiguous=True)
    variants["compiled"] = lambda: measured(execution, compiled=True)
    return variants


def check(name: str, plan: ConfigurationPlan, split: Split, place: Place) -> Row:
    """All figures of one configuration."""
    header = ModelHeader(
        dataset_name=place.dataset_name, configuration=name, fold="0", plan=plan, description=place.description
    )
    config = find_recipe("default", name).model_copy(
        update={"iterations": TRAINED_UPDATES, "time_budget_seconds": place.seconds, "validation_windows": 2}
    )
    store = Store(place.folder / plan.store)
    source = WindowSource(store, plan, config, {"train": split.train, "validate": split.val})
    batch = source["train", 0]
    assert isinstance(batch, tuple), f"{name}: {batch}"
    row: Row = {"name": name, "planned_gb": plan.estimated_memory_gb, "flops": flops_of_update(plan, place.description)}
    row["update_s"] = {}
    for variant, measure in updates(header, config, place.execution, batch, place.seconds).items():
        try:
            row["update_s"][variant] = measure()
        except (RuntimeError, torch.OutOfMemoryError) as problem:
            row["update_s"][variant] = None
            row.setdefault("problems", {})[variant] = str(problem).splitlines()[0]
    if place.execution.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    fold = FoldFolder(root=place.scratch / name / "fold_0")
    train_fold(FoldJob(fold, store, split, config, header, str(place.execution.device)))
    last = json.loads(fold.log.read_text(encoding="utf-8").splitlines()[-1])
    row["train"] = {key: last[key] for key in ("seconds_per_iteration", "data_wait_share", "peak_memory_gb")}
    row["predict"] = predict(fold, store, split, place)
    return row


def predict(fold: FoldFolder, store: Store, split: Split, place: Place) -> Row:
    """Seconds of the case of middle size, and its voxels per second."""
    cases = sorted(split.val, key=lambda case: (math.prod(store.record(case).grid.shape), case))
    case = cases[len(cases) // 2]
    grid = store.record(case).grid
    predictor = load_predictor([fold.model_final], place.execution, PredictorOptions(mirroring=False))
    seconds = repeat(
        lambda: predictor.predict_preprocessed(store.open_image(case), grid), place.execution.device, place.seconds
    )
    return {"seconds": seconds, "voxels_per_second": math.prod(grid.shape) / seconds}


def variant_cell(row: Row, variant: str) -> str:
    seconds = row["update_s"].get(variant)
    return "-" if seconds is None else f"{1 / seconds:.2f}"


def share_of_device(row: Row) -> str:
    known = [seconds for seconds in row["update_s"].values() if seconds is not None]
    return f"{row['flops'] / min(known) / row['device_flops']:.1%}" if known else "-"


TABLE = Table(
    "gpu_check",
    "Memory and speed on this device",
    {
        "": lambda row: row["name"],
        "GB planned": lambda row: f"{row['planned_gb']:.2f}",
        "GB measured": lambda row: f"{row['train']['peak_memory_gb']:.2f}",
        "updates/s float32": lambda row: variant_cell(row, "float32"),
        "fast type": lambda row: variant_cell(row, "fast"),
        "not channels-last": lambda row: variant_cell(row, "contiguous"),
        "compiled": lambda row: variant_cell(row, "compiled"),
        "share of the device": share_of_device,
        "updates/s of train": lambda row: f"{1 / row['train']['seconds_per_iteration']:.2f}",
        "waiting for data": lambda row: f"{row['train']['data_wait_share']:.1%}",
        "predicted Mvoxel/s": lambda row: f"{row['predict']['voxels_per_second'] / 1e6:.2f}",
    },
    (
        "Planned memory has 0.5 GB for CUDA itself, which the measured one has not. Share of the device: operations of "
        "the fastest variant by what a large matrix product reaches. On a CPU, measured memory is that of the process.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--configurations", nargs="+", help="default: all of the plans but mv, which sees predictions")
    parser.add_argument("--seconds", type=float, default=5.0, help="per measurement (default: 5)")
    parser.add_argument("--device")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    options = parser.parse_args()
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    folder = workspace.preprocessed_dataset(name)
    plans = read_record(folder.plans(), Plans)
    split = read_splits(folder.splits)[0]
    execution = choose_execution(options.device)
    device_flops = matrix_throughput(execution, options.seconds)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        place = Place(name, folder.root, read_description(folder.dataset), execution, options.seconds, Path(scratch))
        for configuration, plan in plans.configurations.items():
            fused = plan.representation.name == "fused_views"
            if fused or (options.configurations and configuration not in options.configurations):
                continue
            rows.append({**check(configuration, plan, split, place), "device_flops": device_flops})
            write_tables(TABLE, rows, {"dataset": name, "settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
