"""Scores of ensembles on validation cases; a case's probabilities are read in parts to save memory.

Letters: K channels of probabilities, D H W a case.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from seg25d.core.arrays import PART_BYTES, array_parts
from seg25d.core.errors import InputError, RecordError
from seg25d.core.parallel import choose_num_workers
from seg25d.core.records import AnyRecord, Record, digest, read_record, write_record
from seg25d.core.unfinished import Unfinished, map_and_keep
from seg25d.data.labels import Labels
from seg25d.ensembling.fuse import MeanProbabilities
from seg25d.evaluation.metrics import case_metrics
from seg25d.evaluation.summary import CaseSummary, Summary, summarize
from seg25d.inference.postprocessing import PostProcessing, remove_components, threshold_values
from seg25d.inference.probability_maps import open_probability_map
from seg25d.preprocessing.store import Store
from seg25d.selection.candidates import Ensemble, ValidatedRun, shared_threshold

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
Part: TypeAlias = tuple[slice, slice, slice]
"""Slices along (D, H, W) of a case."""
_WORKER_BYTES = 600 << 20
"""Memory of a worker without a case: mainly torch, which the reader of predictions imports."""
_BYTES_PER_VOXEL = 14
"""Memory for a case's labels and what is made of them; probabilities are read part by part, whatever the number of
classes. By the arrays that are there together, in bytes per voxel, where classes fill the volume: truth, labels, and
one of them without ignored voxels 3; masks of a region in both 2, of which the library makes components, whose ids take
4. That makes 9 for lesions (`evaluation/lesions.py`); `choose_postprocessing.py` and `postprocessing.py` come to 8 and
9 in other ways. 5 are for the library's table of parts of components, four bytes for each run of voxels, and for
surfaces, 24 bytes for each of their voxels and 100 for those of the class whose distances are measured. Peaks of 100 x
512 x 512 voxels with 60 classes and scattered false voxels were 10 to 12 (VmHWM, a script that is not kept)."""
_PARTS = 3
"""Parts of the probabilities in memory: as read, multiplied by a weight, and summed."""
SCORING = "scoring candidates"
_LONGEST_NAME = 150
"""Maximum length of a candidate's name in a file name: many file systems allow 255 bytes, and runs have long names."""


@dataclass(frozen=True)
class Validation:
    """The cases that candidates are compared on."""

    runs: Mapping[str, ValidatedRun]
    cases: tuple[str, ...]
    labels: Labels
    store: Store
    """Store with truth and geometry of all cases."""
    scores: Path
    """Folder for the scores of candidates, so that they are computed only once."""
    num_processes: int | None = None

    @cached_property
    def case_keys(self) -> dict[str, str]:
        """A key of each case that changes when its files change, as scores against an old truth are not valid."""
        return {case: self.store.record(case).source_key for case in self.cases}

    def item(self, ensemble: Ensemble, case: str) -> "CaseToScore":
        """The input of a worker that fuses a case."""
        members = [self.runs[name] for name in ensemble.runs]
        paths = tuple(run.probability_map(case) for run in members)
        return CaseToScore(ensemble, case, paths, shared_threshold(members))

    def truth(self, case: str) -> NDArray[np.uint8]:
        """The true labels (D, H, W) of a case, internal indices."""
        return self.store.read_reference(case)

    def over_cases(
        self,
        function: "Callable[[Validation, CaseToScore], Result]",
        items: "Sequence[CaseToScore]",
        description: str,
        kind: Any,
        options: Any = None,
    ) -> "Iterator[tuple[CaseToScore, Result]]":
        """Apply a module-level function to items in worker processes; results come in any order.

        What it gets of this has neither runs nor cases. Results are kept until the end of `find_best.held`; `kind` and
        `options` are those of `Unfinished`.
        """
        shapes = [self.store.record(case).geometry.canonical_shape for case in self.cases]
        voxels = max(math.prod(shape) for shape in shapes)
        workers = choose_num_workers(self.num_processes, worker_bytes(voxels), len(items))
        # It goes to a worker with every item: without what is long where there are many cases, and not needed there.
        known = replace(self, runs={}, cases=())
        basis = [self.labels.model_dump_json(), options]
        unfinished = Unfinished(passes_of(self.scores), kind, self._item_stamp, basis)
        return map_and_keep(
            partial(function, known), items, description, unfinished, name=lambda item: item.case, num_workers=workers
        )

    def _item_stamp(self, item: "CaseToScore") -> dict[str, Any]:
        """Plain JSON values that change when models, weights, probabilities or the case change."""
        runs = [self.runs[name] for name in item.ensemble.runs]
        files = [path.stat() for path in item.maps if path.exists()]
        return {
            "case": (item.case, self.case_keys[item.case]),
            "models": [run.stamps[run.case_folds[item.case]] for run in runs],
            "probabilities": [(file.st_size, file.st_mtime_ns) for file in files],
            "fusion": (item.ensemble.runs, item.ensemble.weights, item.threshold),
        }


class CaseToScore(NamedTuple):
    """A case, and the files of the probabilities that are averaged."""

    ensemble: Ensemble
    case: str
    maps: tuple[Path, ...]
    threshold: float | None


