"""Mixing between slices: every configuration without and with it, and nnU-Net, in the same time or updates.

python benchmarks/mixing.py --dataset 27 --time-budget 10min --device cpu --num-processes 0 \
    --nnunet ENVIRONMENT/bin/python --output benchmarks/results/mixing_27_10min.json

Rows are `2d`, `si`, `stack` and `3d` as they are planned, `2d` and `si` with each mixing, and nnU-Net's `2d` and
`3d_fullres`. The data set need only be raw: what is not planned is planned here, for CPUs of one speed, so that windows
are the same on every machine. All are trained once for each seed and each of `--folds` (the first alone by default),
each fold for the given time, and scored on its whole validation cases without mirroring; nnU-Net's trainings cannot be
seeded and are repeated as often. A fold of data set 5 has five cases and one of 27 seven patients: of so few an
interval says little, so that these are to be trained with `--folds 0 1 2 3 4`.

nnU-Net trains for the same time (`nnunet_timed.py`), on the same cases, in batches of a tenth of those that it plans,
but of 2 at least, its own smallest batch: its planned ones leave no more than a few dozen updates on CPUs. In equal
updates, and without `--nnunet`, it is not trained; its finished rows stay.

Finished trainings are in the output (`finished.py`): the same command goes on from them, on another machine, too, and
then names the machine of each row. `--only` takes some of the rows. A mixing that this version does not know is left
out, and an error where `--only` asks for it.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from case_scores import scores_of
from contest import Contender, Training, compete, make_parser, median_case
from finished import facts_of, find_training, known_dataset, planned_digest
from machines import CPU_GFLOPS, GPU_MEMORY_GB, this_machine
from peers import Place, dice, held_out, link, use_our_folds
from result_tables import OVER_SEEDS, Row, Table, columns

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.files import read_json
from seg25d.core.parallel import available_cores
from seg25d.core.records import digest, read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_dataset, read_splits
from seg25d.evaluation.summary import Summary
from seg25d.planning.plan import Plans
from seg25d.preprocessing.store import Store
from seg25d.runs.names import check_names

PLAIN = ("2d", "si", "stack", "3d")
MIXINGS = ("shift", "attention", "conv", "acs")
MIXED = tuple(f"{configuration}__{mixing}" for mixing in MIXINGS for configuration in ("2d", "si"))
NNUNET = {"nnU-Net 2d": "2d", "nnU-Net 3d_fullres": "3d_fullres"}
"""nnU-Net's configurations by row."""
BATCH_SHARE = 0.1
"""Of nnU-Net's planned batches: 28 of 281 on the hippocampus gave 600 updates in six minutes (peers_hippocampus)."""
LEAST_BATCH = 2
"""nnU-Net's default_experiment_planner.py: UNet_min_batch_size, of all configurations. The 12 for 2D beside it
(UNet_reference_val_corresp_bs_2d) is the batch at which it compares the memory of networks, no bound."""
UPDATES_WITHOUT_END = "1e12"
"""For `nnunet_timed.py`, which is to end by the time alone and to predict nothing."""

TABLE = Table(
    "mixing",
    "Mixing between slices",
    {
        "": lambda row: row["name"],
        "window": lambda row: " x ".join(map(str, row.get("window", ()))) or "-",
        **columns("Dice", "HD95 mm", "parameters", "GFLOPs", "updates", "s/update", "training", "s/case", "memory"),
    },
    (
        OVER_SEEDS,
        "nnU-Net: batches of a tenth of the planned ones, at least 2; its trainings have no seed. "
        "Memory is that of the largest process of a training.",
    ),
    references=("3d", "2d", "si", *NNUNET),
    states_conditions=True,
)


def batch_of(planned: int) -> int:
    """The batch that nnU-Net is trained with, for that of its plan."""
    return min(planned, max(LEAST_BATCH, round(BATCH_SHARE * planned)))


class NnunetRun(NamedTuple):
    """A training of nnU-Net on one fold."""

    place: Place
    """Its own folders, but for the preprocessed data, which all seeds and folds share."""
    configuration: str
    fold: int
    batch: int
    plans: str
    """Name of the plans with this batch."""
    stage: str
    """Name of its stages."""
    device: str

    @property
    def model(self) -> Path:
        """The folder of the trained configuration."""
        name = f"nnUNetTrainer__{self.plans}__{self.configuration}"
        return self.place.root / "nnunet" / "results" / self.place.dataset.name / name

    @property
    def preprocessed(self) -> Path:
        """The folder of the preprocessed data set."""
        return self.place.root / "nnunet" / "preprocessed" / self.place.dataset.name


