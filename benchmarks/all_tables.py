"""The papers' tables, run again: every comparison over three seeds, in equal updates and in equal time.

    python benchmarks/all_tables.py --workspace WORKSPACE --output benchmarks/results/papers

The workspace has the raw data sets 4 (hippocampus) and 27 (cardiac MR); the vessels (901, and 902 in the size that the
demo had before) are made, everything is planned and preprocessed, and each command of `commands` run. Each goes on
where it was cut off, so that this command does, too; `--only` takes some of them, `--list` shows them. OUTPUT gets a
JSON and a Markdown file for each, and `seconds.json`: how long each took in all, over all calls.

Rows of equal updates may be run beside other work; those of equal time want a machine that does nothing else.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg25d.core.files import read_json, write_json
from seg25d.data.vessels import DATASET_NAME, write_vessels_dataset

BENCHMARKS = Path(__file__).resolve().parent
CPU = ("--device", "cpu", "--num-processes", "0")
SMALL_VESSELS = "Dataset902_SmallVessels"
SMALL_SHAPE, SMALL_SPACING_MM = (96, 80, 48), (1.0, 1.0, 1.15)
"""The volumes of the demo before they were enlarged: the same scene in coarser voxels
(benchmarks/results/2026-11-log.md)."""
PLANS = {
    "4": ("2d", "3d", "si", "stack", "mv"),
    "27": ("2d", "3d", "si", "stack", "mv"),
}
"""Configurations to plan; the vessels are planned by the recipe that is for them."""
VESSELS = ("3d", "2d", "mip")


def commands() -> dict[str, tuple[str, ...]]:
    """The command of each table by name, without workspace and output."""
    grids, stacks, vessels = "super_image_grids.py", "stacks_and_slices.py", "sparse_vessels.py"
    found: dict[str, tuple[str, ...]] = {
        "network_costs": ("network_costs.py",),
        "grids_4_updates": (grids, "--dataset", "4", "--iterations", "120", *CPU),
        "grids_4_time": (grids, "--dataset", "4", "--time-budget", "2min", "--only", "3D", "8 x 6", *CPU),
        "stacks_4_updates": (stacks, "--dataset", "4", "--stack-size", "16", "--iterations", "300", *CPU),
        "stacks_4_time": (stacks, "--dataset", "4", "--stack-size", "16", "--time-budget", "2min", *CPU),
    }
    for number in ("902", "901"):
        words = (vessels, "--dataset", number, "--recipe", "angermann2022")
        found[f"vessels_{number}_time"] = (*words, "--time-budget", "4min", *CPU)
        found[f"vessels_{number}_updates"] = (*words, "--iterations", "60", *CPU)
    for number in ("4", "27"):
        fusions = ("fusions.py", "--dataset", number, "--run", "mv__holdout", "--disable-tta")
        found[f"fusions_{number}_updates"] = (*fusions, "--iterations", "250", *CPU)
    for configuration in ("2d", "si"):
        pretraining = ("pretraining.py", "--dataset", "4", "--configuration", configuration, "--seeds", "3")
        lengths = ("--iterations", "150", "--pretraining-iterations", "300")
        found[f"pretraining_4_{configuration}_updates"] = (*pretraining, *lengths, *CPU)
    return found


def prepare(workspace: Path) -> None:
    """Make the vessels, and plan and preprocess what is not."""
    place = ("--workspace", str(workspace))
    large, small = (workspace / "raw" / name for name in (DATASET_NAME, SMALL_VESSELS))
    if not large.exists():
        write_vessels_dataset(large)
    if not small.exists():
        write_vessels_dataset(small, shape=SMALL_SHAPE, spacing_mm=SMALL_SPACING_MM)
    for number, configurations in PLANS.items():
        run(["-m", "seg25d", "plan_and_preprocess", "-d", number, "-c", *configurations, *place])
    for number in ("901", "902"):
        words = ["-m", "seg25d", "plan_and_preprocess", "-d", number, "-c", *VESSELS]
        run([*words, "--recipe", "angermann2022", *place])


def run(words: Sequence[str]) -> None:
    """Run Python with these words; end where it fails."""
    print(shlex.join(("python", *words)), flush=True)
    subprocess.run([sys.executable, *words], check=True)


def main() -> None:
    """Run what is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for all tables")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(commands()), help="default: all")
    parser.add_argument("--list", action="store_true", help="show the commands and end")
    options = parser.parse_args()
    wanted = {name: words for name, words in commands().items() if name in (options.only or commands())}
    if options.list:
        print("\n".join(f"{name}: python benchmarks/{shlex.join(words)}" for name, words in wanted.items()))
        return
    prepare(options.workspace)
    options.output.mkdir(parents=True, exist_ok=True)
    times = options.output / "seconds.json"
    for name, (script, *words) in wanted.items():
        begun = time.monotonic()
        output = ("--output", str(options.output / f"{name}.json"))
        place = () if script == "network_costs.py" else ("--workspace", str(options.workspace))
        try:
            run([str(BENCHMARKS / script), *words, *place, *output])
        finally:
            spent: dict[str, Any] = read_json(times) if times.exists() else {}
            write_json(times, {**spent, name: round(spent.get(name, 0) + time.monotonic() - begun)})


if __name__ == "__main__":
    main()
