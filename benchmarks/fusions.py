"""Comparison of all fusions of three views on the validation cases of one fold, with the same models of the views.

python benchmarks/fusions.py --dataset 4 --iterations 250 --output benchmarks/results/fusions_hippocampus.json

The table has single views, the fusions without training, and the trained network (VFN) with and without the image.
`--run` says which views, and what they are trained on: `mv__holdout`; `mv__rstn__holdout`, whose views are recurrent
saliency transformation networks, the paper's stronger baseline [17]; `mv__holdout__fine__xia2018` with `--recipe
xia2018`, the coarse-to-fine views of its other baseline [18]. The data set must be planned for the configuration, the
part of the name before these additions.

All missing models are trained for the given time or number of updates, once for each seed (by cross-cross-augmentation,
with five folds, 15 models of views each). Those of a seed are in `benchmarks/fusions/LENGTH/seed_N_DIGEST` of the
workspace, the digest being that of settings and plans, its scores in the file of the table, from which the same command
continues, on another machine, too. Quantiles of the Dice over the cases as in Table 1 of Xia et al. 2018, of means over
seeds; seconds per case with the views, on all threads. Against majority voting and the mean: the difference with its
interval and p of a test that knows cases and seeds (`over_seeds.py`), and, as the paper has it, the paired t-test over
the cases beside Wilcoxon's signed-rank test, against majority voting. The last two take the trained models for granted:
with one seed they are left out.
"""

import argparse
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from contest import length, length_name
from finished import facts_of, find_training, folder_name, keep_training, known_dataset, planned_digest, settings_of
from machines import distinct, this_machine
from numpy.typing import NDArray
from over_seeds import difference, mean_over_seeds
from result_tables import Row, Table, compared, write_tables
from scipy.stats import ttest_rel, wilcoxon
from torch import Tensor

from seg25d import api
from seg25d.cli.argument_types import duration
from seg25d.cli.common import configure_logging
from seg25d.core.device import choose_execution
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.ensembling.fused_predictor import FusedPredictor
from seg25d.ensembling.view_fusions import fuse_views
from seg25d.evaluation.metrics import case_metrics
from seg25d.inference.export import labels_from_slabs
from seg25d.inference.predictor import PredictorOptions
from seg25d.inference.sliding_window import Slab
from seg25d.planning.plan import Plans
from seg25d.planning.plans_name import RUN_VARIANTS
from seg25d.preprocessing.store import Store
from seg25d.representations.fused_views import FusedViews
from seg25d.views.tasks import plan_fusion
from seg25d.workflows.planned_run import planned_run

UNTRAINED = ("mean", "majority", "staple", "nlstaple")
NETWORK, ABLATION = "VFN", "VFN without image"
"""Rows of the trained networks."""
REFERENCES = ("majority", "mean")
QUANTILES = {"min": 0, "q1": 25, "median": 50, "q3": 75, "max": 100}


class FusedRun(NamedTuple):
    """A run of a fusion of views, by the parts of its name."""

    configuration: str
    variants: frozenset[str]
    """Some of `RUN_VARIANTS`."""
    recipe: str

    @classmethod
    def parse(cls, name: str, recipe: str) -> "FusedRun":
        """Take the name of a run apart, such as `mv__rstn__holdout`."""
        parts = name.split("__")
        variants = frozenset(parts) & frozenset(RUN_VARIANTS)
        return cls("__".join(part for part in parts if part not in (*variants, recipe)), variants, recipe)

    def name(self, *more: str) -> str:
        """The name, with further variants."""
        variants = [variant for variant in RUN_VARIANTS if variant in {*self.variants, *more}]
        return "__".join([self.configuration, *variants] + ([] if self.recipe == "default" else [self.recipe]))

    @property
    def settings(self) -> dict[str, str]:
        """The settings that give a run its variants."""
        data = "holdout" if "holdout" in self.variants else "cross"
        return {"fusion.data": data, "fusion.fine": str("fine" in self.variants).lower()}


def load_fusions(
    workspace: Workspace, dataset: str, run: FusedRun, options: argparse.Namespace
) -> dict[str, FusedPredictor]:
    """Load the fusions of each row, all of the same views."""
    execution = choose_execution(options.device)
    predictor = PredictorOptions(mirroring=not options.disable_tta)
    networks = {NETWORK: run.name()} | ({} if options.without_ablation else {ABLATION: run.name("no_image")})
    files = {key: workspace.run(dataset, name).fold(options.fold).model_final for key, name in networks.items()}
    rows = {
        method: FusedPredictor.load([files[NETWORK]], execution, predictor.model_copy(update={"fusion": method}))
        for method in UNTRAINED
    }
    return rows | {key: FusedPredictor.load([file], execution, predictor) for key, file in files.items()}


