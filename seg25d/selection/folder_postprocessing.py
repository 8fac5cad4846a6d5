"""Post-processing of a folder of predictions: which one raises the Dice against the truth, and its application.

The rules are those of `choose_postprocessing`; what is chosen is a JSON file, where nnU-Net has a pickle, which could
run code.
"""

import logging
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

from seg25d.core.errors import InputError
from seg25d.core.files import read_json
from seg25d.core.locks import file_lock, folder_lock, reading_lock
from seg25d.core.parallel import choose_num_workers
from seg25d.core.records import Record, parse_record, read_record, write_record
from seg25d.core.unfinished import Unfinished, forget_unfinished, map_and_keep
from seg25d.data.cases import Case, source_stamp
from seg25d.data.description import read_description
from seg25d.data.labels import Labels
from seg25d.evaluation.evaluate import evaluate
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.pairs import Pair, find_labels, find_pairs, find_segmentations, read_pair
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.inference.postprocessing import PostProcessing, remove_components
from seg25d.inference.prediction_files import RECORD_NAME, PredictionRecord
from seg25d.selection.best import Best
from seg25d.selection.choose_postprocessing import LEAST_GAIN, CaseComponents, choose_components, find_components

logger = logging.getLogger(__name__)
RULE_NAME = "postprocessing.json"
RESULTS_NAME = "postprocessed"
_BYTES_PER_WORKER = 2 << 30
_PICKLES = (".pkl", ".pickle")
_Stamp: TypeAlias = list[tuple[str, int, int]]


class Rule(Record):
    """Content of `postprocessing.json`."""

    schema_version: Literal[1] = 1
    postprocessing: PostProcessing
    labels: Labels
    """Meaning of the values of the segmentations that it is for."""
    dice: float | None
    """Mean Dice of the foreground with it, and without it, on the cases that it was chosen for."""
    dice_without: float | None


class _Scores(NamedTuple):
    before: Summary
    after: Summary


def determine_postprocessing(
    folder: Path,
    reference: Path,
    *,
    dataset_json: Path | None = None,
    num_processes: int | None = None,
    write_results: bool = True,
) -> Rule:
    """Choose the post-processing of a folder of predictions, and write `postprocessing.json` into it.

    What is done is kept about every minute, so that the same call goes on after a kill.

    Args:
        folder: Predictions.
        reference: True segmentations of the same names.
        dataset_json: The meaning of the values; None: that of `dataset.json` or `prediction.json` in the folder, or
            of the references.
        num_processes: Worker processes.
        write_results: Whether to write the results into `postprocessed/` in the folder, with `summary.json` under
            nnU-Net's keys.

    Returns:
        The rule; without steps if none raises the mean Dice.

    Raises:
        InputError: If nothing fits, or the meaning of the values is not known.
        BusyError: If another process writes into the folder.
    """
    labels = _labels(folder, dataset_json, reference)
    rule_file, results = folder / RULE_NAME, folder / RESULTS_NAME
    with file_lock(rule_file, "choosing post-processing"):
        with reading_lock(folder, "choosing post-processing"):
            pairs = find_pairs(reference, folder, common=True)
            workers = choose_num_workers(num_processes, _BYTES_PER_WORKER, len(pairs))
            unfinished = Unfinished(rule_file, CaseComponents, attrgetter("stamp"), labels.model_dump_json())
            find = partial(_components, labels)
            cases = dict(map_and_keep(find, pairs, "finding components", unfinished, name=_name, num_workers=workers))
            steps = choose_components([cases[pair] for pair in pairs])
            scores = _score(labels, steps, pairs, workers, rule_file)
        before, after = scores.before.foreground_mean.dice, scores.after.foreground_mean.dice
        if not steps.does_nothing and (after or 0.0) - (before or 0.0) < LEAST_GAIN:
            logger.info("%s: %+.4f Dice; not used", "; ".join(steps.describe(labels)), (after or 0.0) - (before or 0.0))
            steps, after = PostProcessing(), before
        rule = Rule(postprocessing=steps, labels=labels, dice=after, dice_without=before)
        write_record(rule_file, rule)
        if write_results:
            _apply_to_all(folder, results, steps, labels, num_processes, keep=True)
            evaluate(reference, results, num_processes=num_processes, common=True, labels=labels, nnunet_keys=True)
            forget_unfinished(_applied(results))
        forget_unfinished(rule_file)
    return rule


