"""Which models of the views predict which cases, so that what fuses them learns from honest predictions only.

Cross-cross-augmentation (Xia et al. 2018; methods.md 4.4): what fuses the views of fold k learns from the cases of
every other fold j, predicted by models that saw neither fold k nor fold j. Such a pair of folds serves both of them: K
folds take K (K - 1) / 2 sets of models beside the K ordinary ones.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from seg25d.core.errors import InputError
from seg25d.data.dataset import Split

HOLDOUT_SHARE = 0.4
"""Share of the training cases that the views of `holdout` go without (Xia et al.: 100 of 250); here whole folds, so
that no patient is split."""


class ModelSet(NamedTuple):
    """One model per view, all trained on the same cases."""

    name: str
    """Name of the folder beside the folds: `fold_0`, `pair_0_1` or `holdout_0`."""
    split: Split
    fold: int | str | None = None
    """The ordinary fold that it is, if it is one."""


class FusionCases(NamedTuple):
    """What the fusion of one fold needs."""

    own: ModelSet
    """What it fuses when it is used, and on its validation cases."""
    training: dict[str, ModelSet]
    """Per training case the set that predicts it."""

    @property
    def sets(self) -> list[ModelSet]:
        """All of them, each once, its own first."""
        return list({each.name: each for each in (self.own, *self.training.values())}.values())


def fusion_cases(splits: Sequence[Split], fold: int | str, data: Literal["cross", "holdout"]) -> FusionCases:
    """Which sets of models predict which cases for the fusion of a fold.

    Args:
        splits: Of the data set.
        fold: Its number, or `all` for the one that is trained on every case.
        data: `cross` for cross-cross-augmentation; `holdout` for one set, trained without a part of the cases.

    Raises:
        InputError: If there are too few folds; says how many are enough.
    """
    cases = _holdout(splits, fold) if data == "holdout" else _cross(splits, fold)
    empty = [each.name for each in cases.sets if not each.split.train]
    if empty or not cases.training:
        raise InputError(
            f"fold {fold} cannot be fused with {len(splits)} fold(s): no cases are left to train on; put at least "
            "three folds into splits.json, or with two of them fuse fold `all`"
        )
    return cases


def leaks(cases: FusionCases, held_out: Sequence[str], trained_on: Mapping[str, Sequence[str]]) -> list[str]:
    """Training cases of a fusion that are not honest: of the fold that is held out, or seen by what predicted them.

    Args:
        cases: Of the fusion of a fold.
        held_out: Validation cases of the fold.
        trained_on: Per name of a set the cases that its models were trained on.

    Returns:
        The cases; also those predicted by a set that saw any case that is held out.
    """
    hidden = set(held_out)
    return [
        case
        for case, each in cases.training.items()
        if case in hidden or case in trained_on[each.name] or hidden & set(trained_on[each.name])
    ]


def _cross(splits: Sequence[Split], fold: int | str) -> FusionCases:
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
    """The models that saw neither of two folds: the same in whichever order they are named."""
    low, high = sorted((first, second))
    hidden = {*splits[low].val, *splits[high].val}
    both = set(splits[low].train) & set(splits[high].train) - hidden
    return ModelSet(f"pair_{low}_{high}", Split(train=tuple(sorted(both)), val=tuple(sorted(hidden))))


def _holdout(splits: Sequence[Split], fold: int | str) -> FusionCases:
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
