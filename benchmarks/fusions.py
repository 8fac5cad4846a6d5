"""Comparison of all fusions of three views on the validation cases of one fold, with the same models of the views.

python benchmarks/fusions.py --dataset 4 --time-budget 5min --output benchmarks/results/fusions_hippocampus.json

The table has single views, the fusions without training, and the trained networks of `mv` (or `--run mv__holdout`),
also without image and joint. With `--time-budget`, missing models of `mv` with and without image are trained first,
each for this time (with five folds there are 15 models of views). Dice is reported over the cases as in Table 1 of Xia
et al. 2018, with seconds per case (with the views, on all threads) and Wilcoxon's signed-rank test against majority
voting.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from contest import Row, Table, settings_of, write_tables
from scipy.stats import wilcoxon

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.device import choose_execution
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


def means(result: dict[str, Any]) -> np.ndarray:
    """The mean Dice of each case over its labels; NaN for a case without Dice."""
    values = [[dice for dice in each.values() if dice is not None] for each in result["dice"].values()]
    return np.array([np.mean(each) if each else np.nan for each in values])


def row(result: dict[str, Any], majority: dict[str, Any]) -> dict[str, float | None]:
    """Compute a row of the table."""
    dice, others = means(result), means(majority)
    both = ~np.isnan(dice) & ~np.isnan(others)
    gains, dice = (dice - others)[both], dice[~np.isnan(dice)]
    quantiles = {key: float(np.percentile(dice, percent)) for key, percent in QUANTILES.items()}
    return {
        "mean": float(dice.mean()),
        "std": float(dice.std(ddof=1)) if len(dice) > 1 else None,
        **quantiles,
        "seconds_per_case": result["seconds_per_case"],
        "gain": float(gains.mean()),
        "p": float(wilcoxon(gains).pvalue) if gains.any() else None,
    }


def train(workspace: Workspace, name: str, options: argparse.Namespace) -> None:
    """Train the missing models."""
    data = {"fusion.data": options.run.removeprefix("mv__")} if options.run != "mv" else {}
    for settings in (data, {**data, "fusion.image": "false"}):
        training = api.TrainingOptions(
            settings=settings,
            time_budget_s=options.time_budget,
            device=options.device,
            num_processes=options.num_processes,
        )
        api.train(workspace, name, "mv", [options.fold], training)


def number(key: str) -> Callable[[Row], str]:
    """Make a column of numbers with three digits."""
    return lambda row: "-" if row[key] is None else f"{row[key]:.3g}"


TABLE = Table(
    "fusions",
    "Fusions of three views, as in Table 1 of Xia et al. 2018",
    {"fusion": lambda row: row["name"]}
    | {
        key: number(key) for key in ("mean", "std", "min", "q1", "median", "q3", "max", "seconds_per_case", "gain", "p")
    },
    ("Dice over validation cases; gain and p (Wilcoxon's signed-rank test) against majority voting.",),
)


def main() -> None:
    """Train if requested, score every fusion and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--run", default="mv", help="run of mv, such as mv__holdout (default: mv)")
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="train each model first, for this time")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--disable-tta", action="store_true", help="no mirroring")
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    arguments = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    workspace = Workspace.resolve(arguments.workspace)
    name = workspace.dataset_name(arguments.dataset)
    if arguments.time_budget is not None:
        train(workspace, name, arguments)
    run = workspace.run(name, arguments.run)
    plan = read_record(run.plans, Plans).configurations["mv"]
    store = Store(workspace.preprocessed_dataset(name).store(plan.store))
    cases = list(read_splits(run.splits)[int(arguments.fold)].val)
    options = PredictorOptions(mirroring=not arguments.disable_tta)
    results = {}
    for key, load in ways(workspace, name, arguments.run, arguments.fold, options, arguments.device).items():
        results[key] = score(load(), store, cases)
        print(f"{key}: {np.nanmean(means(results[key])):.4f}", flush=True)
    rows = [{"name": key, **row(result, results["majority"])} for key, result in results.items()]
    facts = {"dataset": name, "cases": len(cases), "settings": settings_of(arguments), "results": results}
    write_tables(TABLE, rows, facts, arguments.output)


if __name__ == "__main__":
    main()