def prepare_nnunet(training: Training, fold: int) -> NnunetRun:
    """Plan and preprocess for nnU-Net, with our folds and a smaller batch; what is there is kept."""
    name, configuration = training.dataset, NNUNET[training.contender.name]
    dataset = read_dataset(training.workspace.raw_dataset(name))
    roots = training.place / f"nnunet_{name}", training.folder / f"fold_{fold}"
    shared, place = (Place(root, dataset, argparse.Namespace(nnunet=training.options.nnunet)) for root in roots)
    words = ["-d", shared.identifier, "-c", *NNUNET.values(), "-np", str(available_cores())]
    words.append("--verify_dataset_integrity")
    shared.stage("nnunet_plan", shared.nnunet("plan_and_preprocess", *words))
    link(place.root / "nnunet" / "preprocessed", shared.root / "nnunet" / "preprocessed")
    # Where `held_out` and `use_our_folds` look for the folds.
    folds = place.root / "seg25d" / "preprocessed" / name
    folds.parent.mkdir(parents=True, exist_ok=True)
    link(folds, training.workspace.preprocessed_dataset(name).root)
    planned = read_json(place.root / "nnunet" / "preprocessed" / name / "nnUNetPlans.json")
    batch = batch_of(planned["configurations"][configuration]["batch_size"])
    plans = use_our_folds(place, batch, configuration)
    stage, device = f"nnunet_{configuration}_batch{batch}", choose_execution(training.options.device).device.type
    return NnunetRun(place, configuration, fold, batch, plans, stage, device)


def predict_with_nnunet(run: NnunetRun) -> Summary:
    """Predict the validation cases without mirroring, and score them."""
    place, out, folders = run.place, run.place.root / "predictions" / run.stage, held_out(run.place, run.fold)
    words = ["-i", str(folders.images), "-o", str(out), "-d", place.identifier, "-c", run.configuration]
    words += ["-p", run.plans, "-f", str(run.fold), "-npp", "1", "-nps", "1", "-device", run.device, "--disable_tta"]
    place.stage(f"{run.stage}_predict", place.nnunet("predict", *words))
    dice(place, run.stage, folders.labels, out)
    return read_record(place.root / "stages" / f"{run.stage}_summary.json", Summary)


def cost_of_nnunet(run: NnunetRun, case: str) -> Row:
    """Parameters, operations and seconds of the prediction of a case, and the versions in nnU-Net's environment."""
    found = run.place.root / "stages" / f"{run.stage}_cost_found.json"
    script = str(Path(__file__).with_name("nnunet_cost.py"))
    words = [str(run.model), str(run.fold), str(run.preprocessed), case, str(found), run.device]
    run.place.stage(f"{run.stage}_cost", [run.place.options.nnunet, script, *words])
    return dict(read_json(found))


def train_nnunet(training: Training) -> Row:
    """Train nnU-Net on all folds and score its predictions, see `contest.Contender.other_program`."""
    runs = [prepare_nnunet(training, int(fold)) for fold in training.options.folds]
    script, seconds = str(Path(__file__).with_name("nnunet_timed.py")), f"{training.options.time_budget:g}"
    memory, timed, summaries = [], [], []
    for each in runs:
        words = [training.dataset, each.configuration, str(each.fold), seconds, each.plans, UPDATES_WITHOUT_END]
        measured = each.place.stage(f"{each.stage}_train", [training.options.nnunet, script, *words, each.device])
        memory.append(measured["memory_gb"])
        timed.append(read_json(each.model / f"fold_{each.fold}" / "timed.json"))
        summaries.append(predict_with_nnunet(each))
    run = runs[0]
    source = training.workspace.preprocessed_dataset(training.dataset)
    store = Store(source.store(training.plans()[2].store))
    cost = cost_of_nnunet(run, median_case(store, read_splits(source.splits)[run.fold].val))
    plans = read_json(run.preprocessed / f"{run.plans}.json")
    # nnUNetTrainer.train_step computes in mixed precision on GPUs alone.
    own = {"precision": "float16" if run.device == "cuda" else "float32", "versions": cost.pop("versions")}
    return {
        "plan": digest(plans["configurations"][run.configuration]),
        "batch": run.batch,
        "machine": this_machine(training.options.device) | own,
        **scores_of(summaries),
        "iterations": [each["updates"] for each in timed],
        "training_s": [each["seconds"] for each in timed],
        "seconds_per_update": fmean(each["seconds"] / max(1, each["updates"]) for each in timed),
        "training_memory_gb": max(memory),
        "cost": cost,
    }


