r"""What a time for everything is worth: `seg25d run`, the same time evenly over all configurations, and for one alone.

    python benchmarks/budget_for_everything.py --workspace WORKSPACE --dataset 27 --time-budget 60min \
        --contenders run even 2d si stack 3d --out RESULTS -o FILE.json

`run` is `seg25d run --time-budget`, by default with the configurations that it takes by itself; `even` gives every fold
of every configuration the same share of the time and then chooses the best configuration or ensemble; a name is
`seg25d run` with this configuration alone. Each has results of its own under RESULTS; plans and arrays, which have to
be there, are shared. The Dice is that of what each contender predicts with, over the validation cases of fold 0, each
predicted by the model that had not seen it, and before post-processing; that of all folds stands beside it. One
training each: no ranking follows from one call.

With `--first-fold-only`, `even` and single configurations train fold 0 alone, each training as long as it would with
all folds: what fold 0 comes to is the same, in a fifth of the time. `even` then is the best of its configurations on
this very fold, which flatters it. Where scoring alone takes longer than its share, a training has 20 s all the same,
and `seconds_with_all_folds` says what all of them would take.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seg25d.cli.argument_types import duration
from seg25d.cli.main import main as seg25d
from seg25d.core.files import read_json, write_json
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.evaluation.summary import Summary, summarize
from seg25d.orchestration.spending import LEAST_SECONDS, RESERVE_PER_SCORING, RESERVE_SECONDS
from seg25d.orchestration.wanted_runs import wanted_runs
from seg25d.planning.configurations import configuration_name
from seg25d.planning.plans_file import read_plans
from seg25d.selection.best import Best
from seg25d.selection.candidates import Ensemble
from seg25d.selection.scoring import read_scores

FIRST_OVERHEAD = 20.0
"""Seconds of starting and scoring a fold, before one was measured."""


def train_evenly(workspace: Workspace, name: str, configurations: Sequence[str], seconds: float) -> None:
    """Train all folds of all configurations for equal times, so that everything together takes `seconds`."""
    begun = time.monotonic()
    overheads: list[float] = []
    folds = len(read_splits(workspace.preprocessed_dataset(name).splits))
    todo = [(configuration, fold) for fold in range(folds) for configuration in configurations]
    for number, (configuration, fold) in enumerate(todo):
        overhead = statistics.fmean(overheads) if overheads else FIRST_OVERHEAD
        left = seconds - (time.monotonic() - begun) - RESERVE_SECONDS - RESERVE_PER_SCORING * len(todo) * overhead
        length = max(1, int(left / (len(todo) - number) - overhead))
        started = time.monotonic()
        _run("train", name, configuration, str(fold), "--time-budget", f"{length}s")
        overheads.append(time.monotonic() - started - length)
    _run("find_best_configuration", name)


def train_first_folds(workspace: Workspace, name: str, configurations: Sequence[str], seconds: float) -> dict[str, Any]:
    """Train fold 0 of configurations as long as if all their folds together took `seconds`; return what it comes to."""
    folds = len(read_splits(workspace.preprocessed_dataset(name).splits))
    number, spent = folds * len(configurations), RESERVE_SECONDS
    lengths: dict[str, float] = {}
    dice: dict[str, float | None] = {}
    for configuration in configurations:
        begun = time.monotonic()
        _run("train", name, configuration, "0", "--time-budget", f"{LEAST_SECONDS:g}s")  # as `run` of one configuration
        overhead = time.monotonic() - begun - LEAST_SECONDS
        left = seconds - RESERVE_SECONDS - RESERVE_PER_SCORING * number * overhead
        lengths[configuration] = max(LEAST_SECONDS, int(left / number - overhead))
        if lengths[configuration] > 1.5 * LEAST_SECONDS:  # the last update may have taken the short one some way there
            _run("train", name, configuration, "0", "--time-budget", f"{lengths[configuration]:g}s")
        spent += folds * (lengths[configuration] + (1 + RESERVE_PER_SCORING) * overhead)
        folder = workspace.run(name, configuration).fold(0).validation
        dice[configuration] = read_record(folder / "summary.json", Summary).foreground_mean.dice
    best = max(dice, key=lambda each: dice[each] or 0.0)
    return {
        "best": best,
        "dice_fold_0": dice[best],
        "dice_of_each": dice,
        "seconds_of_each_training": lengths,
        "seconds_with_all_folds": round(spent),
    }


def judge(workspace: Workspace, name: str) -> dict[str, Any]:
    """What a contender predicts with, and its Dice over fold 0 and over all folds."""
    best = read_record(workspace.best(name), Best)
    weights = next(row.weights for row in best.candidates if row.name == best.name)
    members = tuple(member.run for member in best.members)
    summary = read_scores(workspace.candidate_scores(name), Ensemble(members, weights))
    assert summary is not None, "the best was scored"
    cases = set(read_splits(workspace.preprocessed_dataset(name).splits)[0].val)
    first: Summary = summarize([case for case in summary.per_case if case.case in cases])
    return {
        "best": best.name,
        "dice_fold_0": first.foreground_mean.dice,
        "dice_all_folds": summary.foreground_mean.dice,
        "cases_fold_0": len(first.per_case),
    }


def _run(*words: str) -> None:
    status = seg25d([*words, "--quiet"])
    if status:
        sys.exit(f"seg25d {' '.join(words)} ended with status {status}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run contenders that are not in the file yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--configurations", nargs="+", help="of `run` and `even`")
    parser.add_argument("--contenders", nargs="+", required=True)
    parser.add_argument("--first-fold-only", action="store_true", help="see above; not for `run`")
    parser.add_argument("--time-budget", type=duration, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder for the results of all contenders")
    parser.add_argument("-o", type=Path, required=True, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    usual = Workspace.resolve(options.workspace, {})
    name = usual.dataset_name(options.dataset)
    plans = read_plans(usual.preprocessed_dataset(name).plans())
    configurations = [run.configuration for run in wanted_runs(plans, options.configurations)]
    for contender in options.contenders:
        key = f"{name}, {options.time_budget:g} s, {contender}"
        found: dict[str, Any] = read_json(options.o) if options.o.exists() else {}
        if key in found:
            continue
        own = usual.model_copy(update={"results": options.out.absolute() / f"{options.time_budget:g}s_{contender}"})
        os.environ |= own.environment()
        begun = time.monotonic()
        single = contender not in ("run", "even")
        if options.first_fold_only and contender != "run":
            own_configurations = [configuration_name(contender, plans.slice_axis)] if single else configurations
            found_out = train_first_folds(own, name, own_configurations, options.time_budget)
        elif contender == "even":
            train_evenly(own, name, configurations, options.time_budget)
            found_out = judge(own, name)
        else:
            chosen = [contender] if single else options.configurations or []
            words = ["-c", *chosen] if chosen else []
            _run("run", name, *words, "--time-budget", f"{options.time_budget:g}s")
            found_out = judge(own, name)
        figures = {"seconds": round(time.monotonic() - begun), **found_out}
        machine = f"{len(os.sched_getaffinity(0))} core(s) of {platform.machine()}"
        found = read_json(options.o) if options.o.exists() else {}
        write_json(options.o, {**found, key: {**figures, "machine": machine, "configurations": configurations}})
        print(key, figures, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
