"""Comparison of all fusions of three views on the validation cases of one fold, with the same models of the views.

python benchmarks/fusions.py --dataset 4 --iterations 250 --output benchmarks/results/fusions_hippocampus.json

The table has single views, the fusions without training, and the trained networks of `mv` (or `--run mv__holdout`),
with and without image, and joint where it was trained. All missing models are trained for the given time or number of
updates, once for each seed (with five folds there are 15 models of views each); those of a seed are in
`benchmarks/fusions/LENGTH/seed_N` of the workspace, so that the same command continues. Quantiles of the Dice over the
cases as in Table 1 of Xia et al. 2018, of means over seeds; seconds per case with the views, on all threads. Against
majority voting: the difference with its interval and p of a test that knows cases and seeds (`over_seeds.py`), and, as
the paper has it, the paired t-test over the cases beside Wilcoxon's signed-rank test. The last two take the trained
models for granted: with one seed they are left out.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contest import Row, Table, compared, length, length_name, settings_of, write_tables
from over_seeds import difference, mean_over_seeds
from scipy.stats import ttest_rel, wilcoxon

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.device import choose_execution
from seg25d.core.files import write_json
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.ensembling.fused_predictor import view_model
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.metrics import case_metrics
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.planning.plan import Plans
from seg25d.preprocessing.store import Store
from seg25d.representations.fused_views import FusedViews

TRAINED = ("__no_image", "", "__joint")
"""Suffixes of the variants of the run."""
UNTRAINED = ("mean", "majority", "staple", "nlstaple")
QUANTILES = {"min": 0, "q1": 25, "median": 50, "q3": 75, "max": 100}


def ways(
    workspace: Workspace, name: str, run: str, fold: str, options: PredictorOptions, device: str | None
) -> dict[str, Callable[[], Predictor]]:
    """Functions that load the predictor of each row of the table."""
    execution = choose_execution(device)
    folder = workspace.run(name, run).fold(fold)
    representation = read_record(workspace.run(name, run).plans, Plans).configurations["mv"].representation
    assert isinstance(representation, FusedViews), "mv fuses views"
    rows: dict[str, Callable[[], Predictor]] = {
        view: partial(load_predictor, [view_model(folder.root, view)], execution, options)
        for view in representation.views
    }
    for method in UNTRAINED:
        chosen = options.model_copy(update={"fusion": method})
        rows[method] = partial(load_predictor, [folder.model_final], execution, chosen)
    for variant in TRAINED:
        path = workspace.run(name, f"{run}{variant}").fold(fold).model_final
        if path.exists():
            rows[f"{run}{variant}"] = partial(load_predictor, [path], execution, options)
    return rows


def score(predictor: Predictor, store: Store, cases: list[str]) -> dict[str, Any]:
    """Compute the Dice of each case and label, and the seconds per case."""
    dice: dict[str, dict[str, float | None]] = {}
    begun = time.perf_counter()
    predicted = {
        case: predictor.predict_preprocessed(store.open_image(case), store.record(case).grid) for case in cases
    }
    seconds = (time.perf_counter() - begun) / len(cases)
    for case, labels in predicted.items():
        spacing = store.record(case).geometry.canonical_spacing_mm
        metrics = case_metrics(store.read_reference(case), labels, predictor.labels.foreground, spacing)
        dice[case] = {label: each.dice for label, each in metrics.items()}
    return {"dice": dice, "seconds_per_case": seconds}


def means(result: dict[str, Any]) -> list[float | None]:
    """The mean Dice of each case over its labels; None for a case without Dice."""
    values = [[dice for dice in each.values() if dice is not None] for each in result["dice"].values()]
    return [float(np.mean(each)) if each else None for each in values]


def row(name: str, results: list[dict[str, Any]], majority: list[dict[str, Any]]) -> Row:
    """Compute a row of the table from the results of all seeds."""
    dice, others = [means(each) for each in results], [means(each) for each in majority]
    of_cases, of_others = (np.array(each, float).mean(0) for each in (dice, others))
    known = of_cases[~np.isnan(of_cases)]
    quantiles = {key: float(np.percentile(known, percent)) for key, percent in QUANTILES.items()}
    gain = difference(dice, others)
    both = ~np.isnan(of_cases) & ~np.isnan(of_others)
    pairs = of_cases[both], of_others[both]
    tested = len(dice) > 1 and (pairs[0] != pairs[1]).any()
    return {
        "name": name,
        "dice": dice,
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
        **quantiles,
        "seconds_per_case": float(np.mean([each["seconds_per_case"] for each in results])),
        "differences": {} if name == "majority" or gain is None else {"majority": gain._asdict()},
        "p_of_t_test": float(ttest_rel(*pairs).pvalue) if tested else None,
        "p_of_wilcoxon": float(wilcoxon(*pairs).pvalue) if tested else None,
    }


def train(workspace: Workspace, name: str, seed: int, options: argparse.Namespace) -> None:
    """Train the missing models of a seed."""
    parts = options.run.split("__")
    asked_for = {"fusion.data": "holdout"} if "holdout" in parts else {}
    asked_for |= {"fusion.fine": "true"} if "fine" in parts else {}
    for settings in (asked_for, {**asked_for, "fusion.image": "false"}):
        training = api.TrainingOptions(
            settings=settings | dict(pair.split("=", 1) for pair in options.set),
            recipe=options.recipe,
            seed=seed,
            device=options.device,
            num_processes=options.num_processes,
            **length(options),
        )
        api.train(workspace, name, "mv", [options.fold], training)


def results_of(workspace: Workspace, name: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Score every fusion with the models of one seed."""
    run = workspace.run(name, options.run)
    plan = read_record(run.plans, Plans).configurations["mv"]
    store = Store(workspace.preprocessed_dataset(name).store(plan.store))
    cases = list(read_splits(run.splits)[int(options.fold)].val)
    predictor = PredictorOptions(mirroring=not options.disable_tta)
    results = {}
    for key, load in ways(workspace, name, options.run, options.fold, predictor, options.device).items():
        results[key] = score(load(), store, cases)
        print(f"{key}: {np.nanmean(np.array(means(results[key]), float)):.4f}", flush=True)
    return results


