"""All measurements that need a GPU, in at most nine minutes.

`python benchmarks/gpu_check.py --dataset 4 --output FILE.json` does these steps in the order of importance. FILE is
written after each of them; one that does not fit into `--minutes` is listed there:

- the self-test (`seg25d info --check`): random layers in every type, and an update of every network in the fast type,
  against exact results on the CPU, in separate processes;
- matrix products: the peak rate of the device;
- every configuration of the plans: memory as planned and as measured (tensors, torch's cache, the whole device),
  updates per second in the fast type and their share of the matrix rate, a short run of `train` with its waiting for
  data, and the prediction of a case of median size. The fusion of `mv` gets synthetic maps of its views;
- three configurations trained at the same time for five minutes: their Dice on validation windows;
- variants of an update (gpu_variants.py) for each configuration: float32, TF32, the other 16-bit type, both layouts,
  instance norm that keeps channels-last, CUDA graphs, the compiler, the compiler with graphs. The choice of layout and
  norm needs a GPU (`Execution.place`, `InstanceNorm`). Augmentation has a check of its own, gpu_augmentation.py.

It needs the preprocessed data set, neither raw images nor SimpleITK, pydicom, Pillow or a network connection; beside
torch: numpy, scipy, matplotlib, safetensors, rich, pydantic, blosc2, batchgenerators (noise and gamma), and MONAI for
plans with Swin UNETR. On a CPU everything but the CUDA parts works the same, which tests the script.
"""

import argparse
import json
import math
import multiprocessing
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_report import Row, as_text
from gpu_variants import Updates, matrix_rates, repeat, self_test, train_one
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from seg25d.core.device import Execution, choose_execution, device_name, give_freed_memory_back, peak_memory_gb
from seg25d.core.files import write_json, write_text
from seg25d.core.parallel import available_cores
from seg25d.core.records import read_record
from seg25d.core.versions import library_versions
from seg25d.core.workspace import FoldFolder, Workspace
from seg25d.data.dataset import Split, read_description, read_splits
from seg25d.data.description import DatasetDescription
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.planning.model_file import ModelHeader
from seg25d.planning.plan import ConfigurationPlan, Plans
from seg25d.preprocessing.store import CaseArrays, Store
from seg25d.representations.fused_views import FusedViews
from seg25d.training.loading import next_batch
from seg25d.training.recipes import find_recipe
from seg25d.training.sampling import Regions, WindowSource
from seg25d.training.trainer import FoldJob, train_fold

GIGABYTE = 1 << 30
TRAINING_SECONDS = 300.0
"""Length of the training of three configurations together."""
STARTING_SECONDS = 20.0
"""Time for their processes to start, to score their last epoch and to end."""
CLOSING_SECONDS = 5.0
LONGEST_SHORT_RUN = 200
"""Maximum number of updates of a configuration's short training."""
VARIANTS = (
    *("float32", "tf32", "float16", "bfloat16", "channels-last", "contiguous", "norm kept", "graphs"),
    *("compiled", "compiled, graphs"),
)
"""Variants of updates, in the order of measurement: the last ones take long to start."""
TRAINED = ("2d", "3d", "si")
"""Configurations that are trained together, if they are planned, else the first ones of the plans."""
MADE_UP_CASES = 8
"""Number of synthetic cases for the fusion of `mv`."""


class Clock:
    """The remaining time."""

    def __init__(self, minutes: float) -> None:
        self.total = 60 * minutes
        self.begun = time.monotonic()

    @property
    def left(self) -> float:
        """Seconds until the steps have to end."""
        return self.total - CLOSING_SECONDS - (time.monotonic() - self.begun)


