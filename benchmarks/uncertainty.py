r"""What tells best where a segmentation is wrong, and how good it is: entropy, or disagreement of mirrored predictions.

Every validation case of a trained run is predicted by its own fold, once for each mirroring, on the model's grid. Maps
are judged by the area under the ROC curve of wrong voxels, among those with a foreground probability above 0.01 or
foreground in the truth; figures of a structure by lines fitted to the other folds (`evaluation/predicted_dice.py`).

    python benchmarks/uncertainty.py --workspace WORKSPACE --datasets 4 5 27 -o CASES.json --summary FILE.json

Figures: the expected Dice, 2 sum of p over S / (|S| + sum of p over all voxels) for the segmentation S and the
probabilities p of a structure; the mean probability inside, sum of p over S / |S|, which is what seg25d takes; the
entropy per voxel; the mean Dice of each mirrored prediction with the mean of all; and, as the rule that needs no model,
how far the volume is from the usual one.

Figures are compared with the mean probability by the differences of their errors, case by case, with an interval over
cases. It knows nothing of other seeds of the training, so that one run of each fold ranks nothing.

Folds that are not trained are left out, and cases that are in CASES.json already are not predicted again. The summary
has no single cases, and keeps the data sets of earlier calls.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, stats

from seg25d.core.device import choose_execution
from seg25d.core.files import read_json, write_json
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.predicted_dice import Calibration, KnownCase, Sums, calibrate
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.preprocessing.store import Store

FIGURES = ("expected Dice", "mean probability", "entropy", "mirrored Dice", "volume")
MAPS = ("entropy", "mutual information", "variance", "1 - largest probability")
NEAR = 0.01
RESAMPLES = 10_000
"""Draws of the bootstrap (Efron & Tibshirani, An Introduction to the Bootstrap: 1,000 and more for percentiles)."""


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of (K, ...), in nats."""
    total: NDArray[np.float32] = -(probabilities * np.log(np.maximum(probabilities, 1e-7))).sum(0)
    return total


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Dice of two masks; 1 if both are empty."""
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def measure(predictor: Predictor, image: NDArray[np.float32], truth: NDArray[np.uint8]) -> dict[str, Any]:
    """The figures of all structures of a case (C, d, h, w), and how well maps find wrong voxels."""
    each = []
    for number in range(len(predictor.header.plan.mirror_axes) + 1):
        for axes in itertools.combinations(predictor.header.plan.mirror_axes, number):
            flipped = tuple(axis + 1 for axis in axes)
            maps = predictor.predict_maps(np.flip(image, flipped).copy()).float().numpy()
            maps = np.flip(maps, flipped).clip(0, 1)
            each.append(np.concatenate([(1 - maps.sum(0, keepdims=True)).clip(0, 1), maps]))
    parts = np.stack(each)
    mean = parts.mean(0)
    chosen, own = mean.argmax(0), [part.argmax(0) for part in parts]
    unsure = entropy(mean)
    spread = unsure - np.mean([entropy(part) for part in parts], 0), parts.var(0).sum(0), 1 - mean.max(0)
    near = (mean[1:].sum(0) > NEAR) | (truth > 0)
    wrong = (chosen != truth)[near]
    areas = {}
    if wrong.any() and not wrong.all():
        for name, values in zip(MAPS, (unsure, *spread), strict=True):
            among = values[near]
            rank = stats.mannwhitneyu(among[wrong], among[~wrong]).statistic
            areas[name] = float(rank / (int(wrong.sum()) * int((~wrong).sum())))
    structures: dict[str, Any] = {}
    for index in range(1, len(mean)):
        mask, probability = chosen == index, mean[index]
        voxels, inside = int(mask.sum()), float(probability[mask].sum())
        if voxels == 0:
            structures[str(index)] = {"dice": dice(mask, truth == index), "figures": None}
            continue
        figures = (
            2 * inside / (voxels + float(probability.sum())),
            inside / voxels,
            -float(unsure[ndimage.binary_dilation(mask)].sum()) / voxels,
            statistics.fmean(dice(labels == index, mask) for labels in own),
            math.log(voxels),
        )
        structures[str(index)] = {
            "dice": dice(mask, truth == index),
            "figures": dict(zip(FIGURES, figures, strict=True)),
        }
    return {"areas": areas, "structures": structures}


def calibrated(cases: Sequence[dict[str, Any]], figure: str) -> Calibration:
    """Lines from a figure to the Dice, judged on other folds; of cases in which every structure was segmented."""
    known = [case for case in cases if all(each["figures"] for each in case["structures"].values())]
    values = {name: [case["structures"][name]["figures"][figure] for case in known] for name in known[0]["structures"]}
    if figure == "volume":  # the further from the usual one, the worse
        values = {name: [-abs(value - statistics.fmean(each)) for value in each] for name, each in values.items()}
    lowest = {name: min(each) for name, each in values.items()}
    calibration = calibrate(
        [
            KnownCase(
                case=case["case"],
                fold=case["fold"],
                sums={
                    # What has this as its mean probability, shifted: sums are not negative, and lines do not mind.
                    name: Sums(voxels=1000, inside=1000 * (values[name][number] - lowest[name]))
                    for name in values
                },
                dice={name: case["structures"][name]["dice"] for name in values},
                present=frozenset(values),
            )
            for number, case in enumerate(known)
        ]
    )
    assert calibration is not None, "there are structures"
    return calibration


def errors(calibration: Calibration) -> NDArray[np.float64]:
    """The mean absolute error of each case over its structures."""
    each = [
        [
            abs(predicted - dice)
            for name, predicted in case.predicted.items()
            if predicted is not None and (dice := case.dice[name]) is not None
        ]
        for case in calibration.cases
    ]
    return np.array([statistics.fmean(values) for values in each])


def compared(figure: Calibration, usual: Calibration) -> dict[str, Any]:
    """How much larger the error is than with another figure: the mean over cases, and its interval of 95 %."""
    differences = errors(figure) - errors(usual)
    drawn = np.random.default_rng(0).choice(differences, (RESAMPLES, len(differences))).mean(1)
    return {"difference": float(differences.mean()), "interval": np.quantile(drawn, (0.025, 0.975)).tolist()}


def summarized(cases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What maps and figures are worth over the cases of a data set."""
    areas = {kind: [each["areas"][kind] for each in cases if each["areas"]] for kind in MAPS}
    of_figures = {figure: calibrated(cases, figure) for figure in FIGURES}
    usual = of_figures["mean probability"]
    return {
        "num_cases": len(cases),
        "areas": {kind: statistics.fmean(values) for kind, values in areas.items()},
        "judged": {
            figure: {**each.judgement.model_dump(), "error_of_means": each.error_of_means}
            for figure, each in of_figures.items()
        },
        "against_mean_probability": {
            figure: compared(each, usual) for figure, each in of_figures.items() if each is not usual
        },
    }


