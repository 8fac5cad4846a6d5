"""Folds for cross-validation: those of nnU-Net where it makes any, without splitting patients."""

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from seg25d.core.errors import InputError
from seg25d.data.dataset import Dataset, Split
from seg25d.data.problems import first_names
from seg25d.data.splits import short_path

logger = logging.getLogger(__name__)
NUM_FOLDS = 5
SEED = 12345
"""Folds and seed of nnU-Net (utilities/crossval_split.py, generate_crossval_split)."""


def choose_splits(dataset: Dataset, num_folds: int = NUM_FOLDS, seed: int = SEED) -> tuple[Split, ...]:
    """Return the folds of a data set: those that it brings along, checked when read, else those of `make_splits`.

    Args:
        dataset: Cases and patients.
        num_folds: See `make_splits`, as the seed.
        seed: Of the shuffling.

    Raises:
        InputError: If there are no cases.
    """
    if dataset.splits is None:
        return make_splits([case.name for case in dataset.cases], dataset.patients, num_folds, seed)
    for note in dataset.splits_notes:
        logger.warning("%s: %s", dataset.name, note)
    for fold, split in enumerate(dataset.splits):
        _warn_about_patients(dataset, fold, split)
    in_folds = {case for split in dataset.splits for case in (*split.train, *split.val)}
    if unused := [case.name for case in dataset.cases if case.name not in in_folds]:
        logger.warning(
            "%s: %d of %d cases are in no fold of %s, so that nothing is trained or validated on them: %s",
            dataset.name,
            len(unused),
            len(dataset.cases),
            _given_by(dataset),
            first_names(unused),
        )
    for path in dataset.differing_splits:
        logger.warning(
            "%s: %s and %s have different folds; %s counts, remove the other one",
            dataset.name,
            _given_by(dataset),
            short_path(path),
            _given_by(dataset),
        )
    return dataset.splits


def splits_reason(dataset: Dataset, splits: Sequence[Split], seed: int = SEED) -> str:
    """Explain where the folds of a data set come from.

    Args:
        dataset: The data set.
        splits: Its folds, as `choose_splits` gives them.
        seed: As it was given to `choose_splits`.
    """
    if dataset.splits is not None:
        ignored = "".join(f"; {short_path(path)} has others and does not count" for path in dataset.differing_splits)
        return f"{len(splits)}, those of {_given_by(dataset)}{ignored}"
    number, unit = len(splits), "patient" if dataset.patients else "case"
    if number == 1:
        return (
            f"1, which trains and validates on the same cases, as there is one {unit}: its scores say little about new "
            "ones"
        )
    if number < NUM_FOLDS and number == len(_group([case.name for case in dataset.cases], dataset.patients)):
        return f"{number}, one {unit} each, as there are fewer than {NUM_FOLDS}"
    if dataset.patients:
        return f"{number}, with whole patients of patients.json dealt out, seed {seed}"
    like = "as nnU-Net makes them" if number == NUM_FOLDS else f"in the way in which nnU-Net makes its {NUM_FOLDS}"
    return f"{number}, made of the sorted names of the cases with seed {seed}, {like}"


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


def _given_by(dataset: Dataset) -> str:
    return "the data set" if dataset.splits_file is None else short_path(dataset.splits_file)


def _warn_about_patients(dataset: Dataset, fold: int, split: Split) -> None:
    patients = dataset.patients
    shared = {patients.get(case) for case in split.train} & {patients.get(case) for case in split.val} - {None}
    if shared:
        logger.warning(
            "%s, fold %d: patients in train and in val: %s; its scores will be too good",
            _given_by(dataset),
            fold,
            ", ".join(sorted(str(patient) for patient in shared)),
        )
