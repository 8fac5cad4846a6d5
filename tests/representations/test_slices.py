from seg25d.representations.base import VolumeGeometry
from seg25d.representations.slices import SMALLEST_DEPTH, Slices


def test_windows_are_no_deeper_than_leaves_enough_updates() -> None:
    def first(enough_voxels: int | None, axis: int = 0) -> tuple[int, int, int]:
        geometry = VolumeGeometry(shape=(60, 50, 40), spacing_mm=(3, 1, 1), enough_voxels=enough_voxels)
        return next(Slices.candidates(geometry, axis=axis, context=2))[1]

    assert first(None) == (60, 50, 40)
    assert first(50 * 40 * 20 + 1999) == (20, 50, 40)
    assert first(60 * 40 * 12, axis=1) == (60, 12, 40)
    assert first(10**9) == (60, 50, 40)
    assert first(1) == (SMALLEST_DEPTH, 50, 40)


def test_a_window_is_never_too_shallow_for_the_neighbours() -> None:
    geometry = VolumeGeometry(shape=(60, 50, 40), spacing_mm=(3, 1, 1), enough_voxels=1)
    assert next(Slices.candidates(geometry, axis=0, context=7))[1] == (15, 50, 40)
