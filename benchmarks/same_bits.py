"""Check that two checkouts of seg25d compute the same bits: plans, losses, weights, validation and predictions.

python benchmarks/same_bits.py --before CHECKOUT --after CHECKOUT --data /data/raw/Dataset004_Hippocampus -o same.json

Both checkouts plan, train and predict every configuration through the command line, which is stable between versions,
in separate processes: on the CPU, in float32, with one thread, a fixed seed, few cases and few updates. Then all files
are compared. Times, memory, versions and the wording of reasons are left out; everything else must be equal to the last
bit, otherwise the exit status is 1.

With `--keep FOLDER` both workspaces are kept in FOLDER; `--before FOLDER/before` uses one of them instead of a
checkout, so that a second comparison takes half of the time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from same_files import COLUMNS, Outcome, column_of, compare_files

RECORD = "same_bits.json"
"""File in a workspace that records its runs."""
Record = dict[str, Any]
NOTHING = Outcome(0, None)
SEED = 0
PREPARATION = """
import seg25d
from seg25d.core.processor import Verdict, this_processor
Verdict(processor=this_processor(), precision="float32", safe=True, reason="same_bits.py", seconds={}).save()
print(seg25d.__file__)
"""
"""Code that makes float32 the precision of this processor, which `predict` uses, in a separate cache folder."""


@dataclass(frozen=True)
class Run:
    """One training and its prediction, as arguments of the command line."""

    name: str
    configuration: str
    recipe: str | None = None
    settings: tuple[str, ...] = ()
    predicted: str | None = None
    """The configuration to predict with, if it differs from the trained one."""
    fold: str = "0"
    words: tuple[str, ...] = ()
    """Further arguments of the training."""
    pretrained: bool = False
    """Whether to pretrain the network on the same images first."""
    needs: tuple[str, ...] = ()
    """Configurations to train first, so that they have the same settings."""

    @property
    def recipe_words(self) -> list[str]:
        """Arguments for the recipe."""
        return ["--recipe", self.recipe] if self.recipe else []


PAPERS = (
    Run("si sobirov2022", "si", "sobirov2022"),
    Run("mip angermann2022", "mip", "angermann2022"),
    Run("2d xia2018", "2d", "xia2018"),
)
"""Runs with the papers' recipes, but for shivdeo2021, whose networks and slices of 512 x 512 take a CPU minutes for an
update; its V-Net is trained by the default recipe."""


class Place:
    """The workspace of one checkout."""

    def __init__(self, root: Path, checkout: Path, raw: Path, options: argparse.Namespace) -> None:
        self.root = root
        self.checkout = checkout.resolve()
        self.options = options
        self.identifier = raw.name.removeprefix("Dataset")[:3]
        root.mkdir(parents=True, exist_ok=True)
        foreign = ("seg25d_raw", "seg25d_preprocessed", "seg25d_results", "nnUNet_raw", "SEG25D_WORKSPACE")
        self.environment = {key: value for key, value in os.environ.items() if key not in foreign} | {
            "PYTHONPATH": str(self.checkout),
            "SEG25D_WORKSPACE": str(root),
            "seg25d_raw": str(raw.parent),
            "XDG_CACHE_HOME": str(root / "cache"),
            "CUDA_VISIBLE_DEVICES": "",
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        }

    def command(self, *words: str) -> str | None:
        """Run a command of seg25d; return its error message, or None."""
        # Not in the working directory of a checkout, where Python would look first.
        done = subprocess.run(
            [sys.executable, "-m", "seg25d", *words, "--num-processes", "0", "--debug"],
            env=self.environment,
            cwd=self.root,
            check=False,
            capture_output=True,
            text=True,
        )
        (self.root / "last_command.log").write_text(f"{' '.join(words)}\n{done.stdout}{done.stderr}", encoding="utf-8")
        if done.returncode == 0:
            return None
        lines = done.stderr.strip().splitlines() or ["no message"]
        return f"{words[0]}: status {done.returncode}: " + next(
            (line for line in lines if line.startswith("error:")), lines[-1]
        )

    def prepare(self) -> None:
        """Check that the commands are those of the checkout, and make them compute in float32."""
        command = [sys.executable, "-c", PREPARATION]
        done = subprocess.run(
            command, env=self.environment, cwd=self.root, check=True, stdout=subprocess.PIPE, text=True
        )
        found = done.stdout.strip()
        if Path(found).parent.parent != self.checkout:
            raise SystemExit(f"error: {self.checkout} holds no seg25d: Python finds {found}")

    def files(self) -> set[str]:
        """All files to compare, relative to the workspace."""
        paths = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return {path for path in paths if column_of(path) is not None}

    def plan(self, configuration: Sequence[str], recipe_words: Sequence[str]) -> str | None:
        """Plan and preprocess."""
        chosen = ["-c", *configuration] if configuration else []
        memory = ["--gpu-memory-gb", str(self.options.gpu_memory_gb)]
        return self.command("plan_and_preprocess", "-d", self.identifier, *chosen, *memory, *recipe_words)

    def train(self, run: Run) -> str | None:
        """Train a fold, after pretraining its network if the run requires it."""
        updates = self.options.updates
        settings = ("precision=float32", f"iterations_per_epoch={(updates + 1) // 2}", "validation_windows=4")
        general = ["--device", "cpu", "--iterations", str(updates), "--seed", str(SEED), *run.recipe_words]
        general += [word for setting in (*settings, *run.settings) for word in ("--set", setting)]
        words = [*run.words, *general]
        if run.pretrained:
            if error := self.command("pretrain", self.identifier, run.configuration, "--task", "inpainting", *general):
                return error
            models = self.root.glob("results/*/pretraining/*__inpainting/model_final.safetensors")
            words += ["--pretrained", str(next(models))]
        return self.command("train", self.identifier, run.configuration, run.fold, *words)

    def predict(self, run: Run, images: Path) -> str | None:
        """Predict cases that were not used in training."""
        name = run.predicted or run.configuration
        return self.command(
            *("predict", "-d", self.identifier, "-c", name, "-f", run.fold, "--device", "cpu", *run.recipe_words),
            *("-i", str(images), "-o", str(self.root / "predictions" / run.name.replace(" ", "_"))),
            "--save-probabilities",
        )

    def do(self, run: Run, images: Path) -> str | None:
        """Run all commands of a run; return the first error."""
        recipe = run.recipe_words
        return (
            (self.plan([run.configuration], recipe) if recipe else None) or self.train(run) or self.predict(run, images)
        )


def planned_runs(root: Path) -> list[Run]:
    """All available runs, in the order of training.

    The configuration that `2d` stands for is trained by this name and predicted by its full name.
    """
    plans = json.loads(next((root / "preprocessed").glob("*/plans.json")).read_text(encoding="utf-8"))
    slices = ("axial", "coronal", "sagittal")[plans["slice_axis"]]
    named = [
        Run(name, "2d" if name == slices else name, predicted=name, needs=plan["representation"].get("views", ()))
        for name, plan in plans["configurations"].items()
    ]
    others = [
        Run("2d fine", "2d", settings=("fine=true",), predicted=f"{slices}__fine", needs=(slices,)),
        Run("2d se_unet", "2d", words=("--network", "se_unet"), predicted=f"{slices}__se_unet"),
        Run("2d pretrained", "2d", fold="1", pretrained=True),
        Run("stack vnet", "stack", words=("--network", "vnet"), predicted="stack__vnet"),
    ]
    if "mv" in plans["configurations"]:
        views = plans["configurations"]["mv"]["representation"]["views"]
        joint = Run("mv joint", "mv", settings=("fusion.joint=true",), predicted="mv__joint", needs=("mv", *views))
        others.append(joint)
    return [*named, *others, *PAPERS]


def choose(runs: Sequence[Run], names: Sequence[str] | None) -> list[Run]:
    """Choose runs by name, with the runs that they need; all if no names are given. `2d` means all of `2d ...`."""
    known = {run.name for run in runs} | {run.configuration for run in runs}
    if unknown := set(names or ()) - known:
        raise SystemExit(
            f"error: no runs {', '.join(sorted(unknown))}; there are {', '.join(run.name for run in runs)}"
        )
    wanted = [run for run in runs if not names or run.name in names or run.configuration in names]
    needed = {name for run in wanted for name in run.needs}
    return [run for run in runs if run in wanted or run.name in needed]


def make_raw(source: Path, target: Path, num_cases: int) -> tuple[Path, Path]:
    """Link the first cases of a data set to a new one; return its folder and a folder with images of the next case.

    Args:
        source: Folder of a raw data set without explicit paths.
        target: Folder for the new data set.
        num_cases: Number of cases to train on.
    """
    description = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    ending = description["file_ending"]
    cases = sorted(path.name.removesuffix(ending) for path in (source / "labelsTr").glob(f"*{ending}"))
    if len(cases) <= num_cases:
        raise SystemExit(f"error: {source} has {len(cases)} cases; needed are more than {num_cases} (--cases)")
    made, images = target / "raw" / source.name, target / "images"
    places = [(case, made / "imagesTr") for case in cases[:num_cases]] + [(cases[num_cases], images)]
    for folder in (made / "imagesTr", made / "labelsTr", images):
        folder.mkdir(parents=True)
    for case, folder in places:
        for channel in range(len(description["channel_names"])):
            name = f"{case}_{channel:04d}{ending}"
            (folder / name).symlink_to((source / "imagesTr" / name).resolve())
    for case in cases[:num_cases]:
        (made / "labelsTr" / f"{case}{ending}").symlink_to((source / "labelsTr" / f"{case}{ending}").resolve())
    changed = {**description, "numTraining": num_cases}
    (made / "dataset.json").write_text(json.dumps(changed), encoding="utf-8")
    return made, images


def work(place: Place, images: Path, names: Sequence[str] | None) -> Record:
    """Run everything in a workspace; return and write the error and the new files of every run."""
    place.prepare()
    record: Record = {"commit": commit_of(place.checkout), "options": options_of(place.options), "runs": {}}

    def note(name: str, do: Callable[[], str | None]) -> None:
        before, begin = place.files(), time.monotonic()
        error = do()
        seconds = round(time.monotonic() - begin, 1)
        record["runs"][name] = {"error": error, "files": sorted(place.files() - before), "seconds": seconds}
        print(f"{place.root.name}: {name}: {seconds} s{f', {error}' if error else ''}", file=sys.stderr, flush=True)

    note("plan", lambda: place.plan([], []))
    if error := record["runs"]["plan"]["error"]:
        raise SystemExit(f"error: {place.checkout}: {error}")
    for run in choose(planned_runs(place.root), names):
        note(run.name, partial(place.do, run, images))
    (place.root / RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
    return record


def compare(roots: tuple[Path, Path], records: tuple[Record, Record]) -> dict[str, dict[str, Outcome]]:
    """Compare every run of two workspaces; return outcomes by run and column."""
    before, after = (record["runs"] for record in records)
    table = {}
    for name in after:  # a kept workspace may have more runs
        absent = {"error": "not run", "files": [], "seconds": 0.0}
        pair = before.get(name, absent), after.get(name, absent)
        table[name] = compare_files(roots, [*pair[0]["files"], *pair[1]["files"]])
        needed = ["plan"] if name == "plan" else [column for column in COLUMNS if column != "plan"]
        errors = [
            f"{when}: {run['error']}" for when, run in zip(("before", "after"), pair, strict=True) if run["error"]
        ]
        missing = [column for column in needed if not table[name].get(column, NOTHING).num_values]
        if errors or missing:
            table[name]["commands"] = Outcome(0, "; ".join(errors) or f"nothing to compare: {', '.join(missing)}")
    return table


def as_text(table: dict[str, dict[str, Outcome]]) -> str:
    """Format a table in Markdown, and a line for every difference."""
    header = ["run", *COLUMNS]
    lines = [header, ["---"] * len(header)]
    for name, outcomes in table.items():
        cells = {
            column: "DIFFERENT" if each.difference else f"same ({each.num_values})" for column, each in outcomes.items()
        }
        lines.append([name, *(cells.get(column, "-") for column in COLUMNS)])
    rows = ["| " + " | ".join(line) + " |" for line in lines]
    found = [
        f"{name}, {column}: {each.difference}"
        for name, outcomes in table.items()
        for column, each in outcomes.items()
        if each.difference
    ]
    return "\n".join([*rows, "", *(found or ["All bits are the same."])])


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, with `-dirty` if files differ from it."""
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "no commit"