@dataclass
class Check:
    """Shared state of all steps, and their results."""

    dataset_name: str
    folder: Path
    """Folder of the preprocessed data set."""
    description: DatasetDescription
    split: Split
    execution: Execution
    seconds: float
    """Seconds of each measurement."""
    clock: Clock
    scratch: Path
    output: Path
    rows: dict[str, Row] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)

    @property
    def device(self) -> torch.device:
        """The device that is measured."""
        return self.execution.device

    def step(self, name: str, needed: float, action: Callable[[], Any], reserve: float = 0.0) -> Any:
        """Run a step if there is enough time, and write the results; failures are recorded too."""
        if self.clock.left - reserve < needed:
            self.skipped.append(name)
            return None
        print(f"{name} ({self.clock.left:.0f} s left)", flush=True)
        result = None
        try:
            result = action()
        except Exception as error:
            self.facts.setdefault("problems", {})[name] = f"{type(error).__name__}: {error}".splitlines()[0]
            end_processes()
        give_freed_memory_back()
        self.write()
        return result

    def write(self) -> None:
        """Write the results so far, as JSON and as text."""
        write_json(self.output, {**self.facts, "skipped": self.skipped, "rows": list(self.rows.values())})
        write_text(self.output.with_suffix(".md"), as_text(self.rows.values(), self.facts, self.skipped))


def end_processes() -> None:
    """Kill data loaders of a failed training, which ignore SIGTERM and would keep Python waiting at the end."""
    for process in multiprocessing.active_children():
        process.kill()


def job_of(check: Check, name: str, plan: ConfigurationPlan, **settings: Any) -> FoldJob:
    """Make a training of the first fold in a separate folder."""
    header = ModelHeader(
        dataset_name=check.dataset_name, configuration=name, fold="0", plan=plan, description=check.description
    )
    config = find_recipe("default", fuses_views=plan.representation.fuses_views).model_copy(
        update={"precision": precision_of(check), **settings}
    )
    store = Store(check.folder / plan.store)
    if plan.representation.fuses_views:
        store = with_made_up_maps(check, store, plan)
    folder = FoldFolder(root=check.scratch / name / "fold_0")
    split = cases_in(check.split, store)
    return FoldJob(folder, store, split, config, header, str(check.device))


def precision_of(check: Check) -> str:
    """The name of the fast type, such as `bfloat16`."""
    return str(check.execution.dtype).removeprefix("torch.")


def cases_in(split: Split, store: Store) -> Split:
    """The split without cases that are not in the store."""
    known = set(store.cases())
    return Split(
        train=tuple(case for case in split.train if case in known),
        val=tuple(case for case in split.val if case in known),
    )


def with_made_up_maps(check: Check, source: Store, plan: ConfigurationPlan) -> Store:
    """Make some cases with synthetic, mostly correct maps of three views as further channels."""
    store = Store(check.scratch / "made_up_maps")
    rng = np.random.default_rng(0)
    num_maps = FusedViews.of(plan.representation).num_maps
    half = MADE_UP_CASES // 2
    for case in (*check.split.train[:half], *check.split.val[:half]):
        if case in store.cases():
            continue
        image, labels = source.open_image(case)[:], source.open_labels(case)[:]
        classes = 1 + np.arange(num_maps) % max(1, int(labels.max()))
        right = (labels == classes[:, None, None, None]).astype(np.float32)
        maps = np.clip(0.1 + 0.8 * right + rng.normal(0, 0.1, right.shape).astype(np.float32), 0, 1)
        locations = {label: voxels.astype(np.int32) for label, voxels in source.locations(case).items()}
        arrays = CaseArrays(np.concatenate([image, maps]), labels, None, locations)
        store.write(source.record(case), arrays)
    return store


def flops_of_update(plan: ConfigurationPlan, description: DatasetDescription) -> float:
    """Count the operations of a forward and a backward pass of a batch on tensors without data."""
    channels, outputs = len(description.channel_names), description.labels.num_outputs
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        model = plan.build_model(channels, outputs).train()
        scores = model(torch.empty(plan.batch_size, plan.representation.input_channels(channels), *plan.window))
        total = sum(each.sum() * weight for each, weight in scores) if isinstance(scores, list) else scores.sum()
        total.backward()
    return float(counter.get_total_flops())


