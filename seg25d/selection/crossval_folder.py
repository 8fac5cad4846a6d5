"""The predictions of all validation cases of a run in one folder, with their scores under nnU-Net's keys."""

import json
import logging
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file, write_text
from seg25d.core.locks import folder_lock
from seg25d.core.records import read_record
from seg25d.core.workspace import Workspace
from seg25d.data.dataset import read_description, read_splits
from seg25d.evaluation.nnunet_summary import nnunet_summary
from seg25d.evaluation.pairs import Pair, find_segmentations
from seg25d.evaluation.summary import Summary, summarize
from seg25d.runs.names import parse_folds
from seg25d.runs.trained import ModelChoice, choose_run

logger = logging.getLogger(__name__)


def accumulate_crossval_results(
    workspace: Workspace,
    identifier: str,
    configuration: str,
    folds: Sequence[str] | None = None,
    out: Path | None = None,
) -> Path:
    """Copy the predicted validation cases of folds into one folder, with `summary.json` of all of them.

    Scores are those of the folds, which are of whole cases; nothing is computed again.

    Args:
        workspace: The workspace.
        identifier: Data set: `1`, `001` or `Dataset001_Name`.
        configuration: A configuration or the name of a run.
        folds: Numbers; None: all.
        out: The folder; None: `crossval_results_folds_0_1_2_3_4` and the like in the run's, which is made anew.

    Returns:
        The folder.

    Raises:
        InputError: If a fold is not trained and scored, a case is in two of them, or `out` is not empty; nothing is
            written then.
        BusyError: If another process writes into the folder.
    """
    name = workspace.dataset_name(identifier)
    run = choose_run(workspace, ModelChoice(dataset=name, configuration=configuration))
    if not run.splits.exists():
        raise InputError(f"{run.root} was installed: its validation cases are not known")
    chosen = parse_folds(folds or ["cv"], len(read_splits(run.splits)))
    folders = [run.fold(fold).validation for fold in chosen]
    missing = [
        str(fold) for fold, folder in zip(chosen, folders, strict=True) if not (folder / "summary.json").exists()
    ]
    if missing:
        words = f"train {identifier} {configuration} {' '.join(missing)}"
        raise InputError(f"{run.root}: fold {', '.join(missing)} is not trained and scored; run `seg25d {words}`")
    cases = [case for folder in folders for case in read_record(folder / "summary.json", Summary).per_case]
    if doubled := sorted(name for name, count in Counter(case.case for case in cases).items() if count > 1):
        raise InputError(f"{', '.join(doubled[:5])}: validation cases of more than one of these folds; choose others")
    files = {case: path for folder in folders for case, path in find_segmentations(folder).items()}
    if any(case.case not in files for case in cases):
        raise InputError(f"{run.root}: segmentations of validation cases are missing; `train ... --val` makes them")
    copied = (*files.values(), run.dataset, run.plans)
    ours = {*(path.name for path in copied), "summary.json"}
    if out is not None and out.is_dir() and any(path.name not in ours for path in _visible(out)):
        raise InputError(f"{out} is not empty; name another folder with -o, so that nothing is lost")
    target = out or run.root / f"crossval_results_folds_{'_'.join(map(str, chosen))}"
    labels, truth = read_description(run.dataset).labels, workspace.raw_dataset(name) / "labelsTr"
    with folder_lock(target, "collecting predictions"):
        for path in _visible(target):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in copied:
            copy_file(path, target / path.name)
        names = {case: path.name for case, path in files.items()}
        pairs = [Pair(each.case, truth / names[each.case], target / names[each.case]) for each in cases]
        summary = nnunet_summary(summarize(cases), pairs, labels)
        write_text(target / "summary.json", json.dumps(summary, indent=4) + "\n")
    logger.info("%s: %d cases of fold %s", target, len(cases), ", ".join(map(str, chosen)))
    return target


def _visible(folder: Path) -> list[Path]:
    """What is in a folder, without locks and what is kept of commands that were cut off."""
    return [path for path in folder.iterdir() if not path.name.startswith(".")]
