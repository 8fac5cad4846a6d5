r"""What tells best where a segmentation is wrong, and how good it is: entropy, or disagreement of mirrored predictions.

Every validation case of a trained run is predicted by its own fold, once for each mirroring, on the model's grid. Maps
are judged by the area under the ROC curve of wrong voxels, among those with a foreground probability above 0.01 or
foreground in the truth; figures of a structure by lines fitted to the other folds (`evaluation/predicted_dice.py`).

    python benchmarks/uncertainty.py --workspace WORKSPACE --datasets 4 5 27 --run axial -o FILE.json

Figures: the expected Dice; the mean probability inside; the entropy per voxel; the mean Dice of each mirrored
prediction with the mean of all; and, as the rule that needs no model, how far the volume is from the usual one.
Folds that are not trained are left out, and cases that are in the file already are not predicted again.
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
from seg25d.evaluation.predicted_dice import KnownCase, Sums, calibrate
from seg25d.inference.predictor import Predictor, PredictorOptions
from seg25d.preprocessing.store import Store

FIGURES = ("expected Dice", "mean probability", "entropy", "mirrored Dice", "volume")
MAPS = ("entropy", "mutual information", "variance", "1 - largest probability")
NEAR = 0.01


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


def judged(cases: Sequence[dict[str, Any]], figure: str) -> dict[str, float | None]:
    """What lines from a figure to the Dice are worth on other folds."""
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
                    name: Sums(voxels=1000, inside=1000 * (values[name][number] - lowest[name]), everywhere=1000)
                    for name in values
                },
                dice={name: case["structures"][name]["dice"] for name in values},
                present=frozenset(values),
            )
            for number, case in enumerate(known)
        ]
    )
    assert calibration is not None, "there are structures"
    return {**calibration.judgement.model_dump(), "error_of_means": calibration.error_of_means}


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--run", default="axial")
    parser.add_argument("-o", type=Path, required=True, help="JSON file for the figures")
    options = parser.parse_args(arguments)
    workspace = Workspace.resolve(options.workspace, {})
    found: dict[str, Any] = read_json(options.o) if options.o.exists() else {}
    for dataset in options.datasets:
        name = workspace.dataset_name(dataset)
        run, cases = workspace.run(name, options.run), found.setdefault(name, {"cases": []})["cases"]
        for fold, split in enumerate(read_splits(run.splits)):
            if not (model := run.fold(fold).model_final).exists():
                continue
            plain = PredictorOptions(mirroring=False)
            predictor = load_predictor([model], choose_execution(None, "float32"), plain)
            store = Store(workspace.preprocessed_dataset(name).store(predictor.header.plan.store))
            for case in sorted(set(split.val) - {each["case"] for each in cases}):
                image, truth = np.asarray(store.open_image(case)[...], np.float32), store.open_labels(case)[...]
                cases.append({"case": case, "fold": fold, **measure(predictor, image, np.asarray(truth))})
                write_json(options.o, found)
        areas = {kind: [each["areas"][kind] for each in cases if each["areas"]] for kind in MAPS}
        found[name]["areas"] = {kind: statistics.fmean(values) for kind, values in areas.items()}
        found[name]["judged"] = {figure: judged(cases, figure) for figure in FIGURES}
        write_json(options.o, found)
        print(name, {kind: round(value, 4) for kind, value in found[name]["areas"].items()})
        for figure, values in found[name]["judged"].items():
            print(f"  {figure:18}", json.dumps({key: round(value or 0.0, 4) for key, value in values.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
