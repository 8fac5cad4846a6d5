import shutil
from pathlib import Path

import pytest

from seg25d import api
from seg25d.core.workspace import Workspace


@pytest.fixture(scope="session")
def page_file(chosen_once, tmp_path_factory) -> Path:
    """The report of a data set with two whole runs, a run with one fold, and a chosen ensemble or run."""
    root = tmp_path_factory.mktemp("reported") / "workspace"
    shutil.copytree(chosen_once, root)
    return api.report(Workspace.resolve(root, {}), "900", num_processes=0)
