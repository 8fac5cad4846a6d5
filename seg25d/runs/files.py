"""The files of a run outside its folds: they make models self-contained, and are compared before folds are added."""

import logging
from collections.abc import Sequence

from seg25d.core.errors import InputError
from seg25d.core.files import copy_file
from seg25d.core.leftovers import remove_leftovers
from seg25d.core.records import write_record
from seg25d.core.workspace import PreprocessedFolder, RunFolder
from seg25d.data.dataset import read_description, read_splits
from seg25d.planning.plan import Plans
from seg25d.planning.plans_file import read_plans

logger = logging.getLogger(__name__)


def check_run(
    run: RunFolder, folder: PreprocessedFolder, plans: Plans, configuration: str, restarted: Sequence[int | str]
) -> None:
    """Check that folds which are kept were trained with the same plan, splits, labels and channels as new ones.

    Args:
        run: The run's folder, which need not exist.
        folder: The preprocessed data set.
        plans: Its plans.
        configuration: The configuration to train.
        restarted: Folds that start over.

    Raises:
        InputError: If plan, folds, labels or channels have changed since; names them.
    """
    again = {f"fold_{fold}" for fold in restarted}
    begun = (
        path
        for name in ("checkpoint_last.pt", "model_final.safetensors")
        for kind in ("fold", "pair", "holdout")
        for path in run.root.glob(f"{kind}_*/{name}")
    )
    kept = sorted({path.parent.name for path in begun} - again)
    changed = _find_changes(run, folder, plans, configuration) if kept else []
    if changed:
        raise InputError(
            f"{' and '.join(changed)} changed since {', '.join(kept)} of {run.root} began; restore it, train all "
            "these folds again with --restart (not pair_* and holdout_*, which you may delete), or plan "
            "under another name (--plans-name)"
        )


def _find_changes(run: RunFolder, folder: PreprocessedFolder, plans: Plans, configuration: str) -> list[str]:
    """Find differences between the run's own files and those of the data set; missing files are ignored."""
    changed = []
    if run.plans.exists():
        before = read_plans(run.plans).configurations.get(configuration)
        if before is None or before.decisions != plans.configurations[configuration].decisions:
            changed.append(f"the plan of {configuration}")
    splits = run.splits
    current = folder.recipe_splits(plans.recipe)
    if splits.exists() and read_splits(splits) != read_splits(current):
        changed.append(f"the folds ({current.name})")
    if run.dataset.exists():
        old, new = read_description(run.dataset), read_description(folder.dataset)
        changed += ["the labels (dataset.json)"] if old.labels != new.labels else []
        changed += ["the channels (dataset.json)"] if old.channel_names != new.channel_names else []
    return changed


def write_run_files(run: RunFolder, folder: PreprocessedFolder, plans: Plans) -> None:
    """Write the files that make the trained models self-contained into the run's folder."""
    remove_leftovers(run.root)
    write_record(run.plans, plans)
    splits = folder.recipe_splits(plans.recipe)
    targets = ((folder.dataset, run.dataset), (folder.fingerprint, run.fingerprint), (splits, run.splits))
    for source, target in targets:
        if source.exists():
            copy_file(source, target)
