"""A page that is older than its sources is not tested."""

import os
import time
from pathlib import Path

import pytest

from tests.web.conftest import ROOT, SOURCES, check_fresh


def test_a_page_that_is_older_than_its_sources_fails_its_tests(tmp_path: Path) -> None:
    built = tmp_path / "index.html"
    built.touch()
    os.utime(built, (0, 0))
    with pytest.raises(pytest.fail.Exception, match="run `make web`"):
        check_fresh(built)
    os.utime(built, (time.time() + 60,) * 2)
    check_fresh(built)


def test_all_sources_exist() -> None:
    assert [name for name in SOURCES if not (ROOT / name).exists()] == []
