"""What all attempts of the campaign start from, made once."""

from pathlib import Path

import pytest
from faults.workspace import prepare


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace before and after every step, undisturbed."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(folder)
    return folder