def show(name: str, summary: dict[str, Any]) -> None:
    """Print the table of a data set."""
    print(f"{name}, {summary['num_cases']} cases", {kind: round(area, 4) for kind, area in summary["areas"].items()})
    for figure, values in summary["judged"].items():
        rounded = {key: None if value is None else round(value, 4) for key, value in values.items()}
        print(f"  {figure:18}", json.dumps(rounded))
    for figure, found in summary["against_mean_probability"].items():
        low, high = found["interval"]
        print(
            f"  {figure:18} error - that of the mean probability: {found['difference']:.4f} ({low:.4f} to {high:.4f})"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--run", default="axial")
    parser.add_argument("-o", type=Path, required=True, help="JSON file for the figures of all cases")
    parser.add_argument("--summary", type=Path, help="JSON file for what they are worth")
    options = parser.parse_args(arguments)
    workspace = Workspace.resolve(options.workspace, {})
    found: dict[str, Any] = read_json(options.o) if options.o.exists() else {}
    for dataset in options.datasets:
        name = workspace.dataset_name(dataset)
        run, cases = workspace.run(name, options.run), found.setdefault(name, {"cases": []})["cases"]
        for fold, split in enumerate(read_splits(run.splits)):
            if not (model := run.fold(fold).model_final).exists():
                continue
            if not (todo := sorted(set(split.val) - {each["case"] for each in cases})):
                continue
            plain = PredictorOptions(mirroring=False)
            predictor = load_predictor([model], choose_execution(None, "float32"), plain)
            store = Store(workspace.preprocessed_dataset(name).store(predictor.header.plan.store))
            for case in todo:
                image, truth = np.asarray(store.open_image(case)[...], np.float32), store.open_labels(case)[...]
                cases.append({"case": case, "fold": fold, **measure(predictor, image, np.asarray(truth))})
                write_json(options.o, found)
        summary = summarized(cases)
        show(name, summary)
        if options.summary is not None:
            others = read_json(options.summary) if options.summary.exists() else {}
            write_json(options.summary, others | {name: summary})
    return 0


if __name__ == "__main__":
    sys.exit(main())