def apply_postprocessing(
    folder: Path, out: Path, rule_file: Path, *, dataset_json: Path | None = None, num_processes: int | None = None
) -> None:
    """Apply a post-processing to every segmentation in a folder; the same call goes on after a kill.

    Args:
        folder: Predictions.
        out: Folder for the results, with the names and geometries of the predictions.
        rule_file: `postprocessing.json`, or `best.json` of `find_best_configuration`.
        dataset_json: The meaning of the values; None: that of the rule, of the folder, or of its `prediction.json`.
        num_processes: Worker processes.

    Raises:
        InputError: If the rule cannot be read or needs probabilities, the meaning of the values is not known, there
            are no predictions, or they would be overwritten.
        BusyError: If another process writes into one of the folders.
    """
    steps, own_labels = _read_rule(rule_file)
    if steps.thresholds:
        raise InputError(
            f"{rule_file}: its thresholds need probabilities; `seg25d predict` without -c applies them by itself"
        )
    labels = own_labels if own_labels is not None and dataset_json is None else _labels(folder, dataset_json)
    if folder.resolve() == out.resolve():
        raise InputError(f"the results would overwrite the predictions in {folder}; give another folder with -o")
    _apply_to_all(folder, out, steps, labels, num_processes)


def _apply_to_all(
    folder: Path, out: Path, steps: PostProcessing, labels: Labels, num_processes: int | None, *, keep: bool = False
) -> None:
    """Write the results, but for those that are there since a call which was cut off; `keep` that they are there."""

    def is_there(path: Path, written: _Stamp) -> bool:
        result = out / path.name
        return result.exists() and _stamp(result) == written

    paths = list(find_segmentations(folder).values())
    workers = choose_num_workers(num_processes, _BYTES_PER_WORKER, len(paths))
    apply = partial(_apply, labels, steps, out)
    options = [str(folder.resolve()), *_options(labels, steps)]
    unfinished = Unfinished(_applied(out), _Stamp, _stamp, options, is_there)
    with reading_lock(folder, "post-processing"), folder_lock(out, "post-processing"):
        for _ in map_and_keep(apply, paths, "post-processing", unfinished, name=str, num_workers=workers):
            pass
        if not keep:
            forget_unfinished(_applied(out))


def _applied(out: Path) -> Path:
    return out / RESULTS_NAME


def _stamp(path: Path) -> _Stamp:
    """Name, size and time of the files of a segmentation."""
    return source_stamp(Case(name=path.name, images=(path,)))


def _options(labels: Labels, steps: PostProcessing) -> list[Any]:
    return [labels.model_dump_json(), steps.model_dump(mode="json")]


def _read_rule(path: Path) -> tuple[PostProcessing, Labels | None]:
    if path.suffix in _PICKLES:
        raise InputError(
            f"{path} is a pickle, which could run code and is never read; expected {RULE_NAME} of `seg25d "
            "determine_postprocessing -i PREDICTIONS -ref TRUTH`, or best.json of find_best_configuration"
        )
    value = read_json(path)
    if isinstance(value, dict) and "members" in value:
        return parse_record(value, Best, str(path)).postprocessing, None
    rule = parse_record(value, Rule, str(path))
    return rule.postprocessing, rule.labels


def _labels(folder: Path, dataset_json: Path | None, reference: Path | None = None) -> Labels:
    """The meaning of the values of a folder's segmentations."""
    if dataset_json is not None:
        return read_description(dataset_json).labels
    if (folder / RECORD_NAME).exists() and not (folder / "dataset.json").exists():
        labels = read_record(folder / RECORD_NAME, PredictionRecord).labels
        if labels is not None:
            return labels
    found = find_labels(reference or folder, folder)
    if found is None:
        raise InputError(f"{folder}: the meaning of the values is not known; give dataset.json with -dataset_json FILE")
    return found


def _name(pair: Pair) -> str:
    return pair.case


def _components(labels: Labels, pair: Pair) -> CaseComponents:
    read = read_pair(labels, pair)
    return find_components(read.prediction, read.reference, labels, read.spacing_mm)


def _score(labels: Labels, steps: PostProcessing, pairs: list[Pair], workers: int, rule_file: Path) -> _Scores:
    """Scores without and with all steps together: regions may overlap, so that each alone says too little."""
    unfinished = Unfinished(rule_file, tuple[CaseSummary, CaseSummary], attrgetter("stamp"), _options(labels, steps))
    score = partial(_score_case, labels, steps)
    scored = dict(map_and_keep(score, pairs, "scoring post-processing", unfinished, name=_name, num_workers=workers))
    return _Scores(*(summarize([scored[pair][which] for pair in pairs]) for which in (0, 1)))


def _score_case(labels: Labels, steps: PostProcessing, pair: Pair) -> tuple[CaseSummary, CaseSummary]:
    read = read_pair(labels, pair)
    after = remove_components(read.prediction, labels, read.spacing_mm, steps)
    first, second = (
        CaseSummary(case=pair.case, metrics=case_metrics(read.reference, each, read.foreground, read.spacing_mm))
        for each in (read.prediction, after)
    )
    return first, second


def _apply(labels: Labels, steps: PostProcessing, out: Path, path: Path) -> _Stamp:
    from seg25d.data.image_io import read_labels, write_labels  # noqa: PLC0415 - loads SimpleITK

    array, geometry = read_labels(path, labels.names)
    indices = remove_components(labels.encode(array, str(path)), labels, geometry.canonical_spacing_mm, steps)
    write_labels(out / path.name, labels.decode(indices), geometry)
    return _stamp(out / path.name)