def updates_of(check: Check, name: str, plan: ConfigurationPlan) -> Updates:
    """Prepare updates of a configuration on real windows for measurement."""
    job = job_of(check, name, plan)
    source = WindowSource(job.store, plan, job.config, {"train": job.split.train, "validate": job.split.val})
    batch = next_batch(iter([source["train", 0]]))
    assert not isinstance(batch, Regions), "windows are augmented"
    return Updates(job.header, job.config, check.execution, batch, check.seconds)


def measured_memory(device: torch.device) -> Row:
    """Memory in GiB: peak of tensors, peak of torch, and current use of the device by all programs."""
    if device.type != "cuda":
        return {"tensors": peak_memory_gb(device)}
    unused, total = torch.cuda.mem_get_info(device)
    return {
        "tensors": torch.cuda.max_memory_allocated(device) / GIGABYTE,
        "torch": torch.cuda.max_memory_reserved(device) / GIGABYTE,
        "device": (total - unused) / GIGABYTE,
    }


def speed_and_memory(check: Check, name: str, plan: ConfigurationPlan) -> None:
    """Measure an update in the fast type: seconds, share of the matrix rate, memory."""
    row = check.rows.setdefault(name, {"name": name, "planned_gb": plan.estimated_memory_gb, "update_s": {}})
    if check.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(check.device)
    seconds = updates_of(check, name, plan).measure("fast")
    row["memory_gb"] = measured_memory(check.device)
    row["update_s"]["fast"] = seconds
    row["flops"] = flops_of_update(plan, check.description)
    rate = check.facts.get("matrix_rates", {}).get(precision_of(check))
    row["share_of_matrix_rate"] = row["flops"] / seconds / rate if rate else None