def predict_case(
    fusions: Mapping[str, FusedPredictor], store: Store, case: str
) -> dict[str, tuple[NDArray[np.uint8], float | None]]:
    """Predict a case by each view and by each fusion of the views, which predict it once.

    Returns:
        By row, the internal indices (D, H, W) on the canonical grid, and the seconds with the views; None for one view.
    """
    image = torch.from_numpy(np.ascontiguousarray(store.open_image(case)[:], np.float32))
    grid, first = store.record(case).grid, next(iter(fusions.values()))

    def labels_of(slabs: Iterable[Slab]) -> NDArray[np.uint8]:
        return labels_from_slabs(slabs, grid, first.labels, first.header.threshold)

    begun = time.perf_counter()
    (maps,) = first.maps(image)
    of_views = time.perf_counter() - begun
    found: dict[str, tuple[NDArray[np.uint8], float | None]] = {}
    names = FusedViews.of(first.header.plan.representation).views
    for name, each in zip(names, maps, strict=True):
        scores: Tensor = fuse_views([each], image, "mean", first.labels)
        found[name] = labels_of([Slab(0, 0, scores.movedim(1, 0))]), None
    for name, fusion in fusions.items():
        begun = time.perf_counter()
        labels = labels_of(fusion.fuse(image, [maps]))
        found[name] = labels, of_views + time.perf_counter() - begun
    return found


def score(fusions: Mapping[str, FusedPredictor], store: Store, cases: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Compute the Dice of each row, case and label, and the seconds per case."""
    results: dict[str, dict[str, Any]] = {}
    foreground = next(iter(fusions.values())).labels.foreground
    for case in cases:
        spacing = store.record(case).geometry.canonical_spacing_mm
        for name, (labels, seconds) in predict_case(fusions, store, case).items():
            result = results.setdefault(name, {"dice": {}, "seconds": []})
            metrics = case_metrics(store.read_reference(case), labels, foreground, spacing)
            result["dice"][case] = {label: each.dice for label, each in metrics.items()}
            result["seconds"].append(seconds)
    return results


def means(result: Mapping[str, Any]) -> list[float | None]:
    """The mean Dice of each case over its labels; None for a case without Dice."""
    values = [[dice for dice in each.values() if dice is not None] for each in result["dice"].values()]
    return [float(np.mean(each)) if each else None for each in values]


def row(name: str, results: Sequence[Mapping[str, Mapping[str, Any]]]) -> Row:
    """Compute a row of the table from the results of all seeds."""
    own = [each[name] for each in results]
    dice, others = [means(each) for each in own], {key: [means(each[key]) for each in results] for key in REFERENCES}
    of_cases, of_majority = (np.array(each, float).mean(0) for each in (dice, others["majority"]))
    known = of_cases[~np.isnan(of_cases)]
    quantiles = {key: float(np.percentile(known, percent)) for key, percent in QUANTILES.items()}
    cases = list(own[0]["dice"])
    gains = {key: difference(dice, each, paired=True, cases=cases) for key, each in others.items() if key != name}
    both = ~np.isnan(of_cases) & ~np.isnan(of_majority)
    pairs = of_cases[both], of_majority[both]
    tested = len(dice) > 1 and (pairs[0] != pairs[1]).any()
    seconds = [second for each in own for second in each["seconds"] if second is not None]
    return {
        "name": name,
        "cases": cases,
        "scores": {"dice": dice},
        "std": float(known.std(ddof=1)) if len(known) > 1 else None,
        **quantiles,
        "seconds_per_case": float(np.mean(seconds)) if seconds else None,
        "differences": {key: gain._asdict() for key, gain in gains.items() if gain is not None},
        "p_of_t_test": float(ttest_rel(*pairs).pvalue) if tested else None,
        "p_of_wilcoxon": float(wilcoxon(*pairs).pvalue) if tested else None,
    }


def train(workspace: Workspace, dataset: str, run: FusedRun, seed: int, options: argparse.Namespace) -> None:
    """Train the missing models of a seed: those of the views, then the fusion networks."""
    training = api.TrainingOptions(
        settings=run.settings | dict(pair.split("=", 1) for pair in options.set),
        recipe=run.recipe,
        seed=seed,
        device=options.device,
        num_processes=options.num_processes,
        validation=api.ValidationOptions(quick_scores=True),
        **length(options),
    )
    if options.view_iterations is not None:
        longer = training.model_copy(update={"iterations": options.view_iterations, "time_budget_s": None})
        planned = planned_run(workspace, dataset, run.configuration, longer)
        for model in plan_fusion(planned, [int(options.fold)]).folds[0].view_models():
            part = f"{model.folder.root.parent.name}/{model.folder.root.name}"
            api.train(workspace, dataset, run.configuration, [options.fold], longer.model_copy(update={"part": part}))
    api.train(workspace, dataset, run.configuration, [options.fold], training)
    if options.without_ablation:
        return
    # It learns from the same predictions of the views, which are not made again.
    ours, other = (workspace.run(dataset, run.name(*more)).fold(options.fold) for more in ((), ("no_image",)))
    if not other.fusion_data.exists():
        other.root.mkdir(parents=True, exist_ok=True)
        other.fusion_data.symlink_to(ours.fusion_data.resolve())
    settings = training.settings | {"fusion.image": "false"}
    blind = training.model_copy(update={"settings": settings})
    api.train(workspace, dataset, run.configuration, [options.fold], blind)


def results_of(
    workspace: Workspace, dataset: str, run: FusedRun, options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Score every row with the models of one seed."""
    folder = workspace.run(dataset, run.name())
    plan = read_record(folder.plans, Plans).configurations[run.configuration]
    store = Store(workspace.preprocessed_dataset(dataset).store(plan.store))
    cases = read_splits(folder.splits)[int(options.fold)].val
    results = score(load_fusions(workspace, dataset, run, options), store, cases)
    for key, result in results.items():
        print(f"{key}: {np.nanmean(np.array(means(result), float)):.4f}", flush=True)
    return results


def number(key: str) -> Callable[[Row], str]:
    """Make a column of numbers with three digits."""
    return lambda row: "-" if row[key] is None else f"{row[key]:.3g}"


TABLE = Table(
    "fusions",
    "Fusions of three views, as in Table 1 of Xia et al. 2018",
    {"fusion": lambda row: row["name"], "Dice": lambda row: mean_over_seeds(row["scores"]["dice"])}
    | {key: number(key) for key in ("std", *QUANTILES, "seconds_per_case")}
    | {f"minus {key}": partial(compared, name=key) for key in REFERENCES}
    | {key: number(key) for key in ("p_of_t_test", "p_of_wilcoxon")},
    (
        "Dice: mean ± standard deviation over seeds; std, min to max: over cases. Differences have their interval of "
        "95 % and p of a test that knows cases and seeds; the other two p are of tests over cases against majority "
        "voting, of these models.",
    ),
    deviations="another organ, one fold, the planner's U-Nets from random weights instead of FCN-8s with weights from "
    "photographs, few updates instead of 30,000 to 80,000; unless the recipe is xia2018, also the planner's training.",
)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--dataset", default="4", help="planned and preprocessed: 1, 001 or Dataset001_Name")
    parser.add_argument("--fold", default="0")
    parser.add_argument("--run", default="mv", help="name of the run, such as mv__holdout (default: mv)")
    parser.add_argument("--recipe", default="default", help="the data set must be planned with it (default: default)")
    parser.add_argument("--without-ablation", action="store_true", help="no network that does not see the image")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the fusion networks")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--time-budget", type=duration, metavar="TIME", help="length of the training of each model")
    parser.add_argument("--iterations", type=int, help="updates of each model, instead of a time")
    parser.add_argument("--view-iterations", type=int, help="updates of each model of a view (default: --iterations)")
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--disable-tta", action="store_true", help="no mirroring")
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True, help="FILE.json; FILE.md is written beside it")
    return parser


