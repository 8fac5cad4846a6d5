from dataclasses import replace

import pytest

from seg25d import api
from seg25d.cli.main import main
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


@pytest.mark.parametrize("words", [["--restart"], []])
def test_restart_reaches_the_trainings(words, tmp_path, monkeypatch):
    asked = []

    def stop(*arguments):
        asked.append(arguments[-1].restart)
        raise InputError("as far as that")

    monkeypatch.setitem(KINDS, "phantom", replace(KINDS["phantom"], write=lambda _: None))
    monkeypatch.setattr(api, "plan_and_preprocess", lambda *_: {KINDS["phantom"].dataset_name: None})
    monkeypatch.setattr(api, "train", stop)
    assert main(["demo", "--workspace", str(tmp_path), *words]) == 2
    assert asked == [bool(words)]