def contenders() -> list[Contender]:
    """All rows, whether they can be trained here or not."""
    ours = [Contender(name, name) for name in (*PLAIN, *MIXED)]
    return ours + [Contender(name, "2d", other_program=train_nnunet) for name in NNUNET]


def obstacle(name: str, options: argparse.Namespace) -> str | None:
    """Why a row cannot be trained here; None if it can."""
    if name not in NNUNET:
        try:
            check_names([name], options.recipe)
        except InputError as error:
            return f"this version does not know it: {error}"
        return None
    if options.nnunet is None:
        return "it wants --nnunet, the Python of an environment with nnunetv2"
    return "it is trained in equal time alone: give --time-budget" if options.time_budget is None else None


def rows_to_train(options: argparse.Namespace) -> list[str]:
    """The names of the rows to train; those that cannot be trained here are told and left out.

    Raises:
        SystemExit: If `--only` asks for such a row.
    """
    names = [each.name for each in contenders()]
    obstacles = {name: why for name in names if (why := obstacle(name, options)) is not None}
    if wanted := [name for name in options.only or () if name in obstacles]:
        raise SystemExit(f"error: {wanted[0]} cannot be trained here: {obstacles[wanted[0]]}")
    if options.only is not None:
        return list(options.only)
    for name, why in obstacles.items():
        print(f"left out: {name}: {why}", flush=True)
    return [name for name in names if name not in obstacles]


def plan_missing(names: Sequence[str], options: argparse.Namespace) -> None:
    """Plan and preprocess the configurations of rows that are still to be trained, if some are not planned.

    Raises:
        SystemExit: If the plans that there are were made for another machine.
    """
    by_name = {each.name: each for each in contenders()}
    missing = [
        by_name[name].configuration
        for name in names
        for seed in options.seeds
        if name in by_name and find_training(options.output, facts_of(TABLE.name, name, seed, options)) is None
    ]
    workspace = Workspace.resolve(options.workspace)
    name = known_dataset(options.output, options.dataset) or workspace.dataset_name(options.dataset)
    path = workspace.preprocessed_dataset(name).plans(recipe=options.recipe)
    plans = read_record(path, Plans) if path.exists() else None
    limits = ["--cpu-gflops", f"{CPU_GFLOPS}", "--gpu-memory-gb", f"{GPU_MEMORY_GB}"]
    if plans is not None and (plans.cpu_gflops, plans.gpu_memory_gb) != (CPU_GFLOPS, GPU_MEMORY_GB):
        raise SystemExit(
            f"error: expected plans for CPUs of {CPU_GFLOPS} GFLOP/s and {GPU_MEMORY_GB} GB of memory, got {path} for "
            f"CPUs of {plans.cpu_gflops:g} GFLOP/s and {plans.gpu_memory_gb:g} GB; give another --workspace, or plan "
            f"anew: plan_and_preprocess with {' '.join(limits)}"
        )
    if all(planned_digest(path, configuration) for configuration in missing):
        return
    words = ["plan_and_preprocess", "-d", name, "-c", *dict.fromkeys(missing), "--recipe", options.recipe, *limits]
    words += [] if options.device is None else ["--device", options.device]
    words += [] if options.workspace is None else ["--workspace", str(options.workspace)]
    subprocess.run([sys.executable, "-m", "seg25d", *words], check=True)


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command; None: those that this process was started with."""
    parser = make_parser(__doc__ or "", "27")
    parser.add_argument("--nnunet", help="Python of an environment with nnunetv2")
    return parser.parse_args(arguments)


def main() -> None:
    """Plan and train what is missing and write the table."""
    options = read_options()
    if options.training is None:
        options.only = rows_to_train(options)
        plan_missing(options.only, options)
    compete(contenders(), TABLE, options)


if __name__ == "__main__":
    main()
