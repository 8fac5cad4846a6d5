"""The papers' tables, run again: every comparison over three seeds, in equal updates and in equal time.

    python benchmarks/all_tables.py --list
    python benchmarks/all_tables.py --workspace WORKSPACE --output benchmarks/results/papers

The workspace has the raw data sets 4 (hippocampus) and 27 (cardiac MR); the vessels (901, and 902 in the size that the
demo had before) are made, what the wanted tables need is planned and preprocessed, and each command of
`table_commands.py` run, those first that decide a claim. `--only` takes some of them, by patterns as of file names or
by a part of their names; `--list` shows them, with the minutes that each will take. OUTPUT gets a JSON and a Markdown
file for each, and `seconds.json`: how long each took in all, over all calls. `verdicts.py` says what they decide.

Each goes on where it was cut off, and so does this command, also on another machine that has nothing but OUTPUT and the
raw data: finished trainings are in the tables' files, with the machine of each, and what is finished as a whole, as
`finished.json` says, is neither prepared nor run again. A command that fails does not stop the others: those that did
are told at the end, and the exit status is 1.

`--only updates` may run beside other work, or in two calls at once, each with OMP_NUM_THREADS=1 and tables of its own,
once one of them has prepared the data (`--prepare-only`); `--only time` wants a machine that does nothing else.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from finished import changing
from machines import CPU_GFLOPS, GPU_MEMORY_GB
from table_commands import COMMANDS, COSTS, PREPARATION_SECONDS, Command

from seg25d.core.files import read_json
from seg25d.data.vessels import DATASET_NAME, write_vessels_dataset

BENCHMARKS = Path(__file__).resolve().parent
FINISHED, SECONDS = "finished.json", "seconds.json"
"""Files of the commands that ended well, by the names of their tables, with their words, and of how long each took."""
SMALL_VESSELS = "Dataset902_SmallVessels"
SMALL_SHAPE, SMALL_SPACING_MM = (96, 80, 48), (1.0, 1.0, 1.15)
"""The volumes of the demo before they were enlarged: the same scene in coarser voxels
(benchmarks/results/2026-11-log.md)."""
PLANS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("4", ("2d", "3d", "si", "stack", "mv", "mv__rstn"), "default"),
    ("4", ("mv",), "xia2018"),
    ("4", ("si",), "sobirov2022"),
    ("4", ("si",), "sobirov2022_pta"),
    ("27", ("2d", "3d", "si", "stack", "mv", "mv__rstn"), "default"),
    ("901", ("3d", "2d", "mip"), "angermann2022"),
    ("902", ("3d", "2d", "mip"), "angermann2022"),
)
"""Data set, configurations and recipe of all plans but those of `smaller_recipes.py`."""
SMALLER = (("4", ("shivdeo2021_64", "sobirov2022_atria_32", "sobirov2022_atria64_32")),)
LIMITS = ("--cpu-gflops", f"{CPU_GFLOPS}", "--gpu-memory-gb", f"{GPU_MEMORY_GB}")
"""Speed of the CPUs that the plans are made for, that of the machine of `COSTS`, and memory."""


def chosen(patterns: Sequence[str]) -> dict[str, Command]:
    """The commands that any of the patterns names, in their order.

    Args:
        patterns: Of whole names, such as `grids_*`, or parts of names between underscores, such as `time`; none: all.

    Raises:
        SystemExit: If a pattern names none; lists the names.
    """
    named = {pattern: {name for name in COMMANDS if _matches(name, pattern)} for pattern in patterns}
    if useless := [pattern for pattern, names in named.items() if not names]:
        raise SystemExit(f"error: --only: no table is named by {', '.join(useless)}; there are {', '.join(COMMANDS)}")
    wanted = set(COMMANDS) if not patterns else set().union(*named.values())
    return {name: command for name, command in COMMANDS.items() if name in wanted}


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or pattern in name.split("_")


def describe(wanted: Mapping[str, Command], taken: Mapping[str, float]) -> str:
    """What will be run, and how long it will take.

    Args:
        wanted: Commands by name.
        taken: Seconds of those that were run, by name.
    """
    lines = []
    for name, command in wanted.items():
        took = f", took {taken[name] / 60:.0f}" if name in taken else ""
        words = f"python benchmarks/{shlex.join(command.words)}"
        lines.append(f"{name}: {command.seconds / 60:.0f} min{took}; {command.decides}\n    {words}")
    total = PREPARATION_SECONDS + sum(command.seconds for command in wanted.values())
    lines.append(f"in all, with {PREPARATION_SECONDS / 60:.0f} min for the data: {total / 3600:.1f} h")
    kinds = dict.fromkeys(each.kind for command in wanted.values() for each in command.trainings)
    lines.append("reckoned from seconds of an update, and of the rest of a training (table_commands.py):")
    lines += [f"    {kind}: {COSTS[kind].update:g} s, {COSTS[kind].rest:g} s; {COSTS[kind].source}" for kind in kinds]
    return "\n".join(lines)


def prepare(workspace: Path, wanted: Mapping[str, Command]) -> list[str]:
    """Make the vessels, and plan and preprocess what the wanted tables need and is not.

    Returns:
        The commands that failed; the tables that need them will fail, and the others will not.
    """
    numbers = {name.split("_")[1] for name in wanted if "_" in name} & {each[0] for each in PLANS}
    place = ("--workspace", str(workspace))
    if "901" in numbers and not (large := workspace / "raw" / DATASET_NAME).exists():
        write_vessels_dataset(large)
    if "902" in numbers and not (small := workspace / "raw" / SMALL_VESSELS).exists():
        write_vessels_dataset(small, shape=SMALL_SHAPE, spacing_mm=SMALL_SPACING_MM)
    commands = [
        [
            *("-m", "seg25d", "plan_and_preprocess", "-d", number, "-c", *configurations),
            *("--recipe", recipe, *LIMITS, "--device", "cpu", *place),
        ]
        for number, configurations, recipe in PLANS
        if number in numbers
    ]
    commands += [
        [str(BENCHMARKS / "smaller_recipes.py"), "--dataset", number, "--recipe", *recipes, *place]
        for number, recipes in SMALLER
        if number in numbers
    ]
    return [shlex.join(words) for words in commands if not run(words)]


def run(words: Sequence[str]) -> bool:
    """Run Python with these words; whether it ended well."""
    print(shlex.join(("python", *words)), flush=True)
    return subprocess.run([sys.executable, *words], check=False).returncode == 0


def still_to_run(wanted: Mapping[str, Command], output: Path | None) -> dict[str, Command]:
    """The commands that have not ended well yet, with the words that they have now, on whatever machine.

    Args:
        wanted: Commands by name.
        output: The folder of the tables; None: nothing is known of any.

    Returns:
        Some of them, in their order. One that makes a file for others is there if one of these is.
    """
    done = read_json(output / FINISHED) if output is not None and (output / FINISHED).exists() else {}

    def is_open(name: str, command: Command) -> bool:
        made = output is not None and (output / f"{name}.json").exists()
        return not made or done.get(name) != list(command.words)

    def is_needed(name: str, command: Command) -> bool:
        if "--output" not in command.words:
            return is_open(name, command)
        file = command.words[command.words.index("--output") + 1]
        users = {other: each for other, each in wanted.items() if file in each.words and other != name}
        return not users or any(is_open(*user) for user in users.items())

    return {name: command for name, command in wanted.items() if is_needed(name, command)}


def run_table(name: str, command: Command, workspace: Path, output: Path) -> bool:
    """Run the command of a table, and note how long it took, and that it ended well, if it did."""
    begun = time.monotonic()
    script, *words = (word.replace("WORKSPACE", str(workspace)) for word in command.words)
    place = [] if script == "network_costs.py" else ["--workspace", str(workspace)]
    place += [] if "--output" in words else ["--output", str(output / f"{name}.json")]
    try:
        ended_well = run([str(BENCHMARKS / script), *words, *place])
    finally:
        with changing(output / SECONDS) as spent:
            spent[name] = round(spent.get(name, 0) + time.monotonic() - begun)
    if ended_well:
        with changing(output / FINISHED) as done:
            done[name] = list(command.words)
    return ended_well


def main() -> None:
    """Run what is wanted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--output", type=Path, help="folder for all tables")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", default=[], help="such as time, updates or 'grids_*'")
    parser.add_argument("--list", action="store_true", help="show the commands and how long they take, and end")
    parser.add_argument("--prepare-only", action="store_true", help="make, plan and preprocess the data, and end")
    options = parser.parse_args()
    wanted = chosen(options.only)
    if options.list:
        times = None if options.output is None else options.output / SECONDS
        print(describe(wanted, read_json(times) if times is not None and times.exists() else {}))
        return
    if options.workspace is None or (options.output is None and not options.prepare_only):
        parser.error("expected --workspace and --output, or --list")
    wanted = still_to_run(wanted, options.output)
    failed = prepare(options.workspace, wanted)
    if not options.prepare_only:
        options.output.mkdir(parents=True, exist_ok=True)
        place = options.workspace, options.output
        failed += [name for name, command in wanted.items() if not run_table(name, command, *place)]
    if failed:
        told = "\n    ".join(failed)
        raise SystemExit(f"error: these failed, the others are done; the same command goes on with them:\n    {told}")


if __name__ == "__main__":
    main()
