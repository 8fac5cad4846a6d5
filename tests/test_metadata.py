"""What states the version, the commands and the licence says the same everywhere."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
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


def required(lines: list[str]) -> set[str]:
    """The packages that requirements name, as written but in small letters and without what is after the name."""
    return {re.split(r"[^\w-]", line)[0].lower() for line in lines}


def imported() -> set[str]:
    """The distributions whose modules seg25d imports, also late; those that are not installed by their module."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "seg25d").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    modules = {name.split(".")[0] for name in names} - {*sys.stdlib_module_names, "seg25d"}
    known = packages_distributions()
    return {name.lower() for module in modules for name in known.get(module, [module])}


def test_the_base_has_all_that_is_imported_and_nothing_that_is_not() -> None:
    base = required(PROJECT["dependencies"])
    extras = {name: required(lines) for name, lines in PROJECT["optional-dependencies"].items()}
    found = imported()
    assert base <= found, "nothing imports it: leave it out, or make it an extra"
    optional = set().union(*(names for extra, names in extras.items() if extra not in ("docs", "test")))
    also = {"mlflow", "pydantic_core", "markupsafe"}  # of mlflow-skinny, pydantic and Jinja2
    assert found - base <= optional | also, "imported, but neither in the base nor in an extra"


def test_the_table_of_extras_has_all_of_them() -> None:
    page = (ROOT / "documentation" / "get_started" / "installation.md").read_text(encoding="utf-8")
    assert all(f"`{extra}`" in page for extra in PROJECT["optional-dependencies"])


def test_licence_is_that_of_the_citation() -> None:
    assert f"\nlicense: {PROJECT['license']}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_the_light_requirements_are_versions_that_the_tests_passed_with_and_have_no_torch() -> None:
    """Both lists also go with the source distribution."""
    light, constraints = (
        [line.lower() for line in (ROOT / name).read_text("utf-8").splitlines() if line and not line.startswith("#")]
        for name in ("requirements-light.txt", "constraints.txt")
    )
    assert set(light) <= set(constraints)
    needed = {"numpy", "scipy", "simpleitk", "pydantic", "onnxruntime"}
    assert needed <= required(light)
    assert not {"torch", "monai", "batchgenerators", "safetensors", "matplotlib"} & required(light)
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8")
    assert {"requirements-light.txt", "constraints.txt"} <= set(manifest.split())
