"""What states the version, the commands and the licence says the same everywhere."""

import re
import tomllib
from pathlib import Path

import pytest

import seg25d
from seg25d.cli import nnunet_programs
from seg25d.cli.main import NNUNET

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_version_is_that_of_the_citation_and_the_changelog() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    versions = re.findall(r"^version: (.+)$", citation, flags=re.MULTILINE)
    dates = re.findall(r"^date-released: (.+)$", citation, flags=re.MULTILINE)
    assert versions == [seg25d.__version__]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## {versions[0]} - {dates[0]}\n" in changelog


def test_every_command_has_a_script_of_its_own() -> None:
    modules = {path.stem for path in (ROOT / "seg25d" / "cli").glob("*.py") if "\nmain = " in path.read_text("utf-8")}
    scripts = {f"seg25d_{name}": f"seg25d.cli.{name}:main.script" for name in modules}
    scripts |= {f"seg25d_{name}": f"seg25d.cli.nnunet_programs:{name}" for name in NNUNET}
    assert PROJECT["scripts"] == {"seg25d": "seg25d.cli.main:script", **scripts}
    for name in NNUNET:
        assert getattr(nnunet_programs, name) == NNUNET[name].script
    with pytest.raises(AttributeError):
        getattr(nnunet_programs, "no_such")  # noqa: B009 - what an entry point does


def test_licence_is_that_of_the_citation() -> None:
    assert f"\nlicense: {PROJECT['license']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
