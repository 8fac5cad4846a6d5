"""The map of documentation/concepts/architecture.md, enforced."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import seg25d
from seg25d.cli.main import COMMANDS
from tests.without_torch import WITHOUT_TORCH

ROOT = Path(seg25d.__file__).parent
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
OUTSIDE = frozenset({"__main__", "api", "cli", "demo"})
"""What may import everything, the commands aside."""
MODELS = frozenset({"core", "data", "networks", "representations", "evaluation", "planning", "preprocessing"})

# What each part may import of ours, itself aside.
ALLOWED = {
    "core": frozenset(),
    "data": frozenset({"core"}),
    "networks": frozenset({"core"}),
    "representations": frozenset({"core"}),
    "evaluation": frozenset({"core", "data"}),
    "planning": frozenset({"core", "data", "networks", "representations"}),
    "preprocessing": frozenset({"core", "data", "planning"}),
    "machine": frozenset({"core", "networks", "planning"}),
    "training": MODELS,
    "inference": MODELS,
    "ensembling": MODELS | {"inference"},
    "runs": frozenset({"core", "data", "evaluation", "planning"}),
    "selection": MODELS - {"networks", "representations"} | {"inference", "ensembling", "runs"},
    "workflows": MODELS | {"machine", "training", "inference", "ensembling", "runs"},
    "views": MODELS | {"training", "inference", "ensembling", "runs", "workflows"},
    "prediction": frozenset({"core", "data", "inference", "selection", "sharing", "workflows"}),
    "orchestration": MODELS | {"training", "inference", "runs", "selection", "workflows", "views", "sharing"},
    "sharing": frozenset({"core", "data", "evaluation", "planning", "ensembling", "runs", "selection"}),
    "portable": frozenset({"core", "data", "evaluation", "networks", "planning", "inference", "sharing"}),
    "report": frozenset({"core", "data", "evaluation", "planning", "runs", "selection"}),
    "pipeline": frozenset({"api"}),
}
LOADS_TORCH = (
    *("machine", "training", "views", "networks", "representations/lifted"),
    *("core/device.py", "core/parts.py", "core/processor.py", "core/torch_backend.py", "core/weights.py"),
    *("demo/phantom.py", "ensembling/view_fusions.py", "orchestration/engines.py", "portable/export.py"),
    *("planning/memory.py", "planning/model_size.py", "workflows/durations.py", "workflows/folds.py"),
    *("representations/averaging.py", "representations/context.py"),
    *(f"representations/projections/{name}.py" for name in ("geometry", "model", "views")),
)
"""Folders and modules that import torch when they are imported; all others wait until they need it."""
NEVER_LOADS_TORCH = ("networks/__init__.py", "networks/base.py", "networks/paper_unets.py", "networks/specs")
"""Of these, what plans are read with."""
USES_SIMPLEITK = {Path("ensembling/staple.py"), Path("evaluation/structures.py")}
"""What takes an algorithm, not file formats, from SimpleITK."""
HEAVY = ("torch", "SimpleITK", "numpy", "pydantic", "scipy", "monai", "matplotlib", "rich", "blosc2")


@cache
def imported_names(path: Path) -> tuple[str, ...]:
    return tuple(_imported_names(path))


def _imported_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            if node.module == "seg25d":
                yield from (f"seg25d.{alias.name}" for alias in node.names)


def imported_parts(path: Path) -> set[str]:
    names = (name.split(".") for name in imported_names(path))
    return {words[1] for words in names if words[0] == "seg25d" and len(words) > 1} - {"__version__"}


def looks_up(module: Path) -> bool:
    """Whether a module imports what it may not."""
    part = module.parts[0].removesuffix(".py")
    parts = imported_parts(ROOT / module)
    if part == "__init__":
        return bool(parts)
    if part in OUTSIDE:
        return "cli" in parts and part not in {"cli", "__main__"}
    return not parts <= ALLOWED[part] | {part}


def may_know_simpleitk(module: Path) -> bool:
    return module in USES_SIMPLEITK or (module.parent == Path("data") and module.name.startswith("image_"))


def imports_simpleitk(module: Path) -> bool:
    return any(name.split(".")[0] == "SimpleITK" for name in imported_names(ROOT / module))


def test_imports_point_downwards():
    at_fault = [f"{module} imports {sorted(imported_parts(ROOT / module))}" for module in MODULES if looks_up(module)]
    assert not at_fault, "\n".join(at_fault)


def test_only_image_files_and_staple_know_simpleitk():
    at_fault = [str(module) for module in MODULES if imports_simpleitk(module) and not may_know_simpleitk(module)]
    assert not at_fault, "\n".join(at_fault)


def test_modules_are_short():
    lengths = {module: len((ROOT / module).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    at_fault = [f"{module} has {length} lines" for module, length in lengths.items() if length > 400]
    assert not at_fault, "\n".join(at_fault)


def test_every_part_has_its_rule():
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - OUTSIDE == set(ALLOWED)


def loaded_modules(code: str) -> set[str]:
    """The top-level names of all modules that a fresh interpreter has loaded after running `code`."""
    script = f"import sys, json, contextlib, io\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    return {name.split(".")[0] for name in json.loads(output.splitlines()[-1])}


def test_importing_the_package_is_light():
    assert not loaded_modules("import seg25d").intersection(HEAVY)


def test_help_is_light():
    """One interpreter shows the help of all commands; the first to load something heavy is at fault."""
    code = (
        "from seg25d.cli.main import main\n"
        f"for words in {[['--help'], *([verb, '--help'] for verb in COMMANDS)]!r}:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as shown, contextlib.suppress(SystemExit):\n"
        "        main(words)\n"
        "    assert 'usage: seg25d' in shown.getvalue(), words\n"
        f"    heavy = sorted(set(sys.modules).intersection({HEAVY!r}))\n"
        "    if heavy:\n"
        "        sys.exit(f'{words} loads {heavy}')"
    )
    assert "seg25d" in loaded_modules(code)


def test_training_and_inference_on_arrays_never_load_simpleitk():
    loaded = loaded_modules("import seg25d.training.trainer, seg25d.inference.validate")
    assert "SimpleITK" not in loaded


def test_workers_that_fuse_load_neither_torch_nor_simpleitk_before_they_need_it():
    loaded = loaded_modules("import seg25d.ensembling.ensemble")
    assert "numpy" in loaded
    assert not loaded.intersection({"torch", "SimpleITK", "scipy"})


def test_workers_that_measure_ceilings_load_no_torch():
    loaded = loaded_modules("import seg25d.workflows.case_ceiling, seg25d.representations.projections.ceiling")
    assert "numpy" in loaded
    assert not loaded.intersection({"torch", "SimpleITK", "scipy"})


def imports_torch(module: Path) -> bool:
    """Whether a module imports torch when it is imported: not for types alone, and not within a function."""
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported]
    return any(name.split(".")[0] == "torch" for name in names)


def is_one_of(module: Path, places: tuple[str, ...]) -> bool:
    return any(module == Path(place) or Path(place) in module.parents for place in places)


def test_torch_is_loaded_only_where_models_compute_with_it():
    loaded = {module for module in MODULES if imports_torch(module)}
    at_fault = [str(each) for each in loaded if not is_one_of(each, LOADS_TORCH) or is_one_of(each, NEVER_LOADS_TORCH)]
    assert not at_fault, "\n".join(at_fault)
    named = [Path(place) for place in LOADS_TORCH if place.endswith(".py")]
    assert loaded.issuperset(named), "a module of the list no longer loads torch"


def test_prediction_and_all_that_plans_hold_can_be_imported_without_torch():
    code = (
        f"{WITHOUT_TORCH}\n"
        "import seg25d.prediction.predict, seg25d.cli.predict, seg25d.ensembling.ensemble, seg25d.evaluation.evaluate\n"
        "from seg25d.networks.base import NETWORKS\n"
        "from seg25d.representations.base import CONFIGURATIONS\n"
        "assert all((*NETWORKS.values(), *CONFIGURATIONS.values()))"
    )
    assert not loaded_modules(code).intersection({"monai", "matplotlib", "rich", "blosc2", "safetensors"})


def test_planning_rules_load_neither_torch_nor_monai():
    loaded = loaded_modules("import seg25d.networks, seg25d.planning.network_rules")
    assert not loaded.intersection({"torch", "monai"})


def test_networks_load_monai_only_when_one_needs_it():
    loaded = loaded_modules("import seg25d.networks.swin_unetr")
    assert "torch" in loaded
    assert "monai" not in loaded