def options_of(options: argparse.Namespace) -> dict[str, Any]:
    """The options that two workspaces must have in common."""
    return {key: getattr(options, key) for key in ("updates", "cases", "gpu_memory_gb")}


def main() -> None:
    """Run both checkouts, compare them and print a table; exit with status 1 if anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--before", type=Path, required=True, help="checkout, or a workspace that --keep left")
    parser.add_argument("--after", type=Path, default=Path(__file__).parents[1], help="checkout (default: this one)")
    parser.add_argument("--data", type=Path, required=True, help="folder of a raw data set")
    parser.add_argument("--configurations", nargs="+", metavar="NAME", help="runs or configurations (default: all)")
    parser.add_argument("--cases", type=int, default=6, help="cases to train on (default: 6)")
    parser.add_argument("--updates", type=int, default=4, help="updates of every training (default: 4)")
    parser.add_argument(
        "--gpu-memory-gb", type=float, default=1.2, help="memory to plan for; little gives small windows (default: 1.2)"
    )
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep both workspaces in this new folder")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        raw, images = make_raw(options.data.resolve(), Path(temporary) / "data", options.cases)
        roots, records = [], []
        for name in ("before", "after"):
            source = getattr(options, name)
            root = source if (source / RECORD).exists() else folder / name
            roots.append(root)
            if root == source:
                records.append(json.loads((root / RECORD).read_text(encoding="utf-8")))
            else:
                records.append(work(Place(root.resolve(), source, raw, options), images, options.configurations))
        if records[0]["options"] != records[1]["options"]:
            raise SystemExit(f"error: made with other options: {records[0]['options']}, {records[1]['options']}")
        table = compare((roots[0], roots[1]), (records[0], records[1]))
    print(f"before: {records[0]['commit']}, after: {records[1]['commit']}\n\n{as_text(table)}")
    if options.output:
        result = {
            "records": records,
            "table": {name: {key: vars(each) for key, each in row.items()} for name, row in table.items()},
        }
        options.output.write_text(json.dumps(result, indent=2), encoding="utf-8")
    sys.exit(any(each.difference for row in table.values() for each in row.values()))


if __name__ == "__main__":
    main()
