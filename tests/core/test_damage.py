"""Damage of a zip file is told; what the disk refuses is not taken for damage."""

import errno
from zipfile import BadZipFile

import pytest

from seg25d.core.damage import damage_told
from seg25d.core.errors import InputError


@pytest.mark.parametrize("raised", [BadZipFile("no zip"), EOFError(), OSError(errno.EINVAL, "beyond"), KeyError("x")])
def test_damage_is_told(raised: Exception) -> None:
    with (
        pytest.raises(InputError, match=r"a\.zip is damaged"),
        damage_told(lambda _: InputError("a.zip is damaged"), KeyError),
    ):
        raise raised


@pytest.mark.parametrize("raised", [OSError(errno.EIO, "disk"), FileNotFoundError(errno.ENOENT, "none"), KeyError("x")])
def test_all_else_is_raised_unchanged(raised: Exception) -> None:
    with pytest.raises(type(raised)) as caught, damage_told(lambda _: InputError("a.zip is damaged")):
        raise raised
    assert caught.value is raised
