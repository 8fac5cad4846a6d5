import pytest

from seg25d.representations.base import VolumeGeometry
from seg25d.representations.stack import Stack


def test_stacks_are_as_long_as_the_window() -> None:
    stack = Stack(stack_size=32, overlap=20, predicted_overlap=16, axis=1)
    assert stack.refit((64, 48, 64)) == Stack(stack_size=48, overlap=30, predicted_overlap=24, axis=1)
    assert stack.refit((64, 1, 64)) == Stack(stack_size=1, overlap=0, predicted_overlap=0, axis=1)
    assert stack.regular_steps == (1, 12, 16, True)


@pytest.mark.parametrize("name", ["overlap", "predicted_overlap"])
def test_stacks_have_to_move_on(name: str) -> None:
    with pytest.raises(ValueError, match="must be smaller than stack_size 8"):
        Stack(**{"stack_size": 8, name: 8})


def test_candidates_are_whole_slices_first() -> None:
    geometry = VolumeGeometry(shape=(60, 200, 160), spacing_mm=(3, 1, 1))
    candidates = list(Stack.candidates(geometry, axis=0))
    windows = [window for _, window in candidates]
    assert windows[0] == (60, 200, 160)
    assert candidates[0][0] == Stack(stack_size=60, overlap=38)
    assert all(window[1:] == (200, 160) for window in windows if window[0] > 8)
    assert windows[-1][0] == 8
    assert windows[-1][1] < 60
    assert all(representation.stack_size == window[0] for representation, window in candidates)


def test_a_stack_is_as_deep_as_the_window() -> None:
    Stack(stack_size=8, axis=1).check((4, 8, 4), (1, 1, 1))
    with pytest.raises(ValueError, match="stack_size 8 differs from the window's 4 slices along axis 1; give both"):
        Stack(stack_size=8, axis=1).check((8, 4, 8), (1, 1, 1))
