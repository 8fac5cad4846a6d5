"""Comparison of seg25d and nnU-Net v2 on the same cases and cores, with equal training time.

python benchmarks/peers.py --nnunet ENVIRONMENT/bin/python --dataset 4 --time-budget 6min \
    --output benchmarks/results/peers_hippocampus.json

The stages are planning, preprocessing, training and prediction. nnU-Net is installed from PyPI into a separate
environment (see documentation/reference/measurements.md). The stages of the two programs alternate, each in a separate
process; wall time, processor time and memory, of the largest process and of all together, without the files of
libraries, include start-up (measured.py). Training takes equal wall time, without start-up and planning, and ends with
the prediction of the validation cases; Dice is computed by `seg25d evaluate` on predictions from raw images. nnU-Net's
batch size of `2d` can be set (`--nnunet-batch 28`, as 281 allows only few updates). Existing results are kept: the same
command continues.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

from finished import settings_of
from measured import measure
from result_tables import Row, Table, write_tables

from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.files import write_json
from seg25d.core.parallel import available_cores
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import Dataset, read_dataset, read_splits
from seg25d.planning.plan import Plans
from seg25d.runs.names import find_configuration

MANY = 60
"""Number of cases of the stage that predicts many: the validation cases are repeated to about the number of the data
set's test cases."""


class Place:
    """Separate folders and environment of both programs."""

    def __init__(self, root: Path, dataset: Dataset, options: argparse.Namespace) -> None:
        self.root = root
        self.dataset = dataset
        self.options = options
        self.tools = Path(options.nnunet).parent
        self.environment = {
            **os.environ,
            "SEG25D_WORKSPACE": str(root / "seg25d"),
            **{f"nnUNet_{name}": str(root / "nnunet" / name) for name in ("raw", "preprocessed", "results")},
            "nnUNet_n_proc_DA": "1",
            "nnUNet_def_n_proc": str(available_cores()),
        }
        for raw in (root / "seg25d" / "raw", root / "nnunet" / "raw"):
            raw.mkdir(parents=True, exist_ok=True)
            if not (raw / dataset.name).exists():
                (raw / dataset.name).symlink_to(dataset.root.resolve())

    @property
    def identifier(self) -> str:
        """The data set's number, three digits."""
        return self.dataset.name[len("Dataset") :][:3]

    def seg25d(self, *words: str) -> list[str]:
        """Make a command of seg25d."""
        return [sys.executable, "-m", "seg25d", *words]

    def nnunet(self, command: str, *words: str) -> list[str]:
        """Make a command of nnU-Net."""
        return [str(self.tools / f"nnUNetv2_{command}"), *words]

    def stage(self, name: str, command: Sequence[str]) -> Row:
        """Run and measure a command, unless it has been measured already."""
        record = self.root / "stages" / f"{name}.json"
        if record.exists() and "memory_of_all_gb" in (done := json.loads(record.read_text(encoding="utf-8"))):
            return dict(done)
        print(f"{name}: {' '.join(command)}", flush=True)
        log = record.with_suffix(".log")
        measured = measure(command, self.environment, log)
        if measured["status"]:
            raise SystemExit(f"error: {' '.join(command)} failed; its output is in {log}")
        write_json(record, measured)
        return measured


@dataclass(frozen=True)
class HeldOut:
    """Folders of links to the validation cases."""

    images: Path
    one: Path
    """Only the first case."""
    many: Path
    """`MANY` cases, repeated under other names."""
    labels: Path


def held_out(place: Place, fold: int) -> HeldOut:
    """Make links to the images and labels of the validation cases."""
    folders = HeldOut(*(place.root / name for name in ("images", "one_image", "many_images", "labels")))
    for folder in astuple(folders):
        folder.mkdir(exist_ok=True)
    cases = {case.name: case for case in place.dataset.cases}
    ending = place.dataset.description.file_ending
    splits = read_splits(place.root / "seg25d" / "preprocessed" / place.dataset.name / "splits.json")
    names = splits[fold].val
    for number, name in enumerate(names):
        for channel, path in enumerate(cases[name].images):
            for target in (folders.images, folders.one) if number == 0 else (folders.images,):
                link(target / f"{name}_{channel:04d}{ending}", path)
            for again in range(number, MANY, len(names)):
                link(folders.many / f"{name}x{again // len(names)}_{channel:04d}{ending}", path)
        label = cases[name].label
        assert label is not None, "training cases have labels"
        link(folders.labels / label.name, label)
    return folders


def link(path: Path, target: Path) -> None:
    """Make a link unless it exists."""
    if not path.exists():
        path.symlink_to(target.resolve())