def short_run(check: Check, name: str, plan: ConfigurationPlan) -> None:
    """Measure the training loop (waiting for data, memory), then a prediction with its model."""
    job = job_of(
        check,
        name,
        plan,
        iterations=LONGEST_SHORT_RUN,
        time_budget_seconds=check.seconds,
        validation_windows=2,
    )
    train_fold(job)
    last = last_line(job.folder)
    row = check.rows[name]
    row["train"] = {key: last[key] for key in ("seconds_per_iteration", "data_wait_share", "peak_memory_gb")}
    cases = sorted(job.split.val, key=lambda case: (math.prod(job.store.record(case).grid.shape), case))
    case = cases[len(cases) // 2]
    grid = job.store.record(case).grid
    kind: type[Predictor] = type("OfMaps", (Predictor,), {"fuses_views": plan.representation.fuses_views})
    predictor = kind.load([job.folder.model_final], check.execution, PredictorOptions(mirroring=False))
    seconds = repeat(
        lambda: predictor.predict_preprocessed(job.store.open_image(case), grid), check.device, check.seconds
    )
    row["predict"] = {"seconds": seconds, "voxels_per_second": math.prod(grid.shape) / seconds}


def last_line(folder: FoldFolder) -> Row:
    """The last line of a fold's log."""
    line: Row = json.loads(folder.log.read_text(encoding="utf-8").splitlines()[-1])
    return line


def train_together(check: Check, plans: dict[str, ConfigurationPlan], seconds: float) -> None:
    """Train in three processes on one device, each with its share of the cores."""
    names = [name for name in TRAINED if name in plans] or list(plans)
    names = [*names, *(name for name in plans if name not in names)][: len(TRAINED)]
    cores = max(1, available_cores() // len(names))
    context = multiprocessing.get_context("spawn")
    running = {}
    for name in names:
        job = job_of(check, name, plans[name], time_budget_seconds=seconds)
        folder = FoldFolder(root=check.scratch / "together" / name / "fold_0")
        job = replace(job, folder=folder, num_workers=max(0, cores - 1))
        running[name] = job, context.Process(target=train_one, args=(job, cores))
    for _, process in running.values():
        process.start()
    ends = time.monotonic() + max(0.0, check.clock.left)
    for name, (job, process) in running.items():
        process.join(max(0.0, ends - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
        found: Row = {"exit_status": process.exitcode}
        if job.folder.log.exists():
            last = last_line(job.folder)
            keys = ("iteration", "validation_dice", "total_seconds", "data_wait_share", "peak_memory_gb")
            found |= {key: last[key] for key in keys}
        check.rows.setdefault(name, {"name": name, "update_s": {}})["together"] = found
        check.write()


def measure_variant(check: Check, name: str, plan: ConfigurationPlan, wanted: str) -> None:
    """Measure one variant of an update."""
    row = check.rows.setdefault(name, {"name": name, "update_s": {}})
    row["update_s"][wanted] = None
    row["update_s"][wanted] = updates_of(check, name, plan).measure(wanted)


def run(check: Check, plans: dict[str, ConfigurationPlan], options: argparse.Namespace) -> None:
    """Run all steps."""
    share = check.clock.total / 540
    tested = 20 * check.seconds
    check.facts["self_test"] = check.step(
        "self-test", tested, partial(self_test, check.execution, tested, options.seed)
    )
    side = 8192 if check.device.type == "cuda" else 512
    rates = check.step("matrix products", 1, lambda: matrix_rates(check.device, check.seconds / 5, side))
    check.facts["matrix_rates"] = rates or {}
    together = options.training_seconds + STARTING_SECONDS
    for name, plan in plans.items():
        needed = 3 * check.seconds
        check.step(f"{name}: update", needed, partial(speed_and_memory, check, name, plan), together)
        if name in check.rows:
            check.step(f"{name}: short run", needed, partial(short_run, check, name, plan), together)
    check.step("together", together, partial(train_together, check, plans, options.training_seconds))
    for wanted in (each for each in options.variants if each in known_variants(check)):
        # The compiler needs time to generate kernels.
        needed = 2 * check.seconds + (60 * share if "compiled" in wanted else 5 * share)
        for name in dict.fromkeys(each for each in (*TRAINED, *plans) if each in check.rows):
            if wanted not in check.rows[name]["update_s"]:
                check.step(f"{name}: {wanted}", needed, partial(measure_variant, check, name, plans[name], wanted))


def known_variants(check: Check) -> Sequence[str]:
    """The names of all variants of an update on this device."""
    return list(Updates.variants(_Nothing(check.execution)))  # type: ignore[arg-type]


@dataclass(frozen=True)
class _Nothing:
    execution: Execution


def main() -> None:
    """Run all steps and write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--configurations", nargs="+", help="default: all of the plans")
    parser.add_argument("--minutes", type=float, default=9.0, help="time for all steps (default: 9)")
    parser.add_argument("--seconds", type=float, help="per measurement (default: a third of --minutes, in seconds)")
    parser.add_argument(
        "--training-seconds", type=float, default=TRAINING_SECONDS, help="training of three together (default: 300)"
    )
    parser.add_argument(
        "--variants", nargs="+", default=VARIANTS, choices=VARIANTS, help="variants of updates (default: all)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the random layers")
    parser.add_argument("--device")
    parser.add_argument("--precision", default="auto", help="the fast type (default: the device's)")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    options = parser.parse_args()
    clock = Clock(options.minutes)
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    folder = workspace.preprocessed_dataset(name)
    plans = read_record(folder.plans(), Plans).configurations
    chosen = {key: plan for key, plan in plans.items() if key in (options.configurations or plans)}
    execution = choose_execution(options.device, options.precision)
    with tempfile.TemporaryDirectory() as scratch:
        check = Check(
            dataset_name=name,
            folder=folder.root,
            description=read_description(folder.dataset),
            split=read_splits(folder.splits)[0],
            execution=execution,
            seconds=options.seconds or 3.0 * options.minutes / 9,
            clock=clock,
            scratch=Path(scratch),
            output=options.output,
        )
        check.facts = {
            "title": "Memory and speed on this device",
            "dataset": name,
            "minutes": options.minutes,
            "machine": {
                "device": device_name(execution.device),
                "processor": platform.machine(),
                "cores": available_cores(),
                "precision": precision_of(check),
                "versions": library_versions(),
            },
        }
        run(check, chosen, options)
        check.facts["seconds"] = round(clock.total - CLOSING_SECONDS - clock.left, 1)
        check.write()
    end_processes()
    print(options.output.with_suffix(".md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
