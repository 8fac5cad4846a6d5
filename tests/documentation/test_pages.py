"""The pages of documentation/: lines, links, and code that runs."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

import seg25d
import seg25d.representations
from seg25d.planning.planner import CONFIGURATIONS
from seg25d.planning.recipe_rules import PLANNING_RULES
from seg25d.representations.base import representations

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "documentation"
PAGES = sorted(path for path in FOLDER.rglob("*.md") if "_build" not in path.parts)
LINK = re.compile(r"\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)
MOST_PICTURE_BYTES = 100_000


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL))


def anchors(page: Path) -> set[str]:
    """The anchors of headings, as GitHub and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_lines_are_short():
    long = [
        f"{page.relative_to(ROOT)}:{number}"
        for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1)
        if len(line) > 120 and not line.lstrip().startswith("|") and "](" not in line
    ]
    assert not long


def test_links_lead_somewhere():
    broken = []
    for page in [*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for link in LINK.findall(without_code(page.read_text(encoding="utf-8"))):
            place, _, anchor = link.partition("#")
            if "://" in place:
                continue
            target = (page.parent / place).resolve() if place else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.relative_to(ROOT)}: {link}")
    assert not broken


def test_every_page_is_in_the_navigation():
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        if page.name == "index.md"
        for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    assert not [page for page in PAGES if page not in linked and page != FOLDER / "index.md"]


def test_files_that_code_names_are_there():
    named = {
        (path.relative_to(ROOT), name)
        for folder in ("seg25d", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(r"\bdocumentation/[a-z_]+/\w+\.md", path.read_text(encoding="utf-8"))
    }
    assert named
    assert not [(path, name) for path, name in named if not (ROOT / name).exists()]


def test_the_page_for_users_of_nnunet_is_made_of_the_table():
    name = "regenerate_nnunet_page"
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text(encoding="utf-8") == module.page(), f"python tests/documentation/{name}.py writes it"


def test_pictures_are_small():
    pictures = [path for path in FOLDER.rglob("*") if path.suffix in {".png", ".svg"} and "_build" not in path.parts]
    assert pictures
    assert not [path for path in pictures if path.stat().st_size > MOST_PICTURE_BYTES]


def test_the_readme_is_short_and_has_every_method():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert not [name for name in CONFIGURATIONS if f"`{name}`" not in text]
    assert "make demo" in text
    assert "make test" in text


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("concepts/how_plans_are_made.md", CONFIGURATIONS),
        ("concepts/architecture.md", {name.replace("_", " ") for name in representations()}),
        ("how_to/training.md", set(PLANNING_RULES) - {"default"}),
    ],
)
def test_pages_that_go_through_all_methods_or_recipes_have_every_one(page, names):
    text = (FOLDER / page).read_text(encoding="utf-8")
    assert not [name for name in names if not re.search(rf"\b{name}\b", text)]


@pytest.mark.slow
def test_the_method_of_the_tutorial_runs(tmp_path):
    module, *steps = BLOCK.findall((FOLDER / "how_to" / "write_your_own_method.md").read_text(encoding="utf-8"))
    (tmp_path / "slabs.py").write_text(module, encoding="utf-8")
    (tmp_path / "steps.py").write_text("\n".join(steps), encoding="utf-8")
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(seg25d.__file__).parents[1]}", "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [sys.executable, "steps.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "each slice with mean and maximum of 2 slice(s) on both sides, 5.8 mm" in result.stdout
    assert (tmp_path / "segmentations" / "prediction.json").exists()


def test_files_are_arranged_as_the_tutorial_says(tmp_path):
    (block,) = BLOCK.findall((FOLDER / "get_started" / "from_nifti_to_report.md").read_text(encoding="utf-8"))
    for part, cases in (("my_scans", ("anna", "bert")), ("new_scans", ("carl",))):
        for folder in ("ct", "mr", "labels"):
            (tmp_path / part / folder).mkdir(parents=True)
            for case in cases:
                (tmp_path / part / folder / f"{case}.nii.gz").touch()
    subprocess.run([sys.executable, "-c", block], cwd=tmp_path, check=True)
    raw = tmp_path / "seg25d_workspace" / "raw" / "Dataset012_Phantom"
    assert sorted(path.name for path in (raw / "imagesTr").iterdir()) == [
        f"{case}_{channel}.nii.gz" for case in ("anna", "bert") for channel in ("0000", "0001")
    ]
    assert sorted(path.name for path in (raw / "labelsTr").iterdir()) == ["anna.nii.gz", "bert.nii.gz"]
    assert '"numTraining": 2' in (raw / "dataset.json").read_text(encoding="utf-8")
    assert len(list((tmp_path / "new_images").iterdir())) == 2
