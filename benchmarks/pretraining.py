"""What pretraining gains where labels are few: from scratch, after inpainting, after jigsaw.

python benchmarks/pretraining.py 4 2d --labels 10 20 --seeds 3 --iterations 250 --pretraining-iterations 400 \
    --output benchmarks/results/pretraining_hippocampus.json

The data set must be planned and preprocessed. Networks are pretrained on the images of all its cases, then trained on
the first fold's training cases drawn by each seed, and scored on the whole validation cases of that fold. What is done
is kept, in `benchmark_pretraining` in the workspace: the same command goes on. `--time-budget` in place of numbers of
updates trains every model for as long.
"""

import argparse
import json
import platform
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

from seg25d import pipeline
from seg25d.cli.common import configure_logging, duration
from seg25d.core.files import write_json
from seg25d.core.versions import library_versions
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_splits
from seg25d.evaluation.tables import text_table
from seg25d.planning.pretext import PretextTask

STARTS: tuple[PretextTask | None, ...] = (None, "inpainting", "jigsaw")


def few_labels(workspace: Workspace, name: str, labels: list[int], seeds: int, place: Path) -> list[tuple[int, int]]:
    """A preprocessed folder with the same arrays and a fold per number of labels and seed; gives these pairs."""
    source, target = workspace.preprocessed_dataset(name).root, place / "preprocessed" / name
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if path.name != "splits.json" and not (target / path.name).exists():
            (target / path.name).symlink_to(path.resolve())
    first = read_splits(source / "splits.json")[0]
    pairs = [(number, seed) for number in labels for seed in range(seeds)]
    drawn = [np.random.default_rng(seed).permutation(first.train)[:number].tolist() for number, seed in pairs]
    write_json(target / "splits.json", [{"train": sorted(cases), "val": list(first.val)} for cases in drawn])
    return pairs


def length(options: argparse.Namespace, iterations: int) -> dict[str, Any]:
    """How long to train."""
    if options.time_budget is not None:
        return {"time_budget_s": options.time_budget}
    return {"iterations": iterations}


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Train all that is missing and gather the scores."""
    workspace = Workspace.resolve(options.workspace)
    name = workspace.dataset_name(options.dataset)
    place = workspace.preprocessed.parent / "benchmark_pretraining"
    pairs = few_labels(workspace, name, options.labels, options.seeds, place)
    shared = {"device": options.device, "num_processes": options.num_processes}
    rows: dict[str, dict[str, list[float | None]]] = {}
    for start in STARTS:
        results = Workspace(
            raw=place / "raw", preprocessed=place / "preprocessed", results=place / (start or "scratch")
        )
        pretrained = None
        if start is not None:
            lasting = length(options, options.pretraining_iterations)
            # Ten epochs: ten pictures.
            lasting |= {} if options.time_budget is not None else {"epochs": 10}
            pretraining = pipeline.PretrainingOptions(task=start, **lasting, **shared)
            pretrained = pipeline.pretrain(results, name, options.configuration, pretraining)
        scores: dict[str, list[float | None]] = {}
        for fold, (number, seed) in enumerate(pairs):
            training = pipeline.TrainingOptions(
                seed=seed, pretrained=pretrained, **length(options, options.iterations), **shared
            )
            summary = pipeline.train(results, name, options.configuration, [str(fold)], training)[str(fold)]
            scores.setdefault(str(number), []).append(summary.foreground_mean.dice)
        rows[start or "scratch"] = scores
    return {"dataset": name, "configuration": options.configuration, "dice": rows}


def table(found: dict[str, Any]) -> str:
    """Mean and standard deviation over seeds."""
    numbers = list(found["dice"]["scratch"])
    rows = []
    for start, scores in found["dice"].items():
        cells = []
        for number in numbers:
            known = [score for score in scores[number] if score is not None]
            cells.append(f"{mean(known):.3f}" + (f" ± {stdev(known):.3f}" if len(known) > 1 else ""))
        rows.append([start, *cells])
    return text_table(["start", *(f"{number} labels" for number in numbers)], rows)


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("configuration")
    parser.add_argument("--labels", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=250)
    parser.add_argument("--pretraining-iterations", type=int, default=400)
    parser.add_argument("--time-budget", type=duration)
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--device")
    parser.add_argument("--num-processes", type=int)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    configure_logging(quiet=False, debug=False)
    found = run(options)
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("workspace", "output")}
    write_json(options.output, {**found, "settings": settings, "machine": platform.machine(), **library_versions()})
    print(table(json.loads(options.output.read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
