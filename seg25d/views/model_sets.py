"""Assignment of cases to models of the views, so that the fusion learns only from predictions on unseen cases.

Cross-cross-augmentation (Xia et al. 2018; methods.md 4.4): the fusion of fold k learns from the cases of every other
fold j, predicted by models that were trained on neither fold k nor fold j. A pair of folds serves both of them: K folds
need K (K - 1) / 2 sets of models beside the K ordinary ones.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from seg25d.core.errors import InputError
from seg25d.data.dataset import Split

HOLDOUT_SHARE = 0.4
"""Share of the training cases that the views of `holdout` are not trained on (Xia et al.: 100 of 250); whole folds
here, so that no patient is split."""


class ModelSet(NamedTuple):
    """One model per view, all trained on the same cases."""

    name: str
    """Name of the folder beside the folds: `fold_0`, `pair_0_1` or `holdout_0`."""
    split: Split
    fold: int | str | None = None
    """The ordinary fold, if the set is one."""


class FusionCases(NamedTuple):
    """The sets of models that the fusion of one fold needs."""

    own: ModelSet
    """The set that is fused in prediction, and on the validation cases."""
    training: dict[str, ModelSet]
    """The set that predicts each training case."""

    @property
    def sets(self) -> list[ModelSet]:
        """All sets without duplicates, its own first."""
        return list({each.name: each for each in (self.own, *self.training.values())}.values())


def fusion_cases(splits: Sequence[Split], fold: int | str, data: Literal["cross", "holdout"]) -> FusionCases:
    """Assign the cases of a fold's fusion to the sets of models that predict them.

    Args:
        splits: Folds of the data set.
        fold: Number of the fold, or `all` for the one that is trained on every case.
        data: `cross` for cross-cross-augmentation; `holdout` for one set, trained without a part of the cases.

    Raises:
        InputError: If there are too few folds; says how many are needed.
    """
    cases = _assign_holdout(splits, fold) if data == "holdout" else _assign_cross(splits, fold)
    empty = [each.name for each in cases.sets if not each.split.train]
    if empty or not cases.training:
        raise InputError(
            f"fold {fold} cannot be fused with {len(splits)} fold(s): no cases are left to train on; put at least "
            "three folds into splits.json, or with two of them fuse fold `all`"
        )
    return cases


def leaks(cases: FusionCases, held_out: Sequence[str], trained_on: Mapping[str, Sequence[str]]) -> list[str]:
    """Find data leaks: training cases of a fusion that are held out, or were seen by the models that predicted them.

    Args:
        cases: Cases of the fusion of a fold.
        held_out: Validation cases of the fold.
        trained_on: The cases that the models of each set were trained on, by the name of the set.

    Returns:
        The cases, including those predicted by a set that saw any held-out case.
    """
    hidden = set(held_out)
    return [
        case
        for case, each in cases.training.items()
        if case in hidden or case in trained_on[each.name] or hidden & set(trained_on[each.name])
    ]


def _assign_cross(splits: Sequence[Split], fold: int | str) -> FusionCases:
    if isinstance(fold, str):
        every = _every_case(splits)
        own = ModelSet(f"fold_{fold}", Split(train=every, val=every), fold)
        sources = {
            case: ModelSet(f"fold_{number}", split, number) for number, split in enumerate(splits) for case in split.val
        }
        return FusionCases(own, {case: each for case, each in sources.items() if case not in each.split.train})
    mine = splits[fold]
    training: dict[str, ModelSet] = {}
    for number, other in enumerate(splits):
        if number != fold:
            pair = _pair(splits, fold, number)
            allowed = set(mine.train) - set(mine.val)
            training |= {case: pair for case in other.val if case in allowed and case not in training}
    return FusionCases(ModelSet(f"fold_{fold}", mine, fold), training)


def _pair(splits: Sequence[Split], first: int, second: int) -> ModelSet:
    """The models trained on neither of two folds, independent of the order of the folds."""
    low, high = sorted((first, second))
    hidden = {*splits[low].val, *splits[high].val}
    both = set(splits[low].train) & set(splits[high].train) - hidden
    return ModelSet(f"pair_{low}_{high}", Split(train=tuple(sorted(both)), val=tuple(sorted(hidden))))


def _assign_holdout(splits: Sequence[Split], fold: int | str) -> FusionCases:
    first = fold + 1 if isinstance(fold, int) else 0
    others = [number % len(splits) for number in range(first, first + len(splits)) if number % len(splits) != fold]
    number = max(1, min(len(others) - 1, round(HOLDOUT_SHARE * len(others))))
    train = set(splits[fold].train) if isinstance(fold, int) else set(_every_case(splits))
    val = splits[fold].val if isinstance(fold, int) else _every_case(splits)
    hidden = set(splits[fold].val) if isinstance(fold, int) else set()
    held_out = sorted({case for other in others[:number] for case in splits[other].val} & train - hidden)
    seen = tuple(sorted(train - set(held_out) - hidden))
    own = ModelSet(f"holdout_{fold}", Split(train=seen, val=val))
    return FusionCases(own, dict.fromkeys(held_out, own))


def _every_case(splits: Sequence[Split]) -> tuple[str, ...]:
    return tuple(sorted({case for split in splits for case in split.train + split.val}))