class CandidateScores(Record):
    """The file of a candidate's scores."""

    schema_version: Literal[1] = 1
    models: str
    """Digest that changes when models, weights or cases change, including their truth."""
    summary: Summary


def passes_of(scores: Path) -> Path:
    """The name beside which the results of passes over cases are kept, in the folder of the scores of candidates."""
    return scores / "passes"


def worker_bytes(num_voxels: int) -> int:
    """Memory of a process that scores or measures the largest case, whatever the number of its classes."""
    return _WORKER_BYTES + _BYTES_PER_VOXEL * num_voxels + _PARTS * PART_BYTES


def score_ensembles(validation: Validation, ensembles: Sequence[Ensemble]) -> dict[Ensemble, Summary]:
    """Score ensembles on all cases; scores of the same models are kept.

    Returns:
        The summary per ensemble, in the given order.
    """
    known = {ensemble: _read_valid_scores(validation, ensemble) for ensemble in ensembles}
    scored: dict[Ensemble, dict[str, CaseSummary]] = {each: {} for each, summary in known.items() if summary is None}
    items = [validation.item(ensemble, case) for ensemble in scored for case in validation.cases]
    for item, case in validation.over_cases(score_case, items, SCORING, CaseSummary):
        scored[item.ensemble][item.case] = case
        if len(scored[item.ensemble]) == len(validation.cases):
            summary = summarize(tuple(scored.pop(item.ensemble).values()))
            known[item.ensemble] = summary
            scores = CandidateScores(models=_stamp(validation, item.ensemble), summary=summary)
            write_record(_path(validation.scores, item.ensemble), scores)
    return {ensemble: summary for ensemble, summary in known.items() if summary is not None}


def score_case(validation: Validation, item: CaseToScore, postprocessing: PostProcessing | None = None) -> CaseSummary:
    """Compute the scores of a case."""
    labels, geometry = validation.labels, validation.store.record(item.case).geometry
    steps = postprocessing or PostProcessing()
    indices = fused_labels(item, labels, threshold_values(steps, labels))
    indices = remove_components(indices, labels, geometry.canonical_spacing_mm, steps)
    metrics = case_metrics(validation.truth(item.case), indices, labels.foreground, geometry.canonical_spacing_mm)
    return CaseSummary(case=item.case, metrics=metrics)


def fused_labels(item: CaseToScore, labels: Labels, thresholds: Sequence[float] | None = None) -> NDArray[np.uint8]:
    """Compute the internal indices (D, H, W) of a case.

    Args:
        item: The case and the probabilities to average.
        labels: Meaning of the probabilities.
        thresholds: Thresholds that replace the ensemble's own, see `Labels.from_probabilities`.
    """
    indices = np.empty(open_probability_map(item.maps[0]).shape[1:], np.uint8)
    for part, mean in fused_parts(item):
        indices[part] = labels.from_probabilities(mean, item.threshold if thresholds is None else thresholds)
    return indices


def fused_parts(item: CaseToScore) -> Iterator[tuple[Part, NDArray[np.float32]]]:
    """Average the probabilities of a case in parts, see `array_parts`: yields slices and (K, d, h, w).

    Raises:
        InputError: If the probabilities of the members have different shapes.
    """
    maps = [open_probability_map(path) for path in item.maps]
    shapes = {each.path: each.shape for each in maps}
    if len(set(shapes.values())) > 1:
        listed = ", ".join(f"{shape} in {path}" for path, shape in shapes.items())
        raise InputError(f"{item.case}: probabilities have different shapes: {listed}; was the image replaced?")
    mean = MeanProbabilities(maps, item.ensemble.weights)
    for part in array_parts(mean.shape):
        yield part, mean[(slice(None), *part)]


def read_scores(folder: Path, ensemble: Ensemble) -> Summary | None:
    """Read the last scores of a candidate; None if they do not exist or are damaged.

    Args:
        folder: Folder of the scores of all candidates.
        ensemble: The candidate.
    """
    scores = _read(_path(folder, ensemble), CandidateScores)
    return scores.summary if scores else None


def _path(folder: Path, ensemble: Ensemble) -> Path:
    name = ensemble.name.replace(" + ", "+").replace(" ", "_")
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]}-{digest(name, 8)}"
    return folder / f"{name}.json"


def _stamp(validation: Validation, ensemble: Ensemble) -> str:
    value: dict[str, Any] = {
        "runs": [validation.runs[name].stamp for name in ensemble.runs],
        "weights": ensemble.weights,
        "cases": validation.case_keys,
    }
    return digest(value)


def _read_valid_scores(validation: Validation, ensemble: Ensemble) -> Summary | None:
    scores = _read(_path(validation.scores, ensemble), CandidateScores)
    return scores.summary if scores and scores.models == _stamp(validation, ensemble) else None


def _read(path: Path, kind: type[AnyRecord]) -> AnyRecord | None:
    try:
        return read_record(path, kind) if path.exists() else None
    except RecordError as error:
        logger.warning("%s; find_best_configuration computes the scores again", error)
        return None