def use_our_folds(place: Place, batch: int | None, configuration: str) -> str:
    """Give nnU-Net the folds of seg25d and, if requested, another batch size; return the name of its plans."""
    folder = place.root / "nnunet" / "preprocessed" / place.dataset.name
    ours = place.root / "seg25d" / "preprocessed" / place.dataset.name / "splits.json"
    write_json(folder / "splits_final.json", json.loads(ours.read_text(encoding="utf-8")))
    if batch is None:
        return "nnUNetPlans"
    plans = json.loads((folder / "nnUNetPlans.json").read_text(encoding="utf-8"))
    plans["plans_name"] = f"nnUNetPlans_batch{batch}"
    plans["configurations"][configuration]["batch_size"] = batch
    write_json(folder / f"{plans['plans_name']}.json", plans)
    return str(plans["plans_name"])


def dice(place: Place, name: str, labels: Path, predictions: Path) -> float | None:
    """Compute the mean Dice of predictions."""
    summary = place.root / "stages" / f"{name}_summary.json"
    place.stage(f"{name}_evaluation", place.seg25d("evaluate", str(labels), str(predictions), "-o", str(summary)))
    score: float | None = json.loads(summary.read_text(encoding="utf-8"))["foreground_mean"]["dice"]
    return score


def export(place: Place, program: str, python: str) -> Row:
    """Measure time and extra memory of exporting one case with many classes."""
    script = str(Path(__file__).with_name("export_many_classes.py"))
    out = place.root / "stages" / f"{program}_export_result.json"
    place.stage(f"{program}_export", [python, script, program, "--output", str(out)])
    return dict(json.loads(out.read_text(encoding="utf-8")))


def of_seg25d(place: Place, configuration: str, folders: HeldOut) -> Row:
    """Train, predict and evaluate with seg25d."""
    options = place.options
    name, device = f"seg25d_{configuration}", ["--device", options.device]
    words = ["train", place.identifier, configuration, str(options.fold), "--time-budget", f"{options.time_budget:g}s"]
    words.append("--restart")
    train = place.stage(f"{name}_train", place.seg25d(*words, *device))
    workspace = Workspace.resolve(place.root / "seg25d", {})
    plans = read_record(workspace.preprocessed_dataset(place.dataset.name).plans(), Plans)
    run = workspace.run(place.dataset.name, find_configuration(plans, configuration)[0])
    epochs = [json.loads(line) for line in run.fold(options.fold).log.read_text(encoding="utf-8").splitlines()]

    def predict(source: Path, out: Path, mirroring: bool) -> list[str]:
        words = ["predict", "-m", str(run.root), "-i", str(source), "-o", str(out), "--overwrite", *device]
        return place.seg25d(*words, *([] if mirroring else ["--disable-tta"]))

    return {
        "name": f"seg25d {configuration}",
        **updates_of_seg25d(epochs),
        "train": train,
        **predictions(place, name, folders, predict),
    }


def updates_of_seg25d(epochs: Sequence[Row]) -> Row:
    """Average the updates of a whole run, in which windows, and thus seconds per update, may change."""
    updates = [after["iteration"] - before["iteration"] for before, after in pairwise([{"iteration": 0}, *epochs])]
    seconds = [epoch["seconds_per_iteration"] * number for epoch, number in zip(epochs, updates, strict=True)]

    def mean(name: str) -> float:
        weighted = sum(epoch[name] * share for epoch, share in zip(epochs, seconds, strict=True))
        return float(weighted / sum(seconds))

    return {
        "updates": sum(updates),
        "seconds_per_update": sum(seconds) / sum(updates),
        "voxels_per_second": mean("voxels_per_second"),
        "data_wait_share": mean("data_wait_share"),
    }


def of_nnunet(place: Place, configuration: str, folders: HeldOut) -> Row:
    """Train, predict and evaluate with nnU-Net."""
    options = place.options
    plans = use_our_folds(place, options.nnunet_batch, configuration)
    name = f"nnunet_{configuration}" + (f"_batch{options.nnunet_batch}" if options.nnunet_batch else "")
    trainer = str(Path(__file__).with_name("nnunet_timed.py"))
    words = [place.dataset.name, configuration, str(options.fold), f"{options.time_budget:g}", plans]
    train = place.stage(f"{name}_train", [options.nnunet, trainer, *words])
    results = place.root / "nnunet" / "results" / place.dataset.name / f"nnUNetTrainer__{plans}__{configuration}"
    timed = json.loads((results / f"fold_{options.fold}" / "timed.json").read_text(encoding="utf-8"))

    def predict(source: Path, out: Path, mirroring: bool) -> list[str]:
        words = ["-i", str(source), "-o", str(out), "-d", place.identifier, "-c", configuration, "-p", plans]
        words += ["-f", str(options.fold), "-npp", "1", "-nps", "1", "-device", options.device]
        return place.nnunet("predict", *words, *([] if mirroring else ["--disable_tta"]))

    return {
        "name": f"nnU-Net {configuration}" + (f", batch {options.nnunet_batch}" if options.nnunet_batch else ""),
        "updates": timed["updates"],
        "seconds_per_update": timed["seconds"] / max(1, timed["updates"]),
        "voxels_per_second": timed["updates"] * timed["voxels_per_update"] / timed["seconds"],
        "data_wait_share": timed["data_wait_share"],
        "train": train,
        **predictions(place, name, folders, predict),
    }


