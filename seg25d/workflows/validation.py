"""The validation cases of trained folds once more: scored anew, by another model, or with their probabilities."""

import shutil
from functools import partial

from seg25d.core.device import choose_execution
from seg25d.core.errors import InputError
from seg25d.core.locks import folder_lock
from seg25d.ensembling.load import load_predictor
from seg25d.evaluation.summary import Summary
from seg25d.inference.validate import validate_fold
from seg25d.training.processes import local_device
from seg25d.workflows.folds import RunToTrain, split_of, summarize_folds
from seg25d.workflows.options import ValidationOptions


def validate_folds(task: RunToTrain, options: ValidationOptions) -> dict[str, Summary]:
    """Score trained folds once more, as the options ask.

    Args:
        task: Folds that are trained.
        options: What to do; without `validate_only`, what is up to date is kept.

    Returns:
        The scores of the final model of each fold.

    Raises:
        InputError: If a fold is not trained, or has no best model.
        BusyError: If another command works on a fold.
    """
    missing = [str(fold) for fold in task.folds if not task.run.fold(fold).model_final.exists()]
    if missing:
        raise InputError(f"{task.run.root}: fold {', '.join(missing)} is not trained; train it first, without --val")
    execution = choose_execution(local_device(task.device), task.config.precision)
    summaries = {}
    for fold in task.folds:
        folder, cases = task.run.fold(fold), split_of(task.splits, fold).val
        with folder_lock(folder.root, "validating", deep=True):
            if options.validate_only:
                shutil.rmtree(folder.validation, ignore_errors=True)
                shutil.rmtree(folder.validation_best, ignore_errors=True)
                shutil.rmtree(folder.validation_quick, ignore_errors=True)
            predictor = load_predictor([folder.model_final], execution)
            score = partial(validate_fold, folder, task.store, cases, save_probabilities=options.save_probabilities)
            summaries[str(fold)] = score(predictor)
            if options.validate_best:
                if not folder.model_best.exists():
                    raise InputError(f"{folder.root} has no model_best.safetensors; leave --val_best out")
                best = load_predictor([folder.model_best], execution)
                score(best, kind="best")
    summarize_folds(task.run, len(task.splits))
    return summaries
