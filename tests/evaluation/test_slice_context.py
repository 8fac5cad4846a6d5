"""What a file says of the context between slices, by hand."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from seg25d.core.records import write_record
from seg25d.evaluation.slice_context import ChangedSlices, SliceChange, SliceContext, read_slice_context


def context(*dice: float | None, **changed: tuple[float | None, ...]) -> SliceContext:
    changes = {"shuffled": SliceChange(kind="shuffled"), "blank": SliceChange(kind="blanked", nearest=2, farthest=2)}
    return SliceContext(
        axis=0,
        slice_mm=3.0,
        seed=0,
        cases=tuple(f"case_{number}" for number in range(len(dice))),
        dice=dice,
        changes=tuple(ChangedSlices(change=changes[name], dice=each) for name, each in changed.items()),
    )


def test_losses_are_over_the_cases_that_have_both() -> None:
    found = context(0.8, None, 0.6, 0.9, shuffled=(0.7, 0.5, 0.7, None), blank=(None, 0.5, None, None))
    assert found.mean_dice == pytest.approx((0.8 + 0.6 + 0.9) / 3)
    assert found.losses["slices shuffled"] == pytest.approx(((0.8 - 0.7) + (0.6 - 0.7)) / 2)
    assert found.losses["neighbours at 2 blank"] is None
    assert context(None).mean_dice is None


@pytest.mark.parametrize(
    ("nearest", "farthest", "title"),
    [
        (1, None, "all neighbours blank"),
        (4, None, "neighbours from 4 on blank"),
        (2, 2, "neighbours at 2 blank"),
        (2, 5, "neighbours at 2 to 5 blank"),
    ],
)
def test_titles(nearest: int, farthest: int | None, title: str) -> None:
    assert SliceChange(kind="blanked", nearest=nearest, farthest=farthest).title == title


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValidationError, match="expected farthest to be at least nearest, got 1 and 2"):
        SliceChange(kind="blanked", nearest=2, farthest=1)
    with pytest.raises(ValidationError, match="expected a Dice for each of 2 cases"):
        context(0.5, 0.5, shuffled=(0.5,))


def test_what_is_older_than_the_model_is_of_another_one(tmp_path: Path) -> None:
    path, model = tmp_path / "slice_context.json", tmp_path / "model_final.safetensors"
    assert read_slice_context(path, model) is None
    model.touch()
    write_record(path, context(0.5))
    os.utime(model, ns=(0, 0))
    assert read_slice_context(path, model) == context(0.5)
    later = path.stat().st_mtime_ns + 1_000_000_000
    os.utime(model, ns=(later, later))
    assert read_slice_context(path, model) is None
    model.unlink()
    assert read_slice_context(path, model) is None