def number(key: str) -> Callable[[Row], str]:
    """Make a column of numbers with three digits."""
    return lambda row: "-" if row[key] is None else f"{row[key]:.3g}"


TABLE = Table(
    "fusions",
    "Fusions of three views, as in Table 1 of Xia et al. 2018",
    {"fusion": lambda row: row["name"], "Dice": lambda row: mean_over_seeds(row["dice"])}
    | {key: number(key) for key in ("std", *QUANTILES, "seconds_per_case")}
    | {"minus majority": partial(compared, name="majority")}
    | {key: number(key) for key in ("p_of_t_test", "p_of_wilcoxon")},
    (
        "Dice: mean ± standard deviation over seeds; std, min to max: over cases. The difference has its interval of "
        "95 % and p of a test that knows cases and seeds; the other two p are of tests over cases, of these models.",
    ),
)


def main() -> None:
    """Train what is missing, score every fusion and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--run", default="mv", help="run of mv, such as mv__holdout (default: mv)")
    parser.add_argument("--recipe", default="default", help="the data set must be planned with it (default: default)")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of every training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="length of the training of each model")
    parser.add_argument("--iterations", type=int, help="updates of each model, instead of a time")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--disable-tta", action="store_true", help="no mirroring")
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    arguments = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(arguments.workspace)
    name = workspace.dataset_name(arguments.dataset)
    place = workspace.preprocessed.parent / "benchmarks" / TABLE.name / length_name(arguments)
    found: list[dict[str, dict[str, Any]]] = []
    for seed in arguments.seeds:
        folder = place / f"seed_{seed}"
        own = Workspace(raw=workspace.raw, preprocessed=workspace.preprocessed, results=folder)
        done, facts = folder / "scores.json", settings_of(arguments) | {"seeds": str(seed)}
        known = json.loads(done.read_text(encoding="utf-8")) if done.exists() else {}
        if known.get("settings") != facts:
            train(own, name, seed, arguments)
            known = {"settings": facts, "results": results_of(own, name, arguments)}
            write_json(done, known)
        found.append(known["results"])
        rows = [
            row(key, [each[key] for each in found], [each["majority"] for each in found])
            for key in found[0]
            if all(key in each for each in found)
        ]
        write_tables(TABLE, rows, {"dataset": name, "settings": settings_of(arguments)}, arguments.output)


if __name__ == "__main__":
    main()