def main() -> None:
    """Train what is missing, score every fusion and write the table."""
    options = make_parser().parse_args()
    configure_logging(quiet=False, debug=False)
    workspace, run = Workspace.resolve(options.workspace), FusedRun.parse(options.run, options.recipe)
    dataset = known_dataset(options.output, options.dataset) or workspace.dataset_name(options.dataset)
    place = workspace.preprocessed.parent / "benchmarks" / TABLE.name / length_name(options)
    plan = planned_digest(workspace.preprocessed_dataset(dataset).plans(recipe=run.recipe), run.configuration)
    found: list[Row] = []
    for seed in options.seeds:
        wanted = facts_of(TABLE.name, run.name(), seed, options, plan)
        if (known := find_training(options.output, wanted)) is None:
            results = place / folder_name(f"seed_{seed}", wanted["settings"], plan)
            own = Workspace(raw=workspace.raw, preprocessed=workspace.preprocessed, results=results)
            train(own, dataset, run, seed, options)
            facts = {**wanted, "dataset": dataset, "machine": this_machine(options.device)}
            known = keep_training(options.output, facts | {"results": results_of(own, dataset, run, options)})
        found.append(known)
        machines = distinct(each["machine"] for each in found)
        rows = [{**row(key, [each["results"] for each in found]), "machines": machines} for key in found[0]["results"]]
        write_tables(TABLE, rows, {"dataset": dataset, "settings": settings_of(options)}, options.output)


if __name__ == "__main__":
    main()
