from collections.abc import Iterator

import pytest

from tests.untraced import untraced


@pytest.fixture
def bytes_per_voxel() -> Iterator[None]:
    """Every network takes 100 bytes for a voxel, so that nothing is traced."""
    with untraced():
        yield
