"""The only variant of a configuration stands for it."""

import pytest

from seg25d.core.errors import InputError
from seg25d.runs.trained import only_variant


@pytest.mark.parametrize(
    ("runs", "found"),
    [
        (["mv", "mv__holdout"], "mv"),
        (["axial", "mv__holdout"], "mv__holdout"),
        (["mv__joint__holdout"], "mv__joint__holdout"),
        (["mv__xia2018"], "mv"),
        (["mv__nnUNetTrainer_5epochs", "mvx__fine"], "mv"),
        ([], "mv"),
    ],
)
def test_the_only_variant_is_found(runs: list[str], found: str) -> None:
    assert only_variant("mv", runs) == found


def test_of_several_variants_one_has_to_be_named() -> None:
    with pytest.raises(InputError, match="of mv, mv__fine, mv__holdout are trained; name one of them"):
        only_variant("mv", ["mv__fine", "mv__holdout"])


@pytest.mark.parametrize(
    ("runs", "additions", "found"),
    [
        (["axial__fine__xia2018", "mv__fine__xia2018"], ["xia2018"], "mv__fine__xia2018"),
        (["mv__fine__xia2018"], [], "mv"),
        (["mv__fine__xia2018__big"], ["xia2018"], "mv"),
        (["mv__fine__xia2018__big"], ["big", "xia2018"], "mv__fine__xia2018__big"),
    ],
)
def test_the_only_variant_of_a_recipe_is_found(runs: list[str], additions: list[str], found: str) -> None:
    assert only_variant("mv", runs, additions) == found
