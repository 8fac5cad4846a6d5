import pytest

from seg25d.core.errors import InputError
from seg25d.core.workspace import Workspace
from seg25d.demo.budgets import TIME_BUDGETS_S
from seg25d.demo.run import KINDS, run_demo


def test_every_kind_has_a_budget():
    assert list(KINDS) == list(TIME_BUDGETS_S)


def test_an_unknown_kind_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(InputError, match="'liver'; known: phantom, vessels"):
        run_demo(Workspace.resolve(tmp_path / "here", {}), "liver")
    assert not (tmp_path / "here").exists()
