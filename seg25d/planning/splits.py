"""Folds for cross-validation: those of nnU-Net where it makes any, without splitting patients."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from seg25d.core.errors import InputError
from seg25d.data.dataset import Dataset, Split

logger = logging.getLogger(__name__)
NUM_FOLDS = 5
SEED = 12345
"""Folds and seed of nnU-Net (utilities/crossval_split.py, generate_crossval_split)."""


def choose_splits(dataset: Dataset, num_folds: int = NUM_FOLDS, seed: int = SEED) -> tuple[Split, ...]:
    """Return the folds of a data set: those of its `splits.json`, checked when read, else those of `make_splits`.

    Args:
        dataset: Cases and patients.
        num_folds: See `make_splits`, as the seed.
        seed: Of the shuffling.

    Raises:
        InputError: If there are no cases.
    """
    if dataset.splits is None:
        return make_splits([case.name for case in dataset.cases], dataset.patients, num_folds, seed)
    for fold, split in enumerate(dataset.splits):
        _warn_about_patients(fold, split, dataset.patients)
    return dataset.splits


def make_splits(
    cases: Sequence[str], patients: Mapping[str, str], num_folds: int = NUM_FOLDS, seed: int = SEED
) -> tuple[Split, ...]:
    """Divide cases into folds.

    Without patients the folds are those of scikit-learn's `KFold(num_folds, shuffle=True, random_state=seed)` on the
    sorted names, thus nnU-Net's. With patients, whole patients are dealt out, the largest first, each to the smallest
    fold, ties in a seeded order.

    Args:
        cases: Names, in any order.
        patients: Patient per case; a case without one is a patient of its own.
        num_folds: Fewer are made when there are fewer patients.
        seed: Of the shuffling.

    Returns:
        The folds, with sorted names. With one patient there is one fold that validates on what it trains on, and a
        warning says so.

    Raises:
        InputError: If there are no cases.
    """
    names = sorted(cases)
    if not names:
        raise InputError("there are no cases to divide into folds")
    groups = _group(names, patients)
    if len(groups) == 1:
        logger.warning(
            "%d case(s) of one patient: the only fold validates on the cases that it trains on, so its scores say "
            "nothing about other patients",
            len(names),
        )
        return (Split(train=tuple(names), val=tuple(names)),)
    if len(groups) < num_folds:
        logger.warning("only %d patients: %d folds instead of %d", len(groups), len(groups), num_folds)
    folds = _deal(groups, min(num_folds, len(groups)), seed)
    return tuple(
        Split(train=tuple(name for name in names if name not in fold), val=tuple(sorted(fold))) for fold in folds
    )


def _group(names: Sequence[str], patients: Mapping[str, str]) -> list[list[str]]:
    """Group cases by patient, in the order of the first case."""
    groups: dict[tuple[bool, str], list[str]] = {}
    for name in names:
        # A case without a patient must not be grouped with a patient of the same name.
        key = (True, patients[name]) if name in patients else (False, name)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _deal(groups: Sequence[Sequence[str]], num_folds: int, seed: int) -> list[set[str]]:
    # RandomState is what scikit-learn's KFold shuffles with; its stream never changes.
    shuffled = np.arange(len(groups))
    np.random.RandomState(seed).shuffle(shuffled)
    order: list[int] = shuffled.tolist()
    folds: list[set[str]] = [set() for _ in range(num_folds)]
    if all(len(group) == 1 for group in groups):
        for fold, members in zip(folds, np.array_split(shuffled, num_folds), strict=True):
            fold.update(groups[index][0] for index in members.tolist())
        return folds
    for index in sorted(order, key=lambda index: -len(groups[index])):
        min(folds, key=len).update(groups[index])
    return folds


def _warn_about_patients(fold: int, split: Split, patients: Mapping[str, str]) -> None:
    shared = {patients.get(case) for case in split.train} & {patients.get(case) for case in split.val} - {None}
    if shared:
        logger.warning(
            "splits.json, fold %d: patients in train and in val: %s; its scores will be too good",
            fold,
            ", ".join(sorted(str(patient) for patient in shared)),
        )