def predictions(place: Place, name: str, folders: HeldOut, command: Callable[[Path, Path, bool], list[str]]) -> Row:
    """Predict all validation cases without and with mirroring, one case, and many; score the first two."""
    row: Row = {"cases": len(list(folders.labels.iterdir()))}
    for key, source, mirroring in (
        ("plain", folders.images, False),
        ("mirrored", folders.images, True),
        ("one", folders.one, False),
        ("many", folders.many, False),
    ):
        out = place.root / "predictions" / f"{name}_{key}"
        row[f"predict_{key}"] = place.stage(f"{name}_{key}", command(source, out, mirroring))
        if source == folders.images:
            row[f"dice_{key}"] = dice(place, f"{name}_{key}", folders.labels, out)
    return row


def seconds_and_memory(stage: str) -> Callable[[Row], str]:
    """Make a column with wall time, memory of the largest process and of all together."""

    def cell(row: Row) -> str:
        measured = row[stage]
        return f"{measured['wall_s']:.1f} s, {measured['memory_gb']:.2f} GB ({measured['memory_of_all_gb']:.2f})"

    return cell


TABLE = Table(
    "peers",
    "seg25d and nnU-Net v2 on the same cases and cores",
    {
        "": lambda row: row["name"],
        "plan + preprocess": seconds_and_memory("preparation"),
        "Dice": lambda row: "-" if row["dice_plain"] is None else f"{row['dice_plain']:.3f}",
        "mirrored": lambda row: "-" if row["dice_mirrored"] is None else f"{row['dice_mirrored']:.3f}",
        "updates": lambda row: str(row["updates"]),
        "s/update": lambda row: f"{row['seconds_per_update']:.2f}",
        "kvoxel/s": lambda row: f"{row['voxels_per_second'] / 1e3:.0f}",
        "waiting for data": lambda row: f"{row['data_wait_share']:.1%}",
        "training": seconds_and_memory("train"),
        "prediction": seconds_and_memory("predict_plain"),
        "prediction, mirrored": seconds_and_memory("predict_mirrored"),
        f"prediction of {MANY}": seconds_and_memory("predict_many"),
        "one case": seconds_and_memory("predict_one"),
        "export of 60 classes": lambda row: (
            f"{row['export']['seconds']:.1f} s, {row['export']['extra_mib']:.0f} MiB extra"
        ),
    },
    (
        "Wall time of whole commands, including start-up; memory of the largest process, including files of libraries "
        "(and of all processes without those). In both programs training ends with predicting the validation cases; "
        "the time budget is that of the updates, and in seg25d also of scoring validation windows.",
    ),
)


def main() -> None:
    """Run both programs stage by stage and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--nnunet", required=True, help="Python of an environment with nnunetv2")
    parser.add_argument("--dataset", default="4", help="in raw/: 1, 001 or Dataset001_Name")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--configurations", nargs="+", default=["2d"], help="of seg25d (default: 2d)")
    parser.add_argument("--nnunet-configurations", nargs="+", default=["2d"])
    parser.add_argument("--nnunet-batch", type=int, help="batch size in place of the planned one")
    parser.add_argument(
        "--time-budget", type=duration, default=360.0, metavar="TIME", help="time for the updates of each model"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    options = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    budget = f"{options.time_budget:g}s"
    root = workspace.preprocessed.parent / "benchmarks" / f"peers_{budget}"
    place = Place(root, read_dataset(workspace.raw_dataset(name)), options)
    plan = ["plan_and_preprocess", "-d", place.identifier, "-c"]
    ours = place.stage("seg25d_plan", place.seg25d(*plan, *options.configurations))
    wanted = [
        "-d",
        place.identifier,
        "-c",
        *options.nnunet_configurations,
        "-np",
        str(available_cores()),
        "--verify_dataset_integrity",
    ]
    theirs = place.stage("nnunet_plan", place.nnunet("plan_and_preprocess", *wanted))
    folders = held_out(place, options.fold)
    shared = {
        "seg25d": {"preparation": ours, "export": export(place, "seg25d", sys.executable)},
        "nnunet": {"preparation": theirs, "export": export(place, "nnunet", options.nnunet)},
    }
    rows: list[Row] = []
    for own, other in zip_longest(options.configurations, options.nnunet_configurations):
        if own:
            rows.append({**of_seg25d(place, own, folders), **shared["seg25d"]})
        if other:
            rows.append({**of_nnunet(place, other, folders), **shared["nnunet"]})
        write_tables(TABLE, rows, {"dataset": name, "settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
